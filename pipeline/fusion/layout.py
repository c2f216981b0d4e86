"""Which ops of a network litert_torch gives images with the channels last: a cut of the graph with the fewest transposes.

The converter's own rule (its OptimizeLayoutTransposesPass): convolutions, pools and resizes must have them last, reshapes
and their kin must not, and what lies between goes to the side that costs fewer transposes; where two cuts cost the same,
the one nearer to the side of the reshapes. A tensor with several readers is transposed once for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from pipeline.fusion.ir import Graph, Node

LAST, FIRST, EITHER = "last", "first", "either"

MUST_BE_LAST = frozenset(
    {"conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "interpolate", "prelu"}
)  # fmt: skip
CAN_BE_LAST = frozenset(
    {
        "add", "sub", "rsub", "mul", "div", "relu", "relu6", "hardtanh", "clamp", "leaky_relu", "silu", "hardswish",
        "hardsigmoid", "sigmoid", "tanh", "gelu", "softplus", "mish", "softmax", "exp", "log", "abs", "neg", "sqrt", "rsqrt",
        "batch_norm", "mean", "cat", "split", "chunk", "slice",
    }
)  # fmt: skip

_CUT, _CUT_AFTER_MEAN, _NEVER = 10, 9, 1 << 28


def channels_last(graph: Graph) -> set[Node]:
    """The nodes whose image is stored with the channels last."""
    sides = {node: side(node) for node in graph.nodes}
    edges = _edges(graph, sides)
    reached = _source_side(edges)
    return {node for node in graph.nodes if node not in reached and sides[node] != FIRST}


def side(node: Node) -> str:
    """What an op must be stored as, or that either will do."""
    images = [value for value in (*node.inputs, *node.outputs) if not value.constant]
    if any(len(value.shape) != 4 for value in images):
        return FIRST
    if node.op == "adaptive_avg_pool2d":  # to one pixel it is a mean, else an average pool
        return EITHER if node.attributes["size"] == (1, 1) else LAST
    if node.op in MUST_BE_LAST:
        return LAST
    return EITHER if node.op in CAN_BE_LAST else FIRST


_Edges = dict[Hashable, dict[Hashable, int]]


def _edges(graph: Graph, sides: dict[Node, str]) -> _Edges:
    """Capacities both ways between neighbours; "first" and "last" are the two ends."""
    edges: _Edges = {FIRST: {}, LAST: {}}
    users, producers = graph.users(), graph.producers()
    edges[FIRST][graph.source] = _NEVER
    for node in graph.nodes:
        if sides[node] == FIRST:
            edges[FIRST][node] = _NEVER
        elif sides[node] == LAST:
            edges.setdefault(node, {})[LAST] = _NEVER
        if graph.sink in node.outputs:
            _join(edges, node, "output", _CUT)
    edges[FIRST]["output"] = _NEVER
    for value, readers in users.items():
        if value.constant or not readers:
            continue
        producer: Hashable = producers.get(value, graph.source)
        mean = isinstance(producer, Node) and producer.op in ("mean", "adaptive_avg_pool2d")
        cost = _CUT_AFTER_MEAN if mean else _CUT
        if len(readers) + (value is graph.sink) > 1:
            _join(edges, producer, ("read by many", value), cost)
            producer = ("read by many", value)
        for reader in readers:
            _join(edges, producer, reader, cost)
    return edges


def _join(edges: _Edges, a: Hashable, b: Hashable, cost: int) -> None:
    edges.setdefault(a, {})[b] = cost
    edges.setdefault(b, {})[a] = cost


def _source_side(edges: _Edges) -> set[Hashable]:
    """What still hangs together with the side of the channels first when the flow between the two ends is at its most."""
    flow: dict[tuple[Hashable, Hashable], int] = {}

    def room(a: Hashable, b: Hashable) -> int:
        return edges.get(a, {}).get(b, 0) - flow.get((a, b), 0)

    neighbours: dict[Hashable, set[Hashable]] = {}
    for a, row in edges.items():
        for b in row:
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    while True:
        before: dict[Hashable, Hashable] = {FIRST: FIRST}
        queue: deque[Hashable] = deque([FIRST])
        while queue and LAST not in before:
            a = queue.popleft()
            for b in neighbours.get(a, ()):
                if b not in before and room(a, b) > 0:
                    before[b] = a
                    queue.append(b)
        if LAST not in before:
            return set(before)
        path: list[tuple[Hashable, Hashable]] = []
        at: Hashable = LAST
        while at != FIRST:
            path.append((before[at], at))
            at = before[at]
        least = min(room(a, b) for a, b in path)
        for a, b in path:
            flow[a, b] = flow.get((a, b), 0) + least
            flow[b, a] = flow.get((b, a), 0) - least
