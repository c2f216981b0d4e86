"""ALDS: its bound holds, its budgets are met, what it finds is near the optimum, and its cost is the caller's if he likes."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.compress.alds import Alds, relative_errors
from pipeline.compress.allocation import Allocation
from pipeline.compress.structure import Choice, Target, macs
from pipeline.compress.svd import Svd, divisors, svd
from pipeline.errors import UsageError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(depth: int = 3, width: int = 12) -> nn.Sequential:
    """Layers of different spectra."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layer = nn.Conv2d(width, width, 3, padding=1)
        layer.bias.data = normal(width, seed=number)
        core = normal(width, 2 + number, seed=number) @ normal(2 + number, width * 9, seed=number + 50)
        layer.weight.data = (core + 0.3 * normal(width, width * 9, seed=number + 99)).reshape(layer.weight.shape)
        layers += [layer, nn.ReLU()]
    last = nn.Linear(width * 16, 10)
    last.weight.data, last.bias.data = normal(10, width * 16) / 5, normal(10)
    return nn.Sequential(*layers, nn.Flatten(), last)


def whole_weight(first: torch.Tensor, second: torch.Tensor, c_in: int, k: int) -> torch.Tensor:
    """The kernel that two "encode" convolutions of a layer without groups make."""
    parts = first.reshape(k, -1, c_in // k, *first.shape[2:])
    whole = torch.einsum("okj,kjihw->okihw", second.reshape(len(second), k, -1), parts)
    return whole.reshape(len(second), c_in, *first.shape[2:])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.sampled_from([1, 4, 6, 12]), st.integers(1, 3), st.integers(0, 99), st.data())
