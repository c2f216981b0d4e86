"""What makes each classic family itself: which layers it has where, and what connects them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.graph import count
from pipeline.models import MODELS, build

MADE = runpy.run_path(str(Path(__file__).with_name("test_models_classic.py")))
on_paper, forward, normalised = MADE["on_paper"], MADE["forward"], MADE["normalised"]


@pytest.mark.parametrize(
    ("name", "op", "times"),
    [
        ("resnet18", "add", 8),
        ("resnet50", "add", 16),
        ("squeezenext_23", "add", 21),
        ("squeezenext_23v5", "add", 21),
        ("densenet40", "cat", 36),
        ("densenet121", "cat", 58),
        ("densenet121", "avg_pool2d", 3),
        ("vgg16", "max_pool2d", 5),
        ("vgg19_cifar", "max_pool2d", 4),
        ("condensenet74_c4_g4", "index_select", 37),
        ("condensenet74_c4_g4", "channel_shuffle", 36),
    ],
)
def test_what_connects_the_layers(name: str, op: str, times: int) -> None:
    assert count(on_paper(name), MODELS[name].input_shape).uncounted.get(op, 0) == times


def test_where_the_stride_of_a_bottleneck_is() -> None:
    def strides(name: str) -> list[tuple[int, ...]]:
        body = on_paper(name).get_submodule("blocks.3.body")
        return [layer.stride for layer in body.modules() if isinstance(layer, nn.Conv2d)]

    assert strides("resnet50") == [(2, 2), (1, 1), (1, 1)]
    assert strides("resnet50_v1_5") == [(1, 1), (2, 2), (1, 1)]


def test_a_resnet_projects_where_the_shape_changes_alone() -> None:
    def projected(name: str) -> list[int]:
        blocks = on_paper(name).blocks
        return [i for i, block in enumerate(blocks) if not isinstance(block.shortcut, nn.Identity)]

    assert projected("resnet18") == [2, 4, 6]
    assert projected("resnet50") == [0, 3, 7, 13]


def test_a_dense_layer_puts_what_it_makes_behind_what_it_reads() -> None:
    layer = normalised(build("densenet40")).get_submodule("features.0").eval()
    x = torch.rand(1, 16, 4, 4)
    y = forward(layer, x)
    made = layer.get_submodule("convolutions.0")
    expected = made.conv(F.relu(made.norm(x)))  # type: ignore[operator]
    assert torch.equal(y, torch.cat([x, expected], 1))


def test_a_squeezenext_alternates_its_separable_pair_in_each_stage() -> None:
    for name in ("squeezenext_23", "squeezenext_23v5", "squeezenext_g23"):
        pairs = [(unit.main[2][0].kernel_size, unit.main[3][0].kernel_size) for unit in on_paper(name).units]
        assert pairs == [((3, 1), (1, 3)), ((1, 3), (3, 1))] * 10 + [((3, 1), (1, 3))]


def test_a_squeezenext_has_two_groups_in_the_first_1x1_and_the_pair() -> None:
    unit = on_paper("squeezenext_g23").units[6]
    assert [layer[0].groups for layer in unit.main] == [2, 1, 2, 2, 1]
    assert unit.shortcut[0].groups == 1


def test_a_squeezenext_projects_the_first_unit_of_a_stage_also_between_equal_widths() -> None:
    units = on_paper("squeezenext_23", width_mult=2.0).units  # 64 channels before the first unit and after it
    assert [i for i, unit in enumerate(units) if not isinstance(unit.shortcut, nn.Identity)] == [0, 6, 12, 20]


def test_the_main_branch_of_v5_reads_the_projection() -> None:
    plain, chained = on_paper("squeezenext_23").units[6], on_paper("squeezenext_23v5").units[2]
    assert (plain.main[0][0].in_channels, plain.main[0][0].stride) == (32, (2, 2))
    assert (chained.main[0][0].in_channels, chained.main[0][0].stride) == (64, (1, 1))
    unit = normalised(build("squeezenext_23v5")).get_submodule("units.2").eval()
    x = torch.rand(1, 32, 8, 8)
    with torch.no_grad():
        short = unit.get_submodule("shortcut")(x)
        assert torch.equal(unit(x), F.relu(short + unit.get_submodule("main")(short)))
