"""G4: how much of a unit's memory access its element-wise and depthwise kernels have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from pipeline.counting import ACTIVATIONS, memory_access
from pipeline.guidelines.finding import Finding
from pipeline.guidelines.pointwise import RATIO
from pipeline.guidelines.pricing import Prices, balanced, resized
from pipeline.guidelines.structure import is_dense, is_depthwise, is_elementwise, place, sections

if TYPE_CHECKING:
    from latency_luts import OpKey
    from pipeline.fusion.ir import Graph, Node

SHARE = 1 / 3
"""What ShuffleNetV2's own unit has: a depthwise convolution between two 1x1 of the same channels."""

SHARE_STRIDED = 5 / 11
"""What its unit of stride 2 has, c channels in each branch: both depthwise ones read four times what they write."""


def few_elementwise(graph: Graph, prices: Prices | None) -> Iterator[Finding]:
    """G4, for each unit: the share of its memory access that is element-wise or depthwise, against that of ShuffleNetV2's.

    A unit is what lies between a fork and the merge that closes it, with what is element-wise behind that, or a depthwise
    convolution on a path of its own from the dense convolution before it to the one after. Activations that only limit are
    taken for fused into the convolution before them; concatenations and shuffles only move data and are in neither part.

    `pointwise.RATIO` is the margin here too: without a sum, and where maps are large beside weights, that is reached where the
    depthwise convolution has twice the channels of the unit's ends, t / (2 t + 1) being the share at an expansion of t.
    """
    for unit, where in _units(graph):
        light = [node for node in unit if is_depthwise(node) or is_elementwise(node)]
        all_of_it = [node for node in unit if node in light or node.macs is not None]
        strided = any(is_depthwise(node) and max(node.attributes["stride"]) > 1 for node in light)
        bound = SHARE_STRIDED if strided else SHARE
        share = sum(map(memory_access, light)) / sum(map(memory_access, all_of_it))
        if share <= RATIO * bound:
            continue
        suggestion, saving, note = _rewrite(unit, light, prices)
        part = None if prices is None else _time_share(light, all_of_it, prices)
        yield Finding("g4", where, share, bound, suggestion, saving, "share of memory access", note, part)


def _units(graph: Graph) -> Iterator[tuple[list[Node], str]]:
    """(nodes, name): a depthwise convolution on a path of its own gives its name to its unit."""
    parts = sections(graph)
    dense = [any(map(is_dense, part)) for part in parts]
    for index, part in enumerate(parts):
        if dense[index]:
            if len(part) > 1 and any(is_depthwise(node) or is_elementwise(node) for node in part):
                after = takewhile(lambda each: len(each) == 1 and is_elementwise(each[0]), parts[index + 1 :])
                yield [*part, *(node for each in after for node in each)], part[-1].module or place(part)
        elif len(part) == 1 and is_depthwise(part[0]):
            before = next((i for i in range(index - 1, -1, -1) if dense[i]), None)
            behind = next((i for i in range(index + 1, len(parts)) if dense[i]), None)
            if before is None or behind is None or len(parts[before]) > 1 or len(parts[behind]) > 1:
                continue  # a neighbour is a unit of its own
            yield [node for each in parts[before : behind + 1] for node in each], place(part)


def _rewrite(unit: Sequence[Node], light: Sequence[Node], prices: Prices | None) -> tuple[str, float | None, str]:
    words: list[str] = []
    before: list[OpKey] = []
    after: list[OpKey] = []
    makers = {value: node for node in unit for value in node.outputs}
    for node in light:
        expand = makers.get(node.inputs[0])
        while expand is not None and is_elementwise(expand):
            expand = makers.get(expand.inputs[0])
        if not is_depthwise(node) or expand is None or not _is_pointwise(expand):
            continue
        thin, wide = expand.inputs[0].shape[1], node.inputs[0].shape[1]
        channels = balanced(thin, wide)[0]
        if channels >= wide:
            continue
        words.append(f"{channels} channels in the depthwise convolution instead of {wide}, between 1x1 that are balanced")
        old = prices.kernels([node]) if prices else []
        before += old
        ratio = node.attributes["out_channels"] // wide
        after += [resized(key, channels, channels * ratio, channels) for key in old if key.op == "conv2d"]
    rest = [node for node in light if not is_depthwise(node)]
    kinds = {"act" if node.op in ACTIVATIONS else node.op for node in rest}
    if kinds & {"add", "sub", "rsub"}:
        words.append("no sum: a part of the channels passes by and is concatenated")
    if kinds & {"mul", "div"}:
        words.append("no gate on the wide map")
    if kinds & {"act", "batch_norm"}:
        words.append("nothing element-wise that the convolution before it cannot take in")
    if not words:
        return "fewer channels through the depthwise convolution, or more through the others", None, ""
    if prices is None:
        return "; ".join(words), None, ""
    before += prices.kernels(rest)
    if not before:
        return "; ".join(words), None, "the runtime has no kernels of their own for what would go"
    return "; ".join(words), *prices.saving(before, after)


def _is_pointwise(node: Node) -> bool:
    return is_dense(node) and node.attributes["kernel"] == (1, 1)


def _time_share(light: Sequence[Node], all_of_it: Sequence[Node], prices: Prices) -> float | None:
    part, whole = prices.ms(prices.kernels(light)), prices.ms(prices.kernels(all_of_it))
    return part / whole if part is not None and whole else None
