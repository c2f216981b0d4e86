"""How a network's size changes the time of its kernels: two times a kernel, and a curve between them.

A small network finds its weights, its activations and even the code that calls its kernels in the caches when it runs again;
a large one does not. So a kernel has a cold time, as in a large network, and where it was measured a warm one. Where between
the two a network is depends on how long one inference takes, which is how long ago the same kernel ran. The curve is measured
on bundles of several sizes; no network is fitted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from latency_luts.key import LutError, short

MAX_POINTS = 100


class InvalidWarmth(LutError, ValueError):
    exit_status = 2


class WarmthPoint(NamedTuple):
    """Kernels of a network that takes `total_ms` (the sum of their cold times) are as cold as `cold` says: 0 warm, 1 cold."""

    total_ms: float
    cold: float


Warmth = tuple[WarmthPoint, ...]


def checked(points: object) -> Warmth:
    """The same points. Raises: InvalidWarmth: times that do not rise, or shares that fall or are not 0 ... 1."""
    if not isinstance(points, tuple) or len(points) > MAX_POINTS:
        raise InvalidWarmth(f"a table was asked with warmth={short(points)}, not a tuple of at most {MAX_POINTS} points")
    for point in points:
        if not isinstance(point, WarmthPoint) or not all(type(value) is float for value in point):
            raise InvalidWarmth(f"a table was asked with the point {short(point)}, not a WarmthPoint of two floats")
        if not 0 < point.total_ms < 1e12 or not 0 <= point.cold <= 1:
            raise InvalidWarmth(f"a table was asked with {short(point)}, not a time above 0 and a share of 0 ... 1")
    for before, after in pairwise(points):
        if not before.total_ms < after.total_ms or before.cold > after.cold:
            raise InvalidWarmth(f"a table was asked with {short(after)} after {short(before)}, and both must rise")
    return points


def cold_share(points: Sequence[WarmthPoint], total_ms: float) -> float:
    """Linear in the logarithm of the time between two points, held at both ends; 1 without points."""
    if not points or not total_ms > 0:
        return points[0].cold if points else 1.0
    right = bisect_right(points, total_ms, key=lambda point: point.total_ms)
    if right == 0 or right == len(points):
        return points[min(right, len(points) - 1)].cold
    low, high = points[right - 1], points[right]
    along = math.log(total_ms / low.total_ms) / math.log(high.total_ms / low.total_ms)
    return low.cold + along * (high.cold - low.cold)
