"""G3: how many operators lie between two merges, and how many of them beside each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.guidelines.finding import Finding
from pipeline.guidelines.pricing import Prices, rounded_up
from pipeline.guidelines.structure import Block, blocks, place

if TYPE_CHECKING:
    from pipeline.fusion.ir import Graph

OPERATORS = 3
"""Of a branch: "in regular structures like ResNet, this number is 2 or 3" (section 2), where NASNet-A's blocks have 13."""

BRANCHES = 2
"""A block's own and a projection beside it, as where ResNet and ShuffleNetV2 itself halve the image."""


def few_fragments(graph: Graph, prices: Prices | None) -> Iterator[Finding]:
    """G3, for each block that ends in a merge: its branches with operators against `BRANCHES`, or, if it exceeds that by
    more, its convolutions and pools against as many branches of `OPERATORS`.

    The rewrite is Table 3's: one 1x1 convolution with the multiply-accumulates of all. Operators in series that no merge
    ends are a plain network and no finding; on the paper's ARM they cost 5 % at most.
    """
    for block in blocks(graph):
        count, most = len(block.operators), BRANCHES * OPERATORS
        if block.branches <= BRANCHES and count <= most:
            continue
        where = block.nodes[-1].module or place(block.nodes)
        side_by_side = block.branches / BRANCHES >= count / most
        quantity = "branches between merges" if side_by_side else "operators between merges"
        measured, bound = (block.branches, BRANCHES) if side_by_side else (count, most)
        suggestion, saving, note = _rewrite(block, prices)
        yield Finding("g3", where, measured, bound, suggestion, saving, quantity, note)


def _rewrite(block: Block, prices: Prices | None) -> tuple[str, float | None, str]:
    n, _, h, w = block.nodes[-1].output.shape if len(block.nodes[-1].output.shape) == 4 else (1, 1, 1, 1)
    macs = sum(node.macs or 0 for node in block.operators)
    if not macs:
        return "fewer operators between the merges", None, "there is no convolution in it to be made larger"
    channels = rounded_up(math.sqrt(macs / (n * h * w)))
    told = f"{len(block.operators)} operators in {block.branches} {'branch' if block.branches == 1 else 'branches'}"
    suggestion = f"one 1x1 convolution of {channels} -> {channels} channels instead of {told}"
    if prices is None:
        return suggestion, None, ""
    before = prices.kernels(block.operators)
    some = next((key for key in before if key.op == "conv2d"), None)
    if some is None:
        return suggestion, None, "the runtime has no kernels of its own for this block"
    after = dataclasses.replace(
        some, input_shape=(n, channels, h, w), out_channels=channels, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0),
        dilation=(1, 1), groups=1, fused_add=False, detail="",
    )  # fmt: skip
    return suggestion, *prices.saving(before, [after])
