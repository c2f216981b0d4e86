"""torch's ops as torch.onnx writes them into a file: a table of one entry an op."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.fusion.common import unknown
from pipeline.fusion.ir import Node, Value

MAX_FLOAT = 3.4028234663852886e38
RUNTIME = "onnxruntime"


def made(node: Node, op: str, inputs: list[Value], output: Value, **attributes: Any) -> Node:
    """A node that takes the place of another, from the same layer."""
    return Node(op, inputs, [output], attributes, node.module)


def _like(value: Value) -> Value:
    return Value(value.shape, value.dtype)


def _one(op: str, attributes: Callable[[Node], dict[str, Any]] = lambda node: {}) -> Callable[[Node], list[Node]]:
    """An entry that gives one node with the same tensors and weights."""

    def entry(node: Node) -> list[Node]:
        return [node.like(op, node.inputs, node.outputs, attributes(node))]

    return entry


def _window(node: Node) -> dict[str, Any]:
    found = node.attributes
    return {
        "kernel_shape": found["kernel"],
        "strides": found["stride"],
        "pads": found["padding"],
        "dilations": found["dilation"],
    }


def _pool(node: Node) -> dict[str, Any]:
    return {**_window(node), "ceil_mode": int(node.attributes["ceil"])}


def _adaptive(node: Node) -> list[Node]:
    source, size = node.inputs[0].shape, node.attributes["size"]
    if size == (1, 1):
        return [made(node, "ReduceMean", node.inputs, node.output, axes=(2, 3), keepdims=1)]
    if source[2] % size[0] or source[3] % size[1]:  # no window of one size
        raise unknown(node, RUNTIME)
    kernel = (source[2] // size[0], source[3] // size[1])
    window = {"kernel_shape": kernel, "strides": kernel, "pads": (0, 0, 0, 0), "dilations": (1, 1), "ceil_mode": 0}
    return [Node("AveragePool", node.inputs, node.outputs, window, node.module)]


def _clip(low: Any, high: Any) -> Callable[[Node], dict[str, Any]]:
    def attributes(node: Node) -> dict[str, Any]:
        bottom, top = node.attributes.get("low", low), node.attributes.get("high", high)
        return {"low": -MAX_FLOAT if bottom is None else bottom, "high": MAX_FLOAT if top is None else top}

    return attributes


def _silu(node: Node) -> list[Node]:
    gate = _like(node.output)
    first = made(node, "Sigmoid", node.inputs, gate)
    return [first, made(node, "Mul", [node.inputs[0], gate], node.output)]


def _mish(node: Node) -> list[Node]:
    soft, gate = _like(node.output), _like(node.output)
    steps = [made(node, "Softplus", node.inputs, soft), made(node, "Tanh", [soft], gate)]
    return [*steps, made(node, "Mul", [node.inputs[0], gate], node.output)]


def _softplus(node: Node) -> list[Node]:
    """torch's own, which is the identity above a threshold."""
    source = node.inputs[0]
    above, soft = Value(source.shape, "bool"), _like(source)
    limit = Value((), "float32", True)
    steps = [made(node, "Softplus", [source], soft), made(node, "Greater", [source, limit], above)]
    return [*steps, made(node, "Where", [above, source, soft], node.output)]


def _linear(node: Node) -> list[Node]:
    """A matrix product; of more axes than two with a bias, onnxruntime makes it one of two."""
    source, sink = node.inputs[0], node.output
    if len(source.shape) == 2:
        return [node.like("Gemm", [source], [sink], {})]
    if not node.attributes["bias"]:
        return [node.like("MatMul", [source], [sink], {})]
    rows = math.prod(source.shape[:-1])
    flat, product = Value((rows, source.shape[-1]), source.dtype), Value((rows, sink.shape[-1]), source.dtype)
    gemm = node.like("Gemm", [flat], [product], {})
    return [made(node, "Reshape", [source], flat), gemm, made(node, "Reshape", [product], sink)]


def _split(node: Node) -> list[Node]:
    attributes = {"axis": node.attributes["dim"]}
    if not node.attributes["sizes"] and len({value.shape for value in node.outputs}) == 1:
        attributes["num_outputs"] = len(node.outputs)
    return [Node("Split", node.inputs, node.outputs, attributes, node.module)]


