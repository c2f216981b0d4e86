"""Latency tables of measured kernels: a leaf that needs no torch and no device.

table = latency_luts.load(path); table.lookup(key) and table.total(keys) give an `Answer` that says how it is known.
"""

from latency_luts.answer import Answer, Bound, FamilyError, Interpolated
from latency_luts.convert import Unmapped, export_csv, import_csv
from latency_luts.diff import Diff, diff
from latency_luts.entry import Context, Entry
from latency_luts.errors import (
    ContextMismatch,
    InvalidTable,
    MissingKernel,
    NewerSchema,
    SimulatedTable,
    TableFileError,
    TableStorageError,
)
from latency_luts.key import InvalidKey, LutError, OpKey
from latency_luts.merge import merge
from latency_luts.netadapt import export_netadapt, import_netadapt
from latency_luts.once_for_all import export_once_for_all, import_once_for_all
from latency_luts.staircase import Staircase, round_channels
from latency_luts.store import load, save
from latency_luts.table import LatencyTable
from latency_luts.validate import InvalidLatencies, Validation, validate
from latency_luts.warmth import InvalidWarmth, WarmthPoint

__all__ = [
    "Answer",
    "Bound",
    "Context",
    "ContextMismatch",
    "Diff",
    "Entry",
    "FamilyError",
    "Interpolated",
    "InvalidKey",
    "InvalidLatencies",
    "InvalidTable",
    "InvalidWarmth",
    "LatencyTable",
    "LutError",
    "MissingKernel",
    "NewerSchema",
    "OpKey",
    "SimulatedTable",
    "Staircase",
    "TableFileError",
    "TableStorageError",
    "Unmapped",
    "Validation",
    "WarmthPoint",
    "diff",
    "export_csv",
    "export_netadapt",
    "export_once_for_all",
    "import_csv",
    "import_netadapt",
    "import_once_for_all",
    "load",
    "merge",
    "round_channels",
    "save",
    "validate",
]
