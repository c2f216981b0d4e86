"""torch's ops -> ONNX's, in the order of the file that torch.onnx writes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.fusion.common import fold_normalisations, unknown
from pipeline.fusion.ir import Graph, Node
from pipeline.fusion.onnx_entries import ENTRIES


def to_onnx(graph: Graph) -> None:
    """Rewrites a graph of torch's ops in place; nodes are numbered as in the file.

    Raises: UnsupportedOp: there is no entry for an op.
    """
    fold_normalisations(graph)
    graph.rewrite(_expand)
    graph.merge_equal()
    graph.drop_dead()
    for number, node in enumerate(graph.nodes):
        node.index = number


def _expand(node: Node) -> Sequence[Node]:
    entry = ENTRIES.get(node.op)
    if entry is None:
        raise unknown(node, "onnxruntime")
    return entry(node)
