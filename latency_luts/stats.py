"""Robust statistics of latency samples: pure functions of raw numbers, no I/O, deterministic.

Latency samples are skewed: a quiet machine gives a sharp lower edge, everything else adds time. So no mean is ever
taken of them. Samples come in *launches* (a process start: its own memory layout, its own slow minute) made of *blocks*
(samples without a pause between them); neighbours in a block resemble each other, so whole blocks are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK_POINTS = 32
"""A block of more samples stands in the bootstrap as that many of its own quantiles: as good, and hundreds of times faster."""

DISTURBED_CANARY = 1.5
"""A canary this many times slower than the reference was itself interrupted: it says nothing of the sample beside it."""


@dataclass(frozen=True)
class Estimate:
    """A median with its bootstrap interval, in the unit of the samples."""

    median: float
    low: float
    high: float
    confidence: float
    count: int

    @property
    def half_width(self) -> float:
        """Half of the interval as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


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


def median(values: Sequence[float] | Floats) -> float:
    """Raises: ValueError: there are none."""
    if len(values) == 0:
        raise ValueError("the median of no samples")
    return float(np.median(np.asarray(values, dtype=np.float64)))


def mad(values: Sequence[float] | Floats) -> float:
    """Median absolute deviation from the median, unscaled (times 1.4826 it is a normal distribution's sigma)."""
    return median(np.abs(np.asarray(values, dtype=np.float64) - median(values)))


def steady_start(samples: Sequence[float] | Floats, tolerance: float = 0.02) -> int:
    """The index from which on a series is in its steady state, at most its half.

    The second half says what steady means: its median, and as a band three standard errors of a window's median or
    `tolerance`, whichever is wider. The answer is where the first window begins whose median, and that of the one
    after it, lie in the band. A window is 5 samples or a twentieth of the series.
    """
    series = np.asarray(samples, dtype=np.float64)
    if len(series) < 10:
        return 0
    window = max(5, len(series) // 20)
    tail = series[len(series) // 2 :]
    centre = median(tail)
    # 1.2533 sigma / sqrt(n) is the standard error of a median; sigma = 1.4826 MAD
    band = max(3 * 1.2533 * 1.4826 * mad(tail) / np.sqrt(window), tolerance * centre)
    half = len(series) // 2
    for start in range(half):
        now, after = series[start : start + window], series[start + window : start + 2 * window]
        if abs(median(now) - centre) <= band and (len(after) == 0 or abs(median(after) - centre) <= band):
            return start
    return half


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


def estimate(
    groups: Sequence[Sequence[Floats]], *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The median over all samples with a two-level bootstrap interval.

    Args:
        groups: launches, each a sequence of blocks, each an array of samples. Empty blocks are left out.

    Launches are drawn with replacement, and in each its blocks; the interval is the central `confidence` of the
    medians, its ends stretched away from the median because few launches tell little of how launches differ (see
    `_stretch`). With one launch only blocks are drawn, with one block its samples.

    Raises: ValueError: no samples at all.
    """
    launches = [[block for block in blocks if len(block)] for blocks in groups]
    launches = [blocks for blocks in launches if blocks]
    if not launches:
        raise ValueError("an estimate from no samples")
    everything = np.concatenate([block for blocks in launches for block in blocks])
    centre = median(everything)
    if len(launches) == 1 and len(launches[0]) == 1:
        launches = [[everything[i : i + 1] for i in range(len(everything))]]
    launches = [[_thin(block) for block in blocks] for blocks in launches]
    random = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for i in range(resamples):
        chosen: list[Floats] = []
        for launch in random.integers(len(launches), size=len(launches)):
            blocks = launches[launch]
            chosen += [blocks[block] for block in random.integers(len(blocks), size=len(blocks))]
        medians[i] = np.median(np.concatenate(chosen))
    stretch = _stretch(len(launches), confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    low, high = centre - max(0.0, centre - low) * stretch, centre + max(0.0, high - centre) * stretch
    return Estimate(centre, max(0.0, float(low)), float(high), confidence, len(everything))  # no time is below 0


def _stretch(launches: int, confidence: float) -> float:
    """By how much a bootstrap over few launches comes out too narrow.

    The variance between L launches comes out (L-1)/L too small, and a few of them say little of it: Student's t with L-1
    degrees of freedom instead of the normal distribution. Without, three launches that differ held the truth in 75 % of
    trials instead of 95 %; with it in 89 %, ten in 93 %.
    """
    if launches < 2:
        return 1.0
    from scipy.special import ndtri, stdtrit

    tail = (1 + confidence) / 2
    return float(np.sqrt(launches / (launches - 1)) * stdtrit(launches - 1, tail) / ndtri(tail))


def _thin(block: Floats) -> Floats:
    if len(block) <= BLOCK_POINTS:
        return block
    return np.asarray(np.quantile(block, (np.arange(BLOCK_POINTS) + 0.5) / BLOCK_POINTS), dtype=np.float64)


def by_block(launch: Launch, values: Floats, chosen: NDArray[np.bool_]) -> list[Floats]:
    """Splits `values` (one for each chosen sample) into the launch's blocks."""
    blocks = launch.block[chosen]
    return [values[blocks == block] for block in np.unique(blocks)]


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


def midmean(values: Floats) -> Floats:
    """The mean of the middle half along the first axis: as robust as a median, and smooth where a clock ticks in µs.

    Runtimes report kernels in whole µs, so that medians of short kernels would all be whole numbers; the outer
    quarters, where the skew lives, are not in it. Fewer than four rows: their median.
    """
    count = len(values)
    if count < 4:
        return np.asarray(np.median(values, axis=0), dtype=np.float64)
    cut = count // 4
    return np.asarray(np.mean(np.sort(values, axis=0)[cut : count - cut], axis=0), dtype=np.float64)


def midmean_intervals(
    groups: Sequence[Sequence[Floats]], *, confidence: float = 0.95, resamples: int = 200, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Midmean of every column with its two-level bootstrap interval: centre, low, high; see `estimate`.

    Args: groups: launches, each a sequence of blocks, each (samples, columns).
    """
    launches = [[block for block in blocks if len(block)] for blocks in groups]
    launches = [blocks for blocks in launches if blocks]
    if not launches:
        raise ValueError("an estimate from no samples")
    centre = midmean(np.concatenate([block for blocks in launches for block in blocks]))
    if len(launches) == 1 and len(launches[0]) == 1:
        launches = [[launches[0][0][i : i + 1] for i in range(len(launches[0][0]))]]
    random = np.random.default_rng(seed)
    launches = [[_thin_rows(block) for block in blocks] for blocks in launches]
    draws = np.empty((resamples, len(centre)))
    for i in range(resamples):
        chosen: list[Floats] = []
        for launch in random.integers(len(launches), size=len(launches)):
            blocks = launches[launch]
            chosen += [blocks[block] for block in random.integers(len(blocks), size=len(blocks))]
        draws[i] = midmean(np.concatenate(chosen))
    stretch = _stretch(len(launches), confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    below, above = np.maximum(0, centre - low) * stretch, np.maximum(0, high - centre) * stretch
    return centre, np.maximum(0, centre - below), centre + above


def _thin_rows(block: Floats) -> Floats:
    """At most BLOCK_POINTS of a block's rows, evenly spaced."""
    return block if len(block) <= BLOCK_POINTS else block[:: -(-len(block) // BLOCK_POINTS)]
