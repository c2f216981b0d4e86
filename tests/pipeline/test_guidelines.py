"""ShuffleNetV2's G1 to G4: the closed forms, and what they find in networks that the paper speaks of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.errors import ModelError, UsageError
from pipeline.graph import count
from pipeline.guidelines import Finding, check, memory_access_bound, pointwise_memory_access
from pipeline.guidelines.bounds import balanced_memory_access, ungrouped_memory_access
from pipeline.guidelines.pointwise import RATIO
from pipeline.guidelines.pricing import balanced, rounded_up
from pipeline.models import MODELS, build
from pipeline.models.blocks import conv_bn
from pipeline.models.mnasnet import MBConv
from pipeline.models.mobilenet_v2 import InvertedResidual
from pipeline.models.shufflenet_v2 import DownUnit, Unit

sizes, channels, groups = st.integers(1, 600), st.integers(1, 4096), st.integers(1, 16)


class Branches(nn.Module):
    """Branches on one input, and how they meet."""

    def __init__(self, meet: Callable[[list[Tensor]], Tensor], *branches: nn.Module) -> None:
        super().__init__()
        self.meet, self.branches = meet, nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return self.meet([branch(x) for branch in self.branches])


class NasnetCell(nn.Module):
    """As NASNet-A's normal cell is wired: two inputs, five sums of two operators, one concatenation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.operators = nn.ModuleList([conv_bn(c, c, kernel) for kernel in (3, 5, 5, 3, 3)])
        self.pools = nn.ModuleList([nn.AvgPool2d(3, 1, 1) for _ in range(3)])
        self.fit = conv_bn(5 * c, c)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        a, b, c, d, e = self.operators
        p, q, r = self.pools
        sums = [a(x) + x, b(before) + c(x), p(x) + before, q(before) + r(before), d(before) + e(before)]
        fitted: Tensor = self.fit(torch.cat(sums, 1))
        return fitted


class Nasnet(nn.Module):
    def __init__(self, cells: int = 3) -> None:
        super().__init__()
        self.stem, self.cells = conv_bn(3, 16, 3), nn.ModuleList([NasnetCell(16) for _ in range(cells)])

    def forward(self, x: Tensor) -> Tensor:
        before = after = self.stem(x)
        for cell in self.cells:
            before, after = after, cell(after, before)
        return after


def concatenated(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors, 1)


def summed(tensors: list[Tensor]) -> Any:
    return sum(tensors[1:], tensors[0])


