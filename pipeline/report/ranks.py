"""How far MACs and parameters tell which network is faster: rank correlations with the measured latency in each runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from pipeline.report.views import Bench, Estimate

FEWEST = 3
"""Networks with known MACs and parameters, of different ones, below which nothing is shown."""

PAIRS = 3


@dataclass(frozen=True)
class Point:
    network: str
    macs: float
    params: float
    latency: Estimate


@dataclass(frozen=True)
class Correlation:
    """Between a count and the latency, -1 ... 1 (Kendall's is tau-b)."""

    spearman: float
    kendall: float


@dataclass(frozen=True)
class Ranks:
    """One runtime. worst: (fewer MACs, more MACs) of networks of which the first takes longer, the worst first."""

    label: str
    points: tuple[Point, ...]
    macs: Correlation
    params: Correlation
    worst: tuple[tuple[Point, Point], ...]


def ranks(bench: Bench) -> list[Ranks]:
    """For each runtime in which enough networks were measured. Wrong answers count for nothing."""
    known = {one.name: one for one in bench.networks}
    points: dict[str, list[Point]] = {}
    for profile in bench.profiles:
        network, measured = known.get(profile.network), profile.measured
        if measured is None or profile.mismatch or network is None or not network.macs or not network.params:
            continue
        point = Point(network.name, network.macs, network.params, measured.best)
        if measured.best.median > 0:
            points.setdefault(profile.label, []).append(point)
    return [_ranks(label, found) for label, found in points.items() if _is_enough(found)]


def as_document(found: Sequence[Ranks]) -> list[dict[str, Any]]:
    """What stands in the result document under `counts_against_latency`."""
    return [
        {
            "runtime": one.label,
            "networks": len(one.points),
            "macs": {"spearman": one.macs.spearman, "kendall": one.macs.kendall},
            "params": {"spearman": one.params.spearman, "kendall": one.params.kendall},
            "worst_pairs": [
                {
                    "networks": [slow.network, fast.network],
                    "macs": [slow.macs, fast.macs],
                    "latency_ms": [slow.latency.median, fast.latency.median],
                }
                for slow, fast in one.worst
            ],
        }
        for one in found
    ]


def _is_enough(points: Sequence[Point]) -> bool:
    counts = ({point.macs for point in points}, {point.params for point in points})
    return min(map(len, counts)) >= FEWEST and len({point.latency.median for point in points}) > 1


def _ranks(label: str, points: Sequence[Point]) -> Ranks:
    latencies = [point.latency.median for point in points]
    macs = _correlation([point.macs for point in points], latencies)
    params = _correlation([point.params for point in points], latencies)
    return Ranks(label, tuple(points), macs, params, _worst(points))


def _correlation(counts: Sequence[float], latencies: Sequence[float]) -> Correlation:
    from scipy import stats

    return Correlation(
        float(stats.spearmanr(counts, latencies).statistic), float(stats.kendalltau(counts, latencies).statistic)
    )


def _worst(points: Sequence[Point]) -> tuple[tuple[Point, Point], ...]:
    """By how much more the order is turned around: the ratio of MACs times that of latencies. Each network once."""
    turned = [
        (slow, fast)
        for slow, fast in permutations(points, 2)
        if slow.macs < fast.macs and slow.latency.low > fast.latency.high
    ]
    turned.sort(key=lambda pair: -pair[1].macs / pair[0].macs * pair[0].latency.median / pair[1].latency.median)
    found: list[tuple[Point, Point]] = []
    for pair in turned:
        named = {point.network for both in found for point in both}
        if len(found) < PAIRS and not named & {point.network for point in pair}:
            found.append(pair)
    return tuple(found)
