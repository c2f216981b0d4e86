"""Which kernels differ only in how large they are: the families within which a table may interpolate.

A *family* is all kernels whose keys are equal but for the input channels, the output channels and the spatial size. Never
joined are other kernel sizes, strides, paddings, dilations, activations, dtypes, fused additions, details or batches.
Three more things keep kernels apart, because another code may run them:

- groups: dense (1), depthwise (as many as input channels, all vary together) and any other number are different families;
- alignment: for each number of channels, whether 4 divides it. 4 floats are the narrowest vectors of ARM and x86, and other
  numbers of channels can take another path altogether: a depthwise of 31 channels was seen to be slower than one of 100;
- square images (one axis, `size`) and others (`height` and `width`).

All works on the keys' texts, so that a table of 100,000 kernels is sorted into families without building an `OpKey` each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latency_luts.key import OpKey

ALIGNMENT = 4

LEAST_NS = 1e-3
"""No clock can tell a shorter time (runtimes with a coarse one report 0), and it says nothing of its neighbours."""

PARTS = re.compile(
    r"(?P<op>[a-z][a-z0-9_]{0,63})\[in=(?P<shape>[1-9][0-9]{0,8}(?:x[1-9][0-9]{0,8})*)(?: out=(?P<out>[1-9][0-9]{0,8}))?"
    r"(?P<middle>(?: [kspd]=[0-9x,]+)*)(?: g=(?P<groups>[1-9][0-9]{0,8}))?"
    r"(?P<tail>(?: act=[^ ]+)?(?: add=1| add=0)? dtype=[ -~]*)\]"
)
"""A key's text in parts; `shape`, `out` and `groups` are what varies. A key with a number of over nine digits has none."""


class Member(NamedTuple):
    """Where a kernel stands in its family.

    Args:
        family: the key's text with letters for what varies: C channels in, D out, S size or H and W.
        aligned: for each number of channels, whether ALIGNMENT divides it; compared like a part of the family.
        axes: of "c_in", "c_out", "channels" (in and out together), "size", "height", "width".
        at: the number on each axis, at least 1.
    """

    family: str
    aligned: tuple[bool, ...]
    axes: tuple[str, ...]
    at: tuple[int, ...]


def member(text: str) -> Member | None:
    """The place of the kernel whose canonical text this is; None where it has no axes (not 2 or 4 dimensions)."""
    match = PARTS.fullmatch(text)
    if match is None:
        return None
    op, shape, out, middle, groups, tail = match.groups()
    sizes = tuple(map(int, shape.split("x")))
    if len(sizes) not in (2, 4):
        return None
    channels, c_out, g = sizes[1], int(out) if out else 0, int(groups) if groups else 1
    space, space_axes, space_at = "", (), ()  # type: tuple[str, tuple[str, ...], tuple[int, ...]]
    if len(sizes) == 4 and sizes[2] == sizes[3]:
        space, space_axes, space_at = "xSxS", ("size",), sizes[2:3]
    elif len(sizes) == 4:
        space, space_axes, space_at = "xHxW", ("height", "width"), sizes[2:]
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
    name = f"{op}[in={sizes[0]}xC{space}{written_out}{middle}{written_g}{tail}]"
    return Member(name, tuple(count % ALIGNMENT == 0 for count in at), axes + space_axes, at + space_at)


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
