"""Multiply-accumulates by closed forms, and against what the zoo publishes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.counting import EXTRAS
from pipeline.errors import ModelError, UsageError
from pipeline.graph import count, count_macs
from pipeline.models import MODELS, build
from pipeline.models.blocks import conv_bn

ALL = "conv+linear+bias+bn+activation+pool"
BN_OUTPUTS = {
    "mobilenet_v1": 5_042_688, "mobilenet_v2": 6_678_112, "mobilenet_v3_large": 4_399_808, "mobilenet_v3_small": 1_412_768,
    "mnasnet_a1": 6_221_824, "mnasnet_b1": 5_456_640, "shufflenet_v1_g1": 1_912_176, "shufflenet_v1_g3": 2_998_800,
    "shufflenet_v1_g8": 4_628_736, "shufflenet_v2": 1_950_200, "squeezenet_1_0": 0,
}  # fmt: skip
"""Counted once with the authors' own networks."""


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 3), (1, 3, 10, 12), 8 * 8 * 10 * 3 * 9),
        (nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), bias=False), (1, 4, 8, 8), 6 * 4 * 4 * 4 * 15),
        (nn.Conv2d(8, 8, 3, groups=8, padding=1), (1, 8, 5, 5), 8 * 25 * 9),
        (nn.Conv2d(8, 12, 1, groups=4), (1, 8, 5, 5), 12 * 25 * 2),
        (nn.Conv2d(2, 2, 3, dilation=2), (1, 2, 7, 7), 2 * 9 * 2 * 9),
        (nn.Conv2d(2, 2, 1), (3, 2, 4, 4), 3 * 2 * 16 * 2),
        (nn.Linear(7, 5), (1, 7), 35),
        (nn.Linear(7, 5), (1, 4, 7), 4 * 35),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), (1, 3, 4, 4), 0),
    ],
)
def test_closed_forms(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert count_macs(layer.eval(), shape) == expected


def test_a_layer_that_is_called_twice_counts_twice() -> None:
    layer = nn.Conv2d(3, 3, 1)
    assert count_macs(nn.Sequential(layer, nn.ReLU(), layer), (1, 3, 2, 2)) == 2 * 36


@pytest.mark.parametrize("name", ["digits_cnn", "mobilenet_v2", "resnet20"])
def test_a_network_of_the_zoo_has_its_published_macs(name: str) -> None:
    spec = MODELS[name]
    assert count_macs(build(name).eval(), spec.input_shape) == spec.macs


def test_counting_leaves_no_hooks_also_where_the_network_refuses_the_shape() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(4, 4))
    with pytest.raises(RuntimeError):
        count_macs(network, (1, 3, 2, 2))
    assert all(not layer._forward_hooks for layer in network)
    network(torch.zeros(1, 3, 4, 4))


