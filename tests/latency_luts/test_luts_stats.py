"""A case's summary and the judgement whether it may be relied upon."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts.stats import Estimate, Summary, judge, mad, median, summarise

MADE = runpy.run_path(str(Path(__file__).with_name("test_luts_launch.py")))
launch, following = MADE["launch"], MADE["following"]
REFERENCE: float = MADE["REFERENCE"]
LATENCY = st.floats(1e3, 1e9)
SERIES = st.lists(LATENCY, min_size=1, max_size=40)
FACTOR = st.floats(0.01, 100)


# summarise


def test_a_slow_hour_of_one_launch_is_taken_out() -> None:
    launches = [following(1.0, seed=seed, slow=slow) for seed, slow in enumerate((1.0, 1.0, 1.15))]
    one = summarise(launches, REFERENCE, resamples=200)
    assert one.exponent == pytest.approx(1, abs=0.02)
    assert one.corrected.median == pytest.approx(1e7, rel=0.002)
    assert one.launch_spread < 0.005 and one.corrected.half_width < 0.005
    plain = [median(launch.samples) for launch in launches]
    assert max(plain) / min(plain) > 1.12 and one.plain.half_width > 0.05
    assert (one.disturbed_share, one.preempted_share) == (0, 0)


def test_noise_that_the_canary_does_not_share_is_left_alone() -> None:
    launches = [following(0.0, seed=seed, noise=0.02) for seed in range(3)]
    one = summarise(launches, REFERENCE, resamples=200)
    assert one.exponent < 0.05
    assert one.corrected.median == pytest.approx(one.plain.median, rel=5e-4)
    assert one.corrected.half_width == pytest.approx(one.plain.half_width, rel=0.3)


def test_shares_and_medians_of_a_summary() -> None:
    first = launch([10.0, 11, 12, 99], preempted=[0, 0, 0, 5], kept=[False, True, True, True])
    second = launch([22.0, 22, 88], [REFERENCE, REFERENCE, 9 * REFERENCE])
    one = summarise([first, second], REFERENCE, resamples=20)
    assert one.plain.count == 6 and one.plain.median == 22 and one.corrected.count == 4
    assert one.preempted_share == pytest.approx(1 / 6) and one.disturbed_share == pytest.approx(2 / 6)
    assert one.launch_medians == (11.5, 22) and one.launch_spread == pytest.approx(10.5 / 16.75)
    assert one.mad == mad([11, 12, 99, 22, 22, 88]) and one.reference_ns == REFERENCE


def test_where_all_is_disturbed_the_corrected_estimate_is_the_plain_one() -> None:
    launches = [launch([10.0, 11, 12], preempted=1), launch([20.0, 21, 22], 99 * REFERENCE)]
    one = summarise(launches, REFERENCE, resamples=20)
    assert one.corrected == one.plain and one.disturbed_share == 1 and one.preempted_share == 0.5
    assert one.launch_medians == (11, 21)
    assert judge(one, interval=9).reasons == ("100% of the samples were disturbed",)


def test_a_launch_that_was_all_disturbed_has_no_part_in_the_corrected_estimate() -> None:
    one = summarise([launch([10.0, 10]), launch([99.0, 99], preempted=1)], REFERENCE, resamples=20)
    assert one.launch_medians == (10,) and one.corrected.median == 10 and one.corrected.count == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(SERIES, min_size=1, max_size=3), FACTOR)
def test_a_summary_scales_with_its_samples(series: list[list[float]], factor: float) -> None:
    launches = [launch(samples, block=np.arange(len(samples)) // 4) for samples in series]
    scaled = [dataclasses.replace(one, samples=factor * one.samples) for one in launches]
    one, more = (summarise(each, REFERENCE, resamples=20) for each in (launches, scaled))
    assert more.plain.median == pytest.approx(factor * one.plain.median, rel=1e-9)
    assert more.corrected.median == pytest.approx(factor * one.corrected.median, rel=1e-6)
    assert more.mad == pytest.approx(factor * one.mad, rel=1e-6, abs=factor)
    assert more.launch_spread == pytest.approx(one.launch_spread, rel=1e-6, abs=1e-9)


def test_a_summary_repeats_exactly() -> None:
    launches = [following(0.5, seed=seed) for seed in range(2)]
    assert summarise(launches, REFERENCE, resamples=50) == summarise(launches, REFERENCE, resamples=50)


def test_a_summary_needs_kept_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([launch([1.0, 2], kept=False)], REFERENCE)


# judge


def measured(**changes: Any) -> Summary:
    quiet = Summary(
        plain=Estimate(1e7, 9.9e6, 1.02e7, 0.95, 312),
        corrected=Estimate(1e7, 9.96e6, 1.004e7, 0.95, 300),
        mad=1e5,
        reference_ns=REFERENCE,
        exponent=0.5,
        preempted_share=0.02,
        disturbed_share=0.04,
        launch_spread=0.01,
        launch_medians=(1e7, 1.01e7, 1e7),
    )
    return dataclasses.replace(quiet, **changes)


def test_a_quiet_measurement_is_stable() -> None:
    verdict = judge(measured(), interval=0.01)
    assert verdict.stable and verdict.reasons == ()
    assert verdict.text == (
        "±0.4% (asked ±1.0%) from 312 samples in 3 launches; 2% of the samples were preempted, 4% disturbed in all"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"corrected": Estimate(1e7, 9.5e6, 1.05e7, 0.95, 300)}, "the interval is ±5.0%, wider than the ±1.0% asked"),
        ({"launch_medians": (1e7,)}, "one launch says nothing of the variance between launches"),
        ({"launch_medians": (1e7,), "launch_spread": 0.0}, "one launch says nothing of the variance between launches"),
        ({"launch_spread": 0.031}, "launches differ by 3.1%"),
        ({"disturbed_share": 0.93}, "93% of the samples were disturbed"),
    ],
)
def test_each_reason_not_to_rely_on_a_measurement(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(measured(**changes), interval=0.01)
    assert not verdict.stable and verdict.reasons == (reason,)


def test_the_limits_themselves_are_good() -> None:
    edge = measured(corrected=Estimate(100, 99, 101, 0.95, 9), launch_spread=0.03, disturbed_share=0.9)
    assert judge(edge, interval=0.01).stable


def test_reasons_add_up() -> None:
    bad = measured(corrected=Estimate(100, 80, 130, 0.95, 9), launch_spread=0.5, disturbed_share=0.99)
    assert len(judge(bad, interval=0.01).reasons) == 3
