"""The network that is compressed, with all that it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.compression.budget import parse
from pipeline.compression.request import Asked
from pipeline.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from pipeline.artifact import Network
    from pipeline.constraints import Latency
    from pipeline.datasets import Dataset


@dataclass(frozen=True)
class Subject:
    """A network of layers that can be replaced.

    Args:
        latency: None where there is no table.
        unfollowed: why its forward cannot be followed without values. Its layers can be decomposed all the same; how often
            they are called, hence MACs and milliseconds, is not known then. Empty: it can be followed.
    """

    network: Network
    module: nn.Module
    dataset: Dataset | None = None
    latency: Latency | None = None
    unfollowed: str = ""

    @property
    def example(self) -> tuple[int, ...] | None:
        """The input's shape, for what follows the forward; None where nothing can."""
        return None if self.unfollowed else self.network.input_shape


def subject_of(network: Network, dataset: Dataset | None, asked: Asked) -> Subject:
    """Raises: UsageError: there is no such table, or a budget is in what is not known of this network."""
    assert network.module is not None
    unfollowed = _unfollowed(network.module, network.input_shape)
    for budget in map(parse, asked.budgets):
        if unfollowed and budget.unit != "params":
            what = f"{budget.text} was asked for, and what {network.name} computes is not known: {unfollowed}"
            raise UsageError(what, try_="a budget in parameters, such as 50%")
    return Subject(network, network.module, dataset, _latency(asked.lut), unfollowed)


def _unfollowed(module: nn.Module, input_shape: tuple[int, ...]) -> str:
    from pipeline.fusion.tracing import trace

    try:
        trace(module, input_shape)
    except ModelError as error:
        return error.message
    return ""


def _latency(lut: str) -> Latency | None:
    if not lut:
        return None
    from latency_luts import load
    from pipeline.constraints import Latency

    return Latency(load(Path(lut)))
