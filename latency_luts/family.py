"""Which kernels differ only in how large they are: the families within which a table may interpolate.

A *family* is all kernels whose keys are equal but for the input channels, the output channels and the spatial size. Never
joined are other kernel sizes, strides, paddings, dilations, activations, dtypes, fused additions or batches, nor details that
say something else than the same shapes in other sizes: `with=1x96x1x1` of a kernel with 96 channels is `with=1xCx1x1`, and
`out=1x48x14x14` of one with 96 is `out=1xC/2xSxS`. Family and place together give back the key's text, so nothing is lost.
Three more things keep kernels apart, because another code may run them:

- groups: dense (1), depthwise (as many as input channels, all vary together) and any other number are different families;
- alignment: for each number of channels, whether 4 divides it. 4 floats are the narrowest vectors of ARM and x86, and other
  numbers of channels can take another path altogether: a depthwise of 31 channels was seen to be slower than one of 100. For
  pooling 8 and 16 too, since onnxruntime pools whole blocks of channels 30 times as fast as others, and does not fill them
  up as it does for convolutions. Not where the second number need not be channels (UNALIGNED);
- square images (one axis, `size`) and others (`height` and `width`).

All works on the keys' texts, so that a table of 100,000 kernels is sorted into families without building an `OpKey` each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latency_luts.key import OpKey

ALIGNMENT = 4
POOL_ALIGNMENT = 16
POOLS = ("avg_pool", "max_pool")

UNALIGNED = ("reshape", "transpose")
"""Ops that move whole tensors between layouts: what stands second in their shapes may be a height."""

LEAST_NS = 1e-3
"""No clock can tell a shorter time (runtimes with a coarse one report 0), and it says nothing of its neighbours."""

PARTS = re.compile(
    r"(?P<op>[a-z][a-z0-9_]{0,63})\[in=(?P<shape>[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*)(?: out=(?P<out>[1-9][0-9]{0,8}))?"
    r"(?P<middle>(?: [kspd]=[0-9x,]+)*)(?: g=(?P<groups>[1-9][0-9]{0,8}))?"
    r"(?P<tail>(?: act=[^ ]+)?(?: add=1| add=0)? dtype=[ -~]*)\]"
)
"""A key's text in parts; `shape`, `out` and `groups` are what varies. A key with a number of over nine digits has none."""

_SHAPE = re.compile(r"(?<=[a-z]=)[1-9][0-9]*(?:x[1-9][0-9]*)+")
"""A further shape in a key's detail; `axis=1` and `perm=0,2,3,1` are none."""

LARGEST_RATIO = 8
"""Up to so many times larger or smaller, a number of a detail's shape is told by the kernel's own sizes."""


class Member(NamedTuple):
    """Where a kernel stands in its family.

    Args:
        family: the key's text with letters for what varies: C channels in, D out, S size or H and W.
        aligned: for each number of channels, the largest power of two from ALIGNMENT on that divides it, or 1; ALIGNMENT at
            most, POOL_ALIGNMENT for POOLS. Compared like a part of the family. None of UNALIGNED has any.
        axes: of "c_in", "c_out", "channels" (in and out together), "size", "height", "width".
        at: the number on each axis, at least 1.
    """

    family: str
    aligned: tuple[int, ...]
    axes: tuple[str, ...]
    at: tuple[int, ...]


