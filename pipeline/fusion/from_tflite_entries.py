"""TFLite's ops as torch calls them: a table of one entry an op, the other way round of `pipeline.fusion.tflite_entries`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.fusion.from_file import conv2d, linear
from pipeline.fusion.ir import Node, Shape, Value
from pipeline.kernels.tflite_keys import PADS, POOLS, RESHAPES, window_padding
from pipeline.tflite_file import names

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@dataclass(frozen=True)
class FileOp:
    """An op of a file, its shapes in torch's order.

    Args:
        numbers: the whole numbers of each input, () where it has none that are known beforehand.
        stored: the shapes of the inputs as the file has them.
        is_last: whether its images are stored with the channels last.
    """

    op: str
    options: Any
    inputs: list[Value]
    outputs: list[Value]
    numbers: list[tuple[int, ...]]
    stored: list[Shape]
    is_last: bool

    def like(self, op: str, **attributes: Any) -> Node:
        """torch's op with the first input and all outputs."""
        return Node(op, self.inputs[:1], self.outputs, attributes)

    @property
    def cut(self) -> list[int]:
        """The axes of which something is left out."""
        return [
            axis for axis, (a, b) in enumerate(zip(self.inputs[0].shape, self.outputs[0].shape, strict=True)) if a != b
        ]

    def stored_axis(self, axis: int) -> int:
        """The file's place of torch's axis."""
        return TO_FIRST[axis] if self.is_last and len(self.stored[0]) == 4 else axis

    def axis(self, stored: int) -> int:
        """torch's place of the file's axis."""
        return (
            TO_LAST[stored % 4] if self.is_last and len(self.stored[0]) == 4 else stored % max(1, len(self.stored[0]))
        )


Entry = Callable[[FileOp], Node | None]


def _unary(op: str) -> Entry:
    return lambda file_op: file_op.like(op)


def _arithmetic(op: str) -> Entry:
    def entry(file_op: FileOp) -> Node:
        turned = (
            op in ("add", "mul") and file_op.inputs[0].constant
        )  # the constant stands second, where it is looked for
        return Node(op, file_op.inputs[::-1] if turned else file_op.inputs, file_op.outputs)

    return entry


def _window(file_op: FileOp, kernel: tuple[int, ...], dilation: tuple[int, int]) -> dict[str, Any]:
    options, source = file_op.options, file_op.inputs[0].shape
    stride = (options.StrideH(), options.StrideW())
    same = names("Padding")[options.Padding()] == "SAME"
    around = window_padding(same, (source[2], source[3]), kernel, stride, dilation)
    return {"stride": stride, "padding": around, "dilation": dilation}


def _conv(file_op: FileOp) -> Node:
    source, weight = file_op.inputs[0], file_op.stored[1]
    dilation = (file_op.options.DilationHFactor(), file_op.options.DilationWFactor())
    if file_op.op == "DEPTHWISE_CONV_2D":
        groups, shape = source.shape[1], (weight[3], 1, weight[1], weight[2])
    else:
        groups, shape = source.shape[1] // weight[3], (weight[0], weight[3], weight[1], weight[2])
    window = _window(file_op, shape[2:], dilation)
    return conv2d(source, file_op.outputs[0], shape, window, groups, len(file_op.inputs) > 2)


def _pool(file_op: FileOp) -> Node:
    kernel = (file_op.options.FilterHeight(), file_op.options.FilterWidth())
    window = {"kernel": kernel, **_window(file_op, kernel, (1, 1)), "ceil": False, "count_padding": False}
    return file_op.like(f"{POOLS[file_op.op]}2d", **window)


def _linear(file_op: FileOp) -> Node | None:
    if not file_op.inputs[1].constant:
        return None
    return linear(file_op.inputs[0], file_op.outputs[0], len(file_op.inputs) > 2)


def _mean(file_op: FileOp) -> Node:
    dims = tuple(sorted(map(file_op.axis, file_op.numbers[1])))
    if len(file_op.inputs[0].shape) == 4 and dims == (2, 3):
        return file_op.like("adaptive_avg_pool2d", size=(1, 1))
    return file_op.like("mean", dims=dims, keepdim=bool(file_op.options.KeepDims()))


def _concat(file_op: FileOp) -> Node:
    return Node("cat", file_op.inputs, file_op.outputs, {"dim": file_op.axis(file_op.options.Axis())})


def _slice(file_op: FileOp) -> Node | None:
    """Of one axis."""
    begin, cut = file_op.numbers[1], file_op.cut
    if len(cut) != 1 or len(begin) != len(file_op.stored[0]):
        return None
    at = begin[file_op.stored_axis(cut[0])]
    return file_op.like("slice", dim=cut[0], begin=at, end=at + file_op.outputs[0].shape[cut[0]], step=1)


def _strided(file_op: FileOp) -> Node | None:
    """Of one axis."""
    begin, end, steps = file_op.numbers[1:4]
    cut = file_op.cut
    if len(cut) != 1 or not len(begin) == len(end) == len(steps) == len(file_op.stored[0]):
        return None
    at = file_op.stored_axis(cut[0])
    return file_op.like("slice", dim=cut[0], begin=begin[at], end=end[at], step=steps[at])


def _pad(file_op: FileOp) -> Node | None:
    flat, rank = file_op.numbers[1], len(file_op.stored[0])
    if len(flat) != 2 * rank:
        return None
    pairs = tuple((flat[2 * at], flat[2 * at + 1]) for at in map(file_op.stored_axis, range(rank)))
    value = file_op.inputs[2].number if len(file_op.inputs) > 2 else 0.0
    mode = "reflect" if file_op.op == "MIRROR_PAD" else "constant"
    return file_op.like("pad", pads=pairs, mode=mode, value=value)


def _resize(mode: str) -> Entry:
    return lambda file_op: file_op.like("interpolate", mode=mode, align_corners=False)


_UNARY = {
    "RELU": "relu", "RELU6": "relu6", "LOGISTIC": "sigmoid", "HARD_SWISH": "hardswish", "TANH": "tanh", "ELU": "elu",
    "GELU": "gelu", "PRELU": "prelu", "EXP": "exp", "LOG": "log", "SQRT": "sqrt", "ABS": "abs", "NEG": "neg",
    **dict.fromkeys(RESHAPES, "reshape"),
}  # fmt: skip
_ARITHMETIC = {"ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div"}

ENTRIES: dict[str, Entry] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "FULLY_CONNECTED": _linear,
    "MEAN": _mean,
    "TRANSPOSE": lambda file_op: file_op.like("permute", perm=file_op.numbers[1]),
    "CONCATENATION": _concat,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided,
    "SOFTMAX": lambda file_op: file_op.like("softmax", dim=len(file_op.outputs[0].shape) - 1),
    "LEAKY_RELU": lambda file_op: file_op.like("leaky_relu", negative_slope=file_op.options.Alpha()),
    "RELU_N1_TO_1": lambda file_op: file_op.like("clamp", low=-1.0, high=1.0),
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    **dict.fromkeys(PADS, _pad),
    **{op: _unary(word) for op, word in _UNARY.items()},
    **{op: _arithmetic(word) for op, word in _ARITHMETIC.items()},
}
"""TFLite's op -> torch's; an entry that gives None: the file's own word."""
