"""How much of the difference between a warm and a cold kernel shows in networks of one size: the curve of a table.

A kernel is cold in a usual bundle, which holds what a large network holds, and warm in one so small that it finds everything
in the caches when the model runs again. How cold it is in a network between is told by walks (`walk.py`): they are networks
of the same kernels, timed end to end. No network that anybody will ask about is needed for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latency_luts import Entry, OpKey, WarmthPoint
from pipeline.sweep.fold import Walk

KNOTS = 8
LEAST_WALKS = 2 * KNOTS
LEAST_DIFFERENCE = 0.02
"""Of all walks' warm times: with less between warm and cold, a curve would be one of noise."""

LEAST_KNOWN = 0.8
"""Of a walk's time, in kernels that the table has; the rest is taken as its own profile reads it."""

WIDE = 1.3
"""A walk that is so many times faster than its warm kernels or slower than its cold ones was disturbed."""
WILD = 0.04
"""A share of a walk's latency: what is left over beyond that counts less, since one disturbed walk shall not bend the curve."""
ROUNDS = 20


def curve(walks: Sequence[Walk], entries: Iterable[Entry], overhead_us: float) -> tuple[WarmthPoint, ...]:
    """(sum of cold times, how cold the kernels are), from a network of few kernels to one of many.

    With W and C the sums of a walk's warm and cold times, its latency is W + s(C) (C - W). s is linear in log C between
    points at the quantiles of C, does not fall, and is 0 to 1; it is fitted to the relative error by least squares in which
    outliers count less (Huber).

    Args: overhead_us: by how much a kernel reads longer than it takes.

    Returns: none where there are too few walks, or where warm and cold hardly differ.
    """
    import numpy as np
    from scipy.optimize import nnls

    table = {entry.key: entry for entry in entries}
    sums = [(one.us, *found) for one in walks if (found := _sums(one, table, overhead_us)) is not None]
    if len(sums) < LEAST_WALKS:
        return ()
    latency, warm, cold = (np.array(column) for column in zip(*sums, strict=True))
    if float((cold - warm).sum()) < LEAST_DIFFERENCE * float(warm.sum()):
        return ()
    knots = np.unique(np.quantile(np.log(cold), np.linspace(0, 1, KNOTS)))
    # a share is what is not yet lost of 1 from the longest network down: so it rises wherever what is lost is not negative
    lost = np.cumsum(_hats(np.log(cold), knots), axis=1)
    rows, wanted = lost * ((cold - warm) / latency)[:, None], (cold - latency) / latency
    weights = np.ones(len(sums))
    for _ in range(ROUNDS):
        steps, _ = nnls(rows * weights[:, None], wanted * weights)
        left = np.abs(rows @ steps - wanted)
        weights = np.sqrt(np.minimum(1.0, WILD / np.maximum(left, 1e-12)))
    shares = np.maximum(0.0, 1 - np.cumsum(steps[::-1])[::-1])
    return tuple(WarmthPoint(math.exp(knot) / 1e3, float(share)) for knot, share in zip(knots, shares, strict=True))


def _sums(walk: Walk, table: Mapping[OpKey, Entry], overhead_us: float) -> tuple[float, float] | None:
    """Warm and cold µs; None where the table knows too little of it, or where it was disturbed."""
    warm = cold = known = whole = 0.0
    for key, us in walk.kernels:
        own = max(0.0, us - overhead_us)
        entry = table.get(key) if key is not None else None
        whole += own
        if entry is None or entry.warm_ns is None:
            warm, cold = warm + own, cold + own
        else:
            warm, cold, known = warm + entry.warm_ns / 1e3, cold + entry.latency_ns_median / 1e3, known + own
    plausible = min(warm, cold) / WIDE <= walk.us <= max(warm, cold) * WIDE
    return (warm, cold) if cold > 0 and known >= LEAST_KNOWN * whole and plausible else None


def _hats(places: Any, knots: Any) -> Any:
    """(places, knots): how much each knot counts at each place, linear between two; those beyond the ends as at the ends."""
    import numpy as np

    return np.stack([np.interp(places, knots, row) for row in np.eye(len(knots))], axis=1)
