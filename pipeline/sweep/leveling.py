"""What a bundle's minute did to all its kernels, found and taken off.

On a shared or a warm machine all kernels of a bundle read some percent more or less than in other bundles: something else
used the caches or the clock was lower while it ran. Each kernel is in two or more bundles, each time with other neighbours,
so that the bundles can be compared through the kernels that they share: log time = kernel + bundle, a two-way layout, fitted
by medians (Tukey's median polish, 1977), which a few disturbed kernels do not move.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.sweep.fold import Seen

LONG_US = 8.0
"""Shorter kernels do not tell: whole µs and the profiler's share hide what a few percent are."""
LEAST_KERNELS = 5
"""A bundle with fewer kernels that are in others too is taken as it is."""
ROUNDS, ENOUGH = 500, 1e-5
STEP = 0.7
"""Of a correction that is applied in each round: whole ones can swing between two bundles that share most kernels."""
MEDIAN_ERROR = 1.2533
"""The standard error of a median in those of a mean, of normal deviations."""
TO_DEVIATION = 1.4826


def level(parts: Sequence[Sequence[Seen]], tail: float = 1.96) -> list[Seen]:
    """The same readings as if all bundles had run in the same, usual state of the machine.

    Args:
        parts: what was read together; a bundle of one is not that of another, though they have the same name.
        tail: of a normal interval's half-width in standard errors; a reading's grows by what its bundle leaves open.

    What all bundles share, such as a machine that is slower today, is not told and stays.
    """
    rows = [(one, (number, one.bundle)) for number, part in enumerate(parts) for one in part]
    telling = [row for row in rows if row[0].us >= LONG_US]
    bundles = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in telling))}
    kernels = {key: i for i, key in enumerate(dict.fromkeys(one.key for one, _ in telling))}
    kernel = np.array([kernels[one.key] for one, _ in telling], dtype=np.int64)
    repeated = np.bincount(kernel, minlength=len(kernels))[kernel] > 1
    bundle = np.array([bundles[name] for _, name in telling], dtype=np.int64)[repeated]
    logs = np.log(np.array([one.us for one, _ in telling], dtype=np.float64))[repeated]
    effects, errors = _effects(logs, kernel[repeated], bundle, len(kernels), len(bundles))
    found = []
    for one, name in rows:
        number = bundles.get(name)
        effect, error = (0.0, 0.0) if number is None else (float(effects[number]), float(errors[number]))
        us = one.us * math.exp(-effect)
        half_us = math.hypot(one.half_us * math.exp(-effect), tail * error * us)
        found.append(dataclasses.replace(one, us=us, half_us=half_us))
    return found


def _effects(
    logs: NDArray[np.float64], kernel: NDArray[np.int64], bundle: NDArray[np.int64], kernels: int, bundles: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each bundle, and its standard error; both 0 where too few kernels tell it."""
    effects, errors = np.zeros(bundles), np.zeros(bundles)
    sizes = np.bincount(bundle, minlength=bundles)
    telling = np.flatnonzero(sizes >= LEAST_KERNELS)
    if len(telling) < 2:
        return effects, errors
    counts = np.maximum(1, np.bincount(kernel, minlength=kernels))
    for _ in range(ROUNDS):
        own = logs - effects[bundle]
        left = logs - (np.bincount(kernel, own, kernels) / counts)[kernel]
        better = effects.copy()
        better[telling] += STEP * (_medians(left, bundle, sizes)[telling] - effects[telling])
        better[telling] -= np.median(better[telling])
        change, effects = float(np.abs(better - effects).max()), better
        if change < ENOUGH:
            break
    spreads = TO_DEVIATION * _medians(np.abs(left - effects[bundle]), bundle, sizes)[telling]
    errors[telling] = MEDIAN_ERROR * spreads / np.sqrt(sizes[telling])
    return effects, errors


def _medians(values: NDArray[np.float64], group: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each group, all at once; 0 of an empty one."""
    ranked = np.append(values[np.lexsort((values, group))], 0.0)
    starts = np.cumsum(sizes) - sizes
    low, high = ranked[starts + np.maximum(0, sizes - 1) // 2], ranked[starts + sizes // 2]
    return np.where(sizes > 0, (low + high) / 2, 0.0)
