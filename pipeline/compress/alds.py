"""ALDS: for each layer into how many parts its input channels are cut, and what rank, by one error bound for all layers.

Each part is decomposed by SVD ("encode" of `pipeline.compress.svd`). With alpha_i,j the singular values of part i and alpha_1
the spectral norm of the whole folded kernel W, rank j of every part loses

    |W - W'| / |W| <= sqrt(k) max_i alpha_i,j+1 / alpha_1    (spectral norms),

and the largest such bound over all layers is made as small as the budget allows, in turn: with the k of all layers fixed, one
bound for all gives the ranks (global); with the cost of a layer fixed, the k with the smallest bound is taken (local).

Reference: Liebenwein, Maalouf, Feldman, Rus, "Compressing Neural Networks: Towards Determining the Optimal Layer-wise
Decomposition", NeurIPS 2021, equations 4 to 7 and Algorithm 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.compress import svd
from pipeline.compress.allocation import Allocation, Frontier, frontier, meet
from pipeline.compress.lowrank import LowRank, check_rank
from pipeline.compress.ranks import singular_values
from pipeline.compress.structure import Choice, Target
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

BOUNDS = ("paper", "code")
SEARCHES = ("alternating", "exact")
START_K = (3, 5, 7, 9)
SEEDS = 15
ITERATIONS = 4


def relative_errors(weight: Tensor, k: int, bound: str = "paper", groups: int = 1) -> Tensor:
    """The bound by rank kept, 0 ... full (where it is 0), in double.

    Args:
        weight: (c_out, c_in / groups, k_h, k_w), or (c_out, c_in).
        k: a divisor of c_in / groups.
        bound: "paper", or "code": as the authors' code has it, without the factor sqrt(k). That is no bound.

    Raises: UsageError: another bound, or a k that does not divide the channels.
    """
    if bound not in BOUNDS:
        raise UsageError(f"ALDS has no bound {bound!r}", try_=" or ".join(BOUNDS))
    return _errors(weight, k, bound, groups, _spectral_norm(weight, groups))


def _spectral_norm(weight: Tensor, groups: int) -> float:
    return float(singular_values(svd.fold(weight, groups=groups)).max())


def _errors(weight: Tensor, k: int, bound: str, groups: int, norm: float) -> Tensor:
    values = singular_values(svd.fold(weight, k=k, groups=groups)).amax((0, 1))
    factor = (math.sqrt(k) if bound == "paper" else 1.0) / norm if norm else 0.0
    errors = values.new_zeros(len(values) + 1)
    errors[:-1] = values * factor
    return errors


def alternate(
    curves: Mapping[str, Mapping[int, Frontier]], budget: float, fixed: float = 0.0, *, unit: str = "", seed: int = 0,
    seeds: int = SEEDS, iterations: int = ITERATIONS,
) -> Allocation:  # fmt: skip
    """The best of several starts of the global and the local step in turn.

    The first starts have the same k everywhere, as near as can be to 3, 5, 7 and 9; the others draw it for each layer.

    Args: curves: layer -> k -> its options, whose `places` are given back.

    Raises: UsageError: no choice of k and ranks meets the budget.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    cheapest = {name: min(by_k, key=lambda k: float(by_k[k].costs[-1])) for name, by_k in curves.items()}
    best = _global(curves, cheapest, budget, fixed, unit)  # the start that can meet it if any can; it raises
    for number in range(seeds):
        if number < len(START_K):
            ks = {name: min(by_k, key=lambda k: (abs(k - START_K[number]), -k)) for name, by_k in curves.items()}
        else:
            ks = {name: int(generator.choice(sorted(by_k))) for name, by_k in curves.items()}
        ks = _feasible(curves, ks, cheapest, budget - fixed)
        found = _global(curves, ks, budget, fixed, unit)
        best = min(best, found, key=_order)
        for _ in range(iterations):
            ks = _local(curves, ks, found)
            if _least(curves, ks) > budget - fixed:
                break
            found = _global(curves, ks, budget, fixed, unit)
            best = min(best, found, key=_order)
    return best


def _order(found: Allocation) -> tuple[float, float]:
    return found.error, found.cost


def _least(curves: Mapping[str, Mapping[int, Frontier]], ks: Mapping[str, int]) -> float:
    return math.fsum(float(curves[name][k].costs[-1]) for name, k in ks.items())


