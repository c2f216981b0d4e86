"""Replacing layers of networks as people write them: shared, tied, subclassed, hooked, functional, frozen, half."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.compress.replace import FUNCTIONAL
from pipeline.compress.svd import Svd
from pipeline.errors import ModelError, UsageError


class Shared(nn.Module):
    """One convolution under three names, two of them in one parent."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.first
        self.inner = nn.Sequential(nn.ReLU(), self.first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(self.again(self.first(x)))
        return found


def test_a_layer_with_three_names_is_replaced_once_under_all_of_them() -> None:
    whole = Shared()
    compressed = Svd(ranks={"inner.1": 2}).apply(whole, (1, 8, 6, 6))
    model: Any = compressed.model
    assert model.first is model.again is model.inner[1] and isinstance(model.first, nn.Sequential)
    (layer,) = compressed.layers
    assert layer.layer == "first" and layer.macs_before == compressed.macs_before == 3 * 36 * 8 * 8 * 9
    assert compressed.params_before - compressed.params_after == layer.params_before - layer.params_after
    with pytest.raises(UsageError, match="ranks for 'again', which is 'first', twice"):
        Svd(ranks={"first": 2, "again": 2}).apply(whole)


def test_layers_with_one_weight_are_left_alone() -> None:
    whole = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    whole[1].weight = whole[0].weight
    compressed = Svd(keep=0.99).apply(nn.Sequential(whole, nn.Linear(8, 16)))
    assert compressed.left_alone["0.0"] == "it shares a weight with '0.1'"
    model: Any = compressed.model
    assert model[0][0].weight is model[0][1].weight and [one.layer for one in compressed.layers] == ["1"]


class Odd(nn.Conv2d):
    pass


def test_what_cannot_be_replaced_is_listed_with_the_reason() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Conv2d(8, 8, 3)
            self.odd = Odd(8, 8, 3)
            self.up = nn.ConvTranspose2d(8, 8, 2, 2)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))
            self.kernel = nn.Parameter(torch.randn(4, 8, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(self.odd(self.plain(x)))
            return nn.functional.conv2d(self.normed(x), self.kernel) @ torch.ones(12, 3)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(self.net(x), torch.ones(2, 4, 1, 1))

    compressed = Svd(energy=0.5).apply(Outer(), (1, 8, 11, 11))
    reasons = compressed.left_alone
    assert [one.layer for one in compressed.layers] == ["net.plain"]
    assert reasons["net.odd"] == "a Odd, not a convolution or linear layer of torch.nn"
    assert reasons["net.up"].startswith("a ConvTranspose2d,") and "net.normed" in reasons and "net" in reasons
    assert reasons["Outer"] == FUNCTIONAL


def test_a_layer_with_hooks_is_left_alone() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    whole[0].register_forward_hook(lambda *given: None)
    compressed = Svd(energy=0.5).apply(whole)
    assert compressed.left_alone == {"0": "it has hooks, which a replacement would lose"}


def test_a_network_that_is_one_layer_is_left_alone() -> None:
    assert Svd(energy=0.5).apply(nn.Conv2d(8, 8, 3)).left_alone == {"Conv2d": "the network is this one layer"}


def test_types_frozen_weights_and_modes_are_kept() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)).to(torch.bfloat16).train()
    whole[0].weight.requires_grad_(False)
    whole[1].eval()
    smaller: Any = Svd(ranks={"0": 2, "1": 2}).apply(whole).model
    assert {weight.dtype for weight in smaller.parameters()} == {torch.bfloat16}
    assert [weight.requires_grad for weight in smaller[0].parameters()] == [False, False, True]
    assert smaller[0][0].training and not smaller[1][0].training and not smaller[1].training
    smaller(torch.zeros(1, 8, 8, 8, dtype=torch.bfloat16)).sum().backward()
    assert smaller[1][0].weight.grad is not None


def test_only_the_layers_that_may_be_touched_are() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    compressed = Svd(energy=0.5, layers=["1"]).apply(whole)
    assert [one.layer for one in compressed.layers] == ["1"] and compressed.left_alone == {"0": "it was not asked for"}
    with pytest.raises(UsageError, match="svd cannot decompose '2': there is no convolution .*; try: 0, 1"):
        Svd(energy=0.5, layers=["2"]).apply(whole)


def test_a_network_that_cannot_be_copied_is_refused_in_one_line() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 3))
    whole.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="Sequential cannot be copied: TypeError"):
        Svd(energy=0.5).apply(whole)


def test_an_example_that_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="fails on an input of 1x3x8x8"):
        Svd(energy=0.5).apply(nn.Sequential(nn.Conv2d(8, 8, 3)), (1, 3, 8, 8))


def test_a_parent_that_reads_its_layers_weight_is_refused_when_it_is_seen() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.layer.weight)

    with pytest.raises(ModelError, match="has no attribute 'weight'"):
        Svd(energy=0.3).apply(Net(), (1, 8))


def test_names_with_dots_inside_containers() -> None:
    whole = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 8)), "b": nn.ModuleList([nn.Linear(8, 8)])})
    assert [one.layer for one in Svd(ranks={"a.0": 1, "b.0": 1}).apply(whole).layers] == ["a.0", "b.0"]
