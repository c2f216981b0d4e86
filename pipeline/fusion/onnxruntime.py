"""Which kernels onnxruntime makes of a network."""

from __future__ import annotations

from pipeline.fusion import onnx_rules as rules
from pipeline.fusion.ir import Graph, Node
from pipeline.fusion.nchwc import to_blocked
from pipeline.fusion.onnx_graph import to_onnx
from pipeline.fusion.rules import CONV_ACTIVATIONS, GEMM_ACTIVATIONS
from pipeline.fusion.use import OpUse, use_of
from pipeline.kernels.onnx_keys import CONVOLUTIONS, LINEAR, Operands, conv_key, linear_key, other_key


def kernels(graph: Graph, block: int) -> list[OpUse]:
    """The kernels of a network that was traced, which is used up by this.

    Args: block: channels of a block of the layout NCHWc on the processor: 16 with AVX-512, 8 on other x86_64, 0 where
    onnxruntime has none.

    Raises: UnsupportedOp: an op whose kernels are not known.
    """
    to_onnx(graph)
    rules.drop_neutral(graph)
    rules.slices_to_split(graph)
    rules.fold_constants(graph)
    rules.transposed_products(graph)
    rules.fold_pads(graph)
    rules.inline_functions(graph)
    rules.fuse_activations(graph, LINEAR, GEMM_ACTIVATIONS)
    rules.fuse_activations(graph, CONVOLUTIONS, CONV_ACTIVATIONS)
    rules.quick_gelu(graph)
    blocked = to_blocked(graph, rules.ordered(graph), block) if block else frozenset()
    rules.fuse_added(graph, blocked)
    return [_use(node) for node in rules.ordered(graph)]


def _use(node: Node) -> OpUse:
    source, sink = node.inputs[0], node.output
    second = node.inputs[1].shape if len(node.inputs) > 1 else None
    convolution = node.op in CONVOLUTIONS
    constants = {}
    if node.op == "ReduceMean":
        constants[1] = node.attributes["axes"]
    elif node.op == "Pad":
        constants[1] = node.attributes["pads"]
    elif node.op == "Clip":
        constants = {1: [node.attributes["low"]], 2: [node.attributes["high"]]}
    added = convolution and len(node.inputs) > 1
    operands = Operands(source.shape, sink.shape, source.dtype, second, constants, added)
    attributes = {name: value for name, value in node.attributes.items() if name not in _OURS.get(node.op, ())}
    macs = 0
    if convolution:
        key, counted = conv_key(attributes, attributes.get("group", 1), operands)
        macs = counted or 0
    elif node.op in LINEAR:
        key, macs = linear_key(attributes, operands)
    else:
        key = other_key(node.op, attributes, operands)
    return use_of(key, node, macs)


_OURS = {
    "Slice": ("dim", "begin", "end", "step"),
    "PRelu": (),
}
"""Attributes that ONNX has as inputs."""
