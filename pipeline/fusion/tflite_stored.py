"""One op on its way from torch to TFLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import UnsupportedOp
from pipeline.fusion import common
from pipeline.fusion.ir import Node, Shape, Value

_PLACE = (0, 3, 1, 2)  # the stored place of each axis of an image with the channels last


class Stored:
    """A node on its way: its inputs as they are stored, the ops that it becomes, and where their results go."""

    def __init__(self, node: Node, inputs: list[Value], is_last: bool) -> None:
        self.node, self.inputs, self.is_last = node, inputs, is_last
        self.nodes: list[Node] = []
        self.outputs = [self._stored(value) for value in node.outputs]

    def _stored(self, value: Value) -> Value:
        return Value(last(value.shape) if self.is_last else value.shape, value.dtype)

    def like(self, value: Value, dtype: str = "") -> Value:
        return Value(value.shape, dtype or value.dtype)

    def add(self, op: str, inputs: Sequence[Value], output: Value, **attributes: Any) -> Value:
        self.nodes.append(Node(op, list(inputs), [output], attributes, self.node.module))
        return output

    def axis(self, axis: int) -> int:
        return _PLACE[axis] if self.is_last else axis

    @property
    def source(self) -> Value:
        return self.inputs[0]

    @property
    def sink(self) -> Value:
        return self.outputs[0]


def last(shape: Shape) -> Shape:
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def unknown(node: Node) -> UnsupportedOp:
    return common.unknown(node, "LiteRT")
