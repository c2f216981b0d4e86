"""Latency tables of measured kernels: a leaf that needs no torch and no device.

table = latency_luts.load(path); table.lookup(key) and table.total(keys) give an `Answer` that says how it is known.
"""

from latency_luts.key import InvalidKey, LutError, OpKey
from latency_luts.store import load, merge, save
from latency_luts.table import (
    Answer,
    Context,
    ContextMismatch,
    Entry,
    InvalidTable,
    LatencyTable,
    MissingKernel,
    NewerSchema,
    SimulatedTable,
    TableFileError,
    TableStorageError,
)

__all__ = [
    "Answer",
    "Context",
    "ContextMismatch",
    "Entry",
    "InvalidKey",
    "InvalidTable",
    "LatencyTable",
    "LutError",
    "MissingKernel",
    "NewerSchema",
    "OpKey",
    "SimulatedTable",
    "TableFileError",
    "TableStorageError",
    "load",
    "merge",
    "save",
]
