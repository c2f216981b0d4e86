"""onnxruntime's blocked layout NCHWc: which ops take it, and where tensors are reordered into it and back.

Convolutions and pools choose it by their channels. An op behind them keeps it where it can work on blocks as they lie
and all its inputs are in blocks. A tensor that anything else reads is reordered back, once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.fusion.ir import Graph, Node, Value
from pipeline.fusion.rules import BLOCKED_ELEMENTWISE, BLOCKED_FUSED, CHANNELS_OF_A_VECTOR, activation_attributes

CONVOLUTIONS = ("Conv", "FusedConv")


@dataclass(eq=False)
class _Blocked:
    """A tensor in blocks: who makes it, its twin in blocks, how many read it at first and how many of them still do not
    read the twin."""

    node: Node
    twin: Value
    uses: int
    left: int


class _Layout:
    """The walk over the graph, in the order of its nodes."""

    def __init__(self, graph: Graph, block: int) -> None:
        self.graph, self.block = graph, block
        self.users = graph.users()
        self.blocked: dict[Value, _Blocked] = {}
        self.reordered: dict[Value, Value] = {}
        self.nodes: list[Node] = []
        self.done: set[Node] = set()  # became part of another before their turn
        self.next = 1 + max(node.index for node in graph.nodes)

    def visit(self, node: Node) -> None:
        if node in self.done:
            return
        if node.op in CONVOLUTIONS and self._takes_blocks(node):
            self._convolution(node)
        elif node.op in ("MaxPool", "AveragePool") and self._pools_blocks(node):
            self._enter(self._renumbered(node), 0)
            self._make(node)
        elif any(value in self.blocked for value in node.inputs) and self._follows(node):
            return
        else:
            self.nodes.append(node)

    def finish(self) -> None:
        """Where something still reads the tensor as it was, it is reordered back."""
        for value, blocked in self.blocked.items():
            if blocked.left > 0:
                back = Node("ReorderOutput", [blocked.twin], [value], {}, blocked.node.module)
                self.nodes.append(self._renumbered(back))
        self.graph.nodes = self.nodes

    def _takes_blocks(self, node: Node) -> bool:
        """By channels alone: depthwise, groups of whole blocks, or no groups; see CHANNELS_OF_A_VECTOR."""
        groups, c_in, c_out = node.attributes["group"], node.inputs[0].shape[1], node.output.shape[1]
        if groups == 1:
            return c_in < self.block or c_in % CHANNELS_OF_A_VECTOR == 0
        if groups == c_in == c_out:
            return c_out % CHANNELS_OF_A_VECTOR == 0
        return c_in // groups % self.block == 0 and c_out // groups % self.block == 0

    def _pools_blocks(self, node: Node) -> bool:
        # an average pool whose last window reaches over the edge has no kernel for blocks
        average_over_edge = node.op == "AveragePool" and node.attributes["ceil_mode"]
        return node.inputs[0].shape[1] % self.block == 0 and not average_over_edge

    def _convolution(self, node: Node) -> None:
        self._renumbered(node)
        # fewer channels than a block (an image): read as they lie
        if node.attributes["group"] > 1 or node.inputs[0].shape[1] >= self.block:
            self._enter(node, 0)
        self._make(node)

    def _follows(self, node: Node) -> bool:
        """Whether an op whose inputs are in blocks works on them; it is done with then."""
        inputs = [value for value in node.inputs if not value.constant]
        if not all(value in self.blocked for value in inputs):
            return False
        first = inputs[0].shape
        if node.op in ("Add", "Mul") and len(inputs) == 2:
            if inputs[0].shape != inputs[1].shape:
                return False
            return self._arithmetic(node)
        if node.op == "Mul" and node.inputs[1].constant and self._is_per_channel(node.inputs[1], first):
            return self._as_convolution(node)
        if node.op == "BatchNormalization":
            return self._as_convolution(node)
        if node.op == "Concat" and node.attributes["axis"] == 1:
            if any(value.shape[1] % self.block for value in inputs):
                return False
            return self._elementwise(node)
        if node.op == "Resize" and not any(big % small for big, small in zip(node.output.shape, first, strict=True)):
            return self._elementwise(self._renumbered(node))
        if node.op in BLOCKED_ELEMENTWISE:
            return self._activation(node)
        return False

    def _arithmetic(self, node: Node) -> bool:
        blocked = [self.blocked[value] for value in node.inputs]
        for one in blocked:
            one.left -= 1
        if node.op == "Add":
            for one, other in (blocked, blocked[::-1]):
                if self._can_fuse(one) and len(one.node.inputs) == 1:
                    one.node.inputs.append(other.twin)
                    self._give(node, one)
                    return True
        node.inputs = [one.twin for one in blocked]
        self._make(node)
        return True

    def _activation(self, node: Node) -> bool:
        blocked = self.blocked[node.inputs[0]]
        blocked.left -= 1
        if node.op in BLOCKED_FUSED and self._can_fuse(blocked):
            blocked.node.attributes.update(activation_attributes(node))
            self._give(node, blocked)
            return True
        if node.op == "HardSigmoid" and (product := self._hard_swish(node, blocked)):
            blocked.node.attributes["activation"] = "HardSwish"
            blocked.left -= 1
            self._give(product, blocked)
            self.done.add(product)
            return True
        node.inputs = [blocked.twin]
        self._make(node)
        return True

    def _hard_swish(self, gate: Node, blocked: _Blocked) -> Node | None:
        """x * hardsigmoid(x) behind a convolution that nothing else reads: its product, else None."""
        product = self.graph.sole_user(gate.output, self.users)
        if product is None or product.op != "Mul" or not self._can_fuse(blocked, uses=2):
            return None
        return product if gate.inputs[0] in product.inputs else None

    def _as_convolution(self, node: Node) -> bool:
        """A factor or a normalisation for each channel is run as a depthwise 1x1 convolution."""
        channels = node.output.shape[1]
        node.inputs = [next(value for value in node.inputs if not value.constant)]
        window = {"kernel_shape": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
        made = Node("Conv", node.inputs, node.outputs, {**window, "group": channels}, node.module, 2 * channels)
        self._convolution(made)
        return True

    def _elementwise(self, node: Node) -> bool:
        for place in range(len(node.inputs)):
            self._enter(node, place)
        self._make(node)
        return True

    def _can_fuse(self, blocked: _Blocked, uses: int = 1) -> bool:
        node = blocked.node
        return node.op in CONVOLUTIONS and blocked.uses == uses and not node.attributes.get("activation")

    def _is_per_channel(self, factor: Value, shape: tuple[int, ...]) -> bool:
        return factor.shape in ((1, shape[1], 1, 1), (shape[1], 1, 1))

    def _enter(self, node: Node, place: int) -> None:
        """The node's input in blocks: the twin that is there, or a reordered one."""
        value = node.inputs[place]
        known = self.blocked.get(value)
        if known is not None:
            known.left -= 1
            twin = known.twin
        elif value in self.reordered:
            twin = self.reordered[value]
        else:
            twin = self.reordered[value] = Value(value.shape, value.dtype)
            self.nodes.append(self._renumbered(Node("ReorderInput", [value], [twin], {}, node.module)))
        node.inputs = [twin if i == place else one for i, one in enumerate(node.inputs)]

    def _make(self, node: Node) -> None:
        """The node's output is in blocks from here on."""
        value = node.output
        twin = Value(value.shape, value.dtype)
        uses = self._uses(value)
        node.outputs = [twin]
        self.blocked[value] = _Blocked(node, twin, uses, uses)
        self.nodes.append(node)

    def _give(self, node: Node, fused: _Blocked) -> None:
        """A node that became part of the convolution before it: its output is the convolution's."""
        uses = self._uses(node.output)
        self.blocked[node.output] = _Blocked(fused.node, fused.twin, uses, uses)

    def _uses(self, value: Value) -> int:
        return len(self.users.get(value, ())) + (value is self.graph.sink)

    def _renumbered(self, node: Node) -> Node:
        node.index = self.next
        self.next += 1
        return node


def to_blocked(graph: Graph, order: list[Node], block: int) -> frozenset[Node]:
    """Rewrites the graph, in place; the nodes that run in blocks. Args: order: its nodes as onnxruntime walks them."""
    layout = _Layout(graph, block)
    for node in order:
        layout.visit(node)
    layout.finish()
    return frozenset(one.node for one in layout.blocked.values())
