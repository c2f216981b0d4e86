"""Which kernels LiteRT and TensorFlow Lite run with XNNPACK: the converter's ops, and what XNNPACK folds and splits.

Seen in the profiles of LiteRT 2.3. What fuses is decided in the file (`pipeline.fusion.tflite_rules`); XNNPACK adds two
rules of its own: a PAD that a convolution alone reads is the convolution's, and arithmetic with a fused ReLU is two
kernels, the second a clamp.
"""

from __future__ import annotations

import dataclasses
import math

from latency_luts import OpKey
from pipeline.fusion.common import fold_normalisations
from pipeline.fusion.ir import Graph, Node, Value
from pipeline.fusion.rules import XnnpackRules
from pipeline.fusion.tflite_graph import to_tflite
from pipeline.fusion.tflite_rules import hard_swish, simplify
from pipeline.fusion.use import OpUse, use_of
from pipeline.kernels.partition import execution_order
from pipeline.kernels.tflite_keys import ARITHMETIC, CONVOLUTIONS, Operands, key_of


def kernels(graph: Graph, version: XnnpackRules) -> list[OpUse]:
    """The kernels of a network that was traced, which is used up by this."""
    fold_normalisations(graph)
    hard_swish(graph)
    stored = to_tflite(graph)
    simplify(stored)
    order = execution_order(
        stored.nodes,
        reads=lambda node: node.inputs,
        writes=lambda node: node.outputs,
        delegated=lambda node: node.op not in version.interpreted,
    )
    fold_pads(stored)
    running = set(stored.nodes)
    return [use_of(*one) for node in order if node in running for one in _parts(node, version)]


def fold_pads(graph: Graph) -> None:
    """A PAD of zeros that one convolution alone reads, which pads nothing itself, becomes its padding."""
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users)
        if node.op != "PAD" or after is None or after.op not in CONVOLUTIONS:
            continue
        pads = node.attributes["pads"]
        if pads[0] == pads[3] == (0, 0) and not any(after.attributes["padding"]):
            after.attributes["padding"] = (pads[1][0], pads[2][0], pads[1][1], pads[2][1])
            after.inputs = node.inputs
            graph.drop([node])


def _parts(node: Node, version: XnnpackRules) -> list[tuple[OpKey | None, Node, int]]:
    """The kernels of one op of the file: its own, with one before or behind it where XNNPACK needs one."""
    source, sink = node.inputs[0], node.output
    others = [value.shape for value in node.inputs[1:]]
    fused = node.attributes.get("activation", "none")
    key, macs = key_of(node.op, Operands(source.shape, sink.shape, source.dtype, others, node.attributes))
    if node.op in ARITHMETIC and fused != "none" and version.splits_activations and key is not None:
        second = Node("RELU", [sink], [sink], {}, node.module)
        clamp, _ = key_of("RELU", Operands(sink.shape, sink.shape, sink.dtype))
        behind = None if clamp is None else dataclasses.replace(clamp, activation=fused)
        return [(dataclasses.replace(key, activation="none"), node, 0), (behind, second, 0)]
    if node.op == "FULLY_CONNECTED" and len(sink.shape) < len(source.shape) and version.flattens:
        rows = Value((source.shape[0], math.prod(source.shape[1:])), source.dtype)
        first = Node("RESHAPE", [source], [rows], {}, node.module)
        before, _ = key_of("RESHAPE", Operands(source.shape, rows.shape, source.dtype))
        node.inputs = [rows]
        return [(before, first, 0), *_parts(node, version)]
    return [(key, node, macs or 0)]
