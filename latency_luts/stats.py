"""Robust statistics of latency samples: pure functions of raw numbers, no I/O, deterministic.

Latency samples are skewed: a quiet machine gives a sharp lower edge, everything else adds time. So no mean is ever
taken of them. Samples come in *launches* (a process start: its own memory layout, its own slow minute) made of *blocks*
(samples without a pause between them); neighbours in a block resemble each other, so whole blocks are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latency_luts.bootstrap import (
    BLOCK_POINTS,
    Estimate,
    Floats,
    estimate,
    mad,
    median,
    midmean,
    midmean_intervals,
    steady_start,
)
from latency_luts.launch import (
    DISTURBED_CANARY,
    Launch,
    by_block,
    canary_exponent,
    canary_reference,
    corrected,
    scale,
    undisturbed,
)

__all__ = [
    "BLOCK_POINTS",
    "DISTURBED_CANARY",
    "Estimate",
    "Floats",
    "Launch",
    "Summary",
    "Verdict",
    "by_block",
    "canary_exponent",
    "canary_reference",
    "corrected",
    "estimate",
    "judge",
    "mad",
    "median",
    "midmean",
    "midmean_intervals",
    "scale",
    "steady_start",
    "summarise",
    "undisturbed",
]


@dataclass(frozen=True)
class Summary:
    """One case's latency. `plain` is every kept sample; `corrected` is what remains on an undisturbed machine.

    `exponent`: see `canary_exponent`. `preempted_share`, `disturbed_share`: the share of kept samples during which the
    core was taken away, and of those that `corrected` leaves out for any reason. `launch_spread`: (max - min) / median of
    the launches' own corrected medians.
    """

    plain: Estimate
    corrected: Estimate
    mad: float
    reference_ns: float
    exponent: float
    preempted_share: float
    disturbed_share: float
    launch_spread: float
    launch_medians: tuple[float, ...]


def summarise(
    launches: Sequence[Launch], reference: float, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Summary:
    """Both estimates of a case. Where no sample at all was left undisturbed, the corrected one equals the plain one,
    and so do the launches' medians.

    Raises: ValueError: no kept samples.
    """
    exponent = canary_exponent(launches, reference)

    def interval(groups: Sequence[Sequence[Floats]]) -> Estimate:
        return estimate(groups, confidence=confidence, resamples=resamples, seed=seed)

    every = [by_block(one, one.samples[one.kept], one.kept) for one in launches]
    plain = interval(every)
    quiet = [by_block(one, corrected(one, reference, exponent), undisturbed(one, reference)) for one in launches]
    better = interval(quiet) if any(quiet) else plain
    medians = tuple(median(np.concatenate(blocks)) for blocks in (quiet if any(quiet) else every) if blocks)
    samples = np.concatenate([one.samples[one.kept] for one in launches])
    preempted = np.concatenate([one.preempted[one.kept] for one in launches])
    left_out = np.concatenate([~undisturbed(one, reference)[one.kept] for one in launches])
    return Summary(
        plain=plain,
        corrected=better,
        mad=mad(samples),
        reference_ns=reference,
        exponent=exponent,
        preempted_share=float(np.mean(preempted > 0)),
        disturbed_share=float(np.mean(left_out)),
        launch_spread=(max(medians) - min(medians)) / median(medians),
        launch_medians=medians,
    )


@dataclass(frozen=True)
class Verdict:
    """Whether a measurement may be relied upon, in a sentence with its numbers, and why not."""

    stable: bool
    text: str
    reasons: tuple[str, ...]


def judge(summary: Summary, *, interval: float) -> Verdict:
    """Args: interval: the half-width of the interval that was asked for, as a share of the median (0.01 is ±1 %)."""
    reached = summary.corrected.half_width
    launches = len(summary.launch_medians)
    reasons = []
    if reached > interval:
        reasons.append(f"the interval is ±{reached:.1%}, wider than the ±{interval:.1%} asked")
    if launches < 2:
        reasons.append("one launch says nothing of the variance between launches")
    # by chance alone the range of a few launches stays within some three half-widths of what was asked
    elif summary.launch_spread > 3 * interval:
        reasons.append(f"launches differ by {summary.launch_spread:.1%}")
    if summary.disturbed_share > 0.9:
        reasons.append(f"{summary.disturbed_share:.0%} of the samples were disturbed")
    plural = "launch" if launches == 1 else "launches"
    text = (
        f"±{reached:.1%} (asked ±{interval:.1%}) from {summary.plain.count} samples in {launches} {plural}; "
        f"{summary.preempted_share:.0%} of the samples were preempted, {summary.disturbed_share:.0%} disturbed in all"
    )
    return Verdict(not reasons, text, tuple(reasons))
