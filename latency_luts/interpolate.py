"""Latencies of kernels between measured ones, and how far off they are: never outside, never across families.

The time of a kernel is a *trend* times a *ratio*. The trend is one + multiply-accumulates + elements read + elements written
+ weights, each with a coefficient of at least 0 that fits the family best in relative terms, with the channels counted in
blocks of 1, 4, 8, 16 or 32: whatever predicts left-out kernels best. The ratio of measured to trend changes slowly over a
family, and is averaged (as a logarithm) over the nearest measured kernels with weights 1 / distance^2; a distance is the sum
over the axes of |log2|. So a measured kernel keeps its value, and no answer is outside of the range of the kernels it was
made from.

Measured between: within REACH there is a kernel that is nowhere larger and one that is nowhere smaller, and the convex hull
of those within REACH holds the point. Everything else is outside and gets no answer, nor does a number of channels whose
alignment the family has not seen, nor a family in which fewer than MIN_TESTED kernels lie between others, because then
nothing is known of its error.

Why not Delaunay triangles of log times, or a local regression on logs: on 234 random pointwise convolutions (onnxruntime,
x86 with AVX-512) their leave-one-out RMSPE was 12.9 % and 12.0 %, this one's 2.2 %, and 8.6 % if channels did not count in
blocks; a Gaussian process in the place of the weights was no better (2.2 %).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from latency_luts.answer import Bound, FamilyError, Interpolated
from latency_luts.entry import Entry
from latency_luts.family import LEAST_NS, Member, member
from latency_luts.family_fit import FINEST, MIN_TESTED, FamilyFit
from latency_luts.key import OpKey


class Interpolator:
    """The families of a table, each fitted when it is first asked for."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        from latency_luts.columns import Columns

        self._entries = entries
        if isinstance(entries, Columns):
            texts, self._ns, self._lows, self._highs = entries.texts, entries.medians, entries.lows, entries.highs
        else:
            texts = [str(entry.key) for entry in entries]
            self._ns = np.array([entry.latency_ns_median for entry in entries], dtype=np.float64)
            self._lows = np.array([entry.interval_ns[0] for entry in entries], dtype=np.float64)
            self._highs = np.array([entry.interval_ns[1] for entry in entries], dtype=np.float64)
        self._rows: dict[str, list[tuple[int, Member]]] = {}
        for row, text in enumerate(texts):
            place = member(text)
            if place is not None:
                self._rows.setdefault(place.family, []).append((row, place))
        self._parts: dict[tuple[str, tuple[int, ...]], FamilyFit] = {}

    def at(self, key: OpKey) -> Interpolated | str:
        """The kernel's latency from its neighbours, or why there is none, as the end of a sentence."""
        place = member(str(key))
        if place is None or place.family not in self._rows:
            return "no kernel of its family was measured"
        part = self._part(place)
        at = np.array(place.at, dtype=np.float64)
        refusal = part.refusal(at)
        if refusal:
            return refusal
        error = part.error
        if error is None:
            return f"fewer than {MIN_TESTED} kernels of its family lie between others, so the error is unknown"
        latency_ns, used = part.predict(at)
        rows = part.rows[used]
        own = np.median((self._highs[rows] - self._lows[rows]) / 2 / self._ns[rows])
        half = latency_ns * max(error.half_width, float(own))
        interval = (max(latency_ns - half, 0.0), latency_ns + half)
        return Interpolated(key, latency_ns, interval, error, tuple(self._entries[int(row)] for row in rows))

    def bound(self, key: OpKey) -> Bound:
        """The measured kernels of the family below and above: smaller and no worse aligned, larger and no better aligned."""
        place = member(str(key))
        members = self._rows.get(place.family, []) if place else []
        if place is None or not members:
            return Bound(key, None, None)
        counts = len(place.aligned)
        at, own = np.array([each.at for _, each in members]), np.array(place.at)
        grid, own_grid = np.gcd(at[:, :counts], FINEST), np.gcd(own[:counts], FINEST)
        below = (at <= own).all(axis=1) & (grid >= own_grid).all(axis=1)
        above = (at >= own).all(axis=1) & (grid <= own_grid).all(axis=1)
        rows = np.array([row for row, _ in members])
        lower = rows[below][np.argmax(self._lows[rows[below]])] if below.any() else None
        upper = rows[above][np.argmin(self._highs[rows[above]])] if above.any() else None
        return Bound(key, *(None if row is None else self._entries[int(row)] for row in (lower, upper)))

    def errors(self) -> tuple[FamilyError, ...]:
        """The leave-one-out error of every family and alignment of which enough was measured to know it."""
        return tuple(part.error for part in self._every_part() if part.error is not None)

    def left_out(self) -> dict[OpKey, float]:
        """|predicted / measured - 1| of kernels that lie between others, each told from these (at most MAX_TESTED a family)."""
        found: dict[OpKey, float] = {}
        for part in self._every_part():
            for row, error in part.left_out().items():
                found[self._entries[row].key] = error
        return found

    def _every_part(self) -> Iterator[FamilyFit]:
        for members in self._rows.values():
            for place in {place.aligned: place for _, place in members}.values():
                yield self._part(place)

    def _part(self, place: Member) -> FamilyFit:
        name = (place.family, place.aligned)
        if name not in self._parts:
            alike = (pair for pair in self._rows[place.family] if pair[1].aligned == place.aligned)
            chosen = [(row, each) for row, each in alike if self._ns[row] >= LEAST_NS]
            rows = np.array([row for row, _ in chosen], dtype=np.int64)
            at = np.array([each.at for _, each in chosen], dtype=np.float64).reshape(len(rows), len(place.at))
            example = self._entries[self._rows[place.family][0][0]].key
            self._parts[name] = FamilyFit(place, example, rows, at, self._ns[rows])
        return self._parts[name]
