"""Families of kernels as a reader thinks of them, and how much of a network's error each of them carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latency_luts import OpKey
from pipeline.validation.measured import Judged

FAMILIES = {
    "pointwise": "conv 1×1",
    "dense": "conv k×k",
    "depthwise": "depthwise",
    "grouped": "grouped conv",
    "linear": "linear",
    "elementwise": "add, multiply",
    "pool": "pooling",
    "reorder": "reorder",
    "layout": "concat, shuffle",
    "activation": "activation",
    "other": "other",
}
"""Name -> what people call it, in the order in which they are shown."""

_OPS = {
    "linear": "linear",
    "matmul": "linear",
    **dict.fromkeys(("add", "mul", "sub", "div", "maximum", "minimum"), "elementwise"),
    **dict.fromkeys(("avg_pool", "max_pool", "global_avg_pool", "l2_pool", "mean", "sum", "resize"), "pool"),
    **dict.fromkeys(("reorder_in", "reorder_out"), "reorder"),
    **dict.fromkeys(("concat", "transpose", "reshape", "pad", "copy", "gather", "squeeze", "expand_dims"), "layout"),
    **dict.fromkeys(
        ("slice", "strided_slice", "split", "channel_shuffle", "depth_to_space", "space_to_depth"), "layout"
    ),
    **dict.fromkeys(("activation", "softmax", "log_softmax", "exp", "log"), "activation"),
}


@dataclass(frozen=True)
class Residual:
    """What the table says of some kernels, and what the profile of the networks that have them says, ms.

    Args:
        kernels: how many the table was asked for, repetitions counted.
        share: of the difference in all that the table says of these networks; below 0 where the table says less.
    """

    family: str
    kernels: int
    table_ms: float
    profile_ms: float
    share: float

    @property
    def difference_ms(self) -> float:
        return self.table_ms - self.profile_ms

    @property
    def relative(self) -> float | None:
        """The difference as a share of the profile's time; None where that is 0."""
        return self.difference_ms / self.profile_ms if self.profile_ms else None


@dataclass(frozen=True)
class Carrier:
    """A kernel of one network, all its repetitions together, and how far the table is from the profile there.

    Args:
        times: how often the table was asked for it; 0: the profile alone has it.
        kind: how the table knows it: "measured", "interpolated", or "" where it was not asked.
    """

    key: str
    family: str
    times: int
    kind: str
    table_ms: float
    profile_ms: float


def family_of(op: str, key: OpKey | None) -> str:
    """A name of FAMILIES. A convolution without a key counts as a dense one."""
    if op != "conv2d":
        return _OPS.get(op, "other")
    if key is None:
        return "dense"
    if key.groups > 1:
        return "depthwise" if key.groups == key.input_shape[1] else "grouped"
    return "pointwise" if key.kernel == (1, 1) else "dense"


def residuals(judged: Sequence[Judged]) -> list[Residual]:
    """For each family that some network has, table against profile over all networks. The profiler's share is in the latter."""
    counts, table, profile = dict.fromkeys(FAMILIES, 0), dict.fromkeys(FAMILIES, 0.0), dict.fromkeys(FAMILIES, 0.0)
    for one in judged:
        for key, ms in zip(one.keys, one.kernel_ms, strict=True):
            family = family_of(key.op, key)
            counts[family] += 1
            table[family] += ms
        for row in one.case.profile:
            profile[family_of(row.op, row.key)] += row.ms
    whole = math.fsum(table.values())
    return [
        Residual(
            name, counts[name], table[name], profile[name], (table[name] - profile[name]) / whole if whole else 0.0
        )
        for name in FAMILIES
        if counts[name] or profile[name]
    ]


def carriers(one: Judged, most: int) -> list[Carrier]:
    """The kernels that carry most of a network's difference between table and profile, largest first."""
    rows: dict[str, Carrier] = {}
    for key, ms, kind in zip(one.keys, one.kernel_ms, one.answer.kinds, strict=True):
        known = rows.get(str(key), Carrier(str(key), family_of(key.op, key), 0, kind, 0.0, 0.0))
        rows[known.key] = Carrier(known.key, known.family, known.times + 1, kind, known.table_ms + ms, 0.0)
    for row in one.case.profile:
        text = str(row.key) if row.key is not None else f"{row.op} without a key"
        known = rows.get(text, Carrier(text, family_of(row.op, row.key), 0, "", 0.0, 0.0))
        rows[text] = Carrier(text, known.family, known.times, known.kind, known.table_ms, known.profile_ms + row.ms)
    differing = [row for row in rows.values() if row.table_ms != row.profile_ms]
    return sorted(differing, key=lambda row: -abs(row.table_ms - row.profile_ms))[:most]
