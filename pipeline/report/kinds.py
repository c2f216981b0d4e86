"""The kinds of kernels that a reader thinks in: finer than the op (a depthwise convolution is no dense one)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KERNEL = re.compile(r"[\[ ]k=(\d+)x(\d+)")
_GROUPS = re.compile(r"[\[ ]g=(\d+)")
_INPUT = re.compile(r"[\[ ]in=\d+x(\d+)")
_SHAPE = re.compile(r"[\[ ]in=\d+x([0-9x]+)")
_OUT = re.compile(r"[\[ ]out=(\d+)[\] ]")

LAYOUT_OPS = (
    "reorder_in", "reorder_out", "transpose", "reshape", "pad", "concat", "slice", "strided_slice", "split", "squeeze",
    "expand_dims", "gather",
)  # fmt: skip
_BY_OP = {
    "linear": "linear",
    "matmul": "linear",
    "gemm": "linear",
    "fully_connected": "linear",
    **dict.fromkeys(("add", "mul", "sub", "div", "activation", "relu", "softmax", "hardswish"), "elementwise"),
    **dict.fromkeys(("avg_pool", "max_pool", "mean", "global_avg_pool", "resize"), "pool"),
    **dict.fromkeys(LAYOUT_OPS, "layout"),
}


@dataclass(frozen=True)
class Kind:
    """`slug` is safe in a CSS class and picks the colour, `label` is for people."""

    slug: str
    label: str


KINDS = {
    kind.slug: kind
    for kind in (
        Kind("pointwise", "conv 1×1"),
        Kind("dense", "conv k×k"),
        Kind("depthwise", "depthwise"),
        Kind("grouped", "grouped conv"),
        Kind("linear", "linear"),
        Kind("elementwise", "elementwise"),
        Kind("pool", "pooling"),
        Kind("layout", "data layout"),
        Kind("other", "other"),
    )
}


def kind_of(op: str, key: str | None) -> Kind:
    """The kind of a kernel. A convolution without a key (its shape is not known) counts as a dense one.

    The key is read leniently, on purpose: a report of an older or newer table must still be drawn.
    """
    if op != "conv2d":
        return KINDS[_BY_OP.get(op, "other")]
    kernel, groups, channels = (pattern.search(key or "") for pattern in (_KERNEL, _GROUPS, _INPUT))
    if groups and int(groups[1]) > 1:
        return KINDS["depthwise" if channels and groups[1] == channels[1] else "grouped"]
    return KINDS["pointwise" if kernel and kernel[1] == kernel[2] == "1" else "dense"]


def detail(op: str, key: str | None) -> str:
    """The kind in the words of one kernel: "conv 3×3", "depthwise 5×5", "add"."""
    kind = kind_of(op, key)
    kernel = _KERNEL.search(key or "")
    shape = f" {kernel[1]}×{kernel[2]}" if kernel else ""
    if op == "conv2d":
        return f"{'conv' if kind.slug in {'pointwise', 'dense'} else kind.label}{shape}"
    return op.replace("_", " ")


def shapes(key: str | None) -> str:
    """ "32×112×112 → 64" (channels, height, width, then channels) as far as the key says it, else an empty text."""
    shape, out = _SHAPE.search(key or ""), _OUT.search(key or "")
    if not shape:
        return ""
    return shape[1].replace("x", "×") + (f" → {out[1]}" if out else "")
