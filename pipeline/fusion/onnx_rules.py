"""onnxruntime's optimiser as far as it changes what a CNN runs: each rule is one function, named as it is there.

Seen in the optimised graphs and profiles of onnxruntime 1.31. A fused node gets a new number, on which the order of
execution depends: it walks back from the output and takes of several producers the one with the higher number first.
"""

from __future__ import annotations

from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.fusion.rules import ADD_FUSED_ACTIVATIONS, activation_attributes


def ordered(graph: Graph) -> list[Node]:
    """The nodes in the order in which onnxruntime runs them: depth first from the output, higher numbers first."""
    producers = graph.producers()
    order: list[Node] = []
    visited: set[Node] = set()
    stack = [(producers[graph.sink], False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
            continue
        if node in visited:
            continue
        visited.add(node)
        stack.append((node, True))
        before = [producers[value] for value in node.inputs if value in producers]
        stack += [(one, False) for one in sorted(before, key=lambda one: one.index)]
    return order


def slices_to_split(graph: Graph) -> None:
    """Slices that cut a tensor along one axis into adjacent parts become one Split (GatherSliceToSplitFusion)."""
    users = graph.users()
    for value, readers in list(users.items()):
        slices = [node for node in readers if node.op == "Slice"]
        axes = {node.attributes["dim"] for node in slices}
        parts = sorted(slices, key=lambda node: node.attributes["begin"])
        if len(slices) < 2 or len(axes) != 1 or any(node.attributes["step"] != 1 for node in slices):
            continue
        (axis,) = axes
        ends = [0, *(node.attributes["end"] for node in parts)]
        if ends[:-1] != [node.attributes["begin"] for node in parts] or ends[-1] != value.shape[axis]:
            continue
        split = Node("Split", [value], [node.output for node in parts], {"axis": axis}, parts[0].module)
        _put(graph, split, parts)


def fold_pads(graph: Graph) -> None:
    """A Pad with zeros of height and width becomes the own padding of the convolutions and pools that read it, where
    nothing else does (PadFusion)."""
    users = graph.users()
    for node in list(graph.nodes):
        pads, after = node.attributes["pads"] if node.op == "Pad" else (), users.get(node.output, [])
        if len(pads) != 8 or not node.attributes["zeros"] or node.output is graph.sink:
            continue
        if any((*pads[:2], *pads[4:6])) or not all(one.op in ("Conv", "MaxPool", "AveragePool") for one in after):
            continue
        for one in after:
            own = one.attributes["pads"]
            one.attributes["pads"] = tuple(a + b for a, b in zip(own, (*pads[2:4], *pads[6:8]), strict=True))
            one.inputs = node.inputs
        graph.drop([node])


def drop_neutral(graph: Graph) -> None:
    """Adding 0 and multiplying by 1 are nothing (NoopElimination); a reshape to the same shape neither."""
    for node in list(graph.nodes):
        numbers = [value.number for value in node.inputs[1:]]
        neutral = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}.get(node.op)
        same = node.op == "Reshape" and node.inputs[0].shape == node.output.shape
        if same or (neutral is not None and numbers == [neutral]):
            graph.replace(node.output, node.inputs[0])
            graph.drop([node])


def fold_constants(graph: Graph) -> None:
    """A constant a channel that is added to a convolution's output or multiplied with it becomes part of its weights
    (ConvAddFusion, ConvMulFusion)."""
    users = graph.users()
    for node in list(graph.nodes):
        after = graph.sole_user(node.output, users)
        while node.op == "Conv" and after is not None and after.op in ("Add", "Mul"):
            other = next((value for value in after.inputs if value is not node.output), node.output)
            one_number = after.op == "Mul" and other.number is not None
            if not other.constant or not (one_number or other.shape in _per_channel(node.output.shape)):
                break
            graph.absorb(node, after, users)
            after = graph.sole_user(node.output, users)


def _per_channel(shape: Shape) -> tuple[Shape, ...]:
    return (1, shape[1], 1, 1), (shape[1], 1, 1)


def transposed_products(graph: Graph) -> None:
    """A MatMul reads its input the other way round where a Transpose of the last two axes made it (FusedMatMul)."""
    producers, users = graph.producers(), graph.users()
    for node in list(graph.nodes):
        before = producers.get(node.inputs[0]) if node.op == "MatMul" else None
        if before is None or before.op != "Transpose" or graph.sole_user(before.output, users) is not node:
            continue
        rank = len(before.output.shape)
        if before.attributes["perm"] == (*range(rank - 2), rank - 1, rank - 2):
            node.inputs = before.inputs
            graph.drop([before])


def inline_functions(graph: Graph) -> None:
    """HardSwish has no kernel of its own: it is HardSigmoid and Mul."""

    def expand(node: Node) -> list[Node]:
        if node.op != "HardSwish":
            return [node]
        gate = Value(node.output.shape, node.output.dtype)
        first = Node("HardSigmoid", node.inputs, [gate], {"alpha": 1 / 6, "beta": 0.5}, node.module)
        last = Node("Mul", [node.inputs[0], gate], node.outputs, {}, node.module)
        first.index, last.index = _next(graph), _next(graph) + 1
        return [first, last]

    for node in list(graph.nodes):
        if node.op == "HardSwish":
            at = graph.nodes.index(node)
            graph.nodes[at : at + 1] = expand(node)


def fuse_activations(graph: Graph, ops: tuple[str, ...], activations: frozenset[str]) -> None:
    """An activation that alone reads a convolution or a matrix product is run by it: a new node, with a new number."""
    users = graph.users()
    for node in ordered(graph):
        if node.op not in ops or node.op == "MatMul":
            continue
        after = graph.sole_user(node.output, users)
        if after is None or after.op not in activations:
            continue
        attributes = {**node.attributes, **activation_attributes(after)}
        fused = node.like(f"Fused{node.op}", node.inputs, after.outputs, attributes)
        _put(graph, fused, [node, after])


def quick_gelu(graph: Graph) -> None:
    """x * sigmoid(x) is one kernel (QuickGeluFusion)."""
    users, producers = graph.users(), graph.producers()
    for node in ordered(graph):
        gate = next(
            (v for v in node.inputs if node.op == "Mul" and (p := producers.get(v)) and p.op == "Sigmoid"), None
        )
        if gate is None:
            continue
        sigmoid = producers[gate]
        if graph.sole_user(gate, users) is node and sigmoid.inputs[0] in node.inputs:
            _put(graph, Node("QuickGelu", sigmoid.inputs, node.outputs, {}, node.module), [sigmoid, node])


def fuse_added(graph: Graph, blocked: frozenset[Node]) -> None:
    """A convolution with a bias that an Add alone reads, neither of them in blocks, adds what the Add would, and runs the
    activation behind it. Of two such convolutions the one with the lower number (ConvAddActivationFusion)."""
    producers, users = graph.producers(), graph.users()
    for node in ordered(graph):
        if node.op != "Add" or node in blocked:
            continue
        if len({value.shape for value in node.inputs}) != 1 or len(node.output.shape) != 4:
            continue
        before = [producers[value] for value in node.inputs if value in producers]
        fitting = [
            one
            for one in sorted(before, key=lambda one: one.index)
            if one.op == "Conv" and one not in blocked and one.attributes["bias"]
            and graph.sole_user(one.output, users) is node
        ]
        if not fitting or any(value.constant for value in node.inputs):
            continue
        conv, attributes = fitting[0], dict(fitting[0].attributes)
        other = next(value for value in node.inputs if value is not conv.output)
        gone, last = [conv, node], graph.sole_user(node.output, users)
        if last is not None and last.op in ADD_FUSED_ACTIVATIONS:
            gone.append(last)
            attributes.update(activation_attributes(last))
        fused = conv.like("FusedConv", [*conv.inputs, other], gone[-1].outputs, attributes)
        producers[fused.output] = fused
        _put(graph, fused, gone)


def _next(graph: Graph) -> int:
    return 1 + max(node.index for node in graph.nodes)


def _put(graph: Graph, new: Node, gone: list[Node]) -> None:
    """The new node in the place of the last of those that it stands for."""
    new.index = _next(graph)
    at = max(graph.nodes.index(node) for node in gone)
    graph.nodes.insert(at, new)
    graph.drop(gone)
