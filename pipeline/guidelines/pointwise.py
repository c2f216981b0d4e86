"""G1 and G2: the memory access of one convolution, against that of one with as many multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.counting import memory_access
from pipeline.guidelines.bounds import balanced_memory_access, pointwise_memory_access, ungrouped_memory_access
from pipeline.guidelines.finding import Finding
from pipeline.guidelines.pricing import Prices, balanced, resized, rounded_up
from pipeline.guidelines.structure import is_depthwise, place

if TYPE_CHECKING:
    from pipeline.fusion.ir import Graph, Node

RATIO = 1.2
"""Memory access / bound above which a convolution is a finding.

Between two lines of the paper's Table 1, on its ARM: channels of 1:2 move 1.06 times the least and take at most 6 % longer,
which is not worth a rewrite; 1:6 move 1.42 times the least and take 10 to 21 % longer. Where the weights of a convolution are
few beside its maps, 1.2 is reached at 1:3.5; an inverted bottleneck of 6 exceeds it, a step from 24 to 58 channels does not.
In Table 2 two groups move 1.4 times as much, at up to 14 % more time.
"""

QUANTITY = "memory access, elements"


def equal_channels(graph: Graph, prices: Prices | None) -> Iterator[Finding]:
    """G1, for each 1x1 convolution: h w (c_in + c_out) + c_in c_out / g against 2 sqrt(h w B g) + B / (h w).

    h and w are the output's. Groups are left as they are: what they cost is G2's. Depthwise ones are G4's.
    """
    for node in _convolutions(graph):
        if node.attributes["kernel"] != (1, 1):
            continue
        c_in, c_out, groups = node.inputs[0].shape[1], node.attributes["out_channels"], node.attributes["groups"]
        h, w = node.output.shape[2:]
        measured = pointwise_memory_access(h, w, c_in, c_out, groups)
        bound = balanced_memory_access(h, w, h * w * c_in * c_out // groups, groups)
        if measured <= RATIO * bound:
            continue
        a, b = balanced(c_in, c_out, groups)
        suggestion = f"{a} -> {b} channels instead of {c_in} -> {c_out}"
        yield _finding("g1", node, measured, bound, suggestion, prices, (a, b, groups))


def few_groups(graph: Graph, prices: Prices | None) -> Iterator[Finding]:
    """G2, for each grouped convolution: its memory access against that without groups and all channels divided by sqrt(g).

    That is how Table 2 compares: multiply-accumulates and weights are the same, the maps are narrower by sqrt(g). Equation 2
    holds the input instead and lets the output shrink; the layers of a network, which feed each other, cannot all do that.
    A saving leaves out the channel shuffles that a network without groups has no need of.
    """
    for node in _convolutions(graph):
        groups = node.attributes["groups"]
        if groups == 1:
            continue
        c_in, c_out = node.inputs[0].shape[1], node.attributes["out_channels"]
        measured = memory_access(node)
        weights = c_in * c_out // groups * math.prod(node.attributes["kernel"])
        bound = ungrouped_memory_access(measured - weights, weights, groups)
        if measured <= RATIO * bound:
            continue
        a = rounded_up(c_in / math.sqrt(groups))
        b = rounded_up(c_in * c_out / groups / a)
        suggestion = f"{a} -> {b} channels without groups instead of {c_in} -> {c_out} in {groups} groups"
        yield _finding("g2", node, measured, bound, suggestion, prices, (a, b, 1))


def _convolutions(graph: Graph) -> Iterator[Node]:
    yield from (node for node in graph.nodes if node.op == "conv2d" and not is_depthwise(node))


def _finding(
    rule: str, node: Node, measured: int, bound: float, suggestion: str, prices: Prices | None, to: tuple[int, int, int]
) -> Finding:
    saving, note = None, ""
    if prices is not None:
        own = prices.kernels([node])
        if own:
            saving, note = prices.saving(own, [resized(key, *to) for key in own])
        else:
            note = "the runtime has no kernel of its own for this layer"
    return Finding(rule, place([node]), measured, bound, suggestion, saving, QUANTITY, note)
