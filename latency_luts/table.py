"""What a latency table is: measured kernels in one context, and the answers it gives.

A missing kernel is an error, never a zero: who wants a partial sum says `on_missing="report"` and finds what is missing
beside it. Between measured kernels a table interpolates (`latency_luts.interpolate`) and says so; outside it never does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from latency_luts.answer import Answer, FamilyError, Interpolated, Kind
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
from latency_luts.key import OpKey
from latency_luts.sums import Known, known_between, known_entry, summed
from latency_luts.warmth import Warmth, checked

if TYPE_CHECKING:
    from latency_luts.interpolate import Interpolator
    from latency_luts.staircase import Staircase

__all__ = [
    "SCHEMA_VERSION",
    "Context",
    "ContextMismatch",
    "Entry",
    "InvalidTable",
    "LatencyTable",
    "MissingKernel",
    "NewerSchema",
    "SimulatedTable",
    "TableFileError",
    "TableStorageError",
]

# Version of the file format. 1: entries with raw samples, context in the file's metadata.
# 2: a kernel's warm time, and the curve between warm and cold.
SCHEMA_VERSION = 2

OnMissing = Literal["error", "report", "bound"]

_MAX_CACHED = 200_000  # kernels whose answers are kept


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