def rules(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


@given(h=sizes, w=sizes, c_in=channels, c_out=channels)
def test_no_1x1_convolution_stays_below_the_bound(h: int, w: int, c_in: int, c_out: int) -> None:
    assert pointwise_memory_access(h, w, c_in, c_out) >= memory_access_bound(h, w, h * w * c_in * c_out)


@given(h=sizes, w=sizes, c=channels)
def test_equal_channels_reach_the_bound(h: int, w: int, c: int) -> None:
    assert pointwise_memory_access(h, w, c, c) == memory_access_bound(h, w, h * w * c * c) == 2 * h * w * c + c * c


@given(h=sizes, w=sizes, a=channels, b=channels, g=groups)
def test_groups_move_more_and_have_their_own_bound(h: int, w: int, a: int, b: int, g: int) -> None:
    c_in, c_out = a * g, b * g
    moved, macs = pointwise_memory_access(h, w, c_in, c_out, g), h * w * c_in * c_out // g
    assert moved >= balanced_memory_access(h, w, macs, g) >= memory_access_bound(h, w, macs)
    without = ungrouped_memory_access(h * w * (c_in + c_out), c_in * c_out // g, g)
    assert moved >= without >= memory_access_bound(h, w, macs) * (1 - 1e-12)


@given(c_in=channels, c_out=channels, g=groups)
def test_a_balanced_rewrite_has_no_fewer_operations(c_in: int, c_out: int, g: int) -> None:
    a, b = balanced(c_in * g, c_out * g, g)
    assert a % g == b % g == 0 and a * b >= c_in * c_out * g * g
    assert a <= 1.25 * math.sqrt(c_in * c_out) * g + g, "nor many more"


def test_rewrites_fill_the_lanes_where_there_are_enough() -> None:
    assert [rounded_up(c) for c in (3.2, 31.5, 33, 64, 65)] == [4, 32, 40, 64, 72]
    assert [rounded_up(c, 3) for c in (10, 90, 97)] == [12, 90, 120]


@pytest.mark.parametrize(
    ("moved", "expected"), [((56, 56, 128, 128, 1), 819_200), ((56, 56, 90, 180, 1), 862_920), ((1, 1, 6, 4, 2), 22)]
)
def test_memory_access_by_hand(moved: tuple[int, ...], expected: int) -> None:
    assert pointwise_memory_access(*moved) == expected


def test_the_count_of_a_layer_is_the_closed_form() -> None:
    for c_in, c_out, g in ((24, 144, 1), (240, 60, 3)):
        counts = count(nn.Conv2d(c_in, c_out, 1, groups=g), (1, c_in, 28, 20))
        assert counts.memory_access == pointwise_memory_access(28, 20, c_in, c_out, g)


def test_the_limit_lies_between_lines_of_table_1_and_below_those_of_table_2() -> None:
    def ratio(c_in: int, c_out: int) -> float:
        return pointwise_memory_access(56, 56, c_in, c_out) / memory_access_bound(56, 56, 56 * 56 * c_in * c_out)

    for scale in (1, 2, 4):
        assert ratio(22 * scale, 44 * scale) < RATIO < ratio(13 * scale, 78 * scale)
    for c, g in ((90, 2), (128, 4), (180 - 180 % 8, 8)):
        assert pointwise_memory_access(56, 56, c, c, g) > RATIO * ungrouped_memory_access(56 * 56 * 2 * c, c * c // g, g)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 1, 1, 1), "h=0"), ((1, -2, 1, 1), "w=-2"), ((1, 1, 1.5, 1), "c_in=1.5"), ((1, 1, 1, True), "c_out=True"),
        ((1, 1, 4, 6, 0), "groups=0"), ((1, 1, 4, 6, 4), "groups=4, which does not divide 4 channels in and 6 out"),
    ],
)  # fmt: skip
def test_sizes_out_of_range_are_named(arguments: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        pointwise_memory_access(*arguments)


def test_a_bound_of_no_operations_is_refused() -> None:
    with pytest.raises(UsageError, match="macs=0"):
        memory_access_bound(7, 7, 0)


def test_a_network_that_fails_on_its_input_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="fails on an input"):
        check(nn.Conv2d(3, 3, 1), (1, 4, 2, 2))


# Section 2.2 of the paper, on what the guidelines say of the networks of its time; SqueezeNet's squeezes are bottlenecks.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shufflenet_v2", set()),
        ("shufflenet_v1_g1", {"g1", "g4"}),
        ("shufflenet_v1_g3", {"g1", "g2", "g4"}),
        ("shufflenet_v1_g8", {"g1", "g2", "g4"}),
        ("mobilenet_v1", set()),
        ("mobilenet_v2", {"g1", "g4"}),
        ("mnasnet_b1", {"g1", "g4"}),
        ("mobilenet_v3_large", {"g1", "g4"}),
        ("squeezenet_1_1", {"g1"}),
        ("resnet20", {"g4"}),
    ],
)
def test_the_zoo(name: str, expected: set[str]) -> None:
    assert rules(check(build(name), MODELS[name].input_shape)) == expected


@pytest.mark.parametrize(("width", "first"), [(0.5, 0), (1.5, 1), (2.0, 1)])
def test_shufflenet_v2_is_quiet_but_where_24_channels_become_many(width: float, first: int) -> None:
    found = check(build("shufflenet_v2", width_mult=width), (1, 3, 224, 224))
    assert [(each.rule, each.where) for each in found] == [("g1", "units.0.main.0.0")] * first


