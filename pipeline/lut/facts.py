"""What a latency table says of itself, family by family: numbers for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latency_luts.columns import Columns
from latency_luts.family import LEAST_NS, Member, member
from latency_luts.family_fit import FamilyFit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from latency_luts import Answer, FamilyError, LatencyTable, OpKey, Staircase
    from latency_luts.answer import Kind

NARROW = 0.02
"""Half of an interval, as a share of the time: what a table should tell its kernels to."""


@dataclass(frozen=True)
class Rows:
    """A table's entries as columns, without building an `Entry` each. (entries,) each, times in ns."""

    texts: Sequence[str]
    ns: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def half_widths(self) -> NDArray[np.float64]:
        """Half of each interval as a share of the time; infinite for a time of 0, of which nothing is known."""
        known = self.ns > 0
        return np.where(known, (self.high - self.low) / 2 / np.where(known, self.ns, 1.0), np.inf)


@dataclass(frozen=True)
class Judged:
    """Kernels of one family and alignment, each predicted from the others.

    Args:
        ns: what was measured; errors: |predicted / measured - 1|. (tested,) each.
    """

    error: FamilyError
    ns: NDArray[np.float64]
    errors: NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """Kernels that differ only in how large they are.

    Args:
        text: see `latency_luts.family`, without alignment; the op alone for kernels that have no sizes.
        rows: where they stand in the table.
        judged: of each alignment that interpolates; None where nobody asked for it (see `families`).
        interpolating: how many kernels are of an alignment that interpolates.
    """

    text: str
    rows: NDArray[np.int64]
    judged: tuple[Judged, ...] | None
    interpolating: int

    @property
    def rms(self) -> float | None:
        """The leave-one-out error over all alignments, a share; None where nothing is known of it."""
        tested = sum(each.error.tested for each in self.judged or ())
        squares = sum(each.error.rms**2 * each.error.tested for each in self.judged or ())
        return math.sqrt(squares / tested) if tested else None


class Priced(NamedTuple):
    """A kernel of a sum, and how it is known.

    Args:
        times: how often the sum has it.
        latency_ms, interval_ms: of one; None where it is missing.
        share: of the sum, all times together, 0 ... 1; None where the sum is not known.
        error: of its family, for an interpolated one.
        bound_ms: of a missing one, where bounds were asked; None for an end that has none.
    """

    key: OpKey
    times: int
    kind: Kind
    latency_ms: float | None
    interval_ms: tuple[float, float] | None
    share: float | None
    error: FamilyError | None
    bound_ms: tuple[float | None, float | None] | None


def rows_of(table: LatencyTable) -> Rows:
    entries = table.entries
    if isinstance(entries, Columns):
        return Rows(entries.texts, entries.medians, entries.lows, entries.highs)
    numbers = np.array([(each.latency_ns_median, *each.interval_ns) for each in entries], dtype=np.float64)
    ns, low, high = numbers.reshape(len(entries), 3).T
    return Rows([str(each.key) for each in entries], ns, low, high)


def families(table: LatencyTable, rows: Rows, judge: int | None = None) -> list[Family]:
    """All families, the largest first.

    Args: judge: families are judged until these have so many kernels; None: all. A thousand kernels take about a second.
    """
    groups: dict[str, list[tuple[int, Member | None]]] = {}
    for row, text in enumerate(rows.texts):
        place = member(text)
        groups.setdefault(place.family if place else text.partition("[")[0], []).append((row, place))
    found, left = [], math.inf if judge is None else judge
    for name, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        parts = _judged(table, rows, members) if left > 0 else None
        left -= len(members)
        numbers = np.array([row for row, _ in members], dtype=np.int64)
        interpolating = sum(each.error.points for each in parts or ())
        found.append(Family(name, numbers, None if parts is None else tuple(parts), interpolating))
    return found


def line(rows: Rows, staircase: Staircase) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The longest line of kernels that a staircase was found in: channels, rising, and where each stands in the table.

    Of several equally long ones the slowest, where steps are least hidden by what every kernel costs.
    """
    lines: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for row, text in enumerate(rows.texts):
        place = member(text)
        if place is not None and place.family == staircase.family and staircase.axis in place.axes:
            index = place.axes.index(staircase.axis)
            lines.setdefault(place.at[:index] + place.at[index + 1 :], []).append((place.at[index], row))
    if not lines:  # the staircases of a file are what the file says of them
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    sizes = {fixed: (len(points), max(rows.ns[row] for _, row in points)) for fixed, points in lines.items()}
    counts, chosen = np.array(sorted(lines[max(sizes, key=lambda fixed: sizes[fixed])]), dtype=np.int64).T
    return counts, chosen


def _judged(table: LatencyTable, rows: Rows, members: list[tuple[int, Member | None]]) -> list[Judged]:
    alignments: dict[tuple[int, ...], list[tuple[int, Member]]] = {}
    for row, place in members:
        if place is not None and rows.ns[row] >= LEAST_NS:
            alignments.setdefault(place.aligned, []).append((row, place))
    found = []
    for alike in alignments.values():
        chosen = np.array([row for row, _ in alike], dtype=np.int64)
        at = np.array([place.at for _, place in alike], dtype=np.float64)
        part = FamilyFit(alike[0][1], table.entries[alike[0][0]].key, chosen, at, rows.ns[chosen])
        if part.error is not None:
            tested = part.left_out()
            found.append(Judged(part.error, rows.ns[list(tested)], np.array(list(tested.values()))))
    return found


def priced(keys: Sequence[OpKey], answer: Answer) -> list[Priced]:
    """What `answer` says of each of the kernels it was asked, in that order; those that are there twice, once."""
    found: dict[OpKey, Priced] = {}
    measured, between, bounds = iter(answer.entries), iter(answer.interpolated), iter(answer.bounds)
    whole = answer.known_ms if not answer.missing else 0.0
    for key, kind in zip(keys, answer.kinds, strict=True):
        known, error, bound = None, None, None
        if kind == "measured":
            entry = next(measured)
            known = (entry.latency_ns_median, *entry.interval_ns)
        elif kind == "interpolated":
            told = next(between)
            known, error = (told.latency_ns, *told.interval_ns), told.error
        elif answer.bounds:
            bound = next(bounds).ends_ns
        times = found[key].times + 1 if key in found else 1
        found[key] = Priced(
            key,
            times,
            kind,
            None if known is None else known[0] / 1e6,
            None if known is None else (known[1] / 1e6, known[2] / 1e6),
            times * known[0] / 1e6 / whole if known and whole else None,
            error,
            None if bound is None else (_ms(bound[0]), _ms(bound[1])),
        )
    return list(found.values())


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6
