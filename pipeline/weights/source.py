"""What one public implementation calls the layers of one of our networks, and what differs beside the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Pairs = Iterator[tuple[str, str]]
"""Our layer, their layer; a layer's tensors (weight, bias, running_mean, ...) have the same names in both."""


def nothing(module: Any) -> None:
    pass


def no_note(module: Any) -> str:
    return ""


def the_same(module: Any) -> tuple[str, str] | None:
    return None


@dataclass(frozen=True)
class Source:
    """One map. The callables take the network's module.

    Args:
        name: whose names these are.
        layers: pairs for all layers that have tensors; the classifier is the last.
        adapt: called before anything is filled: settings of theirs that ours must have to compute the same.
        finish: called after it: what can only be done to filled weights, such as another order of channels.
        note: one sentence on what stays different, or what the file cannot tell; "" where it is the same function.
        unlike: why this network is not theirs although names and shapes are, and what to try; None where it is.
    """

    name: str
    layers: Callable[[Any], Pairs]
    adapt: Callable[[Any], None] = nothing
    finish: Callable[[Any], None] = nothing
    note: Callable[[Any], str] = no_note
    unlike: Callable[[Any], tuple[str, str] | None] = the_same


def conv_bn(ours: str, conv: str, norm: str) -> Pairs:
    """Our convolution with its normalisation, a Sequential of two."""
    yield f"{ours}.0", conv
    yield f"{ours}.1", norm


def own(module: Any) -> Pairs:
    """The names that `module.state_dict()` has itself."""
    layers = dict.fromkeys(key.rpartition(".")[0] for key in module.state_dict())
    return ((layer, layer) for layer in layers)


def set_eps(value: float) -> Callable[[Any], None]:
    """An `adapt` for implementations whose batch normalisation has another epsilon than ours."""

    def adapt(module: Any) -> None:
        from torch import nn

        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = value

    return adapt
