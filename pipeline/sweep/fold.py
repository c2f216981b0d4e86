"""Profiles of bundles -> a time for every kernel: the profiler's own share taken off, the spread over bundles in the interval.

Two things are not told by a bundle's profile. How much longer a kernel reads than it takes: onnxruntime builds strings
inside the span that it times (about 2 µs), and both runtimes cut off what is left of a µs. Chains of small kernels tell it: the
sum of their kernels less their latency without the profiler, a kernel. And how far a kernel differs from one place to
another: with two bundles each kernel says little of that, so kernels of about the same length are taken together (a variance
moderated as in Smyth's limma, 2004).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from devices.runner import CaseResult
from latency_luts import Entry, OpKey, stats
from pipeline.kernel_times import KernelTimes, to_launch

PRIOR_WEIGHT = 4.0
"""What kernels of the same length say of a kernel's spread counts as much as so many bundles of its own."""
TICK_US = 1.0
READS_NOTHING_NS = 150.0
"""What a kernel takes that reads 0 µs every time: in rows of 80 such kernels, reshapes took 2 ns each, additions and
activations of a vector 20, transposes of 30 KB 150, activations of 30 KB 300."""
CUT_OFF_NS = 1000 / math.sqrt(12 * 64)
"""The standard error of what a chain's 64 kernels lose to whole µs, each between 0 and one."""
QUIET_SAMPLES = 10
"""A latency without the profiler is told by at least so many undisturbed samples."""
SHORT_US = 20.0
"""Below that the middle half of the samples is not enough: they are few different whole µs."""


@dataclass(frozen=True)
class Overhead:
    """By how much a kernel reads longer than it takes, ns, with the interval of the mean over chains.

    Below 0 where a profiler adds little and cuts off what is left of a µs. chains: 0 where none could tell it.
    """

    ns: float
    low_ns: float
    high_ns: float
    chains: int

    def taken_off_ns(self, us: float) -> float:
        """What a kernel takes that reads so many µs.

        Where less is read than taken, that is the rest of a µs, some half of one; but a kernel that reads 0 has no other half.
        """
        whole = min(1.0, us) if self.ns < 0 else 1.0
        return max(0.0, 1e3 * us - whole * self.ns) + (1 - whole) * READS_NOTHING_NS


@dataclass(frozen=True)
class Seen:
    """One kernel in one bundle, in µs, corrected for the machine's noise; the profiler's share is still in it."""

    key: OpKey
    bundle: str
    us: float
    half_us: float
    samples_us: tuple[int, ...]
    runtime_kernel: str


@dataclass(frozen=True)
class Walk:
    """One network of `walk.py`, in µs, corrected for the machine's noise.

    Args:
        us: end to end, without the profiler.
        kernels: as it ran them, each with what it reads, the profiler's share still in it; None for what has no key.
    """

    us: float
    kernels: tuple[tuple[OpKey | None, float], ...]


def whole_us(launches: Sequence[CaseResult], confidence: float) -> float | None:
    """A model's latency without the profiler; None where something else ran on its core nearly all the time."""
    own = [to_launch(case) for case in launches]
    reference = stats.canary_reference(own)
    if sum(int(stats.undisturbed(one, reference).sum()) for one in own) < QUIET_SAMPLES:
        return None
    return stats.summarise(own, reference, confidence=confidence, resamples=1).corrected.median / 1e3


def smooth_us(times: KernelTimes) -> float:
    """A kernel's corrected time, where whole µs are too coarse for the middle half of the samples to tell it.

    A short kernel reads as two neighbouring numbers, one of which is often not in the middle half. So the mean is taken of
    all samples that lie no further than one µs outside of it, and corrected as much as the middle half was.
    """
    if times.plain_us >= SHORT_US or not times.samples_us:
        return times.corrected_us
    samples = np.array(times.samples_us, dtype=np.float64)
    low, high = np.percentile(samples, [25, 75])
    near = samples[(samples >= low - 1) & (samples <= high + 1)]
    factor = times.corrected_us / times.plain_us if times.plain_us >= 1 else 1.0
    return float(near.mean()) * factor


def overhead(differences_us: Sequence[float], shortest_us: float, confidence: float) -> Overhead:
    """From each chain's (sum of kernels - latency without the profiler) / number of kernels.

    Args: shortest_us: what the shortest kernel reads. Where no chain tells anything, the share is between 0 and that.
    """
    from scipy.special import stdtrit

    if not differences_us:
        return Overhead(500 * shortest_us, 0.0, 1e3 * shortest_us, 0)
    values = 1e3 * np.array(differences_us, dtype=np.float64)
    centre = float(values.mean())
    # one chain's kernels cut off so much of a µs, another's so much: by chance, as from a uniform distribution
    error = CUT_OFF_NS / math.sqrt(len(values))
    if len(values) > 1:
        error = max(error, float(values.std(ddof=1)) / math.sqrt(len(values)))
    half = float(stdtrit(max(2, len(values) - 1), (1 + confidence) / 2)) * error
    return Overhead(centre, centre - half, centre + half, len(values))


