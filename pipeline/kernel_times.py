"""Raw samples of the runner -> the arrays that `latency_luts.stats` takes, and a time for every kernel."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.runner import CaseResult, Kernel
from latency_luts import stats

CLOCK_TOLERANCE = 0.02
"""Two readings of a clock that differ by less are one clock: some systems measure it instead of knowing it."""

QUIET_RUNS = 8
"""With fewer runs during which the core was never taken away, those are used too in which it was, kernel by kernel."""

LEAST_AWAY_US = 500.0
"""A core that is taken away stays away for longer than that."""

# LiteRT's event types: an op of the interpreter, and an op inside a delegate.
INTERPRETER_OP, DELEGATE_OP = 2, 8


def has_samples(case: CaseResult) -> bool:
    """Whether a case got beyond its warm-up."""
    return any(block.sample_ns and not block.warmup for block in case.blocks)


def to_launch(case: CaseResult) -> stats.Launch:
    """All blocks of one case in one launch, warm-up left out.

    Not kept: the first sample of each block (another case ran before it, caches are that one's), and the samples at the
    beginning that are not in the steady state yet, as the whole series with its warm-up shows; and the blocks during
    which the core's clock moved, see `clock_moved`, unless hardly any other is left.
    """
    moved = clock_moved(case)
    if 2 * sum(moved) > len(moved):
        moved = [False] * len(moved)
    samples: list[int] = []
    canary: list[float] = []
    block: list[int] = []
    preempted: list[int] = []
    kept: list[bool] = []
    warm: list[int] = []
    measured = 0
    for number, one in enumerate(case.blocks):
        if one.warmup:
            warm += one.sample_ns
            continue
        canaries = [*one.canary_ns, one.last_canary_ns]
        samples += one.sample_ns
        preempted += one.preempted
        canary += [(before + after) / 2 for before, after in itertools.pairwise(canaries)]
        block += [number] * len(one.sample_ns)
        still = not moved[measured]
        measured += 1
        kept += [still and (i > 0 or len(one.sample_ns) == 1) for i in range(len(one.sample_ns))]
    steady = max(0, stats.steady_start([*warm, *samples]) - len(warm))
    mask = np.array(kept, dtype=np.bool_)
    mask[:steady] = False
    return stats.Launch(
        samples=np.array(samples, dtype=np.float64),
        canary=np.array(canary, dtype=np.float64),
        block=np.array(block, dtype=np.int64),
        preempted=np.array(preempted, dtype=np.int64),
        kept=mask,
    )


def clock_moved(case: CaseResult) -> list[bool]:
    """For each block after the warm-up whether its core's clock was another at its end than at its beginning, or another
    than during most of this launch's samples. Not moved where the device does not tell its clock."""
    blocks = [block for block in case.blocks if not block.warmup]
    clocks = [clock for block in blocks for clock in block.clock_khz if clock for _ in block.sample_ns]
    usual = stats.median(clocks) if clocks else 0.0
    return [any(abs(clock - usual) > CLOCK_TOLERANCE * usual for clock in block.clock_khz if clock) for block in blocks]


@dataclass(frozen=True)
class KernelTimes:
    """One kernel's time over all profiled runs, in µs: plain (all kept runs) and corrected, with its interval."""

    kernel: Kernel
    plain_us: float
    corrected_us: float
    low_us: float
    high_us: float
    samples_us: tuple[int, ...]


def is_kernel(kernel: Kernel, delegated: bool) -> bool:
    """Whether an event is a kernel and not a phase of the runtime, nor the node that stands for a whole delegate."""
    if kernel.kind == 0:
        return True
    if kernel.kind == INTERPRETER_OP:
        return not (delegated and "delegate" in kernel.name.lower())
    return kernel.kind == DELEGATE_OP


def kernel_times(launches: Sequence[CaseResult], reference: float, confidence: float) -> list[KernelTimes]:
    """Every kernel of a network, in the order in which the runtime runs them; empty where nothing was profiled.

    Runs whose list of kernels differs from the most common one (a first run that allocates) are left out. Where the core
    is taken away in nearly every run, as from long ones on a busy machine, it is from a few kernels of each: the others
    count, see `_without_pauses`.
    """
    lists = Counter(run.kernels for case in launches for run in case.kernel_runs if run.kernels)
    if not lists:
        return []
    kernels = lists.most_common(1)[0][0]
    delegated = any(kernel.kind == DELEGATE_OP for kernel in kernels)
    columns = [i for i, kernel in enumerate(kernels) if is_kernel(kernel, delegated)]
    quiet: list[list[stats.Floats]] = []
    every: list[stats.Floats] = []
    exponent = stats.canary_exponent([to_launch(case) for case in launches], reference)
    for case in launches:
        times, launch = _times(case, kernels, columns)
        if not len(times):
            continue
        every.append(times[launch.kept])
        chosen = stats.undisturbed(launch, reference)
        if int(chosen.sum()) < QUIET_RUNS:
            paused = launch.preempted > 0
            chosen = stats.undisturbed(dataclasses.replace(launch, preempted=np.zeros_like(launch.preempted)), reference)
            times = _without_pauses(times, paused)
        scale = stats.scale(launch, reference, exponent)
        quiet.append(stats.by_block(launch, (times * scale[:, None])[chosen], chosen))
    if not any(len(times) for times in every):
        return []
    plain = stats.midmean(np.concatenate(every))
    if any(len(block) for blocks in quiet for block in blocks):
        centre, low, high = stats.midmean_intervals(quiet, confidence=confidence)
    else:
        centre = low = high = plain
    raw = np.concatenate(every).astype(np.int64)
    return [
        KernelTimes(
            kernels[c], float(plain[i]), float(centre[i]), float(low[i]), float(high[i]), tuple(raw[:, i].tolist())
        )
        for i, c in enumerate(columns)
    ]


def _without_pauses(times: NDArray[np.float64], paused: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Times during which the core was away, replaced by the kernel's median over the others.

    Such a time is far above the kernel's shortest one, and in a run during which the core was taken away.

    Args: times: (runs, kernels) µs. paused: (runs,).
    """
    shortest = times.min(axis=0)
    away = paused[:, None] & (times > shortest + np.maximum(LEAST_AWAY_US, shortest / 2))
    usual = np.nanmedian(np.where(away, np.nan, times), axis=0)
    return np.where(away, usual, times)


def _times(
    case: CaseResult, kernels: tuple[Kernel, ...], columns: Sequence[int]
) -> tuple[NDArray[np.float64], stats.Launch]:
    """(runs, kernels) µs, and the launch cut to the same runs."""
    launch = to_launch(case)
    runs = [run for run in case.kernel_runs if run.kernels == kernels and 0 <= run.sample < len(launch.samples)]
    rows = np.array([run.sample for run in runs], dtype=np.int64)
    times = np.array([[run.us[c] for c in columns] for run in runs], dtype=np.float64).reshape(len(runs), len(columns))
    cut = stats.Launch(
        samples=launch.samples[rows],
        canary=launch.canary[rows],
        block=launch.block[rows],
        preempted=launch.preempted[rows],
        kept=launch.kept[rows],
    )
    return times, cut
