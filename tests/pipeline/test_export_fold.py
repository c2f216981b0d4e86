"""Folding batch normalisation: the same function, and only where it is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.export.fold import fold_batch_norm, folded


def traced(module: nn.Module, shape: tuple[int, ...] = (1, 3, 6, 6)) -> Any:
    return torch.export.export(module.eval(), (torch.zeros(shape),)).module(check_guards=False)


def norms(graph_module: Any) -> int:
    return sum(node.target is torch.ops.aten.batch_norm.default for node in graph_module.graph.nodes)


def unsettled(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, affine=affine)
    for tensor in (norm.running_mean, norm.bias, norm.weight):
        if tensor is not None:
            nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 3.0)
    return norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("options", [{}, {"groups": 3}, {"padding": "same"}, {"stride": 2, "dilation": 2}])
def test_folded_graph_is_the_same_function(bias: bool, affine: bool, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias, **options), unsettled(6, affine), nn.ReLU())
    graph = fold_batch_norm(traced(module))
    x = torch.randn(1, 3, 6, 6)
    assert norms(graph) == 0
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), rtol=1e-5, atol=1e-5)


def test_output_that_others_read_too_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), unsettled(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x)
            return y + self.norm(y)

    module = Shared()
    graph = fold_batch_norm(traced(module))
    x = torch.randn(1, 3, 6, 6)
    assert norms(graph) == 1
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-6)


def test_normalisation_without_a_convolution_before_it_stays() -> None:
    assert norms(fold_batch_norm(traced(nn.Sequential(nn.ReLU(), unsettled(3))))) == 1


def test_closed_form() -> None:
    weight, bias = folded(
        torch.full((1, 1, 1, 1), 3.0), torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([5.0]),
        torch.tensor([0.5]), torch.tensor([3.75]), 0.25,
    )  # fmt: skip
    assert weight.item() == pytest.approx(3.0)  # 3 * 2 / sqrt(3.75 + 0.25)
    assert bias.item() == pytest.approx(5.5)  # (1 - 0.5) * 2 / 2 + 5
