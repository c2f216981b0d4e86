"""The key of one node of the graph that onnxruntime runs: from its type, its attributes and the shapes of its tensors.

In one place, because two ask: the reader of a graph that was run (`pipeline.kernels.onnx`) and the list of what would be
run (`pipeline.fusion.onnxruntime`). Both must give the same text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latency_luts.key import OpKey
from pipeline.kernels.file_op import Shape, activation, conv_macs, detail, make_key, same_padding, snake_case, text_of

CONVOLUTIONS = ("Conv", "FusedConv")
LINEAR = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_POOLS = {"MaxPool": "max_pool", "AveragePool": "avg_pool"}
_ARITHMETIC = {"Add": "add", "Sum": "add", "Mul": "mul", "Sub": "sub", "Div": "div"}
ACTIVATIONS = frozenset(
    {
        "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Gelu",
        "QuickGelu", "Softplus", "Mish", "Erf",
    }
)  # fmt: skip
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_OTHER_NAMES = {"ReorderInput": "reorder_in", "ReorderOutput": "reorder_out", "GlobalAveragePool": "global_avg_pool"}
# The parameters that follow an activation's name in a key.
_ACTIVATION_NUMBERS = {"LeakyRelu": ("alpha",), "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
_NO_LIMIT = 3.4e38


@dataclass(frozen=True)
class Operands:
    """What a node's key needs beside its type and attributes.

    Args:
        source, sink: the first input's and the first output's shape, NCHW, with the true number of channels.
        second: the second input's shape; None where it is not known or there is none.
        constants: the values of constant inputs, by their place among the inputs.
        added: whether a convolution has a further input that it adds.
    """

    source: Shape
    sink: Shape
    dtype: str
    second: Shape | None = None
    constants: Mapping[int, Sequence[float]] = field(default_factory=dict)
    added: bool = False


def conv_key(attributes: Mapping[str, Any], groups: int, operands: Operands) -> tuple[OpKey | None, int | None]:
    """Key and multiply-accumulates of a 2-d convolution; (None, None) for another rank. `kernel_shape` must be there."""
    source, sink = operands.source, operands.sink
    kernel = tuple(attributes.get("kernel_shape", ()))
    if len(kernel) != 2 or len(source) != 4:
        return None, None
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    key = make_key(
        "conv2d",
        source,
        operands.dtype,
        out_channels=sink[1],
        kernel=kernel,
        stride=stride,
        padding=padding(attributes, source, kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
        activation=fused_activation(attributes),
        fused_add=operands.added,
    )
    return key, conv_macs(sink, source[1], kernel, groups)


def linear_key(attributes: Mapping[str, Any], operands: Operands) -> tuple[OpKey | None, int]:
    """Key and multiply-accumulates of a matrix product with constant weights."""
    c_out = operands.sink[-1]
    fused = fused_activation(attributes)
    key = make_key("linear", operands.source, operands.dtype, out_channels=c_out, activation=fused)
    return key, math.prod(operands.source) * c_out


def other_key(op: str, attributes: Mapping[str, Any], operands: Operands) -> OpKey | None:
    """Of any node but a convolution and a matrix product."""
    source, sink, dtype = operands.source, operands.sink, operands.dtype
    more: dict[str, object] = {}
    if op in _POOLS and len(source) == 4:
        kernel = tuple(attributes.get("kernel_shape", ()))
        stride, dilation = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
        pads = padding(attributes, source, kernel, stride, dilation)
        # a last row of windows that reach over the edge; for an average pool also another kernel
        more["ceil"] = "1" if attributes.get("ceil_mode") else ""
        return make_key(
            _POOLS[op],
            source,
            dtype,
            kernel=kernel,
            stride=stride,
            padding=pads,
            dilation=dilation,
            detail=detail(more),
        )
    if op in ACTIVATIONS:
        return make_key("activation", source, dtype, activation=_standalone_activation(op, attributes, operands))
    if op in _ARITHMETIC:
        other = operands.second
        more["with"] = text_of(other, "x") or "scalar" if other is not None and other != source else ""
        return make_key(_ARITHMETIC[op], source, dtype, detail=detail(more))
    if op == "ReduceMean":
        axes = [int(axis) for axis in operands.constants.get(1) or attributes.get("axes", range(len(source)))]
        return make_key("mean", source, dtype, detail=detail({"axes": text_of(sorted(a % len(source) for a in axes))}))
    if op == "Transpose":
        return make_key("transpose", source, dtype, detail=detail({"perm": text_of(attributes.get("perm", ()))}))
    if op == "Concat":
        more["axis"] = attributes["axis"] % max(1, len(source))
        more["out"] = text_of(sink, "x")
        return make_key("concat", source, dtype, detail=detail(more))
    if op in ("Resize", "Upsample"):
        more = {"mode": attributes.get("mode"), "out": text_of(sink, "x")}
        return make_key("resize", source, dtype, detail=detail(more))
    if op in _RESHAPES:
        return make_key("reshape", source, dtype, detail=detail({"out": text_of(sink, "x")}))
    if op == "Pad":
        return make_key("pad", source, dtype, detail=detail({"pads": text_of(operands.constants.get(1, ()))}))
    if sink != source:
        more["out"] = text_of(sink, "x")
    more.update({name: _plain(value) for name, value in sorted(attributes.items()) if _plain(value)})
    name = _OTHER_NAMES.get(op, snake_case(op))
    if name in _OTHER_NAMES.values():
        more = {}
    return make_key(name, source, dtype, detail=detail(more))


def padding(
    attributes: Mapping[str, Any], source: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[int, ...]:
    """(top, left, bottom, right) with auto_pad made explicit."""
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = [
            same_padding(source[2 + axis], kernel[axis], stride[axis], dilation[axis], lower=auto == "SAME_LOWER")
            for axis in (0, 1)
        ]
        return sides[0][0], sides[1][0], sides[0][1], sides[1][1]
    return tuple(attributes.get("pads", (0, 0, 0, 0))) if auto != "VALID" else (0, 0, 0, 0)


def fused_activation(attributes: Mapping[str, Any]) -> str:
    """A key's word for what a convolution or a matrix product does at its end."""
    name = attributes.get("activation", "")
    if not name:
        return "none"
    numbers = attributes.get("activation_params") or [
        attributes[f"activation_{parameter}"]
        for parameter in _ACTIVATION_NUMBERS.get(name, ())
        if f"activation_{parameter}" in attributes
    ]
    return activation(name, numbers)


def _standalone_activation(op: str, attributes: Mapping[str, Any], operands: Operands) -> str:
    if op == "Clip":
        low, high = (
            operands.constants[i][0] if operands.constants.get(i) else default
            for i, default in ((1, -_NO_LIMIT), (2, _NO_LIMIT))
        )
        return activation("Clip", (low, high))
    names = _ACTIVATION_NUMBERS.get(op, ())
    return activation(op, [attributes[name] for name in names if name in attributes])


def _plain(value: object) -> str:
    """An attribute's value as text; "" for tensors, graphs and the like."""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and all(isinstance(item, int | float) for item in value):
        return text_of([f"{item:.6g}" for item in value])
    return ""
