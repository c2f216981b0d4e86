"""Multiply-accumulates by closed forms, and against what the zoo publishes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.graph import count_macs
from pipeline.models import MODELS, build


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
