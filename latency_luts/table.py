"""What a latency table is: measured kernels in one context, and the answers it gives.

    LutError                    one line: what was asked, what was found, what to try; `exit_status` in brackets
    ├── InvalidKey       (2)    the caller: a kernel's key, or its text, is malformed
    ├── InvalidTable     (2)    the caller: a context or an entry is out of range, a kernel is there twice
    ├── MissingKernel    (1)    the table: it has not measured a kernel that was asked (`keys`)
    ├── ContextMismatch  (2)    the caller: two tables of different contexts (`fields`) do not merge
    ├── SimulatedTable   (2)    the caller: numbers of a simulated or replayed device would be filed as measured
    ├── TableFileError   (2)    the file: absent, not a table, cut short, damaged, too large
    │   └── NewerSchema  (2)    the file: written by a newer version than this one
    └── TableStorageError (1)   the disk: full, read-only, no permission; an old file stays whole

A missing kernel is an error, never a zero: who wants a partial sum says `on_missing="report"` and finds what is missing
beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal

from latency_luts.key import LutError, OpKey, short

# Version of the file format. 1: entries with raw samples, context in the file's metadata.
SCHEMA_VERSION = 1

Kind = Literal["measured", "interpolated", "missing"]
OnMissing = Literal["error", "report"]

MAX_CHARS = 1000  # of one text in a context or an entry
_MAX_NS = 2**63 - 1


class InvalidTable(LutError, ValueError):
    exit_status = 2


class MissingKernel(LutError, LookupError):
    """`keys` are the kernels that the table has not measured, each once, in the order in which they were asked."""

    exit_status = 1

    def __init__(self, keys: tuple[OpKey, ...], context: Context) -> None:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        super().__init__(
            f"the table of {context.device}, {context.runtime} {context.runtime_version} has not measured {keys[0]}{more}",
            try_="measure a network that has it on this device, or ask with on_missing='report'",
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


@dataclass(frozen=True)
class Context:
    """Where and how the kernels were measured. Latencies of two contexts are never mixed.

    Args:
        device, soc, os_build, abi: names, as the device gives them; only `device` must not be empty.
        runtime, runtime_version, runtime_sha256: of the library that ran the kernels; `runtime` must not be empty.
        delegate: "" for none, "xnnpack", ...
        threads: at least 1.
        cpu_mask: the cores it was pinned to ("0x2"), "" where it was not pinned.
        clocks: what is known of the clocks, in words: "2600000 kHz locked", "not readable".
        handset_version: of the program that measured.
        created: when the table was made, ISO 8601 ("2026-11-21T14:22:33Z").
        simulated: the device was simulated or replayed; the numbers are not measurements.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """

    device: str
    soc: str
    os_build: str
    abi: str
    runtime: str
    runtime_version: str
    runtime_sha256: str
    delegate: str
    threads: int
    cpu_mask: str
    clocks: str
    handset_version: str
    created: str
    simulated: bool

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if each.name not in ("threads", "simulated"):
                _check_text("context", each.name, getattr(self, each.name))
        for name in ("device", "runtime"):
            if not getattr(self, name):
                raise _invalid("context", name, "", "a name")
        if type(self.threads) is not int or self.threads < 1:
            raise _invalid("context", "threads", self.threads, "an int of at least 1")
        if type(self.simulated) is not bool:
            raise _invalid("context", "simulated", self.simulated, "True or False")
        try:
            datetime.fromisoformat(self.created)
        except ValueError:
            raise _invalid("context", "created", self.created, "a date and time in ISO 8601") from None


@dataclass(frozen=True)
class Entry:
    """One measured kernel.

    Args:
        latency_ns_median: the median, corrected for the machine's noise. It can be 0 where the runtime's clock is coarse;
            that it was measured is what `samples_ns` shows, so that cannot be empty.
        interval_ns: (low, high) of the median. A resampled interval can miss the median by a rounding, so only
            0 <= low <= high is demanded.
        samples_ns: all raw samples, in the order in which they were taken, uncorrected.
        networks: where the kernel was met, each once; empty for a kernel timed alone.
        runtime_kernel: the runtime's own name of what it ran.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """

    key: OpKey
    latency_ns_median: float
    interval_ns: tuple[float, float]
    samples_ns: tuple[int, ...]
    networks: tuple[str, ...]
    runtime_kernel: str

    def __post_init__(self) -> None:
        if not isinstance(self.key, OpKey):
            raise _invalid("entry", "key", self.key, "an OpKey")
        if not _is_duration(self.latency_ns_median):
            raise _invalid("entry", "latency_ns_median", self.latency_ns_median, "a finite number of at least 0")
        ends = self.interval_ns
        if not isinstance(ends, tuple) or len(ends) != 2 or not all(map(_is_duration, ends)) or ends[0] > ends[1]:
            raise _invalid("entry", "interval_ns", ends, "(low, high) with 0 <= low <= high, both finite")
        if not isinstance(self.samples_ns, tuple) or not self.samples_ns:
            raise _invalid("entry", "samples_ns", self.samples_ns, "a tuple of at least one int")
        # One number type, so that a table read back is equal to the one that was written.
        object.__setattr__(self, "latency_ns_median", float(self.latency_ns_median))
        object.__setattr__(self, "interval_ns", (float(ends[0]), float(ends[1])))
        for sample in self.samples_ns:
            if type(sample) is not int or not 0 <= sample <= _MAX_NS:
                raise _invalid("entry", "samples_ns", sample, "made of ints of at least 0 that fit 64 bits")
        if not isinstance(self.networks, tuple):
            raise _invalid("entry", "networks", self.networks, "a tuple of names")
        for name in self.networks:
            _check_text("entry", "networks", name)
        if len(set(self.networks)) < len(self.networks) or "" in self.networks:
            raise _invalid("entry", "networks", self.networks, "a tuple of names, each once and none empty")
        _check_text("entry", "runtime_kernel", self.runtime_kernel)