def test_no_error_is_larger_than_the_papers_bound(
    c_out: int, c_in: int, size: int, seed: int, data: st.DataObject
) -> None:
    weight = normal(c_out, c_in, size, size, seed=seed).double()
    k = data.draw(st.sampled_from(divisors(c_in)))
    errors = relative_errors(weight, k)
    assert len(errors) == min(c_out, c_in // k * size * size) + 1 and errors[-1] == 0
    assert (errors.diff() <= 1e-12).all()
    norm = torch.linalg.matrix_norm(weight.flatten(1), 2)
    for rank in range(1, len(errors)):
        factors = svd(weight, rank, k=k)
        lost = weight - whole_weight(factors.first, factors.second, c_in, k)
        real = float(torch.linalg.matrix_norm(lost.flatten(1), 2) / norm)
        assert real <= float(errors[rank]) + 1e-7
        assert k > 1 or real == pytest.approx(float(errors[rank]), abs=1e-6)


def test_the_codes_form_has_no_factor_and_is_no_bound() -> None:
    weight = normal(6, 1, 3, 3).expand(6, 8, 3, 3)  # equal parts: what is lost in each adds up
    assert torch.allclose(relative_errors(weight, 4), 2 * relative_errors(weight, 4, bound="code"))
    factors = svd(weight, 2, k=8)
    lost = weight - whole_weight(factors.first, factors.second, 8, 8)
    real = torch.linalg.matrix_norm(lost.flatten(1), 2) / torch.linalg.matrix_norm(weight.flatten(1), 2)
    assert relative_errors(weight, 8, bound="code")[2] < 0.5 * real <= 0.5 * relative_errors(weight, 8)[2] + 1e-6


def test_of_groups_the_worst_counts() -> None:
    weight = normal(8, 3, 3, 3)
    weight[:4] *= 0.1
    one, other = (relative_errors(part, 3) for part in weight.chunk(2))
    both = relative_errors(weight, 3, groups=2)
    norms = [float(torch.linalg.matrix_norm(part.flatten(1), 2)) for part in weight.chunk(2)]
    scaled = torch.maximum(one * norms[0], other * norms[1]) / max(norms)
    assert torch.allclose(both, scaled)


def test_zeros_have_no_error() -> None:
    assert not relative_errors(torch.zeros(4, 4, 3, 3), 2).any()


@pytest.mark.parametrize("search", ["alternating", "exact"])
@pytest.mark.parametrize("unit", ["params", "macs"])
def test_the_budget_is_met(search: str, unit: str) -> None:
    for keep in (0.2, 0.5, 0.9):
        found = Alds(keep=keep, search=search, unit=unit).apply(network(), (1, 12, 4, 4))
        after, before = (
            (found.params_after, found.params_before) if unit == "params" else (found.macs_after, found.macs_before)
        )
        assert (keep - 0.07) * before <= after <= keep * before


class Watched(Alds):
    """Keeps what was allocated."""

    name = ""
    seen: Allocation

    def allocated(self, *given: object) -> Allocation:  # type: ignore[override]
        self.seen = super().allocated(*given)  # type: ignore[arg-type]
        return self.seen


def error_of(search: str, keep: float, **others: int) -> float:
    method = Watched(keep=keep, search=search, **others)
    method.apply(network())
    return method.seen.error


@pytest.mark.parametrize("keep", [0.2, 0.4, 0.6])
def test_no_start_finds_more_than_the_optimum_and_more_starts_are_no_worse(keep: float) -> None:
    exact, many, one = error_of("exact", keep), error_of("alternating", keep), error_of("alternating", keep, seeds=1)
    assert exact <= many <= one and many <= 1.1 * exact


def test_the_optimum_is_that_of_trying_everything() -> None:
    whole = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    for number in (0, 1):
        whole[number].weight.data = normal(4, 4, 3, 3, seed=number)
    options = []
    for layer in whole:
        own = [(0.0, 148)]
        for k in divisors(4):
            errors = relative_errors(layer.weight, k).tolist()
            own += [(errors[rank], rank * (k * 4 + 36) + 4) for rank in range(1, len(errors))]
        options.append(own)
    for budget in (120, 180, 250):
        within = [max(one[0], other[0]) for one, other in itertools.product(*options) if one[1] + other[1] <= budget]
        method = Watched(budget=budget, search="exact")
        assert method.apply(whole).params_after <= budget and method.seen.error == pytest.approx(min(within), rel=1e-9)


def test_a_seed_repeats_and_another_need_not() -> None:
    found = [Alds(keep=0.4, seed=seed, seeds=8).apply(network()).layers for seed in (3, 3)]
    assert found[0] == found[1]


def test_parts_are_chosen_where_they_pay() -> None:
    """A kernel whose parts have ranks of their own: together the rank is their sum."""
    layer = nn.Conv2d(12, 24, 3, bias=False)
    blocks = [normal(24, 2, seed=n) @ normal(2, 3 * 9, seed=n + 9) for n in range(4)]
    layer.weight.data = torch.cat([block.reshape(24, 3, 3, 3) for block in blocks], 1)
    (found,) = Alds(budget=2 * (4 * 24 + 12 * 9)).apply(nn.Sequential(layer)).layers
    assert (found.k, found.ranks) == (4, (2,)) and found.relative_error < 1e-6


def test_the_local_step_finds_the_parts_that_a_start_has_not() -> None:
    """The only start has k = 3, the kernel four parts."""
    layer = nn.Conv2d(12, 24, 3, bias=False)
    blocks = [normal(24, 2, seed=n) @ normal(2, 3 * 9, seed=n + 9) for n in range(4)]
    layer.weight.data = torch.cat([block.reshape(24, 3, 3, 3) for block in blocks], 1)
    budget = 3 * (3 * 24 + 12 * 9)
    (found,) = Alds(budget=budget, seeds=1).apply(nn.Sequential(layer)).layers
    (start,) = Alds(budget=budget, seeds=1, iterations=0).apply(nn.Sequential(layer)).layers
    assert found.k == 4 and start.k != 4 and found.relative_error < start.relative_error


def test_any_cost_can_be_the_budget() -> None:
    """A staircase, as of a phone: eight channels cost as much as one to seven."""
    asked: list[tuple[str, tuple[int, ...]]] = []

    def latency_us(layer: Target, choice: Choice) -> float:
        asked.append((layer.name, choice.ranks))
        blocks = sum(-(-piece.c_out // 8) * piece.c_in // piece.groups for piece in choice.pieces)
        return 3.0 + blocks + macs(choice.pieces, layer.calls or ()) / 1e4

    whole = network()
    for method in (Alds, Svd):
        asked.clear()
        before = method(budget=1e9, cost=latency_us).apply(whole, (1, 12, 4, 4))
        assert before.layers == ()
        total = 0.0
        found = method(keep=0.7, cost=latency_us).apply(whole, (1, 12, 4, 4))
        own = {name: latency_us(target, Choice((), (target.whole,))) for name, target in targets(whole).items()}
        for layer in found.layers:
            target = targets(whole)[layer.layer]
            ranks = layer.ranks if method is Svd else (layer.k, *layer.ranks)
            total += latency_us(target, method(ranks={}).choice(target, ranks))
        total += sum(cost for name, cost in own.items() if name not in {layer.layer for layer in found.layers})
        assert found.layers and total <= 0.7 * sum(own.values())
        assert found.settings["unit"] == "given by the caller"


def targets(whole: nn.Module) -> dict[str, Target]:
    from pipeline.compress.replace import survey, traced

    return dict(survey(whole, traced(whole, (1, 12, 4, 4))).targets)


def test_the_smallest_reachable_is_said_and_reached() -> None:
    whole = network()
    for search in ("alternating", "exact"):
        with pytest.raises(UsageError, match="a budget of 5 params cannot be met") as raised:
            Alds(budget=5, search=search).apply(whole)
        smallest = int(raised.value.try_.split()[0])
        assert Alds(budget=smallest, search=search).apply(whole).params_after == smallest
        with pytest.raises(UsageError, match="cannot be met"):
            Alds(budget=smallest - 1, search=search).apply(whole)


@pytest.mark.parametrize(
    ("ranks", "why"),
    [
        ((5, 1), "asked for k = 5 of 12 channels; try: 1, 2, 3, 4, 6, 12"),
        ((0, 1), "asked for k = 0 of 12"),
        ((4, 0), r"k = 4 was asked for rank 0; try: 1 \.\.\. 12"),
        ((12, 10), r"k = 12 was asked for rank 10; try: 1 \.\.\. 9"),
        (3, r"ranks \(3\) for '0'; try: 2 whole numbers"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(ranks: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Alds(ranks={"0": ranks}).apply(network())  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("settings_", "why"),
    [
        ({"energy": 0.5}, "an energy"),
        ({"keep": 0.5, "bound": "both"}, "no bound 'both'; try: paper or code"),
        ({"keep": 0.5, "search": "all"}, "no search 'all'; try: alternating or exact"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings_: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Alds(**settings_)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no ranks by EVBMF"):
        Alds(ranks="evbmf").apply(network())
    with pytest.raises(UsageError, match="no bound 'both'"):
        relative_errors(torch.ones(2, 2), 1, bound="both")


def test_the_network_given_is_not_touched() -> None:
    whole = network()
    before = copy.deepcopy(whole.state_dict())
    Alds(keep=0.3).apply(whole)
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert math.isfinite(sum(float(value.sum()) for value in whole.state_dict().values()))
