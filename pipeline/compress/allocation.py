"""A budget over all layers: one option for each, by its error and its cost. Numbers only.

    allocate   the largest error of a layer becomes the smallest possible
    spread     the sum of squared errors becomes small
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError

LOG_PRICE, PRICES = 40.0, 60
"""Of `spread`: prices from exp(-40) to exp(40) squared errors for a unit of cost, and so many halvings between them."""


@dataclass(frozen=True)
class Allocation:
    """Layer -> place of its option; the largest error among them; what they cost together."""

    picks: Mapping[str, int]
    error: float
    cost: float


def allocate(
    errors: Mapping[str, Sequence[float]], cost: Callable[[str, int], float], budget: float, fixed: float = 0.0, unit: str = ""
) -> Allocation:  # fmt: skip
    """One option a layer, so that they cost `budget` at most together and the largest error is the smallest possible.

    For a bound on the error each layer takes the cheapest of its options within it; the total falls as the bound rises, so
    that the best bound is found by halving. The cost may rise and fall with the rank, as a latency does.

    Args:
        errors: layer -> of each option, in any order.
        cost: of a layer's option, by its place; asked once for each.
        fixed: what the rest of the network costs: a part of the budget, of the answer's cost and of what an error says.

    Raises: UsageError: the cheapest options together cost more than the budget.
    """
    return meet(_curves(errors, cost), budget, fixed, unit)


def spread(
    errors: Mapping[str, Sequence[float]], cost: Callable[[str, int], float], budget: float, fixed: float = 0.0, unit: str = ""
) -> Allocation:  # fmt: skip
    """One option a layer, so that they cost `budget` at most together and the sum of their squared errors is small.

    For a price of one unit of cost each layer takes the option with the smallest error^2 + price * cost, so that all lose
    the same share of energy for the last unit saved (Shoham and Gersho, IEEE Trans. ASSP 1988); the price is found by
    halving. That is the optimum for what those options cost. What is left of the budget then goes where it takes away most
    for its cost.

    Args, Raises: as `allocate`.
    """
    import numpy as np

    curves = _curves(errors, cost)
    _check_least(curves, budget, fixed, unit)

    def places(log_price: float) -> dict[str, int]:
        price = math.exp(log_price)
        return {name: int(np.argmin(curve.errors**2 + price * curve.costs)) for name, curve in curves.items()}

    def total(found: Mapping[str, int]) -> float:
        return math.fsum([fixed, *(curves[name].costs[place] for name, place in found.items())])

    low, high = -LOG_PRICE, LOG_PRICE
    found = {name: len(curve.costs) - 1 for name, curve in curves.items()}  # the cheapest ones
    for _ in range(PRICES):
        middle = (low + high) / 2
        tried = places(middle)
        if total(tried) <= budget:
            high, found = middle, tried
        else:
            low = middle
    while better := _affordable(curves, found, budget - total(found)):
        name, place = better
        found[name] = place
    return _allocation(curves, found, total(found))


def _affordable(curves: Mapping[str, Frontier], found: Mapping[str, int], left: float) -> tuple[str, int] | None:
    """The layer and the option of it that take away most squared error for each unit of what is left."""
    best, most = None, 0.0
    for name, now in found.items():
        curve = curves[name]
        for place in range(now):
            more = float(curve.costs[place] - curve.costs[now])
            gain = float(curve.errors[now] ** 2 - curve.errors[place] ** 2) / more
            if more <= left and gain > most:
                best, most = (name, place), gain
    return best


@dataclass(frozen=True)
class Frontier:
    """The options of one layer that are cheaper than all of smaller error: errors rise, costs fall, places tell which."""

    errors: Any
    costs: Any
    places: Any


def frontier(errors: Any, costs: Any) -> Frontier:
    """Of an array of errors and one of costs. Raises: UsageError: a cost or an error is no finite number."""
    import numpy as np

    if not (np.isfinite(errors).all() and np.isfinite(costs).all()):
        raise UsageError("an option's error or cost is no finite number", try_="a cost function that gives numbers")
    order = np.lexsort((costs, errors))
    costs = costs[order]
    cheapest = np.minimum.accumulate(costs)
    kept = np.concatenate(([True], costs[1:] < cheapest[:-1]))
    return Frontier(errors[order][kept], costs[kept], order[kept])


def meet(curves: Mapping[str, Frontier], budget: float, fixed: float = 0.0, unit: str = "") -> Allocation:
    """As `allocate`, of what was computed before."""
    import numpy as np

    bounds = np.unique(np.concatenate([[0.0], *(curve.errors for curve in curves.values())]))
    bounds = bounds[bounds >= max((curve.errors[0] for curve in curves.values()), default=0.0)]

    def places(bound: float) -> dict[str, int]:
        return {name: int(np.searchsorted(curve.errors, bound, "right")) - 1 for name, curve in curves.items()}

    def total(bound: float) -> float:
        return math.fsum([fixed, *(curves[name].costs[place] for name, place in places(bound).items())])

    _check_least(curves, budget, fixed, unit)
    low, high = 0, len(bounds) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if total(bounds[middle]) <= budget else (middle + 1, high)
    found = places(bounds[low])
    return _allocation(curves, found, total(bounds[low]))


def _check_least(curves: Mapping[str, Frontier], budget: float, fixed: float, unit: str) -> None:
    smallest = math.fsum([fixed, *(curve.costs[-1] for curve in curves.values())])
    if smallest > budget:
        raise UsageError(
            f"a budget of {budget:.6g}{unit} cannot be met: the smallest reachable is {smallest:.6g}{unit}",
            try_=f"{smallest:.6g} or more",
        )


def _curves(errors: Mapping[str, Sequence[float]], cost: Callable[[str, int], float]) -> dict[str, Frontier]:
    import numpy as np

    return {
        layer: frontier(np.asarray(options, float), np.asarray([cost(layer, place) for place in range(len(options))], float))
        for layer, options in errors.items()
    }  # fmt: skip


def _allocation(curves: Mapping[str, Frontier], found: Mapping[str, int], cost: float) -> Allocation:
    picks = {name: int(curves[name].places[place]) for name, place in found.items()}
    worst = max((float(curves[name].errors[place]) for name, place in found.items()), default=0.0)
    return Allocation(picks, worst, cost)
