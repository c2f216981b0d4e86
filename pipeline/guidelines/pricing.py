"""What a rewrite saves: the kernels that a place has in the table's runtime, against those that it would have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.guidelines.structure import CONVOLUTIONS, POOLS, is_elementwise

if TYPE_CHECKING:
    from latency_luts import LatencyTable, OpKey
    from pipeline.fusion.ir import Node
    from pipeline.fusion.use import OpUse

_MOVES = frozenset({"transpose", "reshape", "concat", "slice", "split", "pad", "reorder_in", "reorder_out"})
_LANES = 8
"""Channels that kernels work on at once, at most: rewrites have multiples, where they have that many at all."""


@dataclass(frozen=True)
class Prices:
    """Args: uses: the network's kernels in the table's runtime."""

    table: LatencyTable
    uses: Sequence[OpUse]

    def kernels(self, nodes: Iterable[Node]) -> list[OpKey]:
        """Of these layers, without what only moves data for them. What a runtime fused into another kernel has none."""
        chosen: dict[int, OpKey] = {}
        for node in nodes:
            own = (
                index for index, use in enumerate(self.uses)
                if use.module == node.module and index not in chosen and _belongs(use.key, node)
            )  # fmt: skip
            # A layer that is called twice, and what has no name, shares its name with kernels of other places.
            alone = node.op in CONVOLUTIONS or not node.module
            chosen.update((index, self.uses[index].key) for index in islice(own, 1 if alone else None))
        return list(chosen.values())

    def ms(self, keys: Sequence[OpKey]) -> float | None:
        return self.table.total(keys, on_missing="report").latency_ms

    def saving(self, before: Sequence[OpKey], after: Sequence[OpKey]) -> tuple[float | None, str]:
        """(ms, ""), or (None, which kernels the table does not know)."""
        old, new = (self.table.total(keys, on_missing="report") for keys in (before, after))
        if old.latency_ms is not None and new.latency_ms is not None:
            return old.latency_ms - new.latency_ms, ""
        missing = list(dict.fromkeys((*old.missing, *new.missing)))
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return None, f"the table does not know {missing[0]}{more}"


def resized(key: OpKey, c_in: int, c_out: int, groups: int) -> OpKey:
    """A convolution's kernel with other channels."""
    shape = (key.input_shape[0], c_in, *key.input_shape[2:])
    return dataclasses.replace(key, input_shape=shape, out_channels=c_out, groups=groups)


def rounded_up(channels: float, groups: int = 1) -> int:
    """At least so many channels: a multiple of the groups, and of what kernels work on at once where that is not far off."""
    step = math.lcm(_LANES, groups)
    if channels < 4 * step:
        step = groups
    return max(1, math.ceil(channels / step - 1e-9)) * step


def balanced(c_in: int, c_out: int, groups: int = 1) -> tuple[int, int]:
    """Channels (in, out), nearly equal, whose product is at least c_in c_out: a rewrite is never given fewer operations."""
    wide = rounded_up(math.sqrt(c_in * c_out), groups)
    return wide, min(wide, rounded_up(c_in * c_out / wide, groups))


def _belongs(key: OpKey, node: Node) -> bool:
    if node.op in CONVOLUTIONS:
        return key.op == node.op and key.input_shape == node.inputs[0].shape and key.out_channels == node.output.shape[1]
    if node.op in POOLS:
        return key.op not in ("conv2d", "linear", "concat")
    shapes = [value.shape for value in (*node.inputs, *node.outputs)]
    return is_elementwise(node) and key.op not in _MOVES | {"conv2d", "linear"} and key.input_shape in shapes
