"""Which kernels to measure beyond those of the networks at hand: what other widths, kernel sizes and resolutions make."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_luts import OpKey
from latency_luts.key import InvalidKey
from pipeline.errors import UnsupportedOp, UsageError
from pipeline.sweep.bundle import conv_output, details

MAX_POINTS = 1_000_000
"""No grid may ask for more kernels than that, whatever `max_points` says."""
MAX_FILE_BYTES = 16 << 20
_MAX_LIST = 64
_ANY_SIZE = frozenset(("axes", "axis", "perm"))
"""Words of a key's detail that hold for any height and width; others tell shapes, which would have to change with these."""
_WINDOWS = ("conv2d", "avg_pool", "max_pool")


@dataclass(frozen=True)
class Grid:
    """The axes along which each kernel is varied, one at a time or (in and out channels) together.

    Args:
        width_low, width_high: factors on a channel count.
        channel_step: channel counts are multiples of it, beside the kernel's own.
        width_points: so many of them on each channel axis, evenly spaced in the logarithm; 1 leaves widths alone.
        stairs: op -> the channel counts at whose multiples its latency steps. Beside each point of an axis both sides of the
            next step are taken: dense where latency steps, sparse where it is smooth.
        kernel_sizes: what a 3x3, 5x5 or 7x7 window may be instead; the padding grows with it.
        expansions: ratios of an inverted residual's wide side to its narrow one, for 1x1 convolutions that have such a ratio.
        resolutions: of the network's input; a kernel's height and width change in the same ratio.
        multipliers: width multipliers at which whole networks of the zoo are taken too (`pipeline.sweep.relatives`).
        base_resolution: that of the networks the keys come from.
        max_points: more than that are refused.
    """

    width_low: float = 0.25
    width_high: float = 1.5
    channel_step: int = 8
    width_points: int = 5
    stairs: Mapping[str, int] = dataclasses.field(default_factory=dict)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[float, ...] = (3.0, 4.0, 6.0)
    resolutions: tuple[int, ...] = (224,)
    multipliers: tuple[float, ...] = ()
    base_resolution: int = 224
    max_points: int = 20_000

    def __post_init__(self) -> None:
        if not 0 < self.width_low <= 1 <= self.width_high <= 16:
            raise _wrong("width_low, width_high", (self.width_low, self.width_high), "0 < low <= 1 <= high <= 16")
        for name, low, high in (
            ("channel_step", 1, 1024), ("width_points", 1, 4096), ("base_resolution", 1, 8192),
            ("max_points", 1, MAX_POINTS),
        ):  # fmt: skip
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise _wrong(name, value, f"a whole number of {low} ... {high}")
        for name, least, most in (
            ("kernel_sizes", 1, 63), ("resolutions", 1, 8192), ("expansions", 1, 64), ("multipliers", 0.01, 16),
        ):  # fmt: skip
            values = getattr(self, name)
            if len(values) > _MAX_LIST or not all(least <= value <= most for value in values):
                raise _wrong(name, values, f"at most {_MAX_LIST} numbers of {least} ... {most}")
        if len(self.stairs) > _MAX_LIST or not all(type(v) is int and 1 <= v <= 1024 for v in self.stairs.values()):
            raise _wrong("stairs", dict(self.stairs), "ops with whole numbers of 1 ... 1024")


@dataclass(frozen=True)
class GridFile:
    """What a grid's file says: the axes, and of which networks and further kernels."""

    grid: Grid
    networks: tuple[str, ...] = ()
    kernels: tuple[OpKey, ...] = ()


