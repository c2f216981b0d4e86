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

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from latency_luts.answer import Bound, FamilyError, Interpolated
from latency_luts.family import ALIGNMENT, LEAST_NS, Member, member, work
from latency_luts.key import OpKey
from latency_luts.table import Entry

Floats = NDArray[np.float64]

REACH = 2.0
"""log2 of how many times larger or smaller, on each axis, a neighbour may be."""

NEIGHBOURS = 16
MIN_TESTED = 3
MAX_TESTED = 200
MAX_FITTED = 500  # of a family, evenly chosen: the trend has five coefficients
STEPS = (1, 4, 8, 16, 32)

_SURROUNDING = 64  # that many of the nearest are tried first, which is faster
_FINEST = 16  # beyond it no alignment is told apart


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
        self._parts: dict[tuple[str, tuple[bool, ...]], Part] = {}

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
        grid, own_grid = np.gcd(at[:, :counts], _FINEST), np.gcd(own[:counts], _FINEST)
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

    def _every_part(self) -> Iterator[Part]:
        for members in self._rows.values():
            for place in {place.aligned: place for _, place in members}.values():
                yield self._part(place)

    def _part(self, place: Member) -> Part:
        name = (place.family, place.aligned)
        if name not in self._parts:
            alike = (pair for pair in self._rows[place.family] if pair[1].aligned == place.aligned)
            chosen = [(row, each) for row, each in alike if self._ns[row] >= LEAST_NS]
            rows = np.array([row for row, _ in chosen], dtype=np.int64)
            at = np.array([each.at for _, each in chosen], dtype=np.float64).reshape(len(rows), len(place.at))
            example = self._entries[self._rows[place.family][0][0]].key
            self._parts[name] = Part(place, example, rows, at, self._ns[rows])
        return self._parts[name]


