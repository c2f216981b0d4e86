"""Profiles -> entries: what is taken off, what the interval holds. Closed forms, and trials whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.runner import Block, CaseResult, Kernel
from latency_luts import OpKey
from pipeline.kernel_times import KernelTimes
from pipeline.sweep.fold import QUIET_SAMPLES, READS_NOTHING_NS, Overhead, Seen, entries, overhead, smooth_us, whole_us

NOTHING = Overhead(0.0, 0.0, 0.0, 3)


def key(number: int) -> OpKey:
    return OpKey("conv2d", (1, number, 7, 7), 8, dtype="float32")


def seen(number: int, us: float, bundle: str = "a", half_us: float = 0.0, samples: tuple[int, ...] = (1, 2)) -> Seen:
    return Seen(key(number), bundle, us, half_us, samples, "Conv")


def half(entry: object) -> float:
    low, high = entry.interval_ns  # type: ignore[attr-defined]
    return (high - low) / 2


# the profiler's share


def test_the_overhead_is_the_mean_over_chains_with_an_interval_around_it() -> None:
    found = overhead([2.0, 2.2, 2.4], 1.0, 0.95)
    assert found.ns == pytest.approx(2200) and found.chains == 3
    assert found.high_ns - found.ns == pytest.approx(found.ns - found.low_ns)
    assert found.high_ns - found.ns == pytest.approx(4.303 * 200 / math.sqrt(3), rel=1e-3)  # Student's t, 2 degrees


def test_chains_that_agree_by_chance_do_not_make_it_certain() -> None:
    found = overhead([2.0, 2.0, 2.0], 1.0, 0.95)
    assert found.high_ns - found.ns > 50
    assert overhead([2.0], 1.0, 0.95).high_ns > found.high_ns


def test_an_overhead_can_be_below_zero() -> None:
    assert overhead([-0.4, -0.3], 0.0, 0.95).ns == pytest.approx(-350)


def test_without_a_chain_it_is_between_nothing_and_the_shortest_kernel() -> None:
    assert overhead([], 2.5, 0.95) == Overhead(1250, 0, 2500, 0)


# whole µs


def kernel_times(samples: list[int], plain: float, corrected: float) -> KernelTimes:
    return KernelTimes(Kernel("k", 0), plain, corrected, corrected, corrected, tuple(samples))


@given(truth=st.floats(0.2, 15), seed=st.integers(0, 99))
def test_a_short_kernel_is_told_between_whole_microseconds(truth: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = random.uniform(0, 1, 2000)  # where in its µs the clock stands when a kernel begins
    samples = np.floor(starts + truth).astype(int).tolist()
    centre = float(np.mean(np.sort(samples)[500:1500]))
    assert smooth_us(kernel_times(samples, centre, centre)) == pytest.approx(truth, abs=0.08)


def test_outliers_of_a_short_kernel_do_not_count_and_the_canary_does() -> None:
    samples = [3] * 50 + [4] * 50 + [900] * 10
    assert smooth_us(kernel_times(samples, 3.5, 3.5)) == pytest.approx(3.5)
    assert smooth_us(kernel_times(samples, 3.5, 3.5 * 0.9)) == pytest.approx(3.15)


def test_a_long_kernel_keeps_its_corrected_time_and_zeros_stay_zero() -> None:
    assert smooth_us(kernel_times([100, 101], 100.5, 93.0)) == 93.0
    assert smooth_us(kernel_times([0, 0, 0, 0], 0.0, 0.0)) == 0.0
    assert smooth_us(KernelTimes(Kernel("k", 0), 3.0, 2.0, 1.0, 3.0, ())) == 2.0


# entries


def test_an_entry_is_the_mean_of_its_bundles_less_the_overhead() -> None:
    taken_off = Overhead(2000, 1900, 2100, 3)
    (entry,) = entries([seen(8, 30.0), seen(8, 34.0, "b", samples=(3,))], taken_off, 0.95, {key(8): ("x", "y", "x")})
    assert entry.key == key(8) and entry.latency_ns_median == pytest.approx(30_000)
    assert entry.samples_ns == (1000, 2000, 3000) and entry.networks == ("x", "y") and entry.runtime_kernel == "Conv"
    assert entry.interval_ns[0] < 30_000 < entry.interval_ns[1]


def test_nothing_takes_less_than_no_time() -> None:
    (entry,) = entries([seen(8, 1.0), seen(8, 1.2, "b")], Overhead(2000, 1900, 2100, 3), 0.95)
    assert entry.latency_ns_median == 0 and entry.interval_ns[0] == 0 < entry.interval_ns[1]


def test_an_overhead_below_zero_is_added() -> None:
    (entry,) = entries([seen(8, 1.0)], Overhead(-400, -500, -300, 3), 0.95)
    assert entry.latency_ns_median == pytest.approx(1400)


def test_a_kernel_that_small_bundles_have_has_a_warm_time_too_less_the_same_overhead() -> None:
    taken_off = Overhead(2000, 1900, 2100, 3)
    cold = [seen(8, 30.0), seen(9, 30.0), seen(10, 30.0), seen(11, 1.9)]
    warm = [seen(8, 20.0), seen(8, 22.0, "b"), seen(9, 31.0), seen(11, 1.0), seen(12, 9.0)]
    found = entries(cold, taken_off, 0.95, warm=warm)
    # longer than cold is noise, nothing takes less than no time, and what is only warm is no entry
    assert [entry.warm_ns for entry in found] == [pytest.approx(19_000), pytest.approx(28_000), None, 0.0]
    assert [dataclasses.replace(entry, warm_ns=None) for entry in found] == entries(cold, taken_off, 0.95)


def test_what_reads_less_than_it_takes_loses_part_of_a_microsecond_and_nothing_reads_as_half_of_one() -> None:
    short = Overhead(-450, -500, -400, 3)
    assert short.taken_off_ns(7.0) == pytest.approx(7450) and short.taken_off_ns(1.0) == pytest.approx(1450)
    assert short.taken_off_ns(0.0) == READS_NOTHING_NS < 450
    rising = [short.taken_off_ns(us / 10) for us in range(30)]
    assert rising == sorted(rising)
    assert Overhead(2000, 1900, 2100, 3).taken_off_ns(1.5) == 0


def test_each_source_of_error_widens_the_interval() -> None:
    many = tuple(range(100, 200))  # no whole µs hides anything

    def width(values: tuple[float, float], inner: float = 0.0, taken_off: Overhead = NOTHING) -> float:
        pair = [seen(8, us, name, inner, many) for us, name in zip(values, "ab", strict=True)]
        return half(entries(pair, taken_off, 0.95)[0])

    still = width((150, 150))
    assert still < 20
    assert width((145, 155)) > still + 3_000
    assert width((150, 150), inner=5.0) == pytest.approx(math.hypot(still, 5_000 / math.sqrt(2)))
    assert width((150, 150), taken_off=Overhead(0, -300, 300, 3)) == pytest.approx(math.hypot(still, 300))


def test_samples_that_are_all_one_number_hide_what_is_within_it() -> None:
    (same,) = entries([seen(8, 150, samples=(150,) * 40)], NOTHING, 0.95)
    (mixed,) = entries([seen(8, 150, samples=tuple(range(130, 170)))], NOTHING, 0.95)
    assert half(same) == pytest.approx(1.96 * 1000 / math.sqrt(12), rel=1e-3) and half(mixed) < 50


def test_kernels_of_the_same_length_say_how_far_one_may_be_off() -> None:
    """Two bundles that agree by chance do not make a kernel certain where others of its length differ."""
    others = [seen(n, us, name) for n in range(9, 60) for us, name in ((95, "a"), (105, "b"))]
    lucky = [seen(8, 100, "a"), seen(8, 100, "b")]
    alone = half(entries(lucky, NOTHING, 0.95)[0])
    among = half(entries([*lucky, *others], NOTHING, 0.95)[0])
    assert among > 3 * alone > 0
    wild = [seen(200 + i, us, name) for i in range(5) for us, name in ((10, "a"), (190, "b"))]  # a few disturbed ones
    assert half(entries([*lucky, *others, *wild], NOTHING, 0.95)[0]) == pytest.approx(among, rel=0.5)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    truths = {number: float(random.uniform(40, 60)) for number in range(8, 408)}
    rows = []
    for number, truth in truths.items():
        rows += [seen(number, truth * float(random.normal(1, 0.02)), name, 0.0, tuple(range(99))) for name in "ab"]
    inside = [
        entry.interval_ns[0] <= 1e3 * truths[entry.key.input_shape[1]] <= entry.interval_ns[1]
        for entry in entries(rows, NOTHING, 0.95)
    ]
    assert 0.91 <= np.mean(inside) <= 0.99


# the latency without the profiler


def case(count: int, preempted: int) -> CaseResult:
    block = Block(
        False, tuple(range(count)), (500_000,) * count, (1_000_000,) * count, (preempted,) * count, 500_000, (1, 1),
        (None, None),
    )  # fmt: skip
    return CaseResult("a", blocks=[block])


def test_a_latency_is_told_by_undisturbed_samples_only() -> None:
    assert whole_us([case(40, 0)], 0.95) == pytest.approx(1000)
    assert whole_us([case(40, 1)], 0.95) is None
    assert whole_us([case(QUIET_SAMPLES - 2, 0)], 0.95) is None
