"""What a latency table is: measured kernels in one context, and the answers it gives.

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

A missing kernel is an error, never a zero: who wants a partial sum says `on_missing="report"` and finds what is missing
beside it. Between measured kernels a table interpolates (`latency_luts.interpolate`) and says so; outside it never does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from latency_luts.answer import Answer, FamilyError, Interpolated, Kind
from latency_luts.key import LutError, OpKey, short
from latency_luts.sums import Known, known_between, known_entry, summed
from latency_luts.warmth import Warmth, checked

if TYPE_CHECKING:
    from latency_luts.interpolate import Interpolator
    from latency_luts.staircase import Staircase

# Version of the file format. 1: entries with raw samples, context in the file's metadata.
# 2: a kernel's warm time, and the curve between warm and cold.
SCHEMA_VERSION = 2

OnMissing = Literal["error", "report", "bound"]

MAX_CHARS = 1000  # of one text in a context or an entry
_MAX_NS = 2**63 - 1
_MAX_CACHED = 200_000  # kernels whose answers are kept


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
        warm_ns: its time in a small network (see `latency_luts.warmth`), as `latency_ns_median` is that in a large one; None
            where that was not measured.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """

    key: OpKey
    latency_ns_median: float
    interval_ns: tuple[float, float]
    samples_ns: tuple[int, ...]
    networks: tuple[str, ...]
    runtime_kernel: str
    warm_ns: float | None = None

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
        if self.warm_ns is not None:
            if not _is_duration(self.warm_ns):
                raise _invalid("entry", "warm_ns", self.warm_ns, "a finite number of at least 0, or None")
            object.__setattr__(self, "warm_ns", float(self.warm_ns))
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


MEASURED: Kind = "measured"


