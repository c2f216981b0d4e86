"""A traced network as the guidelines see it: its kernels, the sections in a row, the blocks that end in a merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.counting import ACTIVATIONS

if TYPE_CHECKING:
    from pipeline.fusion.ir import Graph, Node, Value

SUMS = frozenset({"add", "sub", "mul", "div", "rsub"})
POOLS = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})
CONVOLUTIONS = frozenset({"conv2d", "conv_transpose2d"})
_FUSED = frozenset({"relu", "relu6", "hardtanh", "clamp"})


@dataclass(frozen=True)
class Block:
    """What lies between a merge and the merges before it.

    Args:
        nodes: all of it in order; the last one is the merge.
        operators: its convolutions and pools.
        branches: how many of the merge's inputs come through one of these.
    """

    nodes: tuple[Node, ...]
    operators: tuple[Node, ...]
    branches: int


def fuse(graph: Graph) -> None:
    """Normalisations and limits that every runtime makes part of the convolution before them are no kernels any more."""
    from pipeline.fusion.common import fold_normalisations

    fold_normalisations(graph)
    users = graph.users()
    for node in list(graph.nodes):
        if node.op in CONVOLUTIONS or node.op == "linear":
            after = graph.sole_user(node.output, users)
            if after is not None and after.op in _FUSED:
                graph.absorb(node, after, users)


def is_depthwise(node: Node) -> bool:
    return node.op == "conv2d" and node.attributes["groups"] == node.inputs[0].shape[1] > 1


def is_elementwise(node: Node) -> bool:
    """What section 2 calls element-wise: sums, activations, normalisations that nothing absorbed; not what moves data."""
    return node.op in SUMS or node.op in ACTIVATIONS or node.op == "batch_norm"


def is_dense(node: Node) -> bool:
    """A convolution of an image that is not depthwise. Those of a single pixel, as in a gate, are not."""
    return node.op in CONVOLUTIONS and not is_depthwise(node) and node.output.shape[2] * node.output.shape[3] > 1


def place(nodes: Iterable[Node]) -> str:
    """The part of the module that holds all of them; in a file whose names have no parts, from the first to the last."""
    paths = [node.module.split(".") for node in nodes if node.module]
    shared: list[str] = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    if not shared and paths and paths[0] != paths[-1] and max(map(len, paths)) == 1:
        return f"{paths[0][0]} to {paths[-1][0]}"
    return ".".join(shared) or "the network"


def sections(graph: Graph) -> list[list[Node]]:
    """The nodes in a row of sections: where one ends, exactly one tensor goes on."""
    left = {value: len(readers) for value, readers in graph.users().items()}
    alive = {graph.source} if left[graph.source] else set()
    found: list[list[Node]] = [[]]
    for node in graph.nodes:
        found[-1].append(node)
        for value in _tensors(node):
            left[value] -= node.inputs.count(value)
            if not left[value] and value is not graph.sink:
                alive.discard(value)
        alive.update(value for value in node.outputs if left[value] or value is graph.sink)
        if len(alive) == 1:
            found.append([])
    return [each for each in found if each]


def blocks(graph: Graph) -> list[Block]:
    """A block for each merge, a sum or a concatenation of several tensors. One whose result only merges read is part of
    theirs: the five sums of a NASNet cell belong to its concatenation."""
    users, producers = graph.users(), graph.producers()
    merges = {node for node in graph.nodes if _is_merge(node)}
    inner = {node for node in merges if node.output is not graph.sink and merges.issuperset(users[node.output])}
    found = []
    for section in sections(graph):
        inside = set(section)
        for merge in section:
            if merge not in merges or merge in inner:
                continue
            tips = _tips(merge, producers, inner)
            behind = _behind(tips, producers, (inside - (merges - inner)).__contains__)
            branches = [_behind([tip], producers, behind.__contains__) for tip in tips]
            found.append(
                Block(
                    nodes=tuple(node for node in section if node in behind or node is merge),
                    operators=tuple(node for node in section if node in behind and _is_operator(node)),
                    branches=sum(any(map(_is_operator, branch)) for branch in branches),
                )
            )
    return found


def _behind(ends: list[Node | None], producers: dict[Value, Node], follow: Callable[[Node], bool]) -> set[Node]:
    """What the ends are computed from, they too, as far as it is followed."""
    found: set[Node] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found and follow(node):
            found.add(node)
            waiting += [producers.get(value) for value in node.inputs]
    return found


def _tips(merge: Node, producers: dict[Value, Node], inner: set[Node]) -> list[Node | None]:
    """What makes the tensors that meet in a merge and in the merges that are part of it."""
    found: list[Node | None] = []
    waiting = [merge]
    while waiting:
        for value in _tensors(waiting.pop()):
            node = producers.get(value)
            if node is not None and node in inner:
                waiting.append(node)
            else:
                found.append(node)
    return found


def _tensors(node: Node) -> list[Value]:
    """What it reads that is computed, each once."""
    return list(dict.fromkeys(value for value in node.inputs if not value.constant))


def _is_merge(node: Node) -> bool:
    return (node.op in SUMS or node.op == "cat") and len(_tensors(node)) > 1


def _is_operator(node: Node) -> bool:
    return node.op in CONVOLUTIONS or node.op in POOLS
