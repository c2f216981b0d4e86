"""Axes: places grow with values, ticks are round, few, inside, and told apart by their labels."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.scales import LOG_OVER, Scale, around, from_zero, labels, positions, ticks

sizes = st.floats(1e-6, 1e9)
linear = st.builds(lambda low, span: Scale(low, low + span), st.floats(-1e6, 1e6), st.floats(1e-3, 1e7))
logarithmic = st.builds(
    lambda low, ratio: Scale(low, low * ratio, log=True), st.floats(1e-6, 1e6), st.floats(1.05, 1e9)
)


@settings(deadline=None)
@given(linear | logarithmic, st.integers(2, 12))
def test_ticks_grow_inside_the_axis_and_are_few(scale: Scale, target: int) -> None:
    found = ticks(scale, target)
    room = (scale.high - scale.low) * 1e-9 + max(abs(scale.low), abs(scale.high)) * 1e-12
    assert 1 <= len(found) <= target + 1
    assert all(a < b for a, b in pairwise(found))
    assert all(scale.low - room <= value <= scale.high + room for value in found)


@settings(deadline=None)
@given(linear, st.integers(4, 12))
def test_linear_ticks_are_even_steps_of_1_2_or_5(scale: Scale, target: int) -> None:
    found = ticks(scale, target)
    step = (found[-1] - found[0]) / (len(found) - 1)
    assert all(math.isclose(b - a, step, rel_tol=1e-6) for a, b in pairwise(found))
    assert round(step / 10.0 ** math.floor(math.log10(step) + 1e-9), 3) in {1.0, 2.0, 5.0, 10.0}


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(30, 1e6))
def test_logarithmic_ticks_are_leads_of_decades(low: float, ratio: float) -> None:
    for value in ticks(Scale(low, low * ratio, log=True)):
        assert round(value / 10.0 ** math.floor(math.log10(value) + 1e-9), 6) in {1.0, 2.0, 3.0, 5.0}


@settings(deadline=None)
@given(linear | logarithmic, st.integers(4, 10))
def test_labels_tell_ticks_apart(scale: Scale, target: int) -> None:
    found = ticks(scale, target)
    assert len(set(labels(found))) == len(found)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 2.0, 4.0], ["0", "2", "4"]),
        ([0.0, 0.05, 0.1], ["0.00", "0.05", "0.10"]),
        ([0.1, 1, 10], ["0.1", "1", "10"]),
    ],
)
def test_labels(values: list[float], expected: list[str]) -> None:
    assert labels(values) == expected


@settings(deadline=None)
@given(linear | logarithmic, st.floats(0, 1), st.floats(0, 1))
def test_places_grow_from_0_to_100(scale: Scale, a: float, b: float) -> None:
    low, high = sorted(scale.low + share * (scale.high - scale.low) for share in (a, b))
    assert 0 <= scale.percent(low) <= scale.percent(high) <= 100 + 1e-9
    assert scale.percent(scale.low - 1) == 0
    assert scale.percent(scale.high + 1) == pytest.approx(100)


def test_closed_forms() -> None:
    assert Scale(0, 8).percent(2) == 25
    assert Scale(0.1, 1000, log=True).percent(1) == pytest.approx(25)
    assert ticks(Scale(0, 10.4), 6) == [0, 2, 4, 6, 8, 10]
    assert ticks(Scale(0.05, 16, log=True), 6) == pytest.approx([0.1, 0.3, 1, 3, 10])


@settings(deadline=None)
@given(st.lists(sizes, min_size=1))
def test_an_axis_is_logarithmic_only_beyond_the_range(values: list[float]) -> None:
    scale = positions(values)
    assert scale.log == (max(values) > LOG_OVER * min(values))
    assert scale.low <= min(values)
    assert scale.high >= max(values)


@settings(deadline=None)
@given(st.lists(sizes, min_size=1))
def test_axes_hold_their_values(values: list[float]) -> None:
    assert from_zero(values).low == 0
    for scale in (from_zero(values), around(values)):
        assert scale.low <= min(values)
        assert scale.high >= max(values)


@pytest.mark.parametrize("values", [[], [0.0], [5.0, 5.0]])
def test_degenerate_values_still_have_an_axis(values: list[float]) -> None:
    for scale in (from_zero(values), positions(values), around(values)):
        assert ticks(scale)


@pytest.mark.parametrize(
    ("low", "high", "log"), [(1, 1, False), (2, 1, False), (0, 1, True), (-1, 1, True), (float("nan"), 1, False)]
)
def test_impossible_axes_are_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="no axis from"):
        Scale(low, high, log)
