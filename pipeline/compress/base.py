"""What every compression method is and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LayerDecision:
    """What became of one layer. `relative_error` is |W - W'| / |W| in the Frobenius norm, 0 where it was left alone."""

    layer: str
    ranks: tuple[int, ...]
    params_before: int
    params_after: int
    relative_error: float


@dataclass(frozen=True)
class Compressed:
    model: nn.Module
    method: str
    settings: Mapping[str, Any]
    params_before: int
    params_after: int
    layers: tuple[LayerDecision, ...]


class Compressor(ABC):
    """A method; settings go to the constructor by keyword. `apply` is called by a stage of the pipeline or by a search."""

    name: str

    @abstractmethod
    def apply(self, model: nn.Module) -> Compressed:
        """A smaller network of the same input and output shape; `model` itself is left bit for bit as it was.

        Raises: UsageError: the settings do not fit this network.
        """
