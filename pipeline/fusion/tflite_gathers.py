"""What the TFLite converter makes of the transposes around a GATHER_ND, which picks places of the first axis only.

Seen in the files of litert_torch 0.10: `pipeline.fusion.tflite_rules` is the rest of its optimiser.
"""

from __future__ import annotations

from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.kernels.tflite_keys import ARITHMETIC, CONVOLUTIONS, POOLS

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_WITH_CONSTANTS = frozenset({*ARITHMETIC, "RELU", "RELU6", "RELU_N1_TO_1"})


def transposes_around(graph: Graph) -> None:
    """All rules, in place. A graph without a GATHER_ND is left as it is."""
    gathers = [node for node in graph.nodes if node.op == "GATHER_ND"]
    for gather in gathers:
        _into_one(graph, gather)
    if gathers:
        for node in [node for node in graph.nodes if node.op == "TRANSPOSE"]:
            _behind_elementwise(graph, node)


def _into_one(graph: Graph, gather: Node) -> None:
    """A gather's transpose that alone reads another one is both.

    A convolution's or a pool's image that something else reads too is transposed, and for that one transposed back.
    """
    producers, users = graph.producers(), graph.users()
    own = producers.get(gather.inputs[0])
    before = producers.get(own.inputs[0]) if own is not None else None
    if own is None or own.op != "TRANSPOSE" or before is None or before.op != "TRANSPOSE":
        return
    image = before.inputs[0]
    maker, others = producers.get(image), [node for node in users[image] if node is not before]
    if others and maker is not None and maker.op in (*CONVOLUTIONS, *POOLS):
        back = Node("TRANSPOSE", before.outputs, [Value(image.shape, image.dtype)], {"perm": _TO_LAST}, before.module)
        graph.replace(image, back.output, others)
        _insert(graph, back, after=before)
        _as_reshape(own)
    elif graph.sole_user(before.output, users) is own:
        own.attributes["perm"] = tuple(before.attributes["perm"][axis] for axis in own.attributes["perm"])
        own.inputs = before.inputs
        graph.drop([before])


def _behind_elementwise(graph: Graph, transpose: Node) -> None:
    """A transpose becomes one with a transpose behind it, and goes behind arithmetic with constants."""
    users = graph.users()
    after = graph.sole_user(transpose.output, users)
    if after is not None and after.op == "TRANSPOSE":
        perm = tuple(transpose.attributes["perm"][axis] for axis in after.attributes["perm"])
        after.inputs, after.attributes["perm"] = transpose.inputs, perm
        graph.drop([transpose])
        return
    perm, value, source = transpose.attributes["perm"], transpose.output, transpose.inputs[0]
    last = None
    while (node := graph.sole_user(value, users)) is not None and node.op in _WITH_CONSTANTS:
        if node.inputs[0] is not value or not all(one.constant for one in node.inputs[1:]):
            break
        node.inputs = [source, *(_before(one, perm) for one in node.inputs[1:])]
        value, source, last = node.output, Value(source.shape, source.dtype), node
        node.outputs = [source]
    if last is not None:
        transpose.inputs, transpose.outputs = [source], [value]
        graph.drop([transpose])
        _insert(graph, transpose, after=last)
    _as_reshape(transpose)


def _as_reshape(node: Node) -> None:
    """One that moves nothing in memory."""
    shape = node.inputs[0].shape
    moved = [axis for axis in node.attributes["perm"] if shape[axis] > 1]
    if moved == sorted(moved):
        node.op, node.attributes = "RESHAPE", {}


def _before(constant: Value, perm: Shape) -> Value:
    """A constant as it is beside a tensor that is not transposed yet."""
    if len(constant.shape) != len(perm):
        return constant
    shape = tuple(constant.shape[perm.index(axis)] for axis in range(len(perm)))
    return Value(shape, constant.dtype, True, constant.number)


def _insert(graph: Graph, node: Node, after: Node) -> None:
    graph.nodes.insert(graph.nodes.index(after) + 1, node)
