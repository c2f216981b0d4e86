"""What every compression method is and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class LayerDecision:
    """What became of one layer that was replaced.

    Args:
        relative_error: |W - W'| / |W| in the Frobenius norm.
        k: groups that the input channels of a channel group were split into.
        macs_before, macs_after: multiply-accumulates of all its calls; None where no example was given.
    """

    layer: str
    ranks: tuple[int, ...]
    params_before: int
    params_after: int
    relative_error: float
    k: int = 1
    macs_before: int | None = None
    macs_after: int | None = None


@dataclass(frozen=True)
class Compressed:
    """A network after a method.

    Args:
        macs_before, macs_after: as `pipeline.graph.count` counts; None where no example was given.
        left_alone: layer with weights that stayed as it was -> why.
    """

    model: nn.Module
    method: str
    settings: Mapping[str, Any]
    params_before: int
    params_after: int
    layers: tuple[LayerDecision, ...]
    macs_before: int | None = None
    macs_after: int | None = None
    left_alone: Mapping[str, str] = field(default_factory=dict)


class Compressor(ABC):
    """A method; settings go to the constructor by keyword. `apply` is called by a stage of the pipeline or by a search."""

    name: str

    @abstractmethod
    def apply(self, model: nn.Module, example: Tensor | Sequence[int] | None = None, data: Any = None) -> Compressed:
        """A smaller network of the same input and output shape; `model` itself is left bit for bit as it was.

        Args:
            example: a tensor of the input's shape, or the shape; without it nothing is said, or asked, in MACs.
            data: for the methods that look at activations; those that look at weights alone do not read it.

        Raises:
            UsageError: the settings do not fit this network.
            ModelError: the network fails on the example, or cannot be copied.
        """
