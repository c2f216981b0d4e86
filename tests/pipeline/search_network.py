"""The network that rank searches are tried on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

SHAPE = (1, 3, 8, 8)


class Small(nn.Module):
    """Two dense convolutions, a depthwise one, a 1x1 one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 24, 3, 2, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.point = nn.Conv2d(24, 24, 1)
        self.linear = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.linear(self.point(self.depthwise(x)).mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()
