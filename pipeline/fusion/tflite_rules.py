"""What the TFLite converter's optimiser makes of lowered ops, as far as it changes what runs. Each rule is one function.

Seen in the files of litert_torch 0.10 (litert-converter 0.5).
"""

from __future__ import annotations

import math

from pipeline.errors import UnsupportedOp
from pipeline.fusion.ir import Graph, Node, Value
from pipeline.fusion.tflite_gathers import transposes_around
from pipeline.kernels.file_op import activation
from pipeline.kernels.tflite_keys import ARITHMETIC, CONVOLUTIONS, window_padding

WEIGHTED = (*CONVOLUTIONS, "FULLY_CONNECTED")
FUSED_ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")
TAKES_ACTIVATION = frozenset({*WEIGHTED, *ARITHMETIC, "AVERAGE_POOL_2D", "MAX_POOL_2D"})


def simplify(graph: Graph) -> None:
    """All rules, in place, in an order in which none is needed twice."""
    graph.drop_dead()
    drop_neutral(graph)
    move_pads(graph)
    transposes_around(graph)
    merge_reshapes(graph)
    graph.merge_equal()
    slices_of_concats(graph)
    constants_into_weights(graph)
    fuse_activations(graph)
    same_padding(graph)
    factors_into_weights(graph)


def hard_swish(graph: Graph) -> None:
    """x * relu6(x + 3) / 6 in torch's ops is a HARD_SWISH, whichever of the two factors is divided."""
    producers, users = graph.producers(), graph.users()
    for node in list(graph.nodes):
        whole = producers.get(_sixth(node, producers) or graph.source)
        if whole is not None and whole.op == "mul":  # (x * gate) / 6
            pairs = [(x, producers.get(gate)) for x, gate in _both_ways(whole)]
        else:  # x * (gate / 6)
            parts = [(x, producers.get(gate)) for x, gate in _both_ways(node)]
            pairs = [(x, producers.get(_sixth(one, producers) or graph.source)) for x, one in parts if one is not None]
        for x, gate in pairs:
            if gate is not None and _is_gate(gate, x, producers) and graph.sole_user(gate.output, users) is not None:
                node.op, node.inputs, node.attributes = "hardswish", [x], {}
                break
    graph.drop_dead()


def _both_ways(node: Node) -> list[tuple[Value, Value]]:
    if node.op != "mul" or len(node.inputs) != 2:
        return []
    first, second = node.inputs
    return [(first, second), (second, first)]


def _sixth(node: Node, producers: dict[Value, Node]) -> Value | None:
    """What a node divides by 6; None where it does not."""
    numbers = [value.number for value in node.inputs]
    if node.op == "div" and numbers[1:] == [6.0]:
        return node.inputs[0]
    if node.op == "mul" and len(numbers) == 2:
        for value, number in zip(node.inputs, numbers[::-1], strict=True):
            if number is not None and abs(number * 6 - 1) < 1e-3:
                return value
    return None


def _is_gate(node: Node, x: Value, producers: dict[Value, Node]) -> bool:
    """relu6(x + 3)."""
    limits = (node.attributes.get("low"), node.attributes.get("high"))
    if node.op != "relu6" and not (node.op in ("hardtanh", "clamp") and limits == (0, 6)):
        return False
    moved = producers.get(node.inputs[0])
    return moved is not None and moved.op == "add" and x in moved.inputs and 3.0 in [v.number for v in moved.inputs]


def drop_neutral(graph: Graph) -> None:
    """Adding 0, multiplying by 1 and a reshape to the same shape are nothing; to divide by a number is to multiply."""
    for node in list(graph.nodes):
        number = node.inputs[1].number if len(node.inputs) == 2 else None
        neutral = {"ADD": 0.0, "SUB": 0.0, "MUL": 1.0, "DIV": 1.0}.get(node.op)
        same = node.op == "RESHAPE" and node.inputs[0].shape == node.output.shape
        if same or (neutral is not None and number == neutral):
            graph.replace(node.output, node.inputs[0])
            graph.drop([node])
        elif node.op == "DIV" and number:
            node.op, node.inputs = "MUL", [node.inputs[0], Value((), "float32", True, 1 / number)]


def move_pads(graph: Graph) -> None:
    """A PAD between a transpose and its inverse works on the image as it is stored.

    Raises: UnsupportedOp: any other PAD of an image with the channels first, or one behind an average pool, which the
    converter lowers later than it moves transposes.
    """
    producers = graph.producers()
    for node in list(graph.nodes):
        if node.op != "PAD" or node.attributes.pop("layout", "") != "first":
            continue
        before, users = producers.get(node.inputs[0]), graph.users()
        after = users[node.output]
        inverse = [one for one in after if one.op == "TRANSPOSE" and one.attributes["perm"] == (0, 2, 3, 1)]
        movable = before is not None and before.op == "TRANSPOSE" and len(users[before.output]) == 1
        behind = producers.get(before.inputs[0]) if before is not None else None
        if not movable or before is None or len(inverse) != len(after) or (behind and behind.op == "AVERAGE_POOL_2D"):
            what = f"{node.module or 'the network'} pads {'x'.join(map(str, node.inputs[0].shape))} in a place"
            raise UnsupportedOp(f"{what} for which LiteRT's transposes are not known", try_="to measure the network")
        pads = node.attributes["pads"]
        node.attributes["pads"] = tuple(pads[axis] for axis in (0, 2, 3, 1))
        node.inputs, node.outputs = before.inputs, [after[0].output]
        for one in after:
            graph.replace(one.output, node.output)
        graph.drop([before, *after])