@dataclass(frozen=True)
class LatencyTable:
    """Measured kernels of one context. Iterating gives the entries in their order.

    Args:
        entries: a tuple, or the columns of a file, equal to it, whose entries are built when they are asked for.
        warmth: how cold networks leave their kernels, by how long they take; empty: as cold as the entries say.
        stored_staircases: what the file it came from says of them; None for a table that was not read. See `staircases`.

    Raises:
        InvalidTable: two entries have the same key.
    """

    schema_version: ClassVar[int] = SCHEMA_VERSION
    context: Context
    entries: Sequence[Entry]
    warmth: Warmth = field(default=(), kw_only=True)
    stored_staircases: tuple[Staircase, ...] | None = field(default=None, repr=False, compare=False, kw_only=True)
    # What was asked before: measured, and interpolated or why not. A search asks the same kernels again and again.
    _known: dict[OpKey, Known] = field(init=False, repr=False, compare=False, default_factory=dict)
    _between: dict[OpKey, Known | str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        from latency_luts.columns import Columns

        checked(self.warmth)
        if isinstance(self.entries, Columns):  # checked, and found by their texts
            return
        object.__setattr__(self, "entries", tuple(self.entries))
        for entry in self.entries:
            if entry.key in self._known:
                raise InvalidTable(
                    f"a table was asked with two entries of {entry.key}", try_="one entry for each kernel"
                )
            self._known[entry.key] = known_entry(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def lookup(self, key: OpKey, *, on_missing: OnMissing = "error", interpolate: bool = True) -> Answer:
        """What the table knows of one kernel in a large network; see `total`."""
        return self._answer((key,), on_missing, interpolate, ())

    def total(self, keys: Iterable[OpKey], *, on_missing: OnMissing = "error", interpolate: bool = True) -> Answer:
        """The latency of a network with these kernels, each as often as it is there: their sum, each as warm as `warmth` says
        that a network which takes as long leaves it.

        Args:
            on_missing: for kernels that are neither measured nor between measured ones: refuse, "report" them in the
                answer, or give a "bound" of the sum as well.
            interpolate: whether kernels between measured ones are answered; otherwise they are missing.

        Raises:
            MissingKernel: some are missing, and `on_missing` is "error".
        """
        return self._answer(tuple(keys), on_missing, interpolate, self.warmth)

    def _answer(self, asked: tuple[OpKey, ...], on_missing: OnMissing, interpolate: bool, warmth: Warmth) -> Answer:
        known = self._known
        found = [known.get(key) for key in asked]
        if None in found:
            # What was interpolated before is not measured, and need not be looked for again.
            between = self._between
            found = [
                each or (None if key in between else self._find(key)) for each, key in zip(found, asked, strict=True)
            ]
            if None in found:
                return self._partial(asked, found, on_missing, interpolate, warmth)
        rows = cast(list[Known], found)
        latency_ms, interval_ms, cold = summed(rows, warmth)
        entries = cast(tuple[Entry, ...], tuple([row.entry for row in rows]))
        return Answer(latency_ms, interval_ms, MEASURED, 1.0, entries, kinds=(MEASURED,) * len(rows), cold=cold)

    @cached_property
    def staircases(self) -> tuple[Staircase, ...]:
        """Where latency jumps; from the file, or found now (see `latency_luts.staircase.find`)."""
        from latency_luts.staircase import find

        return find(self) if self.stored_staircases is None else self.stored_staircases

    @cached_property
    def family_errors(self) -> tuple[FamilyError, ...]:
        """How well each family is told between its measured kernels; families of which too little was measured have none."""
        return self._interpolator.errors()

    def left_out_errors(self) -> dict[OpKey, float]:
        """|predicted / measured - 1| of measured kernels, each told from the others: where a table knows least."""
        return self._interpolator.left_out()

    def _find(self, key: OpKey) -> Known | None:
        from latency_luts.columns import Columns

        if not isinstance(self.entries, Columns):
            return None
        entry = self.entries.find(str(key))
        if entry is None:
            return None
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        return self._known.setdefault(key, known_entry(entry))

    def _partial(
        self, asked: tuple[OpKey, ...], found: list[Known | None], on_missing: OnMissing, interpolate: bool, warmth: Warmth
    ) -> Answer:
        """The answer to a sum that is not all measured. With a kernel missing, all are as cold as in a large network."""
        told = [each or (self._estimate(key) if interpolate else "") for each, key in zip(found, asked, strict=True)]
        missing = tuple([key for key, each in zip(asked, told, strict=True) if isinstance(each, str)])
        if missing and on_missing not in ("report", "bound"):
            reason = next(each for each in told if isinstance(each, str))
            raise MissingKernel(tuple(dict.fromkeys(missing)), self.context, reason)
        rows = [each for each in told if not isinstance(each, str)]
        latency_ms, interval_ms, cold = summed(rows, () if missing else warmth)
        entries = tuple([row.entry for row in rows if not isinstance(row.entry, Interpolated)])
        known = Answer(
            latency_ms=None if missing else latency_ms,
            interval_ms=None if missing else interval_ms,
            kind="missing" if missing else "interpolated",
            coverage=len(entries) / len(asked),
            entries=entries,
            missing=missing,
            interpolated=tuple([row.entry for row in rows if isinstance(row.entry, Interpolated)]),
            kinds=tuple([_kind(each) for each in told]),
            cold=cold,
        )
        if not missing or on_missing == "report":
            return known
        bounds = tuple(self._interpolator.bound(key) for key in missing)
        ends = zip(interval_ms, zip(*(each.ends_ns for each in bounds), strict=True), strict=True)
        below, above = (
            None if None in each else math.fsum([1e6 * sum_ms, *filter(None, each)]) / 1e6 for sum_ms, each in ends
        )
        return dataclasses.replace(known, bounds=bounds, bound_ms=(below, above))

    def _estimate(self, key: OpKey) -> Known | str:
        told = self._between.get(key)
        if told is None:
            if len(self._between) >= _MAX_CACHED:
                self._between.clear()
            between = self._interpolator.at(key)
            told = between if isinstance(between, str) else known_between(between)
            self._between[key] = told
        return told

    @cached_property
    def _interpolator(self) -> Interpolator:
        from latency_luts.interpolate import Interpolator

        return Interpolator(self.entries)


def _kind(told: Known | str) -> Kind:
    if isinstance(told, str):
        return "missing"
    return "interpolated" if isinstance(told.entry, Interpolated) else MEASURED


def _invalid(what: str, name: str, value: object, wanted: str) -> InvalidTable:
    return InvalidTable(f"a table's {what} was asked with {name}={short(value)}, which is not {wanted}")


def _check_text(what: str, name: str, value: object) -> None:
    # Control characters are refused: these texts are printed on terminals and in reports.
    if not isinstance(value, str) or len(value) > MAX_CHARS or not value.isprintable():
        raise _invalid(what, name, value, f"a printable text of at most {MAX_CHARS} characters")


def _is_duration(value: object) -> bool:
    return type(value) is not bool and isinstance(value, (int, float)) and 0 <= value <= _MAX_NS  # refuses nan, inf
