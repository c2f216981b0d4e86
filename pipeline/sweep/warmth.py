"""How much of the difference between a warm and a cold kernel shows in models of one size: the curve of a table.

A kernel is cold in a usual bundle, which holds what a large network holds, and warm in one so small that it finds everything
in the caches when the model runs again. Some of the kernels are measured in bundles of sizes between, too. Of each size it is
known how long a bundle takes, and which share of the difference its kernels show: no network is needed for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latency_luts import OpKey, WarmthPoint
from latency_luts.stats import median
from pipeline.sweep.bundle import activation_bytes, weight_bytes
from pipeline.sweep.measure import Readings
from pipeline.sweep.plan import COLD, WARM, Limits, bundles

LEVELS = (
    WARM,
    Limits(weight_bytes=1 << 20, activation_bytes=4 << 20),
    Limits(weight_bytes=2 << 20, activation_bytes=8 << 20),
    Limits(weight_bytes=4 << 20, activation_bytes=16 << 20),
    Limits(weight_bytes=8 << 20, activation_bytes=32 << 20),
    COLD,
)
"""Sizes of bundles from warm to cold: closest where a second-level cache and its share of the next one end."""

LEAST_DIFFERENCE = 0.02
"""Of all kernels' warm time: with less between warm and cold, a curve would be one of noise."""

LEAST_RATIO = 2.0
"""Of how long cold bundles take to how long warm ones do: where the kernels of a table fill no large bundle, both are small."""

LEAST_MORE = 1.3
"""Times as many bundles as of the next larger size: with hardly more, both are of one size."""

WILD = 1.25
SLACK_US = 1.0
"""A kernel that reads so many times less or more than at both ends, and by more than whole µs hide, was disturbed."""


def sample(keys: Sequence[OpKey], count: int) -> list[OpKey]:
    """Some `count` kernels that stand for all: of each kind its share, at least one, evenly from small to large ones."""
    groups: dict[tuple[str, bool, bool], list[OpKey]] = {}
    for key in dict.fromkeys(keys):
        groups.setdefault(_kind(key), []).append(key)
    total, found = sum(map(len, groups.values())), []
    for group in groups.values():
        group.sort(key=lambda key: (weight_bytes(key) + activation_bytes(key), str(key)))
        wanted = min(len(group), max(1, count * len(group) // total))
        found += [group[int((number + 0.5) * len(group) / wanted)] for number in range(wanted)]
    return found


def between(keys: Sequence[OpKey]) -> list[Limits]:
    """The sizes between warm and cold that these kernels make other bundles of than the next larger size."""
    found: list[Limits] = []
    count = max(1, len(bundles(keys, copies=1)))
    for limits in reversed(LEVELS[1:-1]):
        if (more := len(bundles(keys, copies=1, limits=limits))) >= LEAST_MORE * count:
            found.append(limits)
            count = more
    return found[::-1]


def _kind(key: OpKey) -> tuple[str, bool, bool]:
    """What decides how a kernel uses its weights and its input."""
    return key.op, key.groups > 1, key.kernel == (1, 1)


def curve(levels: Mapping[Limits, Sequence[Readings]], overhead_us: float) -> tuple[WarmthPoint, ...]:
    """(how long a model takes, how cold its kernels are), over the kernels that were measured at all sizes.

    Args:
        levels: size of bundles -> what was read of them; WARM, COLD and any between.
        overhead_us: by how much a kernel reads longer than it takes.

    Returns: from 0 at the warm end to 1 at the cold one; none where an end is missing, where both take about as long, or where
        their kernels hardly differ. A size that is not between its ends in time says nothing and is left out.
    """
    # a part of an older build does not say how long its bundles took
    told = {limits: whole for limits, parts in levels.items() if (whole := [part for part in parts if part.whole])}
    if WARM not in told or COLD not in told:
        return ()
    times = {limits: _times(readings, overhead_us) for limits, readings in told.items()}
    common = _tame(times)
    sums = {limits: sum(of[key] for key in common) for limits, of in times.items()}
    difference = sums[COLD] - sums[WARM]
    if difference < LEAST_DIFFERENCE * sums[WARM] or difference <= 0:
        return ()
    # a table asks by a network's cold times, of which there are more than the bundle took
    totals = {
        limits: _total_ms(told[limits], common, overhead_us) * sums[COLD] / sums[limits] for limits in times
    }  # fmt: skip
    low, high = totals[WARM], totals[COLD]
    if not 0 < LEAST_RATIO * low <= high:
        return ()
    inner = {
        totals[limits]: (sums[limits] - sums[WARM]) / difference for limits in times if low < totals[limits] < high
    }  # fmt: skip
    return (WarmthPoint(low, 0.0), *_rising(inner), WarmthPoint(high, 1.0))


def _times(readings: Sequence[Readings], overhead_us: float) -> dict[OpKey, float]:
    """Each kernel's mean over the bundles of one size, µs."""
    found: dict[OpKey, list[float]] = {}
    for one in (one for part in readings for one in part.seen):
        found.setdefault(one.key, []).append(one.us - overhead_us)
    return {key: max(0.0, sum(values) / len(values)) for key, values in found.items()}


def _tame(times: Mapping[Limits, Mapping[OpKey, float]]) -> list[OpKey]:
    """The kernels that are at all sizes, without those that one of them disturbed: a kernel is between warm and cold."""
    found = []
    for key in times[WARM]:
        if all(key in of for of in times.values()):
            warm, cold = times[WARM][key], times[COLD][key]
            least, most = min(of[key] for of in times.values()), max(of[key] for of in times.values())
            # a warm end that is longer than the cold one is noise, and far longer it is wild
            if all(low <= WILD * high + SLACK_US for low, high in ((min(warm, cold), least), (most, cold))):
                found.append(key)
    return found


def _total_ms(readings: Sequence[Readings], keys: Sequence[OpKey], overhead_us: float) -> float:
    """How long the bundle of a kernel takes: the median over the kernels, so that those that are alone in one do not decide."""
    wanted = set(keys)
    return median([
        part.whole[one.bundle].without(overhead_us) / 1e3 for part in readings for one in part.seen if one.key in wanted
    ])  # fmt: skip


def _rising(points: Mapping[float, float]) -> list[WarmthPoint]:
    """In the order of their times, with the nearest shares of 0 ... 1 that never fall (least squares)."""
    if not points:
        return []
    from scipy.optimize import isotonic_regression

    totals = sorted(points)
    shares = isotonic_regression([points[total] for total in totals]).x
    return [WarmthPoint(total, float(min(1.0, max(0.0, share)))) for total, share in zip(totals, shares, strict=True)]
