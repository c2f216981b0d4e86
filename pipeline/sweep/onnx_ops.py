"""The nodes that onnxruntime runs as exactly one kernel: one function an op of a key."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from latency_luts import OpKey
from pipeline.sweep.bundle import (
    activation_numbers,
    conv_output,
    details,
    ints,
    is_first_layer,
    shape_of,
    unsupported,
)
from pipeline.sweep.onnx_graph import MICROSOFT, Graph, Shape, written_by_addition, written_by_convolution

_ACTIVATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    # a key's word -> the op, and the attributes that its numbers are
    "relu": ("Relu", ()),
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "hardswish": ("HardSwish", ()),
    "hardsigmoid": ("HardSigmoid", ("alpha", "beta")),
    "leakyrelu": ("LeakyRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "erf": ("Erf", ()),
    "softplus": ("Softplus", ()),
}


def write_kernel(graph: Graph, key: OpKey, name: str, *, producers: bool) -> tuple[str, str]:
    """Adds a kernel and what writes its input: the last tensor, and the place that `pipeline.kernels.onnx` will give it.

    Raises: UnsupportedOp: no op of the key's name, or it has no such input.
    """
    try:
        make = _OPS.get(key.op)
        if make is None:
            raise unsupported(key, "ONNX")
        return make(graph, key, name, _source(graph, key, name, producers))
    except (ValueError, LookupError) as error:
        raise unsupported(key, "ONNX", str(error)) from error


def _source(graph: Graph, key: OpKey, name: str, producers: bool) -> str:
    """The kernel's input. A convolution that runs blocked has it reordered, and so written, just before it anyway."""
    shape, channels = key.input_shape, key.input_shape[1] if len(key.input_shape) == 4 else 0
    if key.op == "reorder_in" or len(shape) != 4:
        return written_by_addition(graph, f"{name}_from", shape)
    if is_first_layer(key):
        return graph.input(f"{name}_from", shape)
    reordered = key.op == "conv2d" and channels % 4 == 0 and key.groups in (1, channels)
    if producers or not reordered:
        return written_by_convolution(graph, f"{name}_from", shape)
    return graph.input(f"{name}_from", shape)


