"""Raw blocks -> launches, and a time for every kernel: what is kept, what is a kernel, what the canary takes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.runner import Block, CaseResult, Kernel, KernelRun
from pipeline.kernel_times import DELEGATE_OP, INTERPRETER_OP, has_samples, is_kernel, kernel_times, to_launch

REFERENCE = 500_000
CONV = Kernel("Convolution (NHWC, F32)", 0, DELEGATE_OP)
LINEAR = Kernel("Fully Connected (NC, F32)", 1, DELEGATE_OP)
NODE = Kernel("Delegate/XNNPACK", 2, INTERPRETER_OP)


def block(samples: list[int], canaries: list[int] | None = None, *, warmup: bool = False, **more: Any) -> Block:
    """`canaries`: one more than samples."""
    canaries = canaries or [REFERENCE] * (len(samples) + 1)
    return Block(
        warmup, tuple(range(len(samples))), tuple(canaries[:-1]), tuple(samples),
        tuple(more.get("preempted", [0] * len(samples))), canaries[-1], (0, 0), (None, None),
    )  # fmt: skip


def case(*blocks: Block, runs: list[KernelRun] | None = None) -> CaseResult:
    return CaseResult("net", blocks=list(blocks), kernel_runs=runs or [])


def profiled(us: Sequence[tuple[int, ...]], kernels: tuple[Kernel, ...] = (CONV, LINEAR), **more: Any) -> CaseResult:
    """A case of one block in which each inference ran those kernels."""
    count = len(us)
    one = block([10_000_000] * count, more.get("canaries"), preempted=more.get("preempted", [0] * count))
    return case(one, runs=[KernelRun(i, kernels, row) for i, row in enumerate(us)])


# to_launch


def test_a_sample_has_the_mean_of_the_canaries_around_it() -> None:
    launch = to_launch(case(block([7, 8, 9], [100, 200, 400, 800])))
    assert launch.samples.tolist() == [7, 8, 9] and launch.canary.tolist() == [150, 300, 600]


def test_blocks_are_joined_without_their_first_samples_and_without_the_warm_up() -> None:
    launch = to_launch(
        case(
            block([90, 90], warmup=True),
            block([10, 11, 12], preempted=[0, 3, 0]),
            block([20]),
            block([30, 31]),
        )
    )
    assert launch.samples.tolist() == [10, 11, 12, 20, 30, 31]
    assert launch.block.tolist() == [1, 1, 1, 2, 3, 3]
    assert launch.kept.tolist() == [False, True, True, True, False, True]
    assert launch.preempted.tolist() == [0, 3, 0, 0, 0, 0]


def test_the_tail_of_a_warm_up_is_not_kept() -> None:
    slow, steady = [300] * 10, [100] * 90
    launch = to_launch(case(block(slow[:4], warmup=True), block(slow[4:] + steady)))
    assert not launch.kept[:4].any() and launch.kept[6:].all()
    assert to_launch(case(block(slow, warmup=True), block(steady))).kept.sum() == 89


def test_a_case_without_samples() -> None:
    for empty in (case(), case(block([5, 5], warmup=True))):
        assert not has_samples(empty) and len(to_launch(empty).samples) == 0
    assert has_samples(case(block([5])))


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 10**6), min_size=1, max_size=12)), max_size=8))
def test_where_there_are_samples_some_are_kept(blocks: list[tuple[bool, list[int]]]) -> None:
    one = case(*(block(samples, warmup=warmup) for warmup, samples in blocks))
    launch = to_launch(one)
    assert launch.kept.any() == has_samples(one)
    count = sum(len(samples) for warmup, samples in blocks if not warmup)
    assert {len(getattr(launch, name)) for name in ("samples", "canary", "block", "preempted", "kept")} == {count}


# is_kernel


@pytest.mark.parametrize(
    ("kernel", "delegated", "expected"),
    [
        (Kernel("/conv", 0, 0), False, True),
        (CONV, True, True),
        (NODE, True, False),
        (NODE, False, True),
        (Kernel("CONV_2D", 0, INTERPRETER_OP), True, True),
        (Kernel("AllocateTensors", 0, 1), False, False),
    ],
)
def test_phases_and_the_node_of_a_delegate_are_no_kernels(kernel: Kernel, delegated: bool, expected: bool) -> None:
    assert is_kernel(kernel, delegated) is expected


# kernel_times


def test_each_kernel_has_its_midmean_and_its_raw_samples() -> None:
    us = [(90, 900), *[(10 + i, 20) for i in range(8)]]  # the first of a block is not kept
    conv, linear = kernel_times([profiled(us)], 0, 0.95)
    assert (conv.kernel, linear.kernel) == (CONV, LINEAR)
    assert conv.plain_us == conv.corrected_us == 13.5 and linear.plain_us == 20
    assert conv.samples_us == tuple(range(10, 18)) and linear.samples_us == (20,) * 8
    assert 10 <= conv.low_us <= 13.5 <= conv.high_us <= 17 and linear.low_us == linear.high_us == 20
    assert conv.low_us < conv.high_us


def test_the_node_of_the_delegate_is_left_out() -> None:
    rows = kernel_times([profiled([(1, 99, 2)] * 6, (CONV, NODE, LINEAR))], 0, 0.95)
    assert [(row.kernel, row.plain_us) for row in rows] == [(CONV, 1), (LINEAR, 2)]
    (alone,) = kernel_times([profiled([(99,)] * 6, (NODE,))], 0, 0.95)
    assert alone.plain_us == 99


def test_runs_with_another_list_of_kernels_are_left_out() -> None:
    one = profiled([(1, 2)] * 8)
    one.kernel_runs[3] = KernelRun(3, (CONV, LINEAR, NODE), (50, 50, 50))
    one.kernel_runs += [KernelRun(sample, (), ()) for sample in range(8)] * 2
    conv, _ = kernel_times([one, profiled([(1,)] * 3, (CONV,))], 0, 0.95)
    assert conv.samples_us == (1,) * 6


@pytest.mark.parametrize("sample", [6, -1, 10**9])
def test_a_run_of_a_sample_that_is_not_there_is_left_out(sample: int) -> None:
    one = profiled([(1, 2)] * 6)
    one.kernel_runs.append(KernelRun(sample, (CONV, LINEAR), (99, 99)))
    assert kernel_times([one], 0, 0.95)[0].samples_us == (1,) * 5


def test_nothing_profiled_is_no_kernels() -> None:
    assert kernel_times([], 0, 0.95) == []
    assert kernel_times([case(block([1, 2, 3]))], REFERENCE, 0.95) == []
    only_first = profiled([(1, 2)] * 3)
    del only_first.kernel_runs[1:]
    assert kernel_times([only_first], REFERENCE, 0.95) == []


def test_kernels_of_a_slow_launch_are_scaled_by_the_canary() -> None:
    random = np.random.default_rng(0)
    launches = []
    for slow in (1.0, 1.0, 1.2):
        jitter = slow * np.exp(0.03 * random.standard_normal(81))
        canaries = [int(REFERENCE * factor) for factor in jitter]
        around = (np.array(canaries[:-1]) + np.array(canaries[1:])) / 2 / REFERENCE
        us = [(int(6000 * factor), int(3000 * factor)) for factor in around]
        one = block([int(1e7 * factor) for factor in around], canaries)
        launches.append(case(one, runs=[KernelRun(i, (CONV, LINEAR), row) for i, row in enumerate(us)]))
    conv, linear = kernel_times(launches, REFERENCE, 0.95)
    assert conv.corrected_us == pytest.approx(6000, rel=0.003) and linear.corrected_us == pytest.approx(3000, rel=0.003)
    assert conv.plain_us > 6100
    assert conv.low_us > 5950 and conv.high_us < 6050


def test_disturbed_runs_are_in_the_plain_time_only() -> None:
    us = [(10, 1)] * 12 + [(90, 1)] * 12
    one = profiled(us, preempted=[0] * 12 + [1] * 12)
    conv, _ = kernel_times([one], REFERENCE, 0.95)
    assert conv.plain_us == pytest.approx(53, abs=8)
    assert (conv.corrected_us, conv.low_us, conv.high_us) == (10, 10, 10)
    assert len(conv.samples_us) == 23


def test_where_every_run_was_disturbed_the_plain_time_stands() -> None:
    conv, _ = kernel_times([profiled([(10, 1)] * 9, preempted=[1] * 9)], REFERENCE, 0.95)
    assert (conv.plain_us, conv.corrected_us, conv.low_us, conv.high_us) == (10, 10, 10, 10)


def test_where_every_run_was_paused_each_kernel_counts_that_was_not() -> None:
    """Long runs on a busy machine: the core is taken away in each, for milliseconds, during one kernel or the other."""
    us = [(100 + (8000 if i % 2 else 0), 2000 + (0 if i % 2 else 4000)) for i in range(20)]
    conv, linear = kernel_times([profiled(us, preempted=[1] * 20)], REFERENCE, 0.95)
    assert (conv.corrected_us, linear.corrected_us) == (100, 2000)
    assert conv.plain_us > 1000 and max(conv.samples_us) == 8100


def test_a_slow_kernel_is_not_taken_for_a_pause_where_the_core_stayed() -> None:
    us = [(100, 2000), (8100, 2000)] * 4
    conv, _ = kernel_times([profiled(us, preempted=[0] * 8)], REFERENCE, 0.95)
    assert conv.corrected_us > 1000
