"""The samples of one start of a runner, which of them the machine left alone, and what it did to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DISTURBED_CANARY = 1.5
"""A canary this many times slower than the reference was itself interrupted: it says nothing of the sample beside it."""


@dataclass(frozen=True)
class Launch:
    """The samples of one process start; every array has one entry a sample.

    Args:
        samples: ns.
        canary: ns, the mean of the canaries just before and just after; zeros where none was timed.
        block: which block a sample is from.
        preempted: how often the kernel took the core away during the sample.
        kept: False for samples that are not in the steady state (the first of each block, the tail of a warm-up).
    """

    samples: Floats
    canary: Floats
    block: NDArray[np.int64]
    preempted: NDArray[np.int64]
    kept: NDArray[np.bool_]


def canary_exponent(launches: Sequence[Launch], reference: float) -> float:
    """How strongly samples follow the canary: beta in sample ~ canary ** beta, 0 (not at all) to 1 (in step).

    The slope of log sample on log canary by least squares, both as deviations from their block's median, over all
    undisturbed samples within 10 % of it. A canary that says nothing of a network gets beta near 0 and then changes
    nothing: dividing by it would only add its own noise.
    """
    if reference <= 0:
        return 0.0
    products, squares = 0.0, 0.0
    for launch in launches:
        chosen = undisturbed(launch, reference)
        for block in np.unique(launch.block[chosen]):
            rows = chosen & (launch.block == block)
            sample, canary = np.log(launch.samples[rows]), np.log(launch.canary[rows])
            sample, canary = sample - np.median(sample), canary - np.median(canary)
            near = np.abs(sample) < 0.1
            products += float(np.sum(sample[near] * canary[near]))
            squares += float(np.sum(canary[near] ** 2))
    return float(np.clip(products / squares, 0.0, 1.0)) if squares > 0 else 0.0


def corrected(launch: Launch, reference: float, exponent: float) -> Floats:
    """The samples that the machine left alone, each as it would be with a canary of `reference` ns.

    A control variate: sample * (reference / canary) ** exponent, with the exponent of `canary_exponent`. Left out are
    samples that were not kept, during which the core was taken away, or beside which a canary was interrupted. With
    reference 0 (no canary) the samples are only chosen.
    """
    usable = undisturbed(launch, reference)
    return launch.samples[usable] * scale(launch, reference, exponent)[usable]


def scale(launch: Launch, reference: float, exponent: float) -> Floats:
    """What each sample is multiplied by in `corrected`; ones where there is no canary."""
    if reference <= 0:
        return np.ones(len(launch.samples))
    return np.asarray((reference / np.maximum(launch.canary, 1.0)) ** exponent, dtype=np.float64)


def undisturbed(launch: Launch, reference: float) -> NDArray[np.bool_]:
    """Which samples the machine left alone; see `corrected`."""
    usable = launch.kept & (launch.preempted == 0)
    if reference > 0:
        usable = usable & (launch.canary > 0) & (launch.canary < DISTURBED_CANARY * reference)
    return np.asarray(usable, dtype=np.bool_)


def canary_reference(launches: Sequence[Launch]) -> float:
    """What the canary takes beside this case when little disturbs it: the 25th percentile of the kept samples' canaries.

    It depends on the case, whose data the canary finds in the caches. 0 without a canary.
    """
    values = np.concatenate([launch.canary[launch.kept] for launch in launches]) if launches else np.zeros(0)
    values = values[values > 0]
    return float(np.percentile(values, 25)) if len(values) else 0.0


def by_block(launch: Launch, values: Floats, chosen: NDArray[np.bool_]) -> list[Floats]:
    """Splits `values` (one for each chosen sample) into the launch's blocks."""
    blocks = launch.block[chosen]
    return [values[blocks == block] for block in np.unique(blocks)]