def entries(
    seen: Sequence[Seen], overhead_: Overhead, confidence: float, met: Mapping[OpKey, Sequence[str]] | None = None,
    warm: Sequence[Seen] = (),
) -> list[Entry]:  # fmt: skip
    """One entry a kernel: the mean of its bundles.

    Its interval holds the spread over bundles, each bundle's own interval and that of the overhead.

    Args:
        met: the networks that have a kernel, for the entries.
        warm: the same kernels in bundles so small that they find everything in the caches.
    """
    groups, warm_groups = _by_key(seen), _by_key(warm)
    priors = _priors(groups)
    return [
        _entry(key, group, warm_groups.get(key, ()), priors, overhead_, confidence, (met or {}).get(key, ()))
        for key, group in groups.items()
    ]


def _by_key(seen: Sequence[Seen]) -> dict[OpKey, list[Seen]]:
    groups: dict[OpKey, list[Seen]] = {}
    for one in seen:
        groups.setdefault(one.key, []).append(one)
    return groups


def _entry(
    key: OpKey, group: Sequence[Seen], warm: Sequence[Seen], priors: Mapping[int, float], overhead_: Overhead,
    confidence: float, networks: Sequence[str],
) -> Entry:  # fmt: skip
    from scipy.special import ndtri, stdtrit

    values = np.array([one.us for one in group])
    centre = float(values.mean())
    own = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    degrees = PRIOR_WEIGHT + len(values) - 1
    variance = (PRIOR_WEIGHT * priors[_length_class(centre)] + (len(values) - 1) * own) / degrees
    tail = (1 + confidence) / 2
    half_us = float(stdtrit(degrees, tail)) * math.sqrt(variance / len(values))
    normal = float(ndtri(tail))
    # what a bundle's own samples leave open, what was taken off, and what whole µs hide: independent of the neighbours
    inner = math.sqrt(float(np.sum(np.square([one.half_us for one in group])))) / len(group)
    taken_off = (overhead_.high_ns - overhead_.low_ns) / 2e3
    hidden = normal * TICK_US / math.sqrt(12) * _sameness([us for one in group for us in one.samples_us])
    whole_ns = 1e3 * math.hypot(half_us, inner, taken_off, hidden)
    latency_ns = overhead_.taken_off_ns(centre)
    return Entry(
        key=key,
        latency_ns_median=latency_ns,
        interval_ns=(max(0.0, latency_ns - whole_ns), latency_ns + whole_ns),
        samples_ns=tuple(1000 * us for one in group for us in one.samples_us),
        networks=tuple(dict.fromkeys(networks)),
        runtime_kernel=group[0].runtime_kernel,
        warm_ns=_warm_ns(warm, latency_ns, overhead_) if warm else None,
    )


def _warm_ns(warm: Sequence[Seen], cold_ns: float, overhead_: Overhead) -> float:
    """Never above the cold time: caches make no kernel slower, so a warm time that reads longer is noise."""
    return min(cold_ns, overhead_.taken_off_ns(float(np.mean([one.us for one in warm]))))


def _sameness(samples_us: Sequence[int]) -> float:
    """The share of the most frequent number: 1 where all are one, and what lies within its µs is not told at all."""
    return Counter(samples_us).most_common(1)[0][1] / len(samples_us) if samples_us else 1.0


def _length_class(us: float) -> int:
    """Kernels of one class are within a factor of four of each other."""
    return int(math.log(max(us, 1.0), 4))


def _priors(groups: Mapping[OpKey, Sequence[Seen]]) -> dict[int, float]:
    """Length class -> the usual variance between bundles, µs²; scaled from the nearest class where nothing tells.

    From the median, which a few disturbed kernels do not move, as the variance that has this median.
    """
    from scipy.special import gammaincinv

    found: dict[int, list[float]] = {}
    classes = set()
    for group in groups.values():
        values = np.array([one.us for one in group])
        classes.add(_length_class(float(values.mean())))
        if len(values) > 1:
            freedom = len(values) - 1
            median = 2 * float(gammaincinv(freedom / 2, 0.5)) / freedom  # of a variance whose mean is 1
            found.setdefault(_length_class(float(values.mean())), []).append(float(values.var(ddof=1)) / median)
    usual = {number: float(np.median(variances)) for number, variances in found.items()}
    if not usual:  # one bundle only: its neighbours cannot be told from the kernel
        return dict.fromkeys(classes, 0.0)
    found_near = {number: _nearest(number, usual) for number in classes}
    return {number: usual[near] * 16.0 ** (number - near) for number, near in found_near.items()}


def _nearest(number: int, means: Mapping[int, float]) -> int:
    return min(means, key=lambda other: abs(other - number))