class Part:
    """The kernels of one family and alignment, at least one axis, and the fit over them.

    Args:
        place: of any of them.
        example: any key of the family.
        rows: where they stand in the table.
        at: (kernels, axes).
        ns: their times, at least LEAST_NS.
    """

    def __init__(self, place: Member, example: OpKey, rows: NDArray[np.int64], at: Floats, ns: Floats) -> None:
        self.rows, self._place, self._example, self._at, self._ns = rows, place, example, at, ns
        self._log = np.ascontiguousarray(np.log2(at.T))  # (axes, kernels)
        counts = at[:, : len(place.aligned)].astype(np.int64)
        self._grids = [math.gcd(_FINEST, *column.tolist()) if len(rows) else 1 for column in counts.T]
        self._error: FamilyError | None = None
        self._left_out: dict[int, float] = {}
        self._fitted = False
        self._step = STEPS[0]
        self._weights = self._trends = np.zeros(0)

    def refusal(self, at: Floats) -> str:
        """Why a kernel is not between measured ones; "" where it is."""
        for axis, number, grid in zip(self._place.axes, at, self._grids, strict=False):
            if number % grid:
                return f"none of its family was measured with {axis} that {grid} does not divide"
        if _is_between(self._away(np.log2(at))):
            return ""
        if not len(self.rows):
            return "no kernel of its family and alignment was measured"
        ranges = zip(self._place.axes, self._at.min(axis=0), self._at.max(axis=0), strict=True)
        spans = ", ".join(f"{axis} {low:.0f} ... {high:.0f}" for axis, low, high in ranges)
        return f"it is not between measured ones ({spans})"

    @property
    def error(self) -> FamilyError | None:
        """The leave-one-out error; None where fewer than MIN_TESTED kernels lie between others."""
        self._fit()
        return self._error

    def left_out(self) -> dict[int, float]:
        """Row in the table -> |error|, of the kernels that were told from the others; see `error`."""
        self._fit()
        return self._left_out

    def predict(self, at: Floats) -> tuple[float, NDArray[np.int64]]:
        """Latency in ns and which of the kernels were used; only for what `refusal` does not refuse."""
        self._fit()
        own = float((self._work(at[None], self._step) @ self._weights)[0])
        return _combine(self._away(np.log2(at)), self._ns, self._trends, own)

    def _away(self, log: Floats, without: int | None = None) -> Floats:
        """(axes, kernels): log2 of how many times larger than that each is; one that is left out is nowhere near."""
        away = np.asarray(self._log - log[:, None], dtype=np.float64)
        if without is not None:
            away[:, without] = np.inf
        return away

    def _work(self, at: Floats, step: int) -> Floats:
        return work(self._example, self._place.axes, at, step)

    def _fit(self) -> None:
        """Chooses the step, with one trend over all, and measures its error, with a trend of its own for each left out."""
        if self._fitted:
            return
        self._fitted = True
        tested = _spread(len(self.rows), MAX_TESTED)
        tested = np.array([row for row in tested if _is_between(self._away(self._log[:, row], without=row))])
        if len(tested) < MIN_TESTED:
            return
        trials = {step: _rms(self.leave_one_out(tested, step, refit=False)) for step in STEPS}
        self._step = min(trials, key=lambda step: trials[step])
        features = self._work(self._at, self._step)
        chosen = _spread(len(self.rows), MAX_FITTED)
        self._weights = _trend(features[chosen], self._ns[chosen])
        self._trends = features @ self._weights
        errors = self.leave_one_out(tested, self._step)
        self._left_out = {int(self.rows[row]): abs(float(error)) for row, error in zip(tested, errors, strict=True)}
        self._error = FamilyError(
            family=self._place.family + _aligned(self._place),
            points=len(self.rows),
            tested=len(tested),
            rms=_rms(errors),
            worst=float(np.abs(errors).max()),
            half_width=_half_width(errors),
            step=self._step,
        )

    def leave_one_out(self, tested: NDArray[np.int64], step: int, *, refit: bool = True) -> Floats:
        """predicted / measured - 1 of each kernel in `tested`, from all others."""
        features, chosen = self._work(self._at, step), _spread(len(self.rows), MAX_FITTED)
        weights = _trend(features[chosen], self._ns[chosen])
        errors = np.empty(len(tested))
        for index, row in enumerate(tested):
            if refit:
                weights = _trend(features[chosen[chosen != row]], self._ns[chosen[chosen != row]])
            trends = features @ weights
            value, _ = _combine(self._away(self._log[:, row], without=row), self._ns, trends, float(trends[row]))
            errors[index] = value / self._ns[row] - 1
        return errors


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` rows, evenly chosen."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _is_between(away: Floats) -> bool:
    """(axes, kernels) of log2 distances: whether near ones are nowhere larger, nowhere smaller, and on all sides."""
    near = away[:, (np.abs(away) <= REACH).all(axis=0)]
    if not (near <= 0).all(axis=0).any() or not (near >= 0).all(axis=0).any():
        return False
    nearest = np.argsort(np.abs(near).sum(axis=0), kind="stable")[:_SURROUNDING]
    return _is_surrounded(near[:, nearest]) or (near.shape[1] > _SURROUNDING and _is_surrounded(near))


def _is_surrounded(away: Floats) -> bool:
    """Whether a weighted mean of the kernels, with weights of at least 0, is the point itself: their convex hull holds it."""
    from scipy.optimize import nnls

    corners = np.vstack([np.exp2(away), np.ones(away.shape[1])])
    try:
        _, off = nnls(corners, np.ones(len(corners)))
    except RuntimeError:
        return False
    return bool(off <= 1e-6)


def _trend(features: Floats, ns: Floats) -> Floats:
    """Coefficients of at least 0 that fit features @ coefficients = ns with the least relative squares."""
    from scipy.optimize import nnls

    relative = features / ns[:, None]
    scale = relative.max(axis=0)
    try:
        coefficients, _ = nnls(relative / scale, np.ones(len(ns)))
    except RuntimeError:  # it gave up: the trend is flat, and the leave-one-out error shows what that costs
        coefficients = np.eye(features.shape[1])[0]
    return np.asarray(coefficients / scale, dtype=np.float64)


def _combine(away: Floats, ns: Floats, trend: Floats, own_trend: float) -> tuple[float, NDArray[np.int64]]:
    """The trend times the neighbours' ratio to theirs, and the neighbours; see the module."""
    near = np.flatnonzero((np.abs(away) <= REACH).all(axis=0))
    away = away[:, near]
    distance = np.abs(away).sum(axis=0)
    furthest = float(np.sort(np.partition(distance, NEIGHBOURS)[:NEIGHBOURS])[-1]) if len(near) > NEIGHBOURS else np.inf
    order = np.flatnonzero(distance <= furthest)
    order = order[np.argsort(distance[order], kind="stable")][:NEIGHBOURS]
    if distance[order[0]] == 0:
        return float(ns[near[order[0]]]), near[order[:1]]
    # The nearest below and the nearest above are among them, however many others are nearer.
    for side in (np.asarray((away <= 0).all(axis=0)), np.asarray((away >= 0).all(axis=0))):
        if not side[order].any():
            order = np.append(order, np.flatnonzero(side)[np.argmin(distance[side])])
    used, distance = near[order], distance[order]
    weights = distance**-2.0
    ratio = np.exp(weights @ np.log(ns[used] / trend[used]) / weights.sum())
    return float(np.clip(own_trend * ratio, ns[used].min(), ns[used].max())), used


def _rms(errors: Floats) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _half_width(errors: Floats) -> float:
    """See `FamilyError.half_width`."""
    from scipy.special import stdtrit

    count = len(errors)
    normal = float(stdtrit(count, 0.975)) * _rms(errors) * math.sqrt(1 + 1 / count)
    return max(normal, float(np.quantile(np.abs(errors), 0.95)))


def _aligned(place: Member) -> str:
    marks = (
        f"{axis} % {ALIGNMENT} {'==' if yes else '!='} 0" for axis, yes in zip(place.axes, place.aligned, strict=False)
    )
    return f" with {', '.join(marks)}"
