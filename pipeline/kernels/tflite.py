"""The kernels of a .tflite file, in its order of execution. Shapes become NCHW.

Tensors of rank 4 are taken for NHWC, which TFLite's image ops require. Behind a TRANSPOSE to another layout that is a
name only: a key still stands for the same work on the same memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latency_luts.key import OpKey
from pipeline.kernels.file_op import (
    FileOp,
    Shape,
    activation,
    conv_macs,
    detail,
    make_key,
    same_padding,
    snake_case,
    text_of,
)
from pipeline.tflite_file import Operator, Tensor, TfliteModel, names, read

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_POOLS = {"AVERAGE_POOL_2D": "avg_pool", "MAX_POOL_2D": "max_pool", "L2_POOL_2D": "l2_pool"}
_ARITHMETIC = {"ADD": "add", "MUL": "mul", "SUB": "sub", "DIV": "div"}
_ACTIVATIONS = frozenset(
    {
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RELU_0_TO_1",
        "LOGISTIC",
        "HARD_SWISH",
        "TANH",
        "LEAKY_RELU",
        "PRELU",
        "ELU",
        "GELU",
    }
)
_RESHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_RESIZES = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}
_TO_NCHW = (0, 2, 3, 1)  # the NCHW place of each NHWC axis


def keys(path: Path) -> list[FileOp]:
    """The ops of the file's main graph.

    Raises:
        ModelError: the file is no TFLite model, or damaged.
        OSError: it cannot be read.
    """
    model = read(path)
    return [_file_op(model, operator) for operator in model.operators]


def _file_op(model: TfliteModel, operator: Operator) -> FileOp:
    name = f"{snake_case(operator.op)}_{operator.index}"
    if not operator.inputs or operator.inputs[0] < 0 or not operator.outputs:
        return FileOp(operator.index, name, operator.op, None, None)
    inputs = [model.tensors[i] for i in operator.inputs if i >= 0]
    source, sink = nchw(inputs[0].shape), nchw(model.tensors[operator.outputs[0]].shape)
    key: OpKey | None
    macs: int | None = None
    if operator.op in _CONVOLUTIONS and len(source) == 4:
        key, macs = _conv(operator, inputs, source, sink)
    elif operator.op == "FULLY_CONNECTED" and inputs[1].is_constant:
        c_out, c_in = inputs[1].shape
        key = make_key("linear", source, inputs[0].dtype, out_channels=c_out, activation=_fused(operator))
        macs = math.prod(source) // c_in * c_in * c_out
    else:
        key = _other(operator, inputs, source, sink)
    return FileOp(operator.index, name, operator.op, key, macs)


def nchw(shape: Shape) -> Shape:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _conv(operator: Operator, inputs: Sequence[Tensor], source: Shape, sink: Shape) -> tuple[OpKey | None, int]:
    options, weight = operator.options, inputs[1].shape  # (c_out, h, w, c_in/groups); depthwise (1, h, w, c_out)
    groups = source[1] if operator.op == "DEPTHWISE_CONV_2D" else source[1] // weight[3]
    kernel = (weight[1], weight[2])
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    key = make_key(
        "conv2d",
        source,
        inputs[0].dtype,
        out_channels=sink[1],
        kernel=kernel,
        stride=stride,
        padding=_padding(options, source, kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
        activation=_fused(operator),
    )
    return key, conv_macs(sink, source[1], kernel, groups)


def _padding(options: Any, source: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the file's SAME or VALID."""
    if names("Padding")[options.Padding()] == "VALID":
        return 0, 0, 0, 0
    top, bottom = same_padding(source[2], kernel[0], stride[0], dilation[0])
    left, right = same_padding(source[3], kernel[1], stride[1], dilation[1])
    return top, left, bottom, right


def _fused(operator: Operator) -> str:
    if not hasattr(operator.options, "FusedActivationFunction"):
        return "none"
    return activation(names("ActivationFunctionType")[operator.options.FusedActivationFunction()])


def _other(operator: Operator, inputs: Sequence[Tensor], source: Shape, sink: Shape) -> OpKey | None:
    op, dtype, options = operator.op, inputs[0].dtype, operator.options
    if op in _POOLS and len(source) == 4:
        kernel = (options.FilterHeight(), options.FilterWidth())
        stride = (options.StrideH(), options.StrideW())
        padding = _padding(options, source, kernel, stride, (1, 1))
        return make_key(
            _POOLS[op], source, dtype, kernel=kernel, stride=stride, padding=padding, activation=_fused(operator)
        )
    if op in _ACTIVATIONS:
        numbers = (options.Alpha(),) if op == "LEAKY_RELU" else ()
        return make_key("activation", source, dtype, activation=activation(op, numbers))
    if op in _ARITHMETIC:
        other = nchw(inputs[1].shape)
        more = {"with": (text_of(other, "x") or "scalar") if other != source else ""}
        return make_key(_ARITHMETIC[op], source, dtype, activation=_fused(operator), detail=detail(more))
    if op == "MEAN":
        axes = sorted(_axis(axis, source) for axis in _ints(inputs[1]))
        return make_key("mean", source, dtype, detail=detail({"axes": text_of(axes)}))
    if op in ("PAD", "PADV2", "MIRROR_PAD"):
        return _pad(op, inputs, source)
    if op == "TRANSPOSE":
        return make_key("transpose", source, dtype, detail=detail({"perm": text_of(_ints(inputs[1]))}))
    if op in _RESHAPES:
        return make_key("reshape", source, dtype, detail=detail({"out": text_of(sink, "x")}))
    if op in _RESIZES:
        return make_key("resize", source, dtype, detail=detail({"mode": _RESIZES[op], "out": text_of(sink, "x")}))
    if op == "CONCATENATION":
        others = "+".join(text_of(nchw(tensor.shape), "x") for tensor in inputs[1:])
        more = {"axis": str(_axis(options.Axis(), source)), "with": others}
        return make_key("concat", source, dtype, activation=_fused(operator), detail=detail(more))
    if op == "STRIDED_SLICE":
        words = zip(("begin", "end", "strides"), inputs[1:4], strict=True)
        return make_key("strided_slice", source, dtype, detail=detail({k: text_of(_ints(v)) for k, v in words}))
    return make_key(snake_case(op), source, dtype, detail=detail({"out": text_of(sink, "x") if sink != source else ""}))


def _pad(op: str, inputs: Sequence[Tensor], source: Shape) -> OpKey | None:
    pairs = list(zip(*[iter(_ints(inputs[1]))] * 2, strict=True))
    mode = "mirror" if op == "MIRROR_PAD" else ""
    if len(pairs) == 4 and pairs[0] == pairs[3] == (0, 0):
        (top, bottom), (left, right) = pairs[1], pairs[2]
        return make_key(
            "pad", source, inputs[0].dtype, padding=(top, left, bottom, right), detail=detail({"mode": mode})
        )
    pads = text_of([f"{before}:{after}" for before, after in pairs])
    return make_key("pad", source, inputs[0].dtype, detail=detail({"nhwc_pads": pads, "mode": mode}))


def _axis(axis: int, source: Shape) -> int:
    axis %= max(1, len(source))
    return _TO_NCHW[axis] if len(source) == 4 else axis


def _ints(tensor: Tensor) -> tuple[int, ...]:
    """A constant's whole numbers; () for a tensor that is computed or of another kind."""
    code = {"int32": "i", "int64": "q"}.get(tensor.dtype)
    if not tensor.is_constant or code is None:
        return ()
    return struct.unpack(f"<{len(tensor.data) // struct.calcsize(code)}{code}", tensor.data)