def _shuffle(node: Node) -> list[Node]:
    n, c, h, w = node.output.shape
    groups = node.attributes["groups"]
    apart, mixed = Value((n, groups, c // groups, h, w)), Value((n, c // groups, groups, h, w))
    steps = [made(node, "Reshape", node.inputs, apart), made(node, "Transpose", [apart], mixed, perm=(0, 2, 1, 3, 4))]
    return [*steps, made(node, "Reshape", [mixed], node.output)]


def _pads(node: Node) -> dict[str, Any]:
    pairs = node.attributes["pads"]
    zeros = node.attributes["mode"] == "constant" and node.attributes["value"] == 0
    return {"pads": (*(before for before, _ in pairs), *(after for _, after in pairs)), "zeros": zeros}


def _resize(node: Node) -> dict[str, Any]:
    mode = node.attributes["mode"]
    return {"mode": {"bilinear": "linear"}.get(mode, mode)}


def _clamp(node: Node) -> list[Node]:
    """With one limit it is Max or Min, not Clip."""
    low, high = node.attributes["low"], node.attributes["high"]
    if low is not None and high is not None:
        return _one("Clip", _clip(None, None))(node)
    return [made(node, "Min" if low is None else "Max", [*node.inputs, Value((), "float32", True)], node.output)]


def _select(node: Node) -> list[Node]:
    """An index of one axis: a Gather for each."""
    steps, value = [], node.inputs[0]
    for number, axis in enumerate(node.attributes["dims"]):
        shape = tuple(size for i, size in enumerate(value.shape) if i != axis - number)
        output = Value(shape, value.dtype) if number + 1 < len(node.attributes["dims"]) else node.output
        steps.append(made(node, "Gather", [value], output, axis=axis - number))
        value = output
    return steps


def _gather(node: Node) -> list[Node]:
    """Which places are picked is a constant, and no part of what a kernel is."""
    return [made(node, "Gather", node.inputs[:1], node.output, axis=node.attributes["dim"])]


def _largest(node: Node) -> list[Node]:
    if node.attributes["size"] != (1, 1):
        raise unknown(node, RUNTIME)
    more = {"keepdims": 1, "noop_with_empty_axes": 0}
    return [made(node, "ReduceMax", node.inputs, node.output, **more)]


def _layout_stays(node: Node) -> list[Node]:
    """Whole images to channels last and back: onnxruntime moves such transposes far through the graph."""
    perm = node.attributes["perm"]
    if perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
        raise unknown(node, RUNTIME)
    return [made(node, "Transpose", node.inputs, node.output, perm=perm)]


def _transposed(node: Node) -> dict[str, Any]:
    found = node.attributes
    return {
        "auto_pad": "NOTSET", "dilations": found["dilation"], "group": found["groups"], "kernel_shape": found["kernel"],
        "output_padding": found["output_padding"], "pads": found["padding"], "strides": found["stride"],
    }  # fmt: skip


ENTRIES: dict[str, Callable[[Node], Sequence[Node]]] = {
    "conv2d": _one(
        "Conv",
        lambda node: {**_window(node), "group": node.attributes["groups"], "bias": node.attributes["bias"]},
    ),
    "conv_transpose2d": _one("ConvTranspose", _transposed),
    "linear": _linear,
    "batch_norm": _one("BatchNormalization", lambda node: {"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0}),
    "relu": _one("Relu"),
    "relu6": _one("Clip", _clip(0.0, 6.0)),
    "hardtanh": _one("Clip", _clip(-1.0, 1.0)),
    "clamp": _clamp,
    "leaky_relu": _one("LeakyRelu", lambda node: {"alpha": node.attributes["negative_slope"]}),
    "silu": _silu,
    "mish": _mish,
    "softplus": _softplus,
    "hardswish": _one("HardSwish"),
    "hardsigmoid": _one("HardSigmoid", lambda node: {"alpha": 1 / 6, "beta": 0.5}),
    "sigmoid": _one("Sigmoid"),
    "tanh": _one("Tanh"),
    "gelu": _one("Gelu"),
    "elu": _one("Elu", lambda node: {"alpha": node.attributes["alpha"]}),
    "prelu": _one("PRelu"),
    "softmax": _one("Softmax", lambda node: {"axis": node.attributes["dim"]}),
    "max_pool2d": _one("MaxPool", _pool),
    "avg_pool2d": _one("AveragePool", _pool),
    "adaptive_avg_pool2d": _adaptive,
    "mean": _one(
        "ReduceMean", lambda node: {"axes": node.attributes["dims"], "keepdims": int(node.attributes["keepdim"])}
    ),
    "add": _one("Add"),
    "sub": _one("Sub"),
    "rsub": _one("Sub"),
    "mul": _one("Mul"),
    "div": _one("Div"),
    "cat": _one("Concat", lambda node: {"axis": node.attributes["dim"]}),
    "split": _split,
    "chunk": _split,
    "slice": _one("Slice", lambda node: dict(node.attributes)),
    "permute": _layout_stays,
    "transpose": _layout_stays,
    "select": _select,
    "index_select": _gather,
    "pixel_shuffle": _one("DepthToSpace", lambda node: {"blocksize": node.attributes["factor"], "mode": "CRD"}),
    "adaptive_max_pool2d": _largest,
    "view": _one("Reshape"),
    "reshape": _one("Reshape"),
    "flatten": _one("Reshape"),
    "squeeze": _one("Squeeze"),
    "unsqueeze": _one("Unsqueeze"),
    "pad": _one("Pad", _pads),
    "interpolate": _one("Resize", _resize),
    "channel_shuffle": _shuffle,
}
"""torch's op -> the ONNX nodes of one node, in order."""
