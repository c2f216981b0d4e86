"""What the low-rank methods share: how ranks are asked for, and the way from a network to a smaller one.

    survey  ─►  options, each with its error  ─►  one choice a layer  ─►  factors in the layer's place
                (score)                           (allocate)              (apply)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.allocation import Allocation, allocate
from pipeline.compress.base import Compressed, Compressor, LayerDecision
from pipeline.compress.ranks import by_energy, one_thread
from pipeline.compress.replace import Survey, check_finite, copied, counts, params_of, survey, swap, traced, without
from pipeline.compress.structure import Choice, Target, as_it_is, assemble, macs, params
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

Cost = Callable[[Target, Choice], float]
UNITS = ("params", "macs")
NOT_ASKED = "it was not asked for"
LARGER = "it would not become smaller"
DEARER = "within the budget it is better left alone"


@dataclass(frozen=True)
class Plan:
    """What is to become of the layers of `model`: a choice for each that is replaced, and why the others stay."""

    model: nn.Module
    found: Survey
    choices: Mapping[str, Choice]
    left_alone: Mapping[str, str]
    macs_before: int | None


class LowRank(Compressor):
    """Replaces layers by chains of smaller ones. Of ranks, energy, keep and budget one is given.

    Args:
        ranks: layer -> its ranks; or "evbmf", the ranks that stand out of the noise (1 where none does).
        energy: share of each kernel's squared norm that is kept at least, in (0, 1].
        keep: share of the network's cost that may be left, in (0, 1]; the largest error of a layer becomes the smallest.
        budget: the same as a number in the unit; with `cost`, of the layers that can be decomposed alone.
        unit: "params" or "macs", of the whole network. MACs need an example.
        cost: (layer, choice) -> its cost in any unit, instead. `choice.pieces` are the convolutions that it becomes; the
            layer as it is has no ranks and itself as its one piece. Asked once for each option; infinity: not that one.
        layers: which ones may be touched; None: all.
        even_if_larger: also where the layer would cost as much as before, or more; else it is left alone. Not for a budget.
    """

    def __init__(
        self, *, ranks: Mapping[str, int | Sequence[int]] | str | None = None, energy: float | None = None,
        keep: float | None = None, budget: float | None = None, unit: str = "params", cost: Cost | None = None,
        layers: Sequence[str] | None = None, even_if_larger: bool = False,
    ) -> None:  # fmt: skip
        asked = {"ranks": ranks, "energy": energy, "keep": keep, "budget": budget}
        given = {name: value for name, value in asked.items() if value is not None}
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise UsageError(f"{self.name} was given {found} of {', '.join(asked)}", try_="give one of them")
        for name, share in (("energy", energy), ("keep", keep)):
            if share is not None and not 0 < share <= 1:
                raise UsageError(f"{self.name} was given {name} = {share}", try_="a share in (0, 1]")
        if budget is not None and not math.isfinite(budget):
            raise UsageError(f"{self.name} was given a budget of {budget}", try_="a number")
        if isinstance(ranks, str) and ranks != "evbmf":
            raise UsageError(f"{self.name} was given ranks = {ranks!r}", try_='"evbmf", or ranks for each layer')
        if unit not in UNITS:
            raise UsageError(f"{self.name} was given the unit {unit!r}", try_=" or ".join(UNITS))
        self.ranks = dict(ranks) if isinstance(ranks, Mapping) else ranks
        self.energy, self.keep, self.budget, self.unit, self.cost = energy, keep, budget, unit, cost
        self.layers, self.even_if_larger = layers, even_if_larger
        self.settings: dict[str, Any] = {
            **given, "unit": "given by the caller" if cost else unit, "layers": layers, "even_if_larger": even_if_larger
        }  # fmt: skip

    def why_not(self, target: Target) -> str:
        """Why the method has nothing for such a layer; empty where it has."""
        return ""

    @abstractmethod
    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        """Raises: UsageError: ranks out of their range."""

    @abstractmethod
    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        """All that are worth a look, each with the error that it is judged by: rising ranks, falling errors."""

    def noise_ranks(self, target: Target, weight: Tensor) -> tuple[int, ...]:
        """By EVBMF. Raises: UsageError: there are none for this method."""
        raise UsageError(f"{self.name} has no ranks by EVBMF, which is for matrices", try_="ranks, keep or budget")

    @abstractmethod
    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        """The weights of the pieces, and |W - W'| / |W|."""

    @one_thread()
    def apply(self, model: nn.Module, example: Tensor | Sequence[int] | None = None, data: Any = None) -> Compressed:
        if self.unit == "macs" and self.cost is None and example is None:
            raise UsageError(f"{self.name} was asked to count MACs without an example", try_="give the input's shape")
        return self.carry_out(self.plan(copied(model), example), example)

    def plan(self, model: nn.Module, example: Tensor | Sequence[int] | None = None) -> Plan:
        """What is to become of each layer; nothing is changed yet. Raises: as `apply`."""
        graph = traced(model, example) if example is not None else None
        macs_before = counts(model, graph).macs if graph is not None else None
        found = self._fitting(survey(model, graph))
        total = params_of(model) if self.unit == "params" else macs_before or 0
        chosen, reasons = self._explicit(found) if isinstance(self.ranks, dict) else self._by_rule(found, total)
        return Plan(model, found, chosen, {**found.left_alone, **reasons}, macs_before)

    def carry_out(self, plan: Plan, example: Tensor | Sequence[int] | None = None) -> Compressed:
        """Puts the factors of each layer in its place, in the network of the plan itself."""
        model, params_before = plan.model, params_of(plan.model)
        decisions: list[LayerDecision] = []
        replacements: dict[nn.Module, nn.Module] = {}
        for name, choice in plan.choices.items():
            target, layer = plan.found.targets[name], plan.found.modules[name]
            weights, error = self.factors(target, layer.get_parameter("weight").detach(), choice)
            replacements[layer] = assemble(layer, target, choice.pieces, weights)
            decisions.append(_decision(target, choice, error))
        swap(model, replacements)
        after = counts(model, traced(model, example)).macs if example is not None else None
        return Compressed(
            model, self.name, self.settings, params_before, params_of(model), tuple(decisions), plan.macs_before, after,
            plan.left_alone,
        )  # fmt: skip

    def given(self, target: Target, ranks: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Raises: UsageError: another number of ranks, or something else than whole numbers."""
        if len(ranks) != count or not all(type(rank) is int for rank in ranks):
            raise UsageError(
                f"{self.name} was given ranks ({', '.join(map(str, ranks))}) for {target.name!r}",
                try_="a whole number" if count == 1 else f"{count} whole numbers",
            )
        return ranks

    def allocated(
        self, options: Mapping[str, Sequence[Choice]], costs: Mapping[str, Sequence[float]], budget: float, fixed: float
    ) -> Allocation:
        """One place in `options` a layer, within the budget."""
        errors = {name: [choice.error for choice in choices] for name, choices in options.items()}
        return allocate(errors, lambda name, place: costs[name][place], budget, fixed, self._unit)

    @property
    def _unit(self) -> str:
        return "" if self.cost else f" {self.unit}"

    def _fitting(self, found: Survey) -> Survey:
        """Without the layers that the method has nothing for, or that may not be touched."""
        allowed = None if self.layers is None else {found.resolved(name, self.name) for name in self.layers}
        reasons = {name: why for name, target in found.targets.items() if (why := self.why_not(target))}
        if allowed is not None:
            reasons |= {name: NOT_ASKED for name in found.targets if name not in allowed and name not in reasons}
        return without(found, reasons)

    def _explicit(self, found: Survey) -> tuple[dict[str, Choice], dict[str, str]]:
        wanted: dict[str, tuple[int, ...]] = {}
        assert isinstance(self.ranks, dict)
        for name, ranks in self.ranks.items():
            first = found.resolved(name, self.name)
            if first in wanted:
                raise UsageError(f"{self.name} was given ranks for {name!r}, which is {first!r}, twice", try_="one name")
            wanted[first] = tuple(ranks) if isinstance(ranks, Sequence) else (ranks,)
        check_finite({name: found.modules[name] for name in wanted})
        choices = {name: self.choice(found.targets[name], ranks) for name, ranks in wanted.items()}
        return self._smaller(found, choices)

    def _by_rule(self, found: Survey, total: float) -> tuple[dict[str, Choice], dict[str, str]]:
        check_finite(found.modules)
        weights = {name: module.get_parameter("weight").detach() for name, module in found.modules.items()}
        if self.ranks is not None:
            ranks = {name: self.noise_ranks(target, weights[name]) for name, target in found.targets.items()}
            return self._smaller(found, {name: self.choice(found.targets[name], one) for name, one in ranks.items()})
        whole = {name: as_it_is(target) for name, target in found.targets.items()}
        costs = {name: [self._cost(found.targets[name], choice)] for name, choice in whole.items()}
        own = math.fsum(cost for (cost,) in costs.values())
        fixed = 0.0 if self.cost else total - own
        budget = self.budget if self.budget is not None else (self.keep or 1) * (own + fixed)
        if self.energy is None and own + fixed <= budget:
            return {}, dict.fromkeys(found.targets, "the budget is kept without it")
        options = {name: self.options(target, weights[name]) for name, target in found.targets.items()}
        if self.energy is not None:
            kept = {name: some[by_energy([one.error for one in some], self.energy)] for name, some in options.items()}
            return self._smaller(found, kept)
        for name, some in options.items():
            prices = [self._cost(found.targets[name], choice) for choice in some]
            priced = [place for place, price in enumerate(prices) if price < math.inf]
            options[name] = [whole[name], *(some[place] for place in priced)]
            costs[name] += [prices[place] for place in priced]
        picks = self.allocated(options, costs, budget, fixed).picks
        chosen = {name: options[name][place] for name, place in picks.items() if place}
        return chosen, {name: DEARER for name in found.targets if name not in chosen}

    def _cost(self, target: Target, choice: Choice) -> float:
        if self.cost is not None:
            return self.cost(target, choice)
        return params(choice.pieces) if self.unit == "params" else macs(choice.pieces, target.calls or ())

    def _smaller(self, found: Survey, choices: Mapping[str, Choice]) -> tuple[dict[str, Choice], dict[str, str]]:
        """Those that make their layer cheaper, and why the other layers stay."""
        reasons = {name: NOT_ASKED for name in found.targets if name not in choices}
        kept = {}
        for name, choice in choices.items():
            target = found.targets[name]
            if self.even_if_larger or self._cost(target, choice) < self._cost(target, as_it_is(target)):
                kept[name] = choice
            else:
                reasons[name] = LARGER
        return kept, reasons


def check_rank(what: str, rank: int, full: int) -> None:
    """Raises: UsageError: the rank is not in 1 ... full."""
    if not 1 <= rank <= full:
        raise UsageError(f"{what} was asked for rank {rank}", try_=f"1 ... {full}")


def relative_error(exact: Tensor, approximate: Tensor) -> float:
    """|exact - approximate| / |exact|, 0 for zeros."""
    norm = float(exact.norm())
    return float((exact - approximate).norm()) / norm if norm else 0.0


def _decision(target: Target, choice: Choice, error: float) -> LayerDecision:
    whole, calls = [target.whole], target.calls
    return LayerDecision(
        target.name, choice.ranks, params(whole), params(choice.pieces), error, choice.k,
        None if calls is None else macs(whole, calls), None if calls is None else macs(choice.pieces, calls),
    )  # fmt: skip