def conv2d(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """A convolution, its bias, shortcut and activation: the last tensor, and the place of the kernel."""
    channels = key.input_shape[1]
    output = (key.input_shape[0], key.out_channels, *conv_output(key))
    weight = graph.weights(f"{name}_w", (key.out_channels, channels // key.groups, *key.kernel))
    made = graph.node(
        "Conv", name, [source, weight, graph.weights(f"{name}_b", (key.out_channels,))], output,
        kernel_shape=key.kernel, strides=key.stride, pads=key.padding, dilations=key.dilation, group=key.groups,
    )  # fmt: skip
    if key.fused_add:
        other = written_by_convolution(graph, f"{name}_other", output)
        made = graph.node("Add", f"{name}_add", [made, other], output)
    return _activated(graph, key, f"{name}_act", made), name


def _activated(graph: Graph, key: OpKey, name: str, source: str) -> str:
    word, given = activation_numbers(key.activation)
    shape = graph.shapes[source]
    if word == "none":
        return source
    if word in ("relu6", "clip"):
        import numpy as np

        low, high = given if word == "clip" else (0.0, 6.0)
        limits = [graph.constant(f"{name}_{i}", np.array(limit, np.float32)) for i, limit in enumerate((low, high))]
        return graph.node("Clip", name, [source, *limits], shape)
    if word == "silu":
        return graph.node("QuickGelu", name, [source], shape, domain=MICROSOFT, alpha=1.0)
    if word not in _ACTIVATIONS:
        raise unsupported(key, "ONNX", f"no activation {word}")
    op, attributes = _ACTIVATIONS[word]
    numbers: dict[str, Any] = dict(zip(attributes, given, strict=False))
    return graph.node(op, name, [source], shape, **numbers)


def _linear(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    shape: Shape = (*key.input_shape[:-1], key.out_channels)
    c_in = key.input_shape[-1]
    if len(shape) == 2:
        weights = graph.weights(f"{name}_w", (key.out_channels, c_in)), graph.weights(f"{name}_b", (key.out_channels,))
        made = graph.node("Gemm", name, [source, *weights], shape, transB=1)
    else:
        made = graph.node("MatMul", name, [source, graph.weights(f"{name}_w", (c_in, key.out_channels))], shape)
    return _activated(graph, key, f"{name}_act", made), name


def _arithmetic(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    told = details(key).get("with")
    shape = shape_of(told) if told is not None else key.input_shape
    if math.prod(shape) == 1 or (len(shape) != 4 and shape != key.input_shape):
        other = graph.weights(f"{name}_w", shape)
    else:
        write = written_by_convolution if len(shape) == 4 else written_by_addition
        other = write(graph, f"{name}_other", shape)
    op = {"add": "Add", "mul": "Mul", "sub": "Sub", "div": "Div"}[key.op]
    return graph.node(op, name, [source, other], key.input_shape), name


def _pool(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    shape = (*key.input_shape[:2], *conv_output(key))
    settings: dict[str, Any] = {
        "kernel_shape": key.kernel,
        "strides": key.stride,
        "pads": key.padding,
        "dilations": key.dilation,
    }
    if key.op == "max_pool":
        return graph.node("MaxPool", name, [source], shape, **settings), name
    return graph.node(
        "AveragePool", name, [source], shape, count_include_pad=1, **settings
    ), name  # as torch exports it


def _global_pool(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    return graph.node("GlobalAveragePool", name, [source], (*key.input_shape[:2], 1, 1)), name


def _mean(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    axes = ints(details(key)["axes"])
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(key.input_shape))
    return graph.node("ReduceMean", name, [source, graph.integers(f"{name}_axes", axes)], shape, keepdims=1), name


def _activation(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    return _activated(graph, key, name, source), name


def _concat(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """Of two: a key tells the first one's size and that of the whole."""
    words = details(key)
    axis, output = int(words["axis"]), shape_of(words["out"])
    rest = tuple(size - key.input_shape[i] if i == axis else size for i, size in enumerate(output))
    if min(rest) < 1:
        raise unsupported(key, "ONNX", "nothing is left for a second part")
    if [size for i, size in enumerate(output) if i != axis] != [size for i, size in enumerate(key.input_shape) if i != axis]:
        raise unsupported(key, "ONNX", "the whole is not as large as the part")
    write = written_by_convolution if len(rest) == 4 else written_by_addition
    return graph.node("Concat", name, [source, write(graph, f"{name}_other", rest)], output, axis=axis), name


def _reshape(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    shape = shape_of(details(key)["out"])
    if math.prod(shape) != math.prod(key.input_shape):
        raise unsupported(key, "ONNX", "it holds another number of elements afterwards")
    return graph.node("Reshape", name, [source, graph.integers(f"{name}_shape", shape)], shape), name


def _transpose(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    perm = ints(details(key)["perm"])
    return graph.node("Transpose", name, [source], tuple(key.input_shape[axis] for axis in perm), perm=perm), name


def _pad(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    pads = ints(details(key)["pads"])
    before, after = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    shape = tuple(size + b + a for size, b, a in zip(key.input_shape, before, after, strict=True))
    return graph.node("Pad", name, [source, graph.integers(f"{name}_pads", pads)], shape), name


def _softmax(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    return graph.node("Softmax", name, [source], key.input_shape, axis=int(details(key).get("axis", "-1"))), name


def _split(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """Into equal parts where the key says so, else in two. Only the first part is read."""
    words = details(key)
    axis, first = int(words["axis"]), shape_of(words["out"])
    settings: dict[str, Any] = {}
    sizes: list[str] = []
    if "num_outputs" in words:
        count = settings["num_outputs"] = int(words["num_outputs"])
    else:
        rest = key.input_shape[axis] - first[axis]
        count, sizes = 2, [graph.integers(f"{name}_sizes", (first[axis], rest))]
    others = [f"{name}_{number}" for number in range(1, count)]
    return graph.node("Split", name, [source, *sizes], first, others=others, axis=axis, **settings), name


def _slice(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """Every other row or column where half of them is left, as in ResNet's shortcuts; else the first ones of an axis."""
    shape = shape_of(details(key)["out"])
    pairs = list(zip(key.input_shape, shape, strict=True))
    steps = [2 if axis > 1 and 1 < size == -(-whole // 2) else 1 for axis, (whole, size) in enumerate(pairs)]
    ends = [whole if step == 2 else size for (whole, size), step in zip(pairs, steps, strict=True)]
    words = {"starts": [0] * len(shape), "ends": ends, "axes": list(range(len(shape))), "steps": steps}
    settings = [graph.integers(f"{name}_{word}", values) for word, values in words.items()]
    return graph.node("Slice", name, [source, *settings], shape), name


def _gather(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """Places evenly spaced over the axis: which ones they are does not change how much is copied."""
    words = details(key)
    axis, shape = int(words["axis"]), shape_of(words["out"]) if "out" in words else key.input_shape
    if (*shape[:axis], key.input_shape[axis], *shape[axis + 1 :]) != key.input_shape:
        raise unsupported(key, "ONNX", "it picks along more than one axis")
    places = [number * key.input_shape[axis] // shape[axis] for number in range(shape[axis])]
    return graph.node("Gather", name, [source, graph.integers(f"{name}_index", places)], shape, axis=axis), name


def _reorder_in(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """What an addition wrote, for a depthwise convolution that wants it blocked. See `onnx_model.reorder_places`."""
    channels = key.input_shape[1]
    weights = graph.weights(f"{name}_w", (channels, 1, 1, 1)), graph.weights(f"{name}_b", (channels,))
    made = graph.node("Conv", name, [source, *weights], key.input_shape, group=channels, kernel_shape=[1, 1])
    return made, source


def _reorder_out(graph: Graph, key: OpKey, name: str, source: str) -> tuple[str, str]:
    """What a convolution wrote, for a reader that cannot take it blocked: the model's end, or a mean."""
    return source, source


_OPS: dict[str, Callable[[Graph, OpKey, str, str], tuple[str, str]]] = {
    "conv2d": conv2d,
    "linear": _linear,
    "add": _arithmetic,
    "mul": _arithmetic,
    "sub": _arithmetic,
    "div": _arithmetic,
    "avg_pool": _pool,
    "max_pool": _pool,
    "global_avg_pool": _global_pool,
    "mean": _mean,
    "activation": _activation,
    "concat": _concat,
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "softmax": _softmax,
    "slice": _slice,
    "split": _split,
    "gather": _gather,
    "reorder_in": _reorder_in,
    "reorder_out": _reorder_out,
}
