"""The fit over the kernels of one family and alignment: who is between others, what is told of it, and how far off that is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from latency_luts.answer import FamilyError
from latency_luts.family import Member, alignment_text, work
from latency_luts.key import OpKey
from latency_luts.neighbours import Around, Neighbours
from latency_luts.trend import fit, fits_without

Floats = NDArray[np.float64]

MIN_TESTED = 3
MAX_TESTED = 200
MAX_FITTED = 500  # of a family, evenly chosen: the trend has five coefficients
STEPS = (1, 4, 8, 16, 32)

FINEST = 16
"""Beyond it no alignment is told apart."""

_AT_ONCE = 1 << 18  # distances, which is what the caches hold


class FamilyFit:
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
        self._grids = [math.gcd(FINEST, *column.tolist()) if len(rows) else 1 for column in counts.T]
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
        if Around(self._log, np.log2(at)[None]).between()[0]:
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
        near = Around(self._log, np.log2(at)[None]).neighbours(np.zeros(1, dtype=np.int64))
        own = self._work(at[None], self._step) @ self._weights
        told = combine(near, self._ns[near.used], self._trends[near.used], own)
        return float(told[0]), near.used[0][near.weights[0] > 0]

    def _work(self, at: Floats, step: int) -> Floats:
        return work(self._example, self._place.axes, at, step)

    def _fit(self) -> None:
        """Chooses the step, with one trend over all, and measures its error, with a trend of its own for each left out."""
        if self._fitted:
            return
        self._fitted = True
        tested, near = self._tested()
        if len(tested) < MIN_TESTED:
            return
        chosen = _spread(len(self.rows), MAX_FITTED)
        trials = {}
        for step in STEPS:
            features = self._work(self._at, step)
            weights = fit(features[chosen], self._ns[chosen])
            trials[step] = _rms(self._errors(tested, near, features, np.tile(weights, (len(tested), 1))))
        self._step = min(trials, key=lambda step: trials[step])
        features = self._work(self._at, self._step)
        self._weights = fit(features[chosen], self._ns[chosen])
        self._trends = features @ self._weights
        weights = np.tile(self._weights, (len(tested), 1))
        refitted = np.isin(tested, chosen)
        places = np.searchsorted(chosen, tested[refitted])
        weights[refitted] = fits_without(features[chosen], self._ns[chosen], places)
        errors = self._errors(tested, near, features, weights)
        self._left_out = {int(self.rows[row]): abs(float(error)) for row, error in zip(tested, errors, strict=True)}
        self._error = FamilyError(
            family=self._place.family + (f" with {aligned}" if (aligned := alignment_text(self._place)) else ""),
            points=len(self.rows),
            tested=len(tested),
            rms=_rms(errors),
            worst=float(np.abs(errors).max()),
            half_width=_half_width(errors),
            step=self._step,
        )

    def _tested(self) -> tuple[NDArray[np.int64], Neighbours]:
        """Kernels that lie between others, at most MAX_TESTED, and their neighbours, which no trend changes."""
        found, near = [np.zeros(0, dtype=np.int64)], []
        for rows in self._some_at_once(_spread(len(self.rows), MAX_TESTED)):
            around = Around(self._log, self._log[:, rows].T, rows)
            between = np.flatnonzero(around.between())
            found.append(rows[between])
            if len(between):
                near.append(around.neighbours(between))
        return np.concatenate(found), _joined(near)

    def _some_at_once(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        count = max(1, _AT_ONCE // max(1, len(self.rows)))
        return (rows[start : start + count] for start in range(0, len(rows), count))

    def _errors(self, tested: NDArray[np.int64], near: Neighbours, features: Floats, weights: Floats) -> Floats:
        """predicted / measured - 1 of each kernel in `tested`, by the coefficients in its row of `weights`."""
        trends = np.einsum("pnf,pf->pn", features[near.used], weights)
        own = (features[tested] * weights).sum(axis=1)
        return combine(near, self._ns[near.used], trends, own) / self._ns[tested] - 1


def combine(near: Neighbours, ns: Floats, trends: Floats, own: Floats) -> Floats:
    """(points,): the trend of each times its neighbours' ratio to theirs, never beyond the neighbours; see `interpolate`.

    Args: ns, trends: (points, neighbours). own: (points,).
    """
    return np.clip(own * np.exp(near.ratio(ns, trends)), ns.min(axis=1), ns.max(axis=1))


def _joined(near: list[Neighbours]) -> Neighbours:
    width = max((each.used.shape[1] for each in near), default=0)
    used = [np.pad(each.used, ((0, 0), (0, width - each.used.shape[1])), mode="edge") for each in near]
    weights = [np.pad(each.weights, ((0, 0), (0, width - each.weights.shape[1]))) for each in near]
    if not near:
        return Neighbours(np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0)))
    return Neighbours(np.concatenate(used), np.concatenate(weights))


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` rows, evenly chosen."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _rms(errors: Floats) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _half_width(errors: Floats) -> float:
    """See `FamilyError.half_width`."""
    from scipy.special import stdtrit

    count = len(errors)
    normal = float(stdtrit(count, 0.975)) * _rms(errors) * math.sqrt(1 + 1 / count)
    return max(normal, float(np.quantile(np.abs(errors), 0.95)))
