"""DeepTwist, iterative compression and prices that are not to be had: what is left alone, what is exact, what is repeated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.compress import Compressed, build
from pipeline.compress.alds import Alds
from pipeline.compress.deeptwist import METHODS, DeepTwist
from pipeline.compress.iterative import iterate
from pipeline.compress.lowrank import LowRank
from pipeline.compress.structure import Choice, Target, params
from pipeline.compress.svd import Svd
from pipeline.compress.tucker import Tucker2
from pipeline.errors import UsageError

SHAPE = (1, 6, 8, 8)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(6, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 36, 5),
        ).eval()  # fmt: skip


def steps(count: int, seen: list[torch.Tensor], at: str = "3.weight") -> Callable[[nn.Module, Callable[[int], None]], None]:
    """A training that moves every weight a little, and notes one after each step."""

    def train(module: nn.Module, on_step: Callable[[int], None]) -> None:
        generator = torch.Generator().manual_seed(0)
        for step in range(1, count + 1):
            with torch.no_grad():
                for weight in module.parameters():
                    weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
            on_step(step)
            seen.append(module.get_parameter(at).detach().clone())

    return train


def rank(weight: torch.Tensor) -> int:
    return int(torch.linalg.matrix_rank(weight.flatten(1), rtol=1e-5))


def test_weights_are_distorted_every_so_many_steps_and_free_between() -> None:
    seen: list[torch.Tensor] = []
    found = build("deeptwist", method="svd", ranks={"3": 3}, every=4).apply(network(), SHAPE, steps(8, seen))
    assert [rank(weight) for weight in seen] == [16, 16, 16, 3, 16, 16, 16, 3]
    assert found.layers[0].relative_error < 1e-6  # the last step distorted: what is decomposed is exact
    assert found.method == "deeptwist" and found.settings.items() >= {"method": "svd", "every": 4}.items()


def test_what_is_trained_is_what_is_decomposed() -> None:
    seen: list[torch.Tensor] = []
    found = build("deeptwist", ranks={"3": (16, 16)}, even_if_larger=True, every=100).apply(network(), SHAPE, steps(3, seen))
    whole = network()
    steps(3, [])(whole, lambda step: None)
    x = torch.randn(SHAPE)
    assert torch.allclose(found.model(x), whole(x), atol=1e-4) and not torch.equal(network()(x), whole(x))


def test_without_training_it_is_the_method_itself() -> None:
    twisted, plain = (build(name, keep=0.5).apply(network(), SHAPE) for name in ("deeptwist", "tucker2"))
    assert twisted.layers == plain.layers
    x = torch.randn(SHAPE)
    assert torch.equal(twisted.model(x), plain.model(x))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_twisted_by(method: str) -> None:
    seen: list[torch.Tensor] = []
    found = DeepTwist(method=method, keep=0.7, every=2).apply(network(), SHAPE, steps(2, seen))
    assert found.layers and all(layer.relative_error < (0.3 if method == "cp" else 1e-5) for layer in found.layers)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"method": "deeptwist", "keep": 0.5}, "deeptwist has no method 'deeptwist'; try: alds, cp, svd, tiled_svd, tucker2"),
        ({"keep": 0.5, "every": 0}, "asked to distort every 0 steps"),
        ({"keep": 1.5}, "tucker2 was given keep = 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build("deeptwist", **settings)


@pytest.mark.parametrize("method", [Svd, Tucker2, Alds], ids=lambda one: one.name)
def test_each_step_begins_with_the_kernels_that_the_last_one_was_retrained_to(method: type[LowRank]) -> None:
    """A retraining that does nothing: two steps lose what one to the same budget loses, and never more than a little."""
    whole = network()
    found = list(iterate([method(keep=0.9), method(keep=0.7)], whole, SHAPE, lambda compressed: None))
    assert [one.params_before for one in found] == [sum(weight.numel() for weight in whole.parameters())] * 2
    assert all(one.params_after <= keep * one.params_before for one, keep in zip(found, (0.9, 0.7), strict=True))
    once = method(keep=0.7).apply(whole, SHAPE)
    x = torch.randn(64, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        losses = [float((one.model(x) - whole(x)).norm()) for one in (found[1], once)]
    assert losses[0] == pytest.approx(losses[1], rel=0.25) and losses[0] > 0


def test_what_retraining_learned_goes_into_the_next_step() -> None:
    def retrain(compressed: Compressed) -> None:
        with torch.no_grad():
            compressed.model.get_parameter("1.bias").fill_(3.0)
            compressed.model.get_parameter("0.1.bias").fill_(2.0)
            compressed.model.get_parameter("3.1.weight").zero_()

    settings: dict[str, Any] = {"ranks": {"0": 4, "3": 4}, "even_if_larger": True}
    first, second = iterate([Svd(**settings), Svd(**settings)], network(), SHAPE, retrain)
    assert first.model is not second.model and len(second.layers) == 2
    for name, value in (("1.bias", 3.0), ("0.1.bias", 2.0), ("3.1.weight", 0.0)):
        assert torch.equal(second.model.get_parameter(name), torch.full_like(first.model.get_parameter(name), value))
    assert second.layers[1].relative_error == 0.0  # of a kernel that had become zero


def test_an_option_without_a_price_is_not_taken() -> None:
    asked: list[tuple[int, ...]] = []

    def cost(target: Target, choice: Choice) -> float:
        asked.append(choice.ranks)
        return math.inf if choice.ranks and choice.ranks[0] % 4 else float(params(choice.pieces))

    whole = sum(weight.numel() for weight in network().parameters())
    found = build("svd", cost=cost, budget=0.6 * whole).apply(network(), SHAPE)
    assert found.layers and all(layer.ranks[0] % 4 == 0 for layer in found.layers)
    assert (1,) in asked and found.params_after <= 0.6 * whole
    with pytest.raises(UsageError, match="cannot be met: the smallest reachable"):
        build("svd", cost=lambda t, c: math.inf if c.ranks else 1000.0, budget=10).apply(network(), SHAPE)