def _feasible(
    curves: Mapping[str, Mapping[int, Frontier]], ks: dict[str, int], cheapest: Mapping[str, int], budget: float
) -> dict[str, int]:
    """Half the k everywhere until the smallest ranks fit the budget, as the authors do; the cheapest k where 1 does not."""
    while _least(curves, ks) > budget:
        if all(k == min(curves[name]) for name, k in ks.items()):
            return dict(cheapest)
        ks = {
            name: max((one for one in curves[name] if one <= k // 2), default=min(curves[name]))
            for name, k in ks.items()
        }
    return ks


def _global(
    curves: Mapping[str, Mapping[int, Frontier]], ks: Mapping[str, int], budget: float, fixed: float, unit: str
) -> Allocation:
    return meet({name: curves[name][k] for name, k in ks.items()}, budget, fixed, unit)


def _local(curves: Mapping[str, Mapping[int, Frontier]], ks: Mapping[str, int], found: Allocation) -> dict[str, int]:
    """For what each layer costs now, the k with the smallest error; of equal ones the present one."""
    import numpy as np

    better = {}
    for name, k in ks.items():
        curve = curves[name][k]
        share = float(curve.costs[list(curve.places).index(found.picks[name])])

        def error(other: int, by_k: Mapping[int, Frontier] = curves[name], share: float = share) -> float:
            one = by_k[other]
            within = int(np.searchsorted(-one.costs, -share, "left"))
            return float(one.errors[within]) if within < len(one.errors) else math.inf

        better[name] = min(curves[name], key=lambda other, k=k, error=error: (error(other), other != k))  # type: ignore[misc]
    return better


class Alds(LowRank):
    """Every convolution and linear layer, k and rank chosen for all at once.

    Args:
        bound: as of `relative_errors`.
        search: "alternating", the paper's; "exact": for every bound each layer takes its cheapest k and rank, and the best
            bound is found by halving. That is the optimum of the paper's problem, whatever the starts.
        seed, seeds, iterations: of "alternating".
        others: as of `LowRank`; of a layer's `ranks` there are two, (k, rank). Energy and EVBMF say nothing of k.

    Differs from the authors' code: the local step looks up the error of the rank that is kept, not of one less; the cost
    of a layer passes from one k to another exactly, without rounding; the budget is never exceeded. The network's size is
    what is left of all parameters, not of those that are not zero.
    """

    name = "alds"

    def __init__(
        self, *, bound: str = "paper", search: str = "alternating", seed: int = 0, seeds: int = SEEDS,
        iterations: int = ITERATIONS, **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(**others)
        if self.energy is not None:
            raise UsageError("alds was given an energy, which says nothing of k", try_="keep, budget or ranks")
        for what, value, known in (("bound", bound, BOUNDS), ("search", search, SEARCHES)):
            if value not in known:
                raise UsageError(f"ALDS has no {what} {value!r}", try_=" or ".join(known))
        self.bound, self.search, self.seed, self.seeds, self.iterations = bound, search, seed, seeds, iterations
        self.settings |= {"bound": bound, "search": search, "seed": seed, "seeds": seeds, "iterations": iterations}

    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        k, rank = self.given(target, ranks, 2)
        channels = target.c_in // target.groups
        if k < 1 or channels % k:
            known = ", ".join(map(str, svd.divisors(channels)))
            raise UsageError(f"ALDS of {target.name!r} was asked for k = {k} of {channels} channels", try_=known)
        check_rank(f"ALDS of {target.name!r} with k = {k}", rank, svd.full_rank(target, k=k))
        return Choice((rank,), svd.pieces(target, rank, k=k), error, k)

    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        norm = _spectral_norm(weight, target.groups)
        found = []
        for k in svd.divisors(target.c_in // target.groups):
            errors = _errors(weight, k, self.bound, target.groups, norm).tolist()
            found += [self.choice(target, (k, rank), errors[rank]) for rank in range(1, len(errors))]
        return found

    def allocated(
        self, options: Mapping[str, Sequence[Choice]], costs: Mapping[str, Sequence[float]], budget: float, fixed: float
    ) -> Allocation:
        if self.search == "exact":
            return super().allocated(options, costs, budget, fixed)
        curves = {name: _by_k(choices, costs[name]) for name, choices in options.items()}
        return alternate(
            curves, budget, fixed, unit=self._unit, seed=self.seed, seeds=self.seeds, iterations=self.iterations
        )

    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        found = svd.svd(weight, choice.ranks[0], k=choice.k, groups=target.groups)
        return [found.first, found.second], found.relative_error


def _by_k(choices: Sequence[Choice], costs: Sequence[float]) -> dict[int, Frontier]:
    """The options of each k, and to leave the layer as it is, which is the first one, under every k."""
    import numpy as np

    errors, prices = np.array([choice.error for choice in choices]), np.array(costs, float)
    ks = np.array([choice.k if choice.ranks else 0 for choice in choices])
    found = {}
    for k in sorted(set(ks[1:].tolist())):
        places = np.concatenate(([0], np.flatnonzero(ks == k)))
        curve = frontier(errors[places], prices[places])
        found[k] = dataclasses.replace(curve, places=places[curve.places])
    return found
