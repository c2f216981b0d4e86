"""What can go wrong with tables.

    LutError                    one line: what was asked, what was found, what to try; `exit_status` in brackets
    ├── InvalidKey       (2)    the caller: a kernel's key, or its text, is malformed
    ├── InvalidTable     (2)    the caller: a context or an entry is out of range, a kernel is there twice
    ├── MissingKernel    (1)    the table: it has not measured a kernel that was asked (`keys`)
    ├── InvalidWarmth    (2)    the caller: the points between warm and cold do not rise, or are no shares
    ├── InvalidLatencies (2)    the caller: latencies to be validated are not finite and above 0, or not one a network
    ├── ContextMismatch  (2)    the caller: two tables of different contexts (`fields`) do not merge
    ├── SimulatedTable   (2)    the caller: numbers of a simulated or replayed device would be filed as measured
    ├── TableFileError   (2)    the file: absent, not a table, cut short, damaged, too large
    │   └── NewerSchema  (2)    the file: written by a newer version than this one
    └── TableStorageError (1)   the disk: full, read-only, no permission; an old file stays whole

Who catches `LutError` catches them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_luts.key import LutError, OpKey

if TYPE_CHECKING:
    from latency_luts.entry import Context


class InvalidTable(LutError, ValueError):
    exit_status = 2


class MissingKernel(LutError, LookupError):
    """`keys` are the kernels that the table cannot tell, each once, in the order in which they were asked."""

    exit_status = 1

    def __init__(self, keys: tuple[OpKey, ...], context: Context, reason: str = "") -> None:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"the table of {context.device}, {context.runtime} {context.runtime_version} has not measured {keys[0]}{why}{more}",
            try_="measure a network that has it on this device, or ask with on_missing='report' or 'bound'",
        )
        self.keys = keys


class ContextMismatch(LutError, ValueError):
    """`fields` are the names of the context's fields that differ."""

    exit_status = 2

    def __init__(self, message: str, fields: tuple[str, ...]) -> None:
        super().__init__(message, try_="keep them as two tables")
        self.fields = fields


class SimulatedTable(LutError):
    exit_status = 2


class TableFileError(LutError):
    exit_status = 2


class NewerSchema(TableFileError):
    pass


class TableStorageError(LutError):
    exit_status = 1
