"""The operators that TFLite's runtimes run as exactly one kernel: one function an op of a key."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from latency_luts import OpKey
from pipeline.kernels.file_op import same_padding
from pipeline.sweep.bundle import (
    activation_numbers,
    conv_output,
    details,
    ints,
    is_first_layer,
    shape_of,
    unsupported,
)
from pipeline.sweep.tflite_graph import Graph, Shape, nhwc, nhwc_axis, written

_FUSED = {"none": "NONE", "relu": "RELU", "relu6": "RELU6", "clip(-1,1)": "RELU_N1_TO_1", "tanh": "TANH"}
_ACTIVATIONS = {
    "relu": "RELU", "relu6": "RELU6", "clip(-1,1)": "RELU_N1_TO_1", "relu0to1": "RELU_0_TO_1", "sigmoid": "LOGISTIC",
    "hardswish": "HARD_SWISH", "tanh": "TANH", "elu": "ELU", "gelu": "GELU", "leakyrelu": "LEAKY_RELU",
}  # fmt: skip

_ARITHMETIC = {"add": "ADD", "mul": "MUL", "sub": "SUB", "div": "DIV"}

Made = tuple[int, int]
"""The kernel's output, and the number of its operator in the file."""


def is_interpreted(key: OpKey) -> bool:
    """Whether XNNPACK leaves a kernel to the interpreter, which then cuts the network in two for it."""
    if key.op == "gather_nd":
        return True
    words = details(key)
    return (key.op == "strided_slice" and set(words.get("strides", "1").split(",")) != {"1"}) or _is_padv2(key)


def _is_padv2(key: OpKey) -> bool:
    return key.op == "pad" and details(key).get("mode") == "value"


def write_source(graph: Graph, key: OpKey, producers: bool) -> int:
    """A kernel's input, and where asked for what writes it just before. A network's first layer has none: its input is cold."""
    shape = nhwc(key.input_shape)
    return written(graph, shape) if producers and not is_first_layer(key) else graph.input(shape, shared=False)


def write_kernel(graph: Graph, key: OpKey, source: int, other: int | None) -> Made:
    """Adds a kernel.

    Args: source: its input, from `write_source`; other: its second operand, from `second_operand`.

    Raises: UnsupportedOp: no op of the key's name, or the file format cannot say it.
    """
    make = _OPS.get(key.op)
    if key.fused_add:
        raise unsupported(key, "TFLite", "it fuses no shortcut")
    try:
        if other is not None:
            return _arithmetic(graph, key, source, other)
        if make is None:
            raise unsupported(key, "TFLite")
        return make(graph, key, source)
    except (ValueError, LookupError) as error:
        raise unsupported(key, "TFLite", str(error)) from error


def second_operand(graph: Graph, key: OpKey) -> int | None:
    """That of an addition and its like: written by an op, or a constant where it is one number. None for other ops.

    Raises: UnsupportedOp: the key's detail does not tell its shape.
    """
    if key.op not in _ARITHMETIC:
        return None
    told = details(key).get("with")
    try:
        shape = nhwc(key.input_shape if told is None else shape_of(told))
    except ValueError as error:
        raise unsupported(key, "TFLite", str(error)) from error
    computed = math.prod(shape) > 1 and (len(shape) == 4 or shape == nhwc(key.input_shape))
    return written(graph, shape) if computed else graph.weights(shape)


def _node(graph: Graph, op: str, inputs: list[int], shape: Shape, **options: Any) -> Made:
    number = len(graph.ops)
    return graph.node(op, inputs, shape, **options), number


def _fused(graph: Graph, key: OpKey) -> int:
    if key.activation not in _FUSED:
        raise unsupported(key, "TFLite", f"{key.activation} cannot be fused")
    return int(getattr(graph.schema.ActivationFunctionType, _FUSED[key.activation]))


