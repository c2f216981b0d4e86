"""The measured kernels around points of their family: which are near, whether they hold a point between them, how each counts.

For many points at once: a table's leave-one-out error asks for each of thousands of kernels what lies around it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REACH = 2.0
"""log2 of how many times larger or smaller, on each axis, a neighbour may be."""

NEIGHBOURS = 16

_SURROUNDING = (16, 64)  # that many of the nearest are tried before all of them, which is faster


class Neighbours(NamedTuple):
    """Of each point its nearest kernels.

    Args:
        used: (points, most of any point) kernels; a point with fewer repeats its first one.
        weights: of these, 0 for what is repeated.
    """

    used: Ints
    weights: Floats

    def ratio(self, ns: Floats, trends: Floats) -> Floats:
        """(points,): the mean ratio of times to trends, both (points, most), as a logarithm."""
        return np.asarray((self.weights * np.log(ns / trends)).sum(axis=1) / self.weights.sum(axis=1), dtype=np.float64)


class Around:
    """The kernels of a family around points, all as log2 of their sizes.

    Args:
        kernels: (axes, kernels).
        points: (points, axes).
        without: of each point a kernel that is left out; None leaves none out.
    """

    def __init__(self, kernels: Floats, points: Floats, without: Ints | None = None) -> None:
        self._kernels, self._points = kernels, points
        shape = (len(points), kernels.shape[1])
        distance, near = np.zeros(shape), np.ones(shape, dtype=np.bool_)
        smaller, larger = np.ones(shape, dtype=np.bool_), np.ones(shape, dtype=np.bool_)
        for axis, row in enumerate(kernels):
            away = row - points[:, axis, None]
            smaller &= away <= 0
            larger &= away >= 0
            np.abs(away, out=away)
            near &= away <= REACH
            distance += away
        if without is not None:
            near[np.arange(len(points)), without] = False
        distance[~near] = np.inf
        self._distance, self._smaller, self._larger = distance, smaller & near, larger & near

    def between(self) -> NDArray[np.bool_]:
        """Whether near kernels are nowhere larger than a point, nowhere smaller, and on all sides of it: (points,)."""
        found: NDArray[np.bool_] = np.logical_and(self._smaller.any(axis=1), self._larger.any(axis=1))
        if len(self._kernels) == 1:
            return found
        chosen = np.flatnonzero(found)
        for count in (*_SURROUNDING, self._distance.shape[1]):
            nearest, counts = self._nearest(chosen, count)
            away = self._kernels[:, nearest] - self._points[chosen].T[:, :, None]
            corners = np.vstack([np.exp2(away), np.ones((1, *nearest.shape))])
            held = [_is_surrounded(corners[:, number, :known]) for number, known in enumerate(counts)]
            found[chosen] = held
            # a point with fewer kernels than were tried has no others
            chosen = chosen[[not yes and known == count for yes, known in zip(held, counts, strict=True)]]
            if not len(chosen):
                break
        return found

    def neighbours(self, points: Ints) -> Neighbours:
        """Of these of the points, which are between others: their nearest kernels, with weights 1 / distance^2.

        The nearest below and the nearest above are among them, however many others are nearer. A kernel that is where the
        point is counts alone.
        """
        used, counts = self._nearest(points, NEIGHBOURS)
        known = np.arange(used.shape[1]) < counts[:, None]
        every = np.arange(len(points))
        for side in (self._smaller[points], self._larger[points]):
            away = np.where(side, self._distance[points], np.inf)
            nearest = away.argmin(axis=1)
            lacking = ~(side[every[:, None], used] & known).any(axis=1)
            used, known = np.column_stack([used, nearest]), np.column_stack([known, lacking])
        distance = self._distance[points[:, None], used]
        alone = known & (distance == 0)
        known = np.where(alone.any(axis=1, keepdims=True), alone & (np.cumsum(alone, axis=1) == 1), known)
        first = used[every, known.argmax(axis=1)]
        weights = np.where(known, np.where(distance == 0, 1.0, distance) ** -2.0, 0.0)
        return Neighbours(np.where(known, used, first[:, None]), weights)

    def _nearest(self, points: Ints, count: int) -> tuple[Ints, Ints]:
        """Of each of the points its nearest kernels, at most `count`, of equally near ones the first; and how many they are."""
        distance = self._distance[points]
        near = np.isfinite(distance)
        if distance.shape[1] > count:
            near &= distance <= np.partition(distance, count - 1, axis=1)[:, count - 1, None]
        rows, kernels = np.nonzero(near)
        order = np.lexsort((distance[rows, kernels], rows))
        rows, kernels = rows[order], kernels[order]
        starts = np.searchsorted(rows, np.arange(len(points)))
        place = np.arange(len(rows)) - starts[rows]
        chosen = place < count
        counts = np.bincount(rows[chosen], minlength=len(points))
        found = np.zeros((len(points), int(counts.max(initial=0))), dtype=np.int64)
        found[rows[chosen], place[chosen]] = kernels[chosen]
        return found, counts


def _is_surrounded(corners: Floats) -> bool:
    """Whether a weighted mean of the kernels, with weights of at least 0, is the point itself: their convex hull holds it.

    Args: corners: (axes + 1, kernels): how many times larger than the point each is, and ones.
    """
    from scipy.optimize import nnls

    try:
        _, off = nnls(corners, np.ones(len(corners)))
    except RuntimeError:
        return False
    return bool(off <= 1e-6)
