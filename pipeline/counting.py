"""Multiply-accumulates and memory accesses of a traced network, under the convention that a paper counts by.

Papers print "MACs" or "FLOPs" of one network that differ by a few per cent: some count convolutions and linear layers
alone, some one operation for each output of a batch normalisation (SqueezeNext), some those of activations and pools
(CondenseNet). The convention says which, and what it leaves out is in `Counts.uncounted`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.fusion.ir import Graph, Node

CONVENTION = "conv+linear"
EXTRAS = ("bias", "bn", "activation", "pool")
UNITS = {"mac": 1, "flop": 2}
"""Unit -> operations of one multiply-accumulate. All else counts one an element in either."""

ACTIVATIONS = frozenset(
    {
        "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "silu", "mish", "gelu", "hardswish", "hardsigmoid",
        "hardtanh", "sigmoid", "tanh", "softplus", "clamp", "clamp_min", "clamp_max",
    }
)  # fmt: skip
_WINDOWS = frozenset({"max_pool2d", "avg_pool2d"})
_WHOLE = frozenset({"adaptive_avg_pool2d", "adaptive_max_pool2d"})


@dataclass(frozen=True)
class Layer:
    """One call of a convolution or a linear layer.

    Args:
        kind: "conv2d" or "linear".
        weight_shape: (c_out, c_in / groups, k_h, k_w), or (c_out, c_in).
        padding: (top, left, bottom, right).
        output_size: (height, width); (1, 1) for a linear layer.
        memory_access: elements of its input, its output and its weight; of its bias too where the convention has "bias". For
            a 1x1 convolution h w (c_in + c_out) + c_in c_out / groups, as ShuffleNetV2 counts (equations 1 and 2).
    """

    module: str
    kind: str
    weight_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int
    output_size: tuple[int, int]
    macs: int
    memory_access: int


@dataclass(frozen=True)
class Counts:
    """Of one inference.

    Args:
        params: of the module.
        macs: of convolutions and linear layers, and one for each operation that the convention adds; whatever the unit.
        memory_access: elements, of `layers`.
        layers: each call of a convolution or a linear layer.
        uncounted: which other ops there are, and how many times each; "bias": layers whose bias is not counted.
        operations: "conv", "linear" and what the convention adds -> operations in `unit`.
        unit: "mac", or "flop", of which a multiply-accumulate is two.
    """

    params: int
    macs: int
    memory_access: int
    layers: tuple[Layer, ...]
    uncounted: Mapping[str, int]
    operations: Mapping[str, int]
    convention: str = CONVENTION
    unit: str = "mac"

    @property
    def total(self) -> int:
        """All `operations`, in `unit`; equal to `macs` where that is "mac"."""
        return sum(self.operations.values())


def count_graph(graph: Graph, params: int, convention: str = CONVENTION, unit: str = "mac") -> Counts:
    """See `pipeline.graph.count`. Raises: UsageError: another convention or unit."""
    extras = _extras(convention)
    if unit not in UNITS:
        raise UsageError(f"counts were asked in {unit!r}", try_=" or ".join(UNITS))
    operations = dict.fromkeys(("conv", "linear", *extras), 0)
    uncounted: Counter[str] = Counter()
    layers: list[Layer] = []
    for node in graph.nodes:
        if node.macs is not None:
            layers.append(_layer(node, "bias" in extras))
            operations["conv" if node.op == "conv2d" else "linear"] += node.macs
            if node.attributes["bias"] and "bias" in extras:
                operations["bias"] += math.prod(node.output.shape)
            elif node.attributes["bias"]:
                uncounted["bias"] += 1
            continue
        kind, elements = _elementwise(node)
        if kind in extras:
            operations[kind] += elements
        else:
            uncounted[node.op] += 1
    per_mac = {kind: UNITS[unit] if kind in ("conv", "linear") else 1 for kind in operations}
    return Counts(
        params=params,
        macs=sum(operations.values()),
        memory_access=sum(layer.memory_access for layer in layers),
        layers=tuple(layers),
        uncounted=dict(uncounted),
        operations={kind: number * per_mac[kind] for kind, number in operations.items()},
        convention=convention,
        unit=unit,
    )


def memory_access(node: Node) -> int:
    """Elements that an op reads and writes, its weights among them, a convolution's or linear layer's bias not."""
    moved = sum(math.prod(value.shape) for value in (*node.inputs, *node.outputs) if not value.constant)
    return moved + node.weights - _biases(node)


def _extras(convention: str) -> tuple[str, ...]:
    words = str(convention).split("+")
    extras = words[2:]
    if words[:2] != CONVENTION.split("+") or not set(extras) <= set(EXTRAS) or len(set(extras)) < len(extras):
        raise UsageError(
            f"counts were asked with the convention {str(convention)[:100]!r}",
            try_=f"{CONVENTION}, followed by any of {', '.join(f'+{word}' for word in EXTRAS)}, each once",
        )
    return tuple(extras)


def _elementwise(node: Node) -> tuple[str, int]:
    """(what of a convention it is, its operations); "" for what is in no convention."""
    if node.op == "batch_norm":
        return "bn", math.prod(node.output.shape)
    if node.op in ACTIVATIONS:
        return "activation", math.prod(node.output.shape)
    if node.op in _WINDOWS:
        return "pool", math.prod(node.output.shape) * math.prod(node.attributes["kernel"])
    if node.op in _WHOLE or (node.op == "mean" and set(node.attributes["dims"]) == {2, 3}):
        return "pool", math.prod(node.inputs[0].shape)
    return "", 0


def _biases(node: Node) -> int:
    if node.macs is None or not node.attributes["bias"]:
        return 0
    biases: int = node.attributes["out_channels"]
    return biases


def _layer(node: Node, with_bias: bool) -> Layer:
    found, source, sink = node.attributes, node.inputs[0].shape, node.output.shape
    groups = found.get("groups", 1)
    is_conv = node.op == "conv2d"
    return Layer(
        module=node.module,
        kind=node.op,
        weight_shape=(found["out_channels"], source[1 if is_conv else -1] // groups, *found.get("kernel", ())),
        stride=found.get("stride", (1, 1)),
        padding=found.get("padding", (0, 0, 0, 0)),
        groups=groups,
        output_size=(sink[2], sink[3]) if is_conv else (1, 1),
        macs=node.macs or 0,
        memory_access=memory_access(node) + (_biases(node) if with_bias else 0),
    )