def member(text: str) -> Member | None:
    """The place of the kernel whose canonical text this is; None where it has no axes (not 2, 4 or 5 dimensions).

    Of 5 dimensions, as a channel shuffle has them, the smaller of the second and the third is how many groups there are, a
    part of the family.
    """
    match = PARTS.fullmatch(text)
    if match is None:
        return None
    op, shape, out, middle, groups, tail = match.groups()
    sizes = tuple(map(int, shape.split("x")))
    if len(sizes) not in (2, 4, 5):
        return None
    between = sizes[1 : max(2, len(sizes) - 2)]  # batch and space
    channels, c_out, g = max(between), int(out) if out else 0, int(groups) if groups else 1
    written_in = "x".join("C" if place == between.index(channels) else str(n) for place, n in enumerate(between))
    space, space_axes, space_at = "", (), ()  # type: tuple[str, tuple[str, ...], tuple[int, ...]]
    if len(sizes) > 2 and sizes[-2] == sizes[-1]:
        space, space_axes, space_at = "xSxS", ("size",), sizes[-1:]
    elif len(sizes) > 2:
        space, space_axes, space_at = "xHxW", ("height", "width"), sizes[-2:]
    if g > 1 and g == channels and (not c_out or c_out % channels == 0):
        times = "" if c_out in (0, channels) else str(c_out // channels)
        written_out, written_g = f" out={times}C" if c_out else "", " g=C"
        axes, at = ("channels",), (channels,)  # type: tuple[str, ...], tuple[int, ...]
    elif c_out:
        written_out, written_g = " out=D", f" g={g}" if groups else ""
        axes, at = ("c_in", "c_out"), (channels, c_out)
    else:
        written_out, written_g = "", f" g={g}" if groups else ""
        axes, at = ("channels",), (channels,)
    named = {"C": channels} | dict(zip(space[1::2], space_at, strict=False))
    tail = _tail(tail, named)
    name = f"{op}[in={sizes[0]}x{written_in}{space}{written_out}{middle}{written_g}{tail}]"
    aligned = () if op in UNALIGNED else tuple(_alignment(count, op) for count in at)
    return Member(name, aligned, axes + space_axes, at + space_at)


def _alignment(count: int, op: str) -> int:
    found = math.gcd(count, _most(op))
    return found if found >= ALIGNMENT else 1


def _most(op: str) -> int:
    return POOL_ALIGNMENT if op in POOLS else ALIGNMENT


def alignment_text(place: Member) -> str:
    """ "c_in % 4 == 0, c_out % 4 != 0", or of a pool "channels % 16 == 8"; empty where there is no alignment."""
    most = _most(place.family.partition("[")[0])
    marks = []
    for axis, own in zip(place.axes, place.aligned, strict=False):
        if own == 1:
            marks.append(f"{axis} % {ALIGNMENT} != 0")
        else:
            marks.append(f"{axis} % {most} == 0" if own == most else f"{axis} % {2 * own} == {own}")
    return ", ".join(marks)


def _tail(tail: str, named: Mapping[str, int]) -> str:
    """The end of a key's text, its detail's shapes told by the kernel's own sizes. Args: named: letter -> size."""
    head, detail, shapes = tail.partition(" detail=")
    return head + detail + _SHAPE.sub(lambda match: _told(match[0], named), shapes) if "x" in shapes else tail


def _told(shape: str, named: Mapping[str, int]) -> str:
    """1x48x14x14 -> 1xC/2xSxS: channels are looked for second, heights and widths behind; a batch of 1 stays what it is."""
    first, *others = shape.split("x")
    return "x".join([first, *(_letter(int(text), number == 0, named) for number, text in enumerate(others))])


def _letter(count: int, is_second: bool, named: Mapping[str, int]) -> str:
    order = sorted(named, key=lambda letter: (letter == "C") != is_second)
    if count > 1:
        for letter in order:
            if named[letter] == count:
                return letter
    if count > LARGEST_RATIO:  # smaller ones are more likely a number of groups
        for letter in order:
            (smaller, larger), size = sorted((count, named[letter])), named[letter]
            if larger % smaller == 0 and larger <= LARGEST_RATIO * smaller:
                return f"{letter}/{larger // smaller}" if size == larger else f"{larger // smaller}{letter}"
    return str(count)


def work(key: OpKey, axes: tuple[str, ...], at: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """What decides a kernel's time, were channels computed in blocks of `step`.

    Args:
        key: any kernel of the family; its kernel, stride, padding, dilation and kind of grouping count.
        at: (kernels, axes).

    Returns:
        (kernels, 5): one, multiply-accumulates, elements read, elements written, weights. All grow with each axis.
    """
    import numpy as np

    column = {axis: at[:, index] for index, axis in enumerate(axes)}
    c_in = column["c_in"] if "c_in" in column else column["channels"]
    c_in = np.ceil(c_in / step) * step
    depthwise = "channels" in column
    times = max(key.out_channels // key.input_shape[1], 1) if depthwise else 1
    c_out = c_in * times if depthwise else np.ceil(column["c_out"] / step) * step
    ones = np.ones(len(at))
    height, width = column.get("height", column.get("size", ones)), column.get("width", column.get("size", ones))
    read = height * width
    written = _out(key, 0, height) * _out(key, 1, width) if "size" in column or "height" in column else ones
    taps = float(key.kernel[0] * key.kernel[1])
    per_output = taps if depthwise else taps * c_in / key.groups
    macs = written * c_out * per_output
    return np.stack([ones, macs, c_in * read, c_out * written, c_out * per_output], axis=1)


def _out(key: OpKey, side: int, size: NDArray[np.float64]) -> NDArray[np.float64]:
    """The output's height (side 0) or width; an op without a window keeps its input's."""
    import numpy as np

    reach = key.dilation[side] * (key.kernel[side] - 1) + 1
    padded = size + key.padding[side] + key.padding[side + 2]
    return np.asarray(np.maximum(np.floor((padded - reach) / key.stride[side]) + 1, 1.0), dtype=np.float64)
