"""torch's ops -> TFLite's, each image in the layout that it is stored in, with the transposes between the two layouts.

Behind this come the simplifications of `pipeline.fusion.tflite_rules`.
"""

from __future__ import annotations

from pipeline.fusion.ir import Graph, Node, Value
from pipeline.fusion.layout import channels_last
from pipeline.fusion.tflite_entries import ENTRIES
from pipeline.fusion.tflite_stored import Stored, last, unknown

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def to_tflite(graph: Graph) -> Graph:
    """A new graph of TFLite's ops; its tensors have the shapes that the file stores.

    Raises: UnsupportedOp: an op has no entry, or its place in the layouts is one that the converter's are not known for.
    """
    return _Lowering(graph).run()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.last = channels_last(graph)
        self.nodes: list[Node] = []
        source = Value(last(graph.source.shape))  # the file's input has the channels last
        self.stored: dict[tuple[Value, bool], Value] = {(graph.source, len(source.shape) == 4): source}
        self.source = source

    def run(self) -> Graph:
        for node in self.graph.nodes:
            entry = ENTRIES.get(node.op)
            if entry is None:
                raise unknown(node)
            is_last = node in self.last
            stored = Stored(node, [self._as(value, is_last, node) for value in node.inputs], is_last)
            entry(stored)
            for value, made in zip(node.outputs, stored.outputs, strict=True):
                self.stored[value, is_last and len(value.shape) == 4] = made
            self.nodes += stored.nodes
        return Graph(self.nodes, self.source, self._as(self.graph.sink, False, self.graph.nodes[-1]))

    def _as(self, value: Value, is_last: bool, node: Node) -> Value:
        """A tensor in one of the two layouts, transposed where it is there in the other one only."""
        if value.constant:
            image = len(value.shape) in (3, 4) and value.number is None
            full = (1, *value.shape) if len(value.shape) == 3 and is_last else value.shape
            return Value(last(full) if is_last and image else value.shape, value.dtype, True, value.number)
        wanted = is_last and len(value.shape) == 4
        if (value, wanted) in self.stored:
            return self.stored[value, wanted]
        there = self.stored[value, not wanted]
        perm = _TO_LAST if wanted else _TO_FIRST
        made = Value(tuple(there.shape[axis] for axis in perm), there.dtype)
        moved = [axis for axis in perm if there.shape[axis] > 1]
        if moved == sorted(moved):  # nothing moves in memory
            self.nodes.append(Node("RESHAPE", [there], [made], {}, node.module))
        else:
            self.nodes.append(Node("TRANSPOSE", [there], [made], {"perm": perm}, node.module))
        self.stored[value, wanted] = made
        return made