def test_equal_channels_in_an_expansion() -> None:
    expand = nn.Sequential(conv_bn(24, 144), conv_bn(144, 144))
    (found,) = check(expand, (1, 24, 56, 56))
    assert (found.rule, found.where) == ("g1", "0.0")
    assert found.measured == pointwise_memory_access(56, 56, 24, 144)
    assert found.bound == memory_access_bound(56, 56, 56 * 56 * 24 * 144)
    assert found.excess == found.measured / found.bound > RATIO
    assert found.suggestion == "64 -> 56 channels instead of 24 -> 144"
    assert rules(check(expand, (1, 24, 2, 2))) == set(), "few pixels: it is the weights that are moved"


def test_groups_of_a_convolution() -> None:
    (found,) = check(nn.Conv2d(180, 180, 1, groups=4), (1, 180, 56, 56))
    assert (found.rule, found.where) == ("g2", "the network")
    assert found.measured == pointwise_memory_access(56, 56, 180, 180, 4)
    assert found.bound == pointwise_memory_access(56, 56, 90, 90)
    assert found.suggestion == "96 -> 88 channels without groups instead of 180 -> 180 in 4 groups"
    assert rules(check(nn.Conv2d(64, 64, 3, groups=8), (1, 64, 30, 30))) == {"g2"}, "of any kernel size"
    assert check(nn.Conv2d(64, 64, 3, groups=64), (1, 64, 30, 30)) == [], "a depthwise one is G4's"


def test_four_branches_are_fragments_and_two_are_not() -> None:
    shape = (1, 64, 28, 28)
    (found,) = check(Branches(concatenated, *[conv_bn(64, 16, k) for k in (3, 3, 3, 3)]), shape)
    assert (found.rule, found.where, found.measured, found.bound) == ("g3", "branches", 4, 2)
    assert found.quantity == "branches between merges"
    assert check(Branches(concatenated, conv_bn(64, 32, 3), conv_bn(64, 32, 3)), shape) == []


def test_fragments_of_table_3() -> None:
    """Sums of sums are one merge, and the rewrite has the operations of all fragments."""
    fragments = Branches(summed, *[nn.Conv2d(64, 64, 1) for _ in range(4)])
    found = next(each for each in check(fragments, (1, 64, 56, 56)) if each.rule == "g3")
    assert found.measured == 4
    assert found.suggestion == "one 1x1 convolution of 128 -> 128 channels instead of 4 operators in 4 branches"


def test_many_operators_in_few_branches() -> None:
    branches = [nn.Sequential(*[conv_bn(64, 64, 3) for _ in range(4)]) for _ in range(2)]
    (found,) = check(Branches(concatenated, *branches), (1, 64, 28, 28))
    assert (found.rule, found.measured, found.bound, found.quantity) == ("g3", 8, 6, "operators between merges")


def test_each_cell_of_a_nasnet_is_fragmented() -> None:
    found = [each for each in check(Nasnet(), (1, 3, 32, 32)) if each.rule == "g3"]
    assert sorted(each.where for each in found) == ["cells.0", "cells.1", "cells.2"]
    told = [int(each.suggestion.split(" instead of ")[1].split()[0]) for each in found]
    assert set(told) <= {8, 9, 10}, "its own and what fits its inputs, but not another cell's"


def test_a_shortcut_over_a_plain_network_is_no_fragment() -> None:
    chain = nn.Sequential(*[conv_bn(16, 16, 3) for _ in range(5)])
    assert "g3" not in rules(check(nn.Sequential(*[conv_bn(16, 16, 3) for _ in range(30)]), (1, 16, 8, 8)))
    assert "g3" not in rules(check(Branches(summed, nn.Identity(), chain), (1, 16, 8, 8)))


