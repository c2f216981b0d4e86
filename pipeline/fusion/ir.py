"""A network as a list of ops in the order in which it is written: what the fusion rules of each runtime rewrite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(eq=False)
class Value:
    """One tensor. `constant`: known before the first inference; `number`: its value where that is one number."""

    shape: Shape
    dtype: str = "float32"
    constant: bool = False
    number: float | None = None


@dataclass(eq=False)
class Node:
    """One op. Weights are no inputs.

    Args:
        op: a name of the vocabulary that the graph is in at the moment: torch's, ONNX's or TFLite's.
        attributes: settings by name; those of the vocabulary.
        module: the layer of the torch module that it comes from.
        weights: elements of its weights and biases.
        weight_id: one number a set of weights: two layers that share theirs have the same.
        macs: multiply-accumulates of a convolution or a linear layer.
        index: a number that rises as a runtime makes nodes; 0 where the order does not depend on it.
    """

    op: str
    inputs: list[Value]
    outputs: list[Value]
    attributes: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    weights: int = 0
    weight_id: int = 0
    macs: int | None = None
    index: int = 0

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def like(self, op: str, inputs: list[Value], outputs: list[Value], attributes: dict[str, Any]) -> Node:
        """Another op with the same weights, from the same layer."""
        return Node(op, inputs, outputs, attributes, self.module, self.weights, self.weight_id, self.macs)


@dataclass(eq=False)
class Graph:
    """`nodes`: each after the ones that it reads."""

    nodes: list[Node]
    source: Value
    sink: Value

    def users(self) -> dict[Value, list[Node]]:
        """Value -> the nodes that read it, once for each time; the network's output has one user more: None's place.

        An answer for the moment: it does not follow later changes.
        """
        users: dict[Value, list[Node]] = {value: [] for node in self.nodes for value in node.outputs}
        users[self.source] = []
        for node in self.nodes:
            for value in node.inputs:
                users.setdefault(value, []).append(node)
        return users

    def producers(self) -> dict[Value, Node]:
        return {value: node for node in self.nodes for value in node.outputs}

    def sole_user(self, value: Value, users: dict[Value, list[Node]]) -> Node | None:
        """The one node that reads a value; None where there are more, or where the value leaves the network."""
        found = users.get(value, [])
        return found[0] if len(found) == 1 and value is not self.sink else None

    def replace(self, old: Value, new: Value, among: Iterable[Node] | None = None) -> None:
        """All that read `old` read `new`."""
        for node in self.nodes if among is None else among:
            if old in node.inputs:
                node.inputs = [new if value is old else value for value in node.inputs]
        if self.sink is old:
            self.sink = new

    def absorb(self, node: Node, after: Node, users: dict[Value, list[Node]]) -> None:
        """`after`, which alone reads `node`, becomes a part of it: what read the one reads the other, also in `users`."""
        readers = users[after.output]
        self.replace(after.output, node.output, readers)
        users[node.output] = readers
        self.drop([after])

    def drop(self, removed: Iterable[Node]) -> None:
        gone = set(removed)
        self.nodes = [node for node in self.nodes if node not in gone]

    def rewrite(self, expand: Callable[[Node], Sequence[Node]]) -> None:
        """Each node becomes those that `expand` gives, in its place."""
        self.nodes = [new for node in self.nodes for new in expand(node)]

    def drop_dead(self) -> None:
        """Removes what nobody reads."""
        wanted = {self.sink}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(value in wanted for value in node.outputs):
                kept.append(node)
                wanted.update(node.inputs)
        self.nodes = kept[::-1]

    def merge_equal(self) -> None:
        """Two nodes that do the same with the same inputs become one: every compiler of graphs does that."""
        seen: dict[Any, Node] = {}
        for node in list(self.nodes):
            identity = (
                node.op,
                tuple(id(value) if value.number is None else (value.number, value.shape) for value in node.inputs),
                repr(sorted(node.attributes.items())),
                node.weight_id,
                tuple(value.shape for value in node.outputs),
            )
            first = seen.setdefault(identity, node)
            if first is not node:
                for mine, theirs in zip(node.outputs, first.outputs, strict=True):
                    self.replace(mine, theirs)
                self.drop([node])
