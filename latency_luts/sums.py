"""What a sum needs of a kernel, at hand, and the sum: as warm as the network leaves its kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from latency_luts.warmth import Warmth, cold_share

if TYPE_CHECKING:
    from latency_luts.answer import Interpolated
    from latency_luts.table import Entry


class Known(NamedTuple):
    """An entry, or what stands for one, with the numbers that a sum needs at hand."""

    entry: Entry | Interpolated
    ns: float
    low: float
    high: float
    warm: float


def known_entry(entry: Entry) -> Known:
    ns = entry.latency_ns_median
    return Known(entry, ns, *entry.interval_ns, ns if entry.warm_ns is None else entry.warm_ns)


def known_between(between: Interpolated) -> Known:
    """As warm as its neighbours are."""
    shares = [
        each.warm_ns / each.latency_ns_median
        for each in between.neighbours
        if each.warm_ns is not None and each.latency_ns_median
    ]
    warm = between.latency_ns * (median(shares) if shares else 1.0)
    return Known(between, between.latency_ns, *between.interval_ns, warm)


def summed(rows: Sequence[Known], warmth: Warmth) -> tuple[float, tuple[float, float], float]:
    """Latency and interval in ms, and how cold the kernels are."""
    ns, low, high = math.fsum([r.ns for r in rows]), math.fsum([r.low for r in rows]), math.fsum([r.high for r in rows])
    if not warmth:
        return ns / 1e6, (low / 1e6, high / 1e6), 1.0
    cold = cold_share(warmth, ns / 1e6)
    saved = (1 - cold) * (ns - math.fsum([r.warm for r in rows]))
    return (ns - saved) / 1e6, (max(0.0, low - saved) / 1e6, max(0.0, high - saved) / 1e6), cold
