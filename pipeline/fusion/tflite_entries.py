"""torch's ops as litert_torch lowers them to TFLite's: a table of one entry an op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.fusion import tflite_windows as windows
from pipeline.fusion.ir import Value
from pipeline.fusion.tflite_stored import Stored, unknown


def _unary(op: str, **attributes: Any) -> Callable[[Stored], object]:
    return lambda s: s.add(op, s.inputs, s.sink, **attributes)


def _binary(op: str) -> Callable[[Stored], object]:
    return lambda s: s.add(op, s.inputs, s.sink)


def _scalar(number: float) -> Value:
    return Value((), "float32", True, number)


def _linear(s: Stored) -> None:
    found, node = s.node.attributes, s.node
    s.add("FULLY_CONNECTED", s.inputs, s.sink, in_channels=s.source.shape[-1], out_channels=found["out_channels"])
    s.nodes[-1].weights, s.nodes[-1].weight_id = node.weights, node.weight_id


def _normalise(s: Stored) -> None:
    """Not folded into a convolution: four ops, each with a constant a channel."""
    channels = s.node.output.shape[1]
    shape = tuple(channels if axis == s.axis(1) else 1 for axis in range(len(s.sink.shape)))
    value = s.source
    for op in ("SUB", "MUL", "MUL", "ADD"):
        output = s.sink if op == "ADD" else s.like(s.source)
        value = s.add(op, [value, Value(shape, value.dtype, True)], output)


def _clamp(s: Stored) -> None:
    found = s.node.attributes
    low, high = found.get("low"), found.get("high")
    known: dict[Any, str] = {(0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1", (0, None): "RELU"}
    if (low, high) not in known:
        raise unknown(s.node)
    s.add(known[low, high], s.inputs, s.sink)


def _silu(s: Stored) -> None:
    gate = s.add("LOGISTIC", s.inputs, s.like(s.source))
    s.add("MUL", [s.source, gate], s.sink)


def _hard_sigmoid(s: Stored) -> None:
    moved = s.add("ADD", [s.source, _scalar(3)], s.like(s.source))
    cut = s.add("RELU6", [moved], s.like(s.source))
    s.add("MUL", [cut, _scalar(1 / 6)], s.sink)


def _softplus(s: Stored, sink: Value | None = None) -> Value:
    x = s.source
    grown = s.add("ADD", [s.add("EXP", [x], s.like(x)), _scalar(1)], s.like(x))
    soft = s.add("LOG", [grown], s.like(x))
    above = s.add("GREATER", [x, _scalar(20)], s.like(x, "bool"))
    return s.add("SELECT", [above, x, soft], sink or s.sink)


def _mish(s: Stored) -> None:
    gate = s.add("TANH", [_softplus(s, s.like(s.source))], s.like(s.source))
    s.add("MUL", [s.source, gate], s.sink)


def _elu(s: Stored) -> None:
    x = s.source
    below = s.add("SUB", [s.add("EXP", [x], s.like(x)), _scalar(1)], s.like(x))
    above = s.add("GREATER_EQUAL", [x, _scalar(0)], s.like(x, "bool"))
    s.add("SELECT", [above, x, below], s.sink)


def _mean(s: Stored) -> None:
    s.add("MEAN", s.inputs, s.sink, axes=tuple(sorted(s.axis(axis) for axis in s.node.attributes["dims"])))


def _concat(s: Stored) -> None:
    s.add("CONCATENATION", s.inputs, s.sink, axis=s.axis(s.node.attributes["dim"]))


def _split(s: Stored) -> None:
    """A SLICE for each part."""
    axis, begin = s.axis(s.node.attributes["dim"]), 0
    for output in s.outputs:
        s.add("SLICE", s.inputs, output, axis=axis, begin=begin, stop=begin + output.shape[axis])
        begin += output.shape[axis]


def _slice(s: Stored) -> None:
    found, rank = s.node.attributes, len(s.source.shape)
    axis = s.axis(found["dim"])
    if found["step"] == 1:
        s.add("SLICE", s.inputs, s.sink, axis=axis, begin=found["begin"], stop=found["end"])
        return
    if found["begin"]:
        raise unknown(s.node)
    s.add(
        "STRIDED_SLICE",
        s.inputs,
        s.sink,
        begin=(0,) * rank,
        end=s.source.shape,
        strides=tuple(found["step"] if one == axis else 1 for one in range(rank)),
    )


def _permute(s: Stored) -> None:
    if len(s.source.shape) == 4:  # moves whole images; the converter folds such transposes into its own
        raise unknown(s.node)
    s.add("TRANSPOSE", s.inputs, s.sink, perm=s.node.attributes["perm"])


def _shuffle(s: Stored) -> None:
    n, c, h, w = s.node.output.shape
    groups = s.node.attributes["groups"]
    apart = s.add("RESHAPE", s.inputs, Value((n, groups, c // groups, h, w)))
    mixed = s.add("TRANSPOSE", [apart], Value((n, c // groups, groups, h, w)), perm=(0, 2, 1, 3, 4))
    s.add("RESHAPE", [mixed], s.sink)


def _pads(s: Stored) -> None:
    found = s.node.attributes
    if found["mode"] != "constant" or found["value"]:
        raise unknown(s.node)
    s.add("PAD", s.inputs, s.sink, pads=found["pads"], layout="first" if len(s.sink.shape) == 4 else "")


def _select(s: Stored) -> None:
    """An index of an axis that has one place is a reshape."""
    if any(s.node.inputs[0].shape[axis] != 1 for axis in s.node.attributes["dims"]):
        raise unknown(s.node)
    s.add("RESHAPE", s.inputs, s.sink)


def _index_select(s: Stored) -> None:
    """A GATHER_ND, which picks places of the first axis, with transposes to there and back."""
    axis, rank = s.node.attributes["dim"], len(s.source.shape)
    if axis == 0 or s.is_last:
        raise unknown(s.node)
    there = (axis, *(other for other in range(rank) if other != axis))
    first = s.add("TRANSPOSE", [s.source], Value(tuple(s.source.shape[one] for one in there)), perm=there)
    picked = s.add("GATHER_ND", [first], Value(tuple(s.sink.shape[one] for one in there)))
    s.add("TRANSPOSE", [picked], s.sink, perm=tuple(there.index(one) for one in range(rank)))


def _resize(s: Stored) -> None:
    op = {"nearest": "RESIZE_NEAREST_NEIGHBOR", "bilinear": "RESIZE_BILINEAR"}.get(s.node.attributes["mode"])
    if op is None:
        raise unknown(s.node)
    s.add(op, s.inputs, s.sink)


def _multiply(s: Stored) -> None:
    if len(s.inputs) == 2 and s.inputs[0] is s.inputs[1]:  # a square, which XNNPACK takes together with what follows
        raise unknown(s.node)
    s.add("MUL", s.inputs, s.sink)


ENTRIES: dict[str, Callable[[Stored], object]] = {
    "conv2d": windows.convolution,
    "linear": _linear,
    "batch_norm": _normalise,
    "relu": _unary("RELU"),
    "relu6": _unary("RELU6"),
    "hardtanh": _clamp,
    "clamp": _clamp,
    "leaky_relu": lambda s: s.add("LEAKY_RELU", s.inputs, s.sink, alpha=s.node.attributes["negative_slope"]),
    "silu": _silu,
    "mish": _mish,
    "softplus": _softplus,
    "elu": _elu,
    "hardswish": _unary("HARD_SWISH"),
    "hardsigmoid": _hard_sigmoid,
    "sigmoid": _unary("LOGISTIC"),
    "tanh": _unary("TANH"),
    "gelu": _unary("GELU"),
    "softmax": _unary("SOFTMAX"),
    "max_pool2d": windows.pool,
    "avg_pool2d": windows.pool,
    "adaptive_avg_pool2d": windows.adaptive_pool,
    "mean": _mean,
    "add": _binary("ADD"),
    "sub": _binary("SUB"),
    "rsub": _binary("SUB"),
    "mul": _multiply,
    "div": _binary("DIV"),
    "cat": _concat,
    "split": _split,
    "chunk": _split,
    "slice": _slice,
    "select": _select,
    "index_select": _index_select,
    "permute": _permute,
    "transpose": _permute,
    "pad": _pads,
    "interpolate": _resize,
    "channel_shuffle": _shuffle,
    **{name: _unary("RESHAPE") for name in ("view", "reshape", "flatten", "squeeze", "unsqueeze")},
}
"""torch's op -> what it becomes, in the file's order."""
