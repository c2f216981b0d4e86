"""One option a layer within a budget: by the largest error in test_compress_ranks.py, by the sum of their squares here."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compress.allocation import allocate, spread
from pipeline.errors import UsageError

share = st.floats(0, 1)
layers = st.lists(st.lists(st.tuples(share, st.floats(0.01, 9)), min_size=1, max_size=6), min_size=1, max_size=4)


def asked(options: Any, part: float) -> tuple[dict[str, list[float]], Any, float]:
    """Errors and costs, each layer with itself as it is, of error 0 and cost 10, as its first option; a budget that can be met:
    `part` of the way from the cheapest network to the one that stays as it is."""
    some = {str(i): [(0.0, 10.0), *one] for i, one in enumerate(options)}
    least = sum(min(cost for _, cost in one) for one in some.values())
    errors = {name: [error for error, _ in one] for name, one in some.items()}
    return errors, lambda name, place: some[name][place][1], least + part * (10 * len(some) - least) + 1e-9


def squares(errors: dict[str, list[float]], picks: Any) -> float:
    return sum(errors[name][place] ** 2 for name, place in picks.items())


@given(layers, share)
@settings(deadline=None)
def test_the_budget_is_kept_and_no_layer_could_be_better_for_what_is_left(options: Any, part: float) -> None:
    errors, cost, budget = asked(options, part)
    found = spread(errors, cost, budget)
    assert found.cost == pytest.approx(sum(cost(name, place) for name, place in found.picks.items())) and found.cost <= budget
    assert found.error == max(errors[name][place] for name, place in found.picks.items())
    for name, place in found.picks.items():
        for other, error in enumerate(errors[name]):
            fits = found.cost - cost(name, place) + cost(name, other) <= budget - 1e-6
            assert not (fits and error**2 < errors[name][place] ** 2 - 1e-9)


@given(layers, share)
@settings(deadline=None)
def test_it_is_the_optimum_for_what_it_costs_or_near_it(options: Any, part: float) -> None:
    """Never further from the best choice within the budget than what one layer has to gain: the halving leaves one step."""
    errors, cost, budget = asked(options, part)
    found = squares(errors, spread(errors, cost, budget).picks)
    every = (dict(zip(errors, one, strict=True)) for one in itertools.product(*(range(len(one)) for one in errors.values())))
    best = min(squares(errors, p) for p in every if math.fsum(cost(name, place) for name, place in p.items()) <= budget)
    assert best - 1e-9 <= found <= best + max(error**2 for one in errors.values() for error in one) + 1e-9


def test_energy_is_given_up_where_it_buys_most() -> None:
    """A layer that loses much for little stays; with `allocate` it would lose as much as the others."""
    errors = {"cheap": [0.0, 0.5], "dear": [0.0, 0.5]}
    costs = {"cheap": [10.0, 2.0], "dear": [10.0, 9.0]}
    found = spread(errors, lambda name, place: costs[name][place], 14.0)
    assert found.picks == {"cheap": 1, "dear": 0} and found.cost == 12.0
    both = allocate(errors, lambda name, place: costs[name][place], 14.0)
    assert both.picks == {"cheap": 1, "dear": 1}


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
def test_the_unit_of_the_cost_does_not_matter(unit: float) -> None:
    errors = {"a": [0.0, 0.1, 0.3], "b": [0.0, 0.2, 0.6]}
    costs = {"a": [3.0, 2.0, 1.0], "b": [5.0, 2.0, 1.0]}
    found = spread(errors, lambda name, place: unit * costs[name][place], 6.0 * unit, unit)
    assert found.picks == {"a": 0, "b": 1} and found.cost == pytest.approx(6 * unit)


def test_a_budget_below_the_cheapest_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a budget of 1 ms cannot be met: the smallest reachable is 2 ms; try: 2 or more"):
        spread({"a": [0.0, 0.5]}, lambda name, place: [3.0, 2.0][place], 1.0, unit=" ms")
    assert spread({}, lambda name, place: 0.0, 1.0).picks == {}