def test_share_of_element_wise_memory_access() -> None:
    hw, t, c = 56 * 56, 6, 24
    (found,) = (each for each in check(InvertedResidual(c, c, 1, t), (1, c, 56, 56)) if each.rule == "g4")
    light = 2 * hw * t * c + 9 * t * c + 3 * hw * c
    assert found.where == "conv", "the network is the unit, and has no name"
    assert found.measured == pytest.approx(light / (light + 2 * (hw * (c + t * c) + t * c * c)))
    assert found.bound == pytest.approx(1 / 3)
    assert found.suggestion.startswith("64 channels in the depthwise convolution instead of 144")
    assert "no sum" in found.suggestion


@pytest.mark.parametrize("size", [7, 14, 56, 112])
@pytest.mark.parametrize("c", [24, 116, 488])
def test_the_units_of_shufflenet_v2_are_quiet(c: int, size: int) -> None:
    size *= 2
    assert check(Unit(c, c // 2), (1, c, size, size)) == []
    assert "g4" not in rules(check(DownUnit(c, c, 2 * c), (1, c, size, size)))


def test_a_depthwise_convolution_on_a_path_of_its_own() -> None:
    network = nn.Sequential(conv_bn(24, 144), conv_bn(144, 144, 3, 1, 144), conv_bn(144, 24, activation=None))
    (found,) = (each for each in check(network, (1, 24, 56, 56)) if each.rule == "g4")
    assert found.where == "1.0"
    assert "no sum" not in found.suggestion
    mild = nn.Sequential(conv_bn(24, 36), conv_bn(36, 36, 3, 1, 36), conv_bn(36, 24, activation=None))
    assert check(mild, (1, 24, 56, 56)) == []


def test_a_gate_is_part_of_the_unit_that_it_is_in() -> None:
    network = MBConv(24, 144, 40, 3, 1, 0.25)
    (found,) = (each for each in check(network, (1, 24, 56, 56)) if each.rule == "g4")
    assert found.where == "conv.1.0" and "no gate" in found.suggestion


def test_activations_that_nothing_takes_in_are_element_wise() -> None:
    def units(activation: type[nn.Module]) -> nn.Module:
        return nn.Sequential(*[conv_bn(24, 24, 1, 1, g, activation=activation) for g in (1, 24, 1)])

    assert rules(check(units(nn.ReLU), (1, 24, 56, 56))) == set()
    (found,) = check(units(nn.Hardswish), (1, 24, 56, 56))
    assert found.rule == "g4" and "nothing element-wise" in found.suggestion
    assert "depthwise" not in found.suggestion, "that one has no more channels than its neighbours"


def test_an_activation_before_a_depthwise_convolution_hides_nothing() -> None:
    settings = ((24, 144, 1), (144, 144, 144), (144, 24, 1))
    layers = [conv_bn(a, b, 1 if g == 1 else 3, 1, g, activation=nn.Hardswish) for a, b, g in settings]
    found = next(each for each in check(nn.Sequential(*layers), (1, 24, 56, 56)) if each.rule == "g4")
    assert found.suggestion.startswith("64 channels in the depthwise convolution instead of 144")


def test_an_activation_behind_a_sum_belongs_to_the_unit() -> None:
    residual = Branches(summed, nn.Identity(), nn.Sequential(conv_bn(64, 64, 3), conv_bn(64, 64, 3, activation=None)))
    hw, weights = 56 * 56, 2 * 64 * 64 * 9
    for tail, light in ((nn.Identity(), 3), (nn.ReLU(), 5)):
        (found,) = check(nn.Sequential(residual, tail), (1, 64, 56, 56))
        assert found.measured == pytest.approx(light * hw * 64 / ((light + 4) * hw * 64 + weights))
        assert (found.rule, found.where) == ("g4", "0")


def test_what_exceeds_most_comes_first() -> None:
    excess = [each.excess for each in check(build("shufflenet_v1_g3"), (1, 3, 224, 224))]
    assert excess == sorted(excess, reverse=True) and min(excess) > 1
