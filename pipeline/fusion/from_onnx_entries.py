"""ONNX's ops as torch calls them: a table of one entry an op, the other way round of `pipeline.fusion.onnx_entries`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.fusion.from_file import conv2d, linear
from pipeline.fusion.ir import Node, Value
from pipeline.kernels.onnx_keys import padding


@dataclass(frozen=True)
class FileNode:
    """A node of a file. `numbers`: the values of its inputs, by their place, where these are few and known beforehand."""

    op: str
    attributes: dict[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    numbers: dict[int, tuple[Any, ...]]

    def operand(self, place: int, word: str) -> tuple[Any, ...] | None:
        """What newer opsets have as an input and older ones as an attribute."""
        if place in self.numbers:
            return self.numbers[place]
        found = self.attributes.get(word)
        return None if found is None else tuple(found) if isinstance(found, list | tuple) else (found,)

    def like(self, op: str, **attributes: Any) -> Node:
        """torch's op with the first input and all outputs."""
        return Node(op, self.inputs[:1], self.outputs, attributes)


Entry = Callable[[FileNode], Node | None]


def _unary(op: str) -> Entry:
    return lambda node: Node(op, node.inputs[:1], node.outputs[:1])


def _window(node: FileNode, kernel: tuple[int, ...]) -> dict[str, Any]:
    stride = tuple(node.attributes.get("strides", (1, 1)))
    dilation = tuple(node.attributes.get("dilations", (1, 1)))
    around = padding(node.attributes, node.inputs[0].shape, kernel, stride, dilation)
    return {"stride": stride, "padding": around, "dilation": dilation}


def _conv(node: FileNode) -> Node | None:
    source, weight = node.inputs[0], node.inputs[1]
    if len(source.shape) != 4 or len(weight.shape) != 4:
        return None
    window, groups = _window(node, weight.shape[2:]), int(node.attributes.get("group", 1))
    return conv2d(source, node.outputs[0], weight.shape, window, groups, len(node.inputs) > 2)


def _gemm(node: FileNode) -> Node | None:
    if not node.inputs[1].constant or node.attributes.get("transA"):
        return None
    return linear(node.inputs[0], node.outputs[0], len(node.inputs) > 2)


def _normalise(node: FileNode) -> Node:
    weights = sum(math.prod(value.shape) for value in node.inputs[1:])
    return Node("batch_norm", node.inputs[:1], node.outputs[:1], weights=weights)


def _clip(node: FileNode) -> Node:
    found = [node.operand(place, word) for place, word in ((1, "min"), (2, "max"))]
    low, high = (None if one is None or abs(one[0]) > 3e38 else one[0] for one in found)
    if (low, high) in ((0, 6), (0, None)):
        return node.like("relu6" if high else "relu")
    return node.like("clamp", low=low, high=high)


def _hard_sigmoid(node: FileNode) -> Node | None:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return node.like("hardsigmoid") if math.isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5 else None


def _pool(node: FileNode) -> Node | None:
    kernel = tuple(node.attributes["kernel_shape"])
    if len(node.inputs[0].shape) != 4:
        return None
    window = {
        "kernel": kernel,
        **_window(node, kernel),
        "ceil": bool(node.attributes.get("ceil_mode")),
        "count_padding": bool(node.attributes.get("count_include_pad")),
    }
    return Node("max_pool2d" if node.op == "MaxPool" else "avg_pool2d", node.inputs, node.outputs[:1], window)


def _mean(node: FileNode) -> Node:
    rank, keep = len(node.inputs[0].shape), bool(node.attributes.get("keepdims", 1))
    axes = node.operand(1, "axes")
    dims = tuple(sorted(int(axis) % rank for axis in axes)) if axes else tuple(range(rank))
    if rank == 4 and (node.op == "GlobalAveragePool" or (dims == (2, 3) and keep)):
        return node.like("adaptive_avg_pool2d", size=(1, 1))
    return node.like("mean", dims=dims, keepdim=keep)


def _axis(node: FileNode, default: int) -> int:
    return int(node.attributes.get("axis", default)) % max(1, len(node.inputs[0].shape))


def _concat(node: FileNode) -> Node:
    return Node("cat", node.inputs, node.outputs, {"dim": _axis(node, 0)})


def _split(node: FileNode) -> Node:
    return node.like("split", dim=_axis(node, 0), sizes="num_outputs" not in node.attributes)


def _slice(node: FileNode) -> Node | None:
    """Of one axis."""
    words = ("starts", "ends", "axes", "steps")
    begin, end, axes, steps = (node.operand(1 + place, word) for place, word in enumerate(words))
    if not begin or not end or len(begin) != 1:
        return None
    shape = node.inputs[0].shape
    axis = int(axes[0]) % len(shape) if axes else 0
    low, high, step = slice(int(begin[0]), int(end[0]), int(steps[0]) if steps else 1).indices(shape[axis])
    return node.like("slice", dim=axis, begin=low, end=high, step=step)


def _permute(node: FileNode) -> Node:
    default = tuple(reversed(range(len(node.inputs[0].shape))))
    return node.like("permute", perm=tuple(node.attributes.get("perm", default)))


def _pad(node: FileNode) -> Node | None:
    pads, value = node.operand(1, "pads"), node.operand(2, "value")
    if not pads:
        return None
    half = len(pads) // 2
    pairs = tuple(zip(map(int, pads[:half]), map(int, pads[half:]), strict=True))
    mode, number = node.attributes.get("mode", "constant"), float(value[0]) if value else 0.0
    return node.like("pad", pads=pairs, mode=mode, value=number)


def _gather(node: FileNode) -> Node | None:
    if len(node.inputs) < 2 or not node.inputs[1].constant or len(node.inputs[1].shape) != 1:
        return None
    return Node("index_select", node.inputs, node.outputs, {"dim": _axis(node, 0)})


def _resize(node: FileNode) -> Node:
    mode = node.attributes.get("mode", "nearest")
    return node.like("interpolate", mode={"linear": "bilinear"}.get(mode, mode), align_corners=False)


def _numbered(op: str, word: str, ours: str, default: float) -> Entry:
    return lambda node: node.like(op, **{ours: float(node.attributes.get(word, default))})


def _arithmetic(op: str) -> Entry:
    def entry(node: FileNode) -> Node:
        turned = op in ("add", "mul") and node.inputs[0].constant  # the constant stands second, where it is looked for
        return Node(op, node.inputs[::-1] if turned else node.inputs, node.outputs)

    return entry


_UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish", "Gelu": "gelu", "PRelu": "prelu",
    "Softplus": "softplus", "Mish": "mish", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs", "Neg": "neg",
    "Reshape": "reshape", "Flatten": "reshape", "Squeeze": "reshape", "Unsqueeze": "reshape",
}  # fmt: skip
_ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}

ENTRIES: dict[str, Entry] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _gemm,
    "BatchNormalization": _normalise,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _numbered("leaky_relu", "alpha", "negative_slope", 0.01),
    "Elu": _numbered("elu", "alpha", "alpha", 1.0),
    "Softmax": lambda node: node.like("softmax", dim=_axis(node, -1)),
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Transpose": _permute,
    "Pad": _pad,
    "Gather": _gather,
    "Resize": _resize,
    **{op: _unary(word) for op, word in _UNARY.items()},
    **{op: _arithmetic(word) for op, word in _ARITHMETIC.items()},
}
"""ONNX's op -> torch's; an entry that gives None: the file's own word."""