@dataclass(frozen=True)
class Answer:
    """What a table says of one kernel or of a sum of kernels.

    Args:
        latency_ms: the kernel's corrected median, or the sum of them; None where a kernel is missing.
        interval_ms: (low, high); of a sum the sums of the ends, which holds however the kernels' errors are related
            (kernels measured in one session drift together), and is therefore wide. None where a kernel is missing.
        kind: the weakest of the kernels asked: all measured, some interpolated, some missing.
        coverage: the share of the kernels asked, repetitions counted, that was measured: 0 ... 1, and 1 for a sum of
            nothing. A share of the milliseconds cannot be told, those of a missing kernel being unknown.
        entries: the entries used, one for each kernel asked that the table has, in that order.
        missing: the kernels that the table has not, one for each time that one was asked.
    """

    latency_ms: float | None
    interval_ms: tuple[float, float] | None
    kind: Kind
    coverage: float
    entries: tuple[Entry, ...]
    missing: tuple[OpKey, ...] = ()

    @property
    def known_ms(self) -> float:
        """The sum over `entries` alone: with kernels missing, a part of the latency and not an estimate of it."""
        return math.fsum(entry.latency_ns_median for entry in self.entries) / 1e6


@dataclass(frozen=True)
class LatencyTable:
    """Measured kernels of one context. Iterating gives the entries in their order.

    Raises:
        InvalidTable: two entries have the same key.
    """

    schema_version: ClassVar[int] = SCHEMA_VERSION
    context: Context
    entries: tuple[Entry, ...]
    _by_key: dict[OpKey, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_key: dict[OpKey, Entry] = {}
        object.__setattr__(self, "entries", tuple(self.entries))
        for entry in self.entries:
            if entry.key in by_key:
                raise InvalidTable(
                    f"a table was asked with two entries of {entry.key}", try_="one entry for each kernel"
                )
            by_key[entry.key] = entry
        object.__setattr__(self, "_by_key", by_key)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def lookup(self, key: OpKey, *, on_missing: OnMissing = "error") -> Answer:
        """What the table knows of one kernel.

        Raises:
            MissingKernel: it was not measured, and `on_missing` is "error".
        """
        return self.total((key,), on_missing=on_missing)

    def total(self, keys: Iterable[OpKey], *, on_missing: OnMissing = "error") -> Answer:
        """The sum over `keys`, each counted as often as it is there.

        Raises:
            MissingKernel: some were not measured, and `on_missing` is "error".
        """
        asked = tuple(keys)
        entries = tuple(self._by_key[key] for key in asked if key in self._by_key)
        missing = tuple(key for key in asked if key not in self._by_key)
        if missing:
            if on_missing != "report":
                raise MissingKernel(tuple(dict.fromkeys(missing)), self.context)
            return Answer(None, None, "missing", len(entries) / len(asked), entries, missing)
        low, high = (math.fsum(entry.interval_ns[end] for entry in entries) / 1e6 for end in (0, 1))
        latency_ms = math.fsum(entry.latency_ns_median for entry in entries) / 1e6
        return Answer(latency_ms, (low, high), "measured", 1.0, entries)


def _invalid(what: str, name: str, value: object, wanted: str) -> InvalidTable:
    return InvalidTable(f"a table's {what} was asked with {name}={short(value)}, which is not {wanted}")


def _check_text(what: str, name: str, value: object) -> None:
    # Control characters are refused: these texts are printed on terminals and in reports.
    if not isinstance(value, str) or len(value) > MAX_CHARS or not value.isprintable():
        raise _invalid(what, name, value, f"a printable text of at most {MAX_CHARS} characters")


def _is_duration(value: object) -> bool:
    return type(value) is not bool and isinstance(value, (int, float)) and 0 <= value <= _MAX_NS  # refuses nan, inf
