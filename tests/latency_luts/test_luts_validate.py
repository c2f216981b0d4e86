"""Predictions against measurements: closed forms, and no network that judges itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latency_luts import InvalidLatencies, LutError, validate
from latency_luts.validate import MIN_NETWORKS, WORST

MEASURED = [10.0, 20.0, 30.0, 40.0, 50.0]

_ms = st.floats(0.1, 1e3)
_pairs = st.lists(st.tuples(_ms, _ms), min_size=1, max_size=20)


def test_a_perfect_prediction() -> None:
    told = validate(MEASURED, MEASURED)
    for accuracy in (told.plain, told.scaled, told.fitted):
        assert accuracy is not None
        assert (accuracy.rmse_ms, accuracy.rmspe) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))
        assert (accuracy.within_5, accuracy.within_10) == (1.0, 1.0)
        assert accuracy.spearman == pytest.approx(1) and accuracy.kendall == pytest.approx(1)
    assert told.factor == 1.0 and told.overhead is not None
    assert (told.overhead.constant_ms, told.overhead.factor) == (pytest.approx(0, abs=1e-9), pytest.approx(1))


def test_closed_forms() -> None:
    told = validate([10.0, 20.0, 40.0], [11.0, 19.0, 40.0], ["a", "b", "c"]).plain
    assert told.rmse_ms == pytest.approx(math.sqrt(2 / 3))
    assert told.rmspe == pytest.approx(math.sqrt((0.1**2 + 0.05**2) / 3))
    assert (told.within_5, told.within_10, told.bias) == (pytest.approx(2 / 3), 1.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(_pairs)
def test_definitions(pairs: list[tuple[float, float]]) -> None:
    measured, predicted = map(np.array, zip(*pairs, strict=True))
    told = validate(measured, predicted)
    error = predicted / measured - 1
    assert told.plain.rmspe == pytest.approx(np.sqrt(np.mean(error**2)))
    assert told.plain.within_10 >= told.plain.within_5
    assert told.count == len(pairs) and len(told.worst) == min(len(pairs), WORST)
    if len(set(measured)) > 1 and len(set(predicted)) > 1:
        assert told.plain.spearman == pytest.approx(stats.spearmanr(measured, predicted).statistic)
        assert told.plain.kendall == pytest.approx(stats.kendalltau(measured, predicted).statistic)
    else:
        assert told.plain.spearman is None and told.plain.kendall is None
    assert (told.scaled is None) == (told.fitted is None) == (told.factor is None) == (len(pairs) < MIN_NETWORKS)
    errors = [abs(case.error) for case in told.worst]
    assert errors == sorted(errors, reverse=True)


@given(st.floats(0.2, 5), st.floats(0, 5))
def test_a_factor_and_a_constant_are_taken_out(factor: float, constant: float) -> None:
    predicted = np.linspace(5, 60, 12)
    told = validate(constant + factor * predicted, predicted)
    assert told.fitted is not None and told.fitted.rmspe == pytest.approx(0, abs=1e-6)
    assert told.overhead is not None
    assert told.overhead.constant_ms == pytest.approx(constant, abs=1e-5)
    assert told.overhead.factor == pytest.approx(factor, abs=1e-6)
    scaled = validate(factor * predicted, predicted)
    assert scaled.scaled is not None and scaled.scaled.rmspe == pytest.approx(0, abs=1e-9)
    assert scaled.factor == pytest.approx(factor)


def test_a_few_odd_networks_do_not_move_the_fit() -> None:
    noise = np.random.default_rng(0)
    predicted = np.linspace(5, 60, 40)
    measured = (1.5 + 1.1 * predicted) * np.exp(0.005 * noise.standard_normal(40))
    measured[[3, 17, 30]] *= [2.0, 1.7, 0.4]
    told = validate(measured, predicted, [f"net {i}" for i in range(40)])
    assert told.overhead is not None and told.overhead.constant_ms == pytest.approx(1.5, abs=0.15)
    assert told.overhead.factor == pytest.approx(1.1, abs=0.01)
    assert {case.name for case in told.worst[:3]} == {"net 3", "net 17", "net 30"}


@pytest.mark.parametrize("folds", ["leave-one-out", "split-half"])
def test_no_network_judges_itself(folds: Any) -> None:
    """A network's own measurement moves nothing of what it is predicted to take."""
    noise = np.random.default_rng(1)
    predicted = noise.uniform(5, 60, 9)
    measured = predicted * noise.uniform(0.9, 1.1, 9)
    changed = measured.copy()
    changed[4] *= 3
    before, after = validate(measured, predicted, folds=folds), validate(changed, predicted, folds=folds)
    cases = [{case.name: case.predicted_ms for case in told.worst}["4"] for told in (before, after)]
    assert cases[0] == cases[1] and before.folds == folds
    assert validate(measured, predicted, folds=folds, seed=0) == before


def test_leave_one_out_by_hand() -> None:
    measured, predicted = np.array([10.0, 22.0, 33.0, 41.0, 58.0]), np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    scaled = [predicted[i] * np.median(np.delete(measured, i) / np.delete(predicted, i)) for i in range(5)]
    told = validate(measured, predicted)
    assert told.scaled is not None
    assert told.scaled.rmse_ms == pytest.approx(np.sqrt(np.mean((np.array(scaled) - measured) ** 2)))
    assert {case.name: case.predicted_ms for case in told.worst} == pytest.approx(
        dict(zip("01234", scaled, strict=True))
    )


def test_predictions_that_are_all_alike_have_no_constant() -> None:
    told = validate([10.0, 11.0, 12.0, 13.0, 14.0], [6.0] * 5)
    assert told.overhead is not None and (told.overhead.constant_ms, told.overhead.factor) == (0.0, 2.0)
    assert told.plain.spearman is None and told.plain.kendall is None


@pytest.mark.parametrize(
    ("measured", "predicted", "names", "found"),
    [
        ([], [], None, "not a list"), ([1.0], [], None, "not a list"), ([1.0, 2.0], [1.0], None, "2 measured and 1 predicted"),
        ([1.0], [1.0], ["a", "b"], "of 2 networks"), ([1.0, math.nan], [1.0, 1.0], None, "measured latency 1 of nan"),
        ([1.0], [0.0], None, "predicted latency 0 of 0.0"), ([-1.0], [1.0], None, "measured"), ([1.0], [math.inf], None, "inf"),
        ([[1.0]], [[1.0]], None, "not a list"), (["a"], [1.0], None, "no numbers"), ([None], [1.0], None, "nan|no numbers"),
    ],
)  # fmt: skip
def test_wrong_latencies_are_refused(measured: Any, predicted: Any, names: Any, found: str) -> None:
    with pytest.raises(InvalidLatencies, match=found) as caught:
        validate(measured, predicted, names)
    assert isinstance(caught.value, LutError) and "\n" not in str(caught.value)
