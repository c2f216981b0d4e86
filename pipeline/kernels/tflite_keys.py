"""The key of one op of a .tflite graph: from its name, its attributes and the shapes of its tensors. Shapes become NCHW.

In one place, because two ask: the reader of a file (`pipeline.kernels.tflite`) and the list of what would be run
(`pipeline.fusion.xnnpack`). Both must give the same text.

Tensors of rank 4 are taken for NHWC, which TFLite's image ops require. Behind a TRANSPOSE to another layout that is a
name only: a key still stands for the same work on the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latency_luts.key import OpKey
from pipeline.kernels.file_op import Shape, conv_macs, detail, make_key, same_padding, snake_case, text_of
from pipeline.kernels.file_op import activation as activation_word

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
POOLS = {"AVERAGE_POOL_2D": "avg_pool", "MAX_POOL_2D": "max_pool", "L2_POOL_2D": "l2_pool"}
ARITHMETIC = {"ADD": "add", "MUL": "mul", "SUB": "sub", "DIV": "div"}
ACTIVATIONS = frozenset(
    {
        "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "HARD_SWISH", "TANH", "LEAKY_RELU", "PRELU", "ELU",
        "GELU",
    }
)  # fmt: skip
PADS = ("PAD", "PADV2", "MIRROR_PAD")
RESHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_RESIZES = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}
_TO_NCHW = (0, 2, 3, 1)  # the NCHW place of each NHWC axis


@dataclass(frozen=True)
class Operands:
    """What an op's key needs beside its name.

    Args:
        source, sink: the first input's and the first output's shape, as stored (images: NHWC).
        others: the shapes of the further inputs, as stored.
        attributes: `kernel`, `stride`, `dilation`: (height, width); `padding`: (top, left, bottom, right); `groups`;
            `activation`: what is fused, a key's word; `alpha`; `axes`, `axis`: as stored; `perm`; `pads`: (before,
            after) of each axis as stored; `begin`, `end`, `strides` of a strided slice.
    """

    source: Shape
    sink: Shape
    dtype: str
    others: Sequence[Shape] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def key_of(op: str, operands: Operands) -> tuple[OpKey | None, int | None]:
    """Key and multiply-accumulates; the latter None for all but convolutions and linear layers with constant weights."""
    source, sink = nchw(operands.source), nchw(operands.sink)
    attributes = operands.attributes
    fused = attributes.get("activation", "none")
    if op in CONVOLUTIONS and len(source) == 4:
        groups, kernel = attributes["groups"], attributes["kernel"]
        key = _windowed("conv2d", source, operands, out_channels=sink[1], groups=groups)
        return key, conv_macs(sink, source[1], kernel, groups)
    if op == "FULLY_CONNECTED" and "out_channels" in attributes:
        c_in, c_out = attributes["in_channels"], attributes["out_channels"]
        key = make_key("linear", source, operands.dtype, out_channels=c_out, activation=fused)
        return key, math.prod(source) // c_in * c_in * c_out
    return _other(op, operands, source, sink), None


def nchw(shape: Shape) -> Shape:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def window_padding(
    same: bool, height_width: tuple[int, int], kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a file's SAME or VALID."""
    if not same:
        return 0, 0, 0, 0
    top, bottom = same_padding(height_width[0], kernel[0], stride[0], dilation[0])
    left, right = same_padding(height_width[1], kernel[1], stride[1], dilation[1])
    return top, left, bottom, right


def _windowed(name: str, source: Shape, operands: Operands, **more: Any) -> OpKey | None:
    """A convolution or a pool."""
    attributes = operands.attributes
    return make_key(
        name,
        source,
        operands.dtype,
        kernel=attributes["kernel"],
        stride=attributes["stride"],
        padding=attributes["padding"],
        dilation=attributes.get("dilation", (1, 1)),
        activation=attributes.get("activation", "none"),
        **more,
    )


def _other(op: str, operands: Operands, source: Shape, sink: Shape) -> OpKey | None:
    attributes, dtype = operands.attributes, operands.dtype
    fused = attributes.get("activation", "none")
    if op in POOLS and len(source) == 4:
        return _windowed(POOLS[op], source, operands)
    if op in ACTIVATIONS:
        numbers = (attributes["alpha"],) if op == "LEAKY_RELU" else ()
        return make_key("activation", source, dtype, activation=activation_word(op, numbers))
    if op in ARITHMETIC:
        other = nchw(operands.others[0])
        more = {"with": (text_of(other, "x") or "scalar") if other != source else ""}
        return make_key(ARITHMETIC[op], source, dtype, activation=fused, detail=detail(more))
    if op == "TRANSPOSE_CONV" and "kernel" in attributes:
        return _windowed(
            "transpose_conv", source, operands, out_channels=sink[1], detail=detail({"out": text_of(sink, "x")})
        )
    if op == "MEAN":
        axes = sorted(_axis(axis, source) for axis in attributes["axes"])
        return make_key("mean", source, dtype, detail=detail({"axes": text_of(axes)}))
    if op in PADS:
        return _pad(op, attributes["pads"], source, dtype)
    if op == "TRANSPOSE":
        return make_key("transpose", source, dtype, detail=detail({"perm": text_of(attributes["perm"])}))
    if op in RESHAPES:
        return make_key("reshape", source, dtype, detail=detail({"out": text_of(sink, "x")}))
    if op in _RESIZES:
        return make_key("resize", source, dtype, detail=detail({"mode": _RESIZES[op], "out": text_of(sink, "x")}))
    if op == "CONCATENATION":
        others = "+".join(text_of(nchw(other), "x") for other in operands.others)
        placed = {"axis": str(_axis(attributes["axis"], source)), "with": others}
        return make_key("concat", source, dtype, activation=fused, detail=detail(placed))
    if op == "STRIDED_SLICE":
        words = {name: text_of(attributes[name]) for name in ("begin", "end", "strides")}
        return make_key("strided_slice", source, dtype, detail=detail(words))
    return make_key(snake_case(op), source, dtype, detail=detail({"out": text_of(sink, "x") if sink != source else ""}))


def _pad(op: str, pairs: Sequence[tuple[int, int]], source: Shape, dtype: str) -> OpKey | None:
    # a PADV2 says what it pads with, which XNNPACK leaves to the interpreter
    mode = {"MIRROR_PAD": "mirror", "PADV2": "value"}.get(op, "")
    if len(pairs) == 4 and pairs[0] == pairs[3] == (0, 0):
        (top, bottom), (left, right) = pairs[1], pairs[2]
        return make_key("pad", source, dtype, padding=(top, left, bottom, right), detail=detail({"mode": mode}))
    pads = text_of([f"{before}:{after}" for before, after in pairs])
    return make_key("pad", source, dtype, detail=detail({"nhwc_pads": pads, "mode": mode}))


def _axis(axis: int, source: Shape) -> int:
    axis %= max(1, len(source))
    return _TO_NCHW[axis] if len(source) == 4 else axis
