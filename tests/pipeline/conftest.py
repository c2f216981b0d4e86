"""Networks and files that several tests share, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def digits_network() -> Any:
    """The trained digits network, as the command line resolves it."""
    from pipeline.spec import resolve

    return resolve("digits_cnn")


@pytest.fixture(scope="session")
def digits_files(digits_network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """format -> Exported, of the digits network."""
    from pipeline.export import EXPORTERS

    folder = tmp_path_factory.mktemp("digits")
    return {name: exporter().export(digits_network, folder) for name, exporter in EXPORTERS.items()}


@pytest.fixture(scope="session")
def small_network() -> Callable[..., Any]:
    """seed -> a Network of a few odd layers: channels that fill no block, groups, a shortcut, several activations."""
    import torch
    from torch import nn

    from pipeline.artifact import Network

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 20, 3, 2, 1, bias=False)
            self.norm = nn.BatchNorm2d(20)
            self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20)
            self.point = nn.Conv2d(20, 37, 1)
            self.mix = nn.Conv2d(37, 37, 3, padding="same")
            self.grouped = nn.Conv2d(20, 40, 3, padding=1, groups=4)
            self.linear = nn.Linear(77, 5)

        def forward(self, x: torch.Tensor) -> Any:
            x = torch.relu(self.norm(self.stem(x)))
            y = self.point(nn.functional.max_pool2d(nn.functional.hardswish(self.depthwise(x)), 3, 2, 1))
            y = torch.relu(self.mix(y) + y)
            z = nn.functional.avg_pool2d(torch.sigmoid(self.grouped(x)), 2)
            pooled = nn.functional.adaptive_avg_pool2d(torch.cat([y, z], 1), 1)
            return torch.softmax(self.linear(pooled.flatten(1)), 1)

    def make(seed: int = 0, name: str = "small") -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = Small().eval()
            module.norm.running_mean.normal_()
            module.norm.running_var.uniform_(0.5, 2.0)
        return Network(name, "python", (1, 3, 16, 16), module=module)

    return make


@pytest.fixture(scope="session")
def small_files(small_network: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """format -> Exported, of the small network with seed 0."""
    from pipeline.export import EXPORTERS

    folder = tmp_path_factory.mktemp("small")
    return {name: exporter().export(small_network(0), folder) for name, exporter in EXPORTERS.items()}


@pytest.fixture(scope="session")
def few() -> Callable[[Any, int], Any]:
    """(dataset, count) -> the same with its first training images alone."""
    import dataclasses

    return lambda dataset, count: dataclasses.replace(
        dataset, train_x=dataset.train_x[:count], train_y=dataset.train_y[:count]
    )
