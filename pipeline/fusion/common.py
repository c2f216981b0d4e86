"""What the rules of every runtime begin with."""

from __future__ import annotations

from pipeline.errors import UnsupportedOp
from pipeline.fusion.ir import Graph, Node


def fold_normalisations(graph: Graph) -> None:
    """A normalisation that alone reads a convolution or a linear layer becomes part of its weights."""
    users = graph.users()
    for node in list(graph.nodes):
        if node.op not in ("conv2d", "conv_transpose2d", "linear"):
            continue
        after = graph.sole_user(node.output, users)
        if after is not None and after.op == "batch_norm" and len(after.output.shape) in (2, 4):
            graph.replace(after.output, node.output, users[after.output])
            graph.drop([after])
            node.weights += 0 if node.attributes.get("bias") else node.output.shape[1]
            node.attributes["bias"] = True


def unknown(node: Node, runtime: str) -> UnsupportedOp:
    """The error for an op whose kernels cannot be told without running it: better none than a wrong one."""
    what = f"{node.module or 'the network'} calls {node.op} on {'x'.join(map(str, node.inputs[0].shape))}"
    return UnsupportedOp(f"{what}, whose kernels in {runtime} are not known beforehand", try_="to measure the network")