def read_grid(path: Path) -> GridFile:
    """A TOML file whose keys are the fields of `Grid`, with `networks` and `kernels` (canonical texts) as lists.

    Raises: UsageError: not TOML, too large, an unknown key, a value out of range, a text that is no kernel's. OSError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{path.name} has over {MAX_FILE_BYTES >> 20} MiB", try_="fewer kernels")
        found = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path.name} is no TOML file: {error}", try_="lines such as: width_points = 4") from error
    networks, kernels = (_texts(name, found.pop(name, [])) for name in ("networks", "kernels"))
    fields = {field.name: field for field in dataclasses.fields(Grid)}
    if unknown := [name for name in found if name not in fields]:
        raise UsageError(f"{path.name} has an unknown key {unknown[0]!r}", try_=", ".join(("networks", "kernels", *fields)))
    grid = Grid(**{name: _typed(name, value, Grid.__dataclass_fields__[name].type) for name, value in found.items()})
    try:
        return GridFile(grid, networks, tuple(dict.fromkeys(OpKey.parse(text) for text in kernels)))
    except InvalidKey as error:
        raise UsageError(f"{path.name}: {error}") from error


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(name, value, "a list of texts")
    return tuple(dict.fromkeys(value))


def _typed(name: str, value: Any, kind: Any) -> Any:
    numbers = (int, float) if "float" in str(kind) else (int,)
    if str(kind).startswith("tuple"):
        if not isinstance(value, list) or not all(type(item) in numbers for item in value):
            raise _wrong(name, value, "a list of numbers")
        return tuple(value)
    if str(kind).startswith("Mapping"):
        if not isinstance(value, dict):
            raise _wrong(name, value, "a table of ops")
        return value
    if type(value) not in numbers:
        raise _wrong(name, value, "a number")
    return value


def variants(keys: Iterable[OpKey], grid: Grid) -> list[OpKey]:
    """The kernels that the grid makes of these, each once, these themselves first.

    Raises: UsageError: they would be more than `grid.max_points`; nothing was enumerated then.
    """
    own = list(dict.fromkeys(keys))
    count = sum(_count(key, grid) for key in own)
    if count > grid.max_points:
        raise UsageError(
            f"the grid asks for up to {count:,} kernels of {len(own)}, more than max_points = {grid.max_points:,}",
            try_=f"a smaller {_largest_axis(own, grid)}, or another max_points, at most {MAX_POINTS:,}",
        )
    return list(dict.fromkeys(itertools.chain(own, *(_of(key, grid) for key in own))))


def _count(key: OpKey, grid: Grid) -> int:
    """At most so many variants, without making them."""
    return math.prod(_lengths(key, grid).values())


def _lengths(key: OpKey, grid: Grid) -> dict[str, int]:
    dense = 3 if grid.stairs.get(key.op, 1) > 1 else 1
    widths = dense * grid.width_points + len(grid.expansions) if grid.width_points > 1 else 1
    axes = 2 if _has_two_widths(key) else 1
    return {
        "width_points": widths**axes,
        "kernel_sizes": len(_kernels(key, grid)),
        "resolutions": max(1, len(grid.resolutions)),
    }


def _largest_axis(keys: Sequence[OpKey], grid: Grid) -> str:
    lengths = [_lengths(key, grid) for key in keys]
    return max(lengths[0], key=lambda name: max(one[name] for one in lengths))


def _has_two_widths(key: OpKey) -> bool:
    return key.op == "linear" or (key.op == "conv2d" and key.groups == 1)


def _of(key: OpKey, grid: Grid) -> Iterator[OpKey]:
    for size, kernel in itertools.product(_sizes(key, grid), _kernels(key, grid)):
        for c_in, c_out in _channels(key, grid):
            if (changed := _changed(key, size, kernel, c_in, c_out)) is not None:
                yield changed


def _changed(key: OpKey, size: tuple[int, ...], kernel: tuple[int, int], c_in: int, c_out: int) -> OpKey | None:
    """The key of other sizes; None where they cannot be."""
    fields: dict[str, Any] = {"out_channels": c_out, "kernel": kernel}
    if len(key.input_shape) == 4:
        fields["input_shape"] = (key.input_shape[0], c_in, *size)
    elif key.input_shape:
        fields["input_shape"] = (*key.input_shape[:-1], c_in)
    grown = [(new - old) // 2 * d for new, old, d in zip(kernel, key.kernel, key.dilation, strict=True)]
    top, left, bottom, right = key.padding
    fields["padding"] = (top + grown[0], left + grown[1], bottom + grown[0], right + grown[1])
    if key.op == "conv2d" and key.groups == key.input_shape[1]:
        fields["groups"] = c_in
    try:
        changed = dataclasses.replace(key, **fields)
        if key.op in _WINDOWS:
            conv_output(changed)
    except (InvalidKey, UnsupportedOp):  # no groups of that size; a window larger than its input
        return None
    return changed


def _sizes(key: OpKey, grid: Grid) -> list[tuple[int, ...]]:
    if len(key.input_shape) != 4:
        return [()]
    own: tuple[int, ...] = key.input_shape[2:]
    if set(details(key)) - _ANY_SIZE:
        return [own]
    sizes = [own]
    for resolution in grid.resolutions:
        # halved again and again with the odd pixel kept, as padded convolutions of stride 2 do
        sizes.append(tuple(max(1, math.ceil(side * resolution / grid.base_resolution)) for side in own))
    return list(dict.fromkeys(sizes if min(own) > 1 else [own]))


def _kernels(key: OpKey, grid: Grid) -> list[tuple[int, int]]:
    square = key.kernel[0] == key.kernel[1] and key.kernel[0] in (3, 5, 7)
    own = [key.kernel]
    if key.op == "conv2d" and square:
        own += [(size, size) for size in grid.kernel_sizes if size % 2 == key.kernel[0] % 2]
    return list(dict.fromkeys(own))


def _channels(key: OpKey, grid: Grid) -> Iterator[tuple[int, int]]:
    """(in, out) channel counts; what has one of them only, or is grouped otherwise than by channel, keeps the ratio."""
    c_in = (key.input_shape[1] if len(key.input_shape) == 4 else key.input_shape[-1]) if key.input_shape else 0
    c_out = key.out_channels
    fixed = details(key) or (key.op == "conv2d" and key.groups not in (1, c_in)) or not c_in
    if fixed or grid.width_points == 1:
        yield c_in, c_out
    elif not _has_two_widths(key):
        for width in _axis(c_in, key.op, grid):
            yield width, c_out and width * max(1, c_out // c_in)
    else:
        ins = [c_in] if key.op == "conv2d" and c_in <= 3 else _axis(c_in, key.op, grid)
        yield from itertools.product(ins, _axis(c_out, key.op, grid))
        yield from _expanded(key, c_in, c_out, grid)


def _expanded(key: OpKey, c_in: int, c_out: int, grid: Grid) -> Iterator[tuple[int, int]]:
    narrow, wide = min(c_in, c_out), max(c_in, c_out)
    if key.kernel == (1, 1) and wide >= 2 * narrow:
        for ratio in grid.expansions:
            other = round(narrow * ratio)
            yield (narrow, other) if c_in == narrow else (other, narrow)


def _axis(own: int, op: str, grid: Grid) -> list[int]:
    """Channel counts from low to high: multiples of the step, the kernel's own, and both sides of the steps beside them."""
    low, high = own * grid.width_low, own * grid.width_high
    span = math.log(high / low)
    found = {own}
    for i in range(grid.width_points):
        ideal = low * math.exp(span * i / max(1, grid.width_points - 1))
        found.add(max(grid.channel_step, round(ideal / grid.channel_step) * grid.channel_step))
    stair = grid.stairs.get(op, 1)
    if stair > 1:
        tops = {-(-width // stair) * stair for width in found}
        found |= tops | {top + 1 for top in tops}
    return sorted(found)


def _wrong(name: str, value: object, wanted: str) -> UsageError:
    text = ascii(value)[:80]
    return UsageError(f"a grid was asked with {name} = {text}, which is not {wanted}", try_=f"{name} as {wanted}")