class Sample(nn.Module):
    """One of each that a convention can name, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.plain = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, bias=False)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        x = F.hardswish(self.norm(self.conv(x)))
        x = F.max_pool2d(self.plain(x), 3, 2, 1) * 2
        return self.linear(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("convention", "operations"),
    [
        ("conv+linear", {}),
        ("conv+linear+bias", {"bias": 8 * 64 + 5}),
        ("conv+linear+bn", {"bn": 8 * 64}),
        ("conv+linear+pool+activation", {"activation": 8 * 64, "pool": 8 * 16 * 9 + 8 * 16}),
        (ALL, {"bias": 8 * 64 + 5, "bn": 8 * 64, "activation": 8 * 64, "pool": 8 * 16 * 9 + 8 * 16}),
    ],
)
def test_a_convention_adds_one_operation_an_element(convention: str, operations: dict[str, int]) -> None:
    counts = count(Sample(), (1, 3, 8, 8), convention)
    layers = {"conv": 8 * 64 * 3 * 9 + 8 * 64 * 8, "linear": 8 * 5}
    assert counts.operations == {**layers, **operations}
    assert counts.macs == counts.total == sum(layers.values()) + sum(operations.values())
    flops = count(Sample(), (1, 3, 8, 8), convention, unit="flop")
    assert flops.operations == {**{kind: 2 * macs for kind, macs in layers.items()}, **operations}
    assert flops.macs == counts.macs


def test_what_a_convention_leaves_out_is_listed() -> None:
    everything = {"bias": 2, "batch_norm": 1, "hardswish": 1, "max_pool2d": 1, "mean": 1, "mul": 1}
    assert count(Sample(), (1, 3, 8, 8)).uncounted == everything
    assert count(Sample(), (1, 3, 8, 8), ALL).uncounted == {"mul": 1}


@pytest.mark.parametrize("name", BN_OUTPUTS)
def test_normalisations_of_the_zoo(name: str) -> None:
    counts = count(build(name), MODELS[name].input_shape, "conv+linear+bn")
    assert counts.operations["bn"] == BN_OUTPUTS[name]
    assert counts.macs == MODELS[name].macs + BN_OUTPUTS[name]


class SqueezeNextUnit(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        divisor = 1 if stride == 2 else 4 if c_in > c_out else 2
        wide, thin = c_in // divisor, c_in // (2 * divisor)

        def separable(kernel: tuple[int, int], c_before: int) -> nn.Module:
            padding = (kernel[0] // 2, kernel[1] // 2)
            return nn.Sequential(nn.Conv2d(c_before, wide, kernel, 1, padding, bias=False), nn.BatchNorm2d(wide))

        self.main = nn.Sequential(
            conv_bn(c_in, wide, 1, stride), conv_bn(wide, thin), separable((1, 3), thin), separable((3, 1), wide),
            conv_bn(wide, c_out),
        )  # fmt: skip
        self.projection = conv_bn(c_in, c_out, 1, stride) if stride == 2 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return F.relu(self.main(x) + self.projection(x))


def test_squeezenext_prints_what_its_normalisations_add() -> None:
    """Gholami et al. 2018, Table 3: 1.0-SqNxt-23 has 282M, which are its multiply-accumulates and its normalisations."""
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, bias=False), nn.BatchNorm2d(64), nn.ReLU())
    layers: list[nn.Module] = [stem, nn.MaxPool2d(3, 2, ceil_mode=True)]
    c_in = 64
    for c_out, repeats, stride in ((32, 6, 1), (64, 6, 2), (128, 8, 2), (256, 1, 2)):
        for index in range(repeats):
            layers.append(SqueezeNextUnit(c_in, c_out, 1 if index else stride))
            c_in = c_out
    tail = [conv_bn(256, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1000, bias=False)]
    network = nn.Sequential(*layers, *tail)
    assert (count(network, (1, 3, 227, 227)).params, count(network, (1, 3, 227, 227)).macs) == (717_280, 277_999_808)
    assert count(network, (1, 3, 227, 227), "conv+linear+bn").macs == 281_990_768


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 12, 1), 36 * 20 + 96),
        (nn.Conv2d(8, 12, 1, groups=4, bias=False), 36 * 20 + 24),
        (nn.Conv2d(8, 12, 3, 2, 1), 8 * 36 + 12 * 9 + 8 * 12 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 2 * 8 * 36 + 72),
    ],
)
def test_memory_access_of_a_layer(layer: nn.Conv2d, expected: int) -> None:
    """ShuffleNetV2, equations 1 and 2; a bias is accessed where the convention counts it."""
    assert count(layer, (1, 8, 6, 6)).memory_access == expected
    bias = 0 if layer.bias is None else layer.out_channels
    assert count(layer, (1, 8, 6, 6), "conv+linear+bias").memory_access == expected + bias


@pytest.mark.parametrize(
    "convention", ["", "conv", "linear+conv", "conv+linear+", "conv+linear+bn+bn", "conv+linear+add", "CONV+LINEAR"]
)
def test_another_convention_is_refused(convention: str) -> None:
    with pytest.raises(UsageError, match="were asked with the convention") as caught:
        count(nn.Conv2d(3, 3, 1), (1, 3, 2, 2), convention)
    assert all(word in str(caught.value) for word in EXTRAS)


def test_another_unit_is_refused() -> None:
    with pytest.raises(UsageError, match="counts were asked in 'gops'"):
        count(nn.Conv2d(3, 3, 1), (1, 3, 2, 2), unit="gops")


def test_an_input_that_does_not_fit_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="fails on an input of 1x4x2x2"):
        count(nn.Conv2d(3, 3, 1), (1, 4, 2, 2))
