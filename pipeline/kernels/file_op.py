"""One op of a model file, and the arithmetic that both readers share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latency_luts.key import InvalidKey, OpKey

Shape = tuple[int, ...]

_MAX_DETAIL = 200  # characters, as latency_luts.key allows


@dataclass(frozen=True)
class FileOp:
    """`index`: place in the file's order of execution; `op_type`: the format's own word ("Conv", "CONV_2D").

    `key` is None where the file does not tell what the key needs; `macs` is None for all but convolutions and linear
    layers. `reads`, `writes`: numbers of the tensors that it takes and makes, without constants; () where not told.
    """

    index: int
    name: str
    op_type: str
    key: OpKey | None
    macs: int | None
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()


def make_key(op: str, input_shape: Shape, dtype: str, **fields: Any) -> OpKey | None:
    """An OpKey, or None where a field is out of its range (an axis of size 0, a rank above 8, an unknown stride)."""
    try:
        return OpKey(op, input_shape, dtype=dtype, **fields)
    except InvalidKey:
        return None


def conv_macs(output: Shape, c_in: int, kernel: Sequence[int], groups: int) -> int:
    """Multiply-accumulates of a convolution; `output` is (n, c_out, h, w)."""
    return math.prod(output) * (c_in // groups) * math.prod(kernel)


def same_padding(size: int, kernel: int, stride: int, dilation: int, *, lower: bool = False) -> tuple[int, int]:
    """(before, after) of the padding called SAME; the odd one comes after, before where `lower` is set."""
    span = (kernel - 1) * dilation + 1
    total = max(0, (-(-size // stride) - 1) * stride + span - size)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def activation(name: str, params: Sequence[float] = ()) -> str:
    """A key's word for an activation: any spelling of its name, and its numbers. clip(0, 6) is relu6."""
    word = name.lower().replace("_", "")
    numbers = tuple(params)
    if word in ("clip", "hardtanh"):
        if len(numbers) >= 2 and numbers[0] == 0 and numbers[1] == 6:
            return "relu6"
        if len(numbers) >= 2 and numbers[0] == 0 and numbers[1] > 3e38:
            return "relu"
        word = "clip"
    word = {"logistic": "sigmoid", "relun1to1": "clip(-1,1)", "quickgelu": "silu"}.get(word, word)
    return f"{word}({','.join(f'{number:.6g}' for number in numbers)})" if numbers else word


def snake_case(name: str) -> str:
    """As in: "ReduceMean" -> "reduce_mean", "STRIDED_SLICE" -> "strided_slice", "QLinearConv" -> "q_linear_conv"."""
    if name != name.upper():
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return word if word[:1].isalpha() else f"op_{word}"


def text_of(values: Sequence[object], separator: str = ",") -> str:
    return separator.join(map(str, values))


def detail(parts: Mapping[str, object]) -> str:
    """As in "axes=2,3 mode=linear": printable ASCII, cut to what a key can carry. Empty values are left out."""
    words = [f"{name}={value}" for name, value in parts.items() if value not in ("", None)]
    return re.sub(r"[^ -~]", "?", " ".join(words))[:_MAX_DETAIL]