def merge_reshapes(graph: Graph) -> None:
    """Of two reshapes in a row one is left; a MEAN drops its own axes; adding leading ones is left to broadcasting."""
    for node in [node for node in graph.nodes if node.op == "RESHAPE"]:
        producers, users = graph.producers(), graph.users()
        while (before := producers.get(node.inputs[0])) and graph.sole_user(before.output, users) is node:
            dropped = before.attributes.get("axes", ())
            kept = tuple(size for axis, size in enumerate(before.inputs[0].shape) if axis not in dropped)
            if before.op == "RESHAPE":
                node.inputs = before.inputs
                users[before.inputs[0]] = [node if one is before else one for one in users[before.inputs[0]]]
                graph.drop([before])
                continue
            if before.op == "MEAN" and node.output.shape == kept:
                before.outputs = node.outputs
                graph.drop([node])
            break
    producers = graph.producers()
    for node in graph.nodes:
        if node.op in ARITHMETIC:
            node.inputs = [_without_ones(value, producers) for value in node.inputs]
        before = producers.get(node.inputs[0])
        if node.op != "FULLY_CONNECTED" or before is None or before.op != "RESHAPE":
            continue
        if before.inputs[0].shape[-1] == before.output.shape[-1]:  # an image of one pixel is read as it is
            node.inputs = before.inputs
    for node in list(graph.nodes):
        if node.op == "RESHAPE" and node.inputs[0].shape == node.output.shape:
            graph.replace(node.output, node.inputs[0])
            graph.drop([node])
    graph.drop_dead()


def _without_ones(value: Value, producers: dict[Value, Node]) -> Value:
    before = producers.get(value)
    if before is None or before.op != "RESHAPE":
        return value
    small = before.inputs[0]
    return small if (1,) * (len(value.shape) - len(small.shape)) + small.shape == value.shape else value


def slices_of_concats(graph: Graph) -> None:
    """A SLICE that lies in one part of what was concatenated reads that part."""
    producers = graph.producers()
    for node in list(graph.nodes):
        before = producers.get(node.inputs[0]) if node.op == "SLICE" else None
        if before is None or before.op != "CONCATENATION" or before.attributes["axis"] != node.attributes["axis"]:
            continue
        begin = 0
        for part in before.inputs:
            stop = begin + part.shape[node.attributes["axis"]]
            if begin <= node.attributes["begin"] and node.attributes["stop"] <= stop:
                node.inputs = [part]
                node.attributes.update(begin=node.attributes["begin"] - begin, stop=node.attributes["stop"] - begin)
                if part.shape == node.output.shape:
                    graph.replace(node.output, part)
                    graph.drop([node])
                break
            begin = stop


def constants_into_weights(graph: Graph) -> None:
    """Arithmetic with a number, or one a channel, that alone reads a convolution or a linear layer is in its weights."""
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users)
        while node.op in WEIGHTED and after is not None and after.op in ARITHMETIC and after.inputs[0] is node.output:
            other = after.inputs[1]
            channels = node.output.shape[-1]
            if not other.constant or (other.number is None and math.prod(other.shape) != channels):
                break
            graph.absorb(node, after, users)
            after = graph.sole_user(node.output, users)


def fuse_activations(graph: Graph) -> None:
    """A ReLU that alone reads an op that takes one is a part of it."""
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users)
        if node.op in TAKES_ACTIVATION and after is not None and after.op in FUSED_ACTIVATIONS:
            node.attributes["activation"] = activation(after.op)
            graph.absorb(node, after, users)


def factors_into_weights(graph: Graph) -> None:
    """Arithmetic with a constant that only a linear layer or a convolution reads is in the weights of that one: of a
    convolution a factor, and a number that is added where nothing is padded; of a linear layer any."""
    users = graph.users()
    for node in reversed(list(graph.nodes)):
        after = graph.sole_user(node.output, users)
        if node.op not in ARITHMETIC or "activation" in node.attributes or after is None or len(node.inputs) != 2:
            continue
        other, is_factor = node.inputs[1], node.op == "MUL"
        if after.op == "FULLY_CONNECTED":
            folds = other.constant
        else:
            takes = after.op in CONVOLUTIONS and (is_factor or not any(after.attributes["padding"]))
            folds = takes and other.number is not None
        if folds:
            users[node.inputs[0]] = [after if one is node else one for one in users[node.inputs[0]]]
            graph.replace(node.output, node.inputs[0], [after])
            graph.drop([node])


def same_padding(graph: Graph) -> None:
    """A convolution whose PAD is what TFLite calls SAME has it as its own; another reader of that PAD keeps it."""
    producers = graph.producers()
    for node in graph.nodes:
        before = producers.get(node.inputs[0]) if node.op in CONVOLUTIONS else None
        if before is None or before.op != "PAD":
            continue
        found, image = node.attributes, before.inputs[0]
        pads = before.attributes["pads"]
        own = (pads[1][0], pads[2][0], pads[1][1], pads[2][1])
        same = window_padding(
            True, (image.shape[1], image.shape[2]), found["kernel"], found["stride"], found["dilation"]
        )
        if own == same and pads[0] == pads[3] == (0, 0):
            found["padding"], node.inputs = same, [image]
    graph.drop_dead()