def _window(graph: Graph, key: OpKey) -> tuple[int, bool]:
    """The file's word for the padding, and whether it says all: it knows only none and one amount called SAME."""
    same = [
        same_padding(key.input_shape[2 + axis], key.kernel[axis], key.stride[axis], key.dilation[axis])
        for axis in (0, 1)
    ]
    if key.padding == (same[0][0], same[1][0], same[0][1], same[1][1]):
        return int(graph.schema.Padding.SAME), True
    return int(graph.schema.Padding.VALID), not any(key.padding)


def _padded(graph: Graph, key: OpKey, source: int) -> int:
    top, left, bottom, right = key.padding
    count, height, width, channels = graph.shapes[source]
    pads = graph.integers([[0, 0], [top, bottom], [left, right], [0, 0]])
    return graph.node("PAD", [source, pads], (count, height + top + bottom, width + left + right, channels))


def conv2d(graph: Graph, key: OpKey, source: int) -> Made:
    """A convolution, its bias and activation, and a pad before it where the file cannot say its padding otherwise."""
    channels = key.input_shape[1]
    output = nhwc((key.input_shape[0], key.out_channels, *conv_output(key)))
    padding, is_whole = _window(graph, key)
    if not is_whole:
        source = _padded(graph, key, source)
    options = {
        "padding": padding, "strideH": key.stride[0], "strideW": key.stride[1], "dilationHFactor": key.dilation[0],
        "dilationWFactor": key.dilation[1], "fusedActivationFunction": _fused(graph, key),
    }  # fmt: skip
    if key.groups == channels and channels > 1:
        weight = graph.weights((1, *key.kernel, key.out_channels))
        op, options["depthMultiplier"] = "DEPTHWISE_CONV_2D", key.out_channels // channels
    else:
        weight, op = graph.weights((key.out_channels, *key.kernel, channels // key.groups)), "CONV_2D"
    return _node(graph, op, [source, weight, graph.weights((key.out_channels,))], output, **options)


def _linear(graph: Graph, key: OpKey, source: int) -> Made:
    c_in = graph.shapes[source][-1]
    weights = [graph.weights((key.out_channels, c_in)), graph.weights((key.out_channels,))]
    shape = (*graph.shapes[source][:-1], key.out_channels)
    options = {"fusedActivationFunction": _fused(graph, key), "keepNumDims": True}  # else XNNPACK adds a reshape
    return _node(graph, "FULLY_CONNECTED", [source, *weights], shape, **options)


def _arithmetic(graph: Graph, key: OpKey, source: int, other: int) -> Made:
    shape, fused = graph.shapes[source], _fused(graph, key)
    return _node(graph, _ARITHMETIC[key.op], [source, other], shape, fusedActivationFunction=fused)


def _pool(graph: Graph, key: OpKey, source: int) -> Made:
    padding, is_whole = _window(graph, key)
    if not is_whole:
        raise unsupported(key, "TFLite", "its padding is neither none nor what TFLite calls SAME")
    return _node(
        graph, "AVERAGE_POOL_2D" if key.op == "avg_pool" else "MAX_POOL_2D", [source],
        nhwc((*key.input_shape[:2], *conv_output(key))), padding=padding, strideH=key.stride[0], strideW=key.stride[1],
        filterHeight=key.kernel[0], filterWidth=key.kernel[1], fusedActivationFunction=_fused(graph, key),
    )  # fmt: skip


def _mean(graph: Graph, key: OpKey, source: int) -> Made:
    shape = graph.shapes[source]
    axes = [nhwc_axis(axis, len(shape)) for axis in ints(details(key)["axes"])]
    small = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return _node(graph, "MEAN", [source, graph.integers(axes)], small, keepDims=True)


def _activation(graph: Graph, key: OpKey, source: int) -> Made:
    word, given = activation_numbers(key.activation)
    op = _ACTIVATIONS.get(key.activation) or _ACTIVATIONS[word]
    return _node(graph, op, [source], graph.shapes[source], **({"alpha": given[0]} if op == "LEAKY_RELU" else {}))


def _concat(graph: Graph, key: OpKey, source: int) -> Made:
    words, rank = details(key), len(key.input_shape)
    axis = nhwc_axis(int(words["axis"]), rank)
    shapes = [graph.shapes[source], *(nhwc(shape_of(text)) for text in words["with"].split("+"))]
    whole = tuple(sum(one[i] for one in shapes) if i == axis else size for i, size in enumerate(shapes[0]))
    if any(len(one) != rank or any(one[i] != whole[i] for i in range(rank) if i != axis) for one in shapes):
        raise unsupported(key, "TFLite", "its parts differ in more than the axis")
    others = [written(graph, shape) for shape in shapes[1:]]
    return _node(
        graph, "CONCATENATION", [source, *others], whole, axis=axis, fusedActivationFunction=_fused(graph, key)
    )


def _pad(graph: Graph, key: OpKey, source: int) -> Made:
    import numpy as np

    words, shape = details(key), graph.shapes[source]
    if "mode" in words and not _is_padv2(key):
        raise unsupported(key, "TFLite")
    top, left, bottom, right = key.padding
    pairs = [[0, 0], [top, bottom], [left, right], [0, 0]]
    if "nhwc_pads" in words:
        pairs = [list(ints(pair, ":")) for pair in words["nhwc_pads"].split(",")]
    whole = tuple(size + before + after for size, (before, after) in zip(shape, pairs, strict=True))
    if not _is_padv2(key):
        return _node(graph, "PAD", [source, graph.integers(pairs)], whole)
    lowest = graph.constant(np.array([-np.inf], dtype=np.float32))  # as before a maximum
    return _node(graph, "PADV2", [source, graph.integers(pairs), lowest], whole)


def _reshape(graph: Graph, key: OpKey, source: int) -> Made:
    shape = nhwc(shape_of(details(key)["out"]))
    if math.prod(shape) != math.prod(key.input_shape):
        raise unsupported(key, "TFLite", "it holds another number of elements afterwards")
    return _node(graph, "RESHAPE", [source, graph.integers(shape)], shape, newShape=list(shape))


def _transpose(graph: Graph, key: OpKey, source: int) -> Made:
    perm = ints(details(key)["perm"])  # the file's own order, as the reader of files has it
    shape = tuple(graph.shapes[source][axis] for axis in perm)
    return _node(graph, "TRANSPOSE", [source, graph.integers(perm)], shape)


def _softmax(graph: Graph, key: OpKey, source: int) -> Made:
    return _node(graph, "SOFTMAX", [source], graph.shapes[source], beta=1.0)


def _slice(graph: Graph, key: OpKey, source: int) -> Made:
    """The first ones of an axis."""
    shape = nhwc(shape_of(details(key)["out"]))
    return _node(graph, "SLICE", [source, graph.integers([0] * len(shape)), graph.integers(shape)], shape)


def _strided_slice(graph: Graph, key: OpKey, source: int) -> Made:
    begin, end, strides = (ints(details(key)[word]) for word in ("begin", "end", "strides"))
    shape = tuple(len(range(*parts)) for parts in zip(begin, end, strides, strict=True))
    return _node(graph, "STRIDED_SLICE", [source, *map(graph.integers, (begin, end, strides))], shape)


def _gather_nd(graph: Graph, key: OpKey, source: int) -> Made:
    """Places evenly spaced over the first axis: which ones they are does not change how much is copied."""
    shape = graph.shapes[source]
    whole = nhwc(shape_of(details(key)["out"])) if "out" in details(key) else shape
    if whole[1:] != shape[1:]:
        raise unsupported(key, "TFLite", "it picks along more than the first axis")
    places = [[number * shape[0] // whole[0]] for number in range(whole[0])]
    return _node(graph, "GATHER_ND", [source, graph.integers(places)], whole)


_OPS: dict[str, Callable[[Graph, OpKey, int], Made]] = {
    "conv2d": conv2d,
    "linear": _linear,
    "avg_pool": _pool,
    "max_pool": _pool,
    "mean": _mean,
    "activation": _activation,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "softmax": _softmax,
    "slice": _slice,
    "strided_slice": _strided_slice,
    "gather_nd": _gather_nd,
}
