"""Medians, midmeans, steady states and intervals: closed forms, invariances, coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

LATENCY = st.floats(1e3, 1e9)
BLOCKS = st.lists(st.lists(LATENCY, min_size=1, max_size=6), min_size=1, max_size=3)
FACTOR = st.floats(0.01, 100)


# median, mad, midmean


def test_closed_forms_of_median_and_mad() -> None:
    assert median([3]) == 3 and median([4, 1]) == 2.5 and median([9, 1, 5]) == 5
    assert mad([1, 1, 2, 2, 4, 6, 9]) == 1  # the textbook example
    assert mad([7, 7, 7]) == 0
    for function in (median, mad):
        with pytest.raises(ValueError, match="no samples"):
            function([])


def test_midmean_is_the_mean_of_the_middle_half_of_each_column() -> None:
    column = np.array([7.0, 0, 6, 1, 5, 2, 4, 3])
    both = np.stack([column, 10 * column], axis=1)
    assert midmean(both).tolist() == [3.5, 35]
    outliers = column.copy()
    outliers[[0, 2]] = 1e9
    assert midmean(outliers[:, None]).tolist() == [3.5]
    assert midmean(np.array([[1.0], [2], [3], [8], [9]])).tolist() == [pytest.approx(13 / 3)]


def test_midmean_of_fewer_than_four_rows_is_their_median() -> None:
    assert midmean(np.array([[1.0, 5], [2, 50], [90, 6]])).tolist() == [2, 6]


# steady_start


@pytest.mark.parametrize("length", [0, 1, 9])
def test_a_series_shorter_than_ten_is_all_steady(length: int) -> None:
    assert steady_start([1.0 + i for i in range(length)]) == 0


def test_a_constant_series_is_steady_from_its_first_sample() -> None:
    assert steady_start([5.0] * 100) == 0


def test_an_exponential_warm_up_ends_where_it_is_within_the_tolerance() -> None:
    series = 1 + np.exp(-np.arange(400) / 20)
    start = steady_start(series)
    assert 60 <= start <= 80
    assert series[start + 10] <= 1.021 < series[start]
    assert steady_start(series, tolerance=0.1) < start < steady_start(series, tolerance=0.001)


def test_a_step_ends_the_warm_up_within_half_a_window() -> None:
    assert 37 - 6 <= steady_start([2.0] * 37 + [1.0] * 163) <= 37


def test_one_good_window_in_the_middle_of_a_warm_up_does_not_count() -> None:
    series = [2.0] * 10 + [1.0] * 10 + [2.0] * 20 + [1.0] * 160
    assert steady_start(series) > 30


@pytest.mark.parametrize("slope", [1.0, -0.5])
def test_a_drift_is_never_steady_before_its_half(slope: float) -> None:
    assert 90 <= steady_start(1 + slope * np.arange(200) / 200) <= 100


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_costs_few_samples(seed: int) -> None:
    noise = np.random.default_rng(seed).lognormal(0, 0.1, 300)
    assert steady_start(noise) <= 30


@given(st.lists(LATENCY, max_size=60), st.floats(0, 0.5))
def test_at_most_half_of_a_series_is_warm_up(series: list[float], tolerance: float) -> None:
    assert 0 <= steady_start(series, tolerance) <= len(series) // 2


# estimate


def as_groups(groups: Sequence[Sequence[Sequence[float]]]) -> list[list[Floats]]:
    return [[np.array(block, np.float64) for block in blocks] for blocks in groups]


def test_an_estimate_of_one_value_is_that_value() -> None:
    assert estimate(as_groups([[[5, 5]], [[5]]])) == Estimate(5, 5, 5, 0.95, 3)
    assert Estimate(10, 9, 12, 0.95, 3).half_width == 0.15
    assert Estimate(0, 0, 0, 0.95, 3).half_width == 0


@pytest.mark.parametrize("groups", [[], [[]], [[[]], [[], []]]])
def test_an_estimate_needs_samples(groups: list[list[list[float]]]) -> None:
    for function in (estimate, midmean_intervals):
        with pytest.raises(ValueError, match="no samples"):
            function(as_groups(groups))


@settings(max_examples=40, deadline=None)
@given(st.lists(BLOCKS, min_size=1, max_size=4), FACTOR, st.integers(0, 3))
def test_an_estimate_scales_with_its_samples_and_holds_its_centre(
    groups: list[list[list[float]]], factor: float, seed: int
) -> None:
    one = estimate(as_groups(groups), resamples=40, seed=seed)
    more = estimate([[factor * block for block in blocks] for blocks in as_groups(groups)], resamples=40, seed=seed)
    assert 0 <= one.low <= one.median <= one.high
    assert one.count == more.count == sum(len(block) for blocks in groups for block in blocks)
    for name in ("median", "low", "high"):
        assert getattr(more, name) == pytest.approx(factor * getattr(one, name), rel=1e-9, abs=factor)


@settings(max_examples=40, deadline=None)
@given(st.lists(BLOCKS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_launches_and_empty_blocks_do_not_matter(groups: list[list[list[float]]], random: Any) -> None:
    shuffled = list(groups)
    random.shuffle(shuffled)
    one, other = (estimate(as_groups(each), resamples=5) for each in (groups, shuffled))
    assert one.median == other.median == median([x for blocks in groups for block in blocks for x in block])
    assert estimate(as_groups([[[]], *[[[], *blocks] for blocks in groups]]), resamples=5) == one


def test_a_higher_confidence_is_a_wider_interval() -> None:
    groups = as_groups([np.random.default_rng(seed).normal(100, 5, (4, 10)).tolist() for seed in range(4)])
    narrow, wide = estimate(groups, confidence=0.5), estimate(groups, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_block_is_resampled_by_its_samples() -> None:
    samples = np.random.default_rng(0).normal(100, 1, 400)
    single = estimate([[samples]])
    assert single.high - single.low == pytest.approx(2 * 1.96 * 1.2533 / np.sqrt(400), rel=0.35)


def test_thinning_a_block_keeps_its_distribution() -> None:
    random = np.random.default_rng(1)
    blocks = [random.lognormal(0, 0.2, 20 * BLOCK_POINTS) for _ in range(12)]
    thinned = estimate([blocks[:6], blocks[6:]])
    cut = [piece for block in blocks for piece in np.split(np.sort(block), BLOCK_POINTS)]
    points = [
        np.array([np.median(piece) for piece in cut[i : i + BLOCK_POINTS]]) for i in range(0, len(cut), BLOCK_POINTS)
    ]
    own = estimate([points[:6], points[6:]])
    assert (thinned.low, thinned.high) == pytest.approx((own.low, own.high), rel=0.005)


def trial(seed: int, launches: int, statistic: Callable[[list[list[Floats]]], tuple[float, float]]) -> bool:
    """Whether the interval holds the truth, 100: launches differ by 1 %, samples by 0.5 %, in skewed blocks of 8."""
    random = np.random.default_rng(seed)
    groups = []
    for _ in range(launches):
        own = 100 * np.exp(0.01 * random.standard_normal())
        groups.append([own * np.exp(0.005 * random.standard_normal(8)) for _ in range(3)])
    low, high = statistic(groups)
    return low <= 100 <= high


@pytest.mark.parametrize("launches", [3, 10])
@pytest.mark.parametrize("which", ["estimate", "midmean_intervals"])
def test_a_95_percent_interval_holds_the_truth_at_least_about_nine_times_in_ten(
    launches: int, which: str
) -> None:
    def statistic(groups: list[list[Floats]]) -> tuple[float, float]:
        if which == "estimate":
            one = estimate(groups, resamples=100)
            return one.low, one.high
        _, low, high = midmean_intervals([[b[:, None] for b in blocks] for blocks in groups], resamples=100)
        return float(low[0]), float(high[0])

    held = np.mean([trial(seed, launches, statistic) for seed in range(100)])
    assert 0.85 <= held <= 0.99


def test_the_spread_between_launches_is_in_the_interval() -> None:
    """Two launches 4 % apart: the resampled medians are 100, 102 and 104, stretched by the root of two and t(1) / z."""
    one = estimate(as_groups([[[100.0] * 200] * 3, [[104.0] * 200] * 3]))
    stretch = np.sqrt(2) * 12.7062 / 1.95996  # the 97.5 % points of Student's t with one degree of freedom, and normal
    ends = [102 - 2 * stretch, 102 + 2 * stretch]
    assert [one.low, one.median, one.high] == pytest.approx([ends[0], 102, ends[1]])
    centre, low, high = midmean_intervals([[np.full((9, 1), value)] for value in (100.0, 104.0)])
    assert [low[0], centre[0], high[0]] == pytest.approx([ends[0], 102, ends[1]])


def test_an_interval_that_misses_its_centre_is_widened_to_it() -> None:
    """One long block outweighs the others among all samples, and not among the resampled ones."""
    groups = as_groups([[[1.0] * 1000], *[[[9.0] * 30]] * 3])
    one = estimate(groups, confidence=0.4)
    assert one.median == one.low == 1 and one.high > 9
    flipped = estimate([[10 - block for block in blocks] for blocks in groups], confidence=0.4)
    assert flipped.median == flipped.high == 9 and flipped.low < 1


# midmean_intervals

ROWS = st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=3), FACTOR)
def test_intervals_of_midmeans_hold_their_centre_scale_and_are_never_below_zero(
    groups: list[list[list[list[float]]]], factor: float
) -> None:
    arrays = [[np.array(block, np.float64) for block in blocks] for blocks in groups]
    centre, low, high = midmean_intervals(arrays, resamples=30)
    assert (low >= 0).all() and (low <= centre).all() and (centre <= high).all()
    assert centre.tolist() == midmean(np.concatenate([block for blocks in arrays for block in blocks])).tolist()
    scaled = midmean_intervals([[factor * block for block in blocks] for blocks in arrays], resamples=30)
    for mine, other in zip((centre, low, high), scaled, strict=True):
        assert other == pytest.approx(factor * mine, rel=1e-9, abs=factor * 1e-3)


def test_a_stretched_interval_of_midmeans_stops_at_zero() -> None:
    groups = [[np.zeros((9, 1))], [np.full((9, 1), 1.0)], [np.full((9, 1), 9.0)]]
    _, low, high = midmean_intervals(groups)
    assert low.tolist() == [0] and high[0] > 9


def test_one_block_of_midmeans_is_resampled_by_its_rows() -> None:
    column = np.random.default_rng(0).normal(100, 1, (25, 1))
    centre, low, high = midmean_intervals([[column]])
    assert low[0] < centre[0] < high[0]
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 1.2 / np.sqrt(25), rel=0.4)


def test_long_blocks_of_rows_are_thinned_and_say_the_same() -> None:
    random = np.random.default_rng(0)
    blocks = [random.normal(100, 1, (20 * BLOCK_POINTS, 1)) for _ in range(6)]
    centre, low, high = midmean_intervals([blocks[:3], blocks[3:]])
    assert low[0] <= 100.1 and high[0] >= 99.9 and high[0] - low[0] < 5
    assert centre == pytest.approx([100], abs=0.1)
