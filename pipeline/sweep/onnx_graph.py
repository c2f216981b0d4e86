"""An ONNX graph under construction, and what stands before and behind a kernel in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.sweep.bundle import check_size, numbers

OPSET, IR_VERSION = 20, 10
MICROSOFT = "com.microsoft"
Shape = tuple[int, ...]


class Graph:
    """Nodes, weights and tensors by name. Every node is named after its first output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.shapes: dict[str, Shape] = {}
        self.inputs: dict[str, Shape] = {}
        self.outputs: list[str] = []
        self._weights: dict[str, Any] = {}
        self._weight_bytes = 0

    def node(
        self, op: str, name: str, inputs: Sequence[str], shape: Shape, *, domain: str = "", others: Sequence[str] = (),
        **attributes: Any,
    ) -> str:  # fmt: skip
        """Its first output's name, which is its own. `shape`: of that output; `others`: further ones, which nobody reads."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [name, *others], name=name, domain=domain, **attributes))
        self.shapes[name] = shape
        return name

    def weights(self, name: str, shape: Shape) -> str:
        """A new float32 constant of random numbers. Raises: UnsupportedOp: the model grows too large; before it is made."""
        check_size(self._weight_bytes + 4 * math.prod(shape), len(self._weights))
        return self.constant(name, numbers(shape, len(self._weights)))

    def constant(self, name: str, array: Any) -> str:
        """Raises: UnsupportedOp: the model grows too large."""
        from onnx import numpy_helper

        self._weight_bytes += array.nbytes
        check_size(self._weight_bytes, len(self._weights))
        self._weights[name] = numpy_helper.from_array(array, name)
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        import numpy as np

        return self.constant(name, np.array(values, dtype=np.int64))

    def input(self, name: str, shape: Shape) -> str:
        """A tensor that the model is given; one of that name and shape is shared."""
        self.inputs[name] = self.shapes[name] = shape
        return name

    def serialized(self) -> bytes:
        from onnx import TensorProto, helper

        def tensor(name: str) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name])

        inner = [name for name in self.shapes if name not in self.inputs and name not in self.outputs]
        graph = helper.make_graph(
            self.nodes,
            "bundle",
            [tensor(name) for name in self.inputs],
            [tensor(name) for name in self.outputs],
            list(self._weights.values()),
            value_info=[tensor(name) for name in inner],
        )
        versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)
        return bytes(model.SerializeToString(deterministic=True))


def written_by_convolution(graph: Graph, name: str, shape: Shape) -> str:
    """A tensor as a convolution leaves it: onnxruntime keeps it in its blocked layout where it can.

    The cheapest one: 1x1, from a single channel, which all tensors of one size share. It has an activation of its own, so
    that neither an activation nor an addition behind it is fused into it.
    """
    count, channels, height, width = shape
    source = graph.input(f"from_{count}x{height}x{width}", (count, 1, height, width))
    weights = graph.weights(f"{name}_w", (channels, 1, 1, 1)), graph.weights(f"{name}_b", (channels,))
    made = graph.node("Conv", f"{name}_conv", [source, *weights], shape, kernel_shape=[1, 1])
    return graph.node("LeakyRelu", name, [made], shape, alpha=0.1)


def written_by_addition(graph: Graph, name: str, shape: Shape) -> str:
    """A tensor as an op without a layout of its own leaves it: a small input and a constant, both broadcast."""
    axis = 1 if len(shape) == 4 else len(shape) - 1
    small = tuple(size if (i != axis) == (len(shape) == 4) else 1 for i, size in enumerate(shape))
    rest = tuple(1 if size == given else size for size, given in zip(shape, small, strict=True))
    source = graph.input("from_" + "x".join(map(str, small)), small)
    return graph.node("Add", name, [source, graph.weights(f"{name}_w", rest)], shape)


def shrunk(graph: Graph, name: str, source: str) -> str:
    """A cheap reader of a tensor: its mean, over the image or the last axis."""
    shape = graph.shapes[source]
    axes = [2, 3] if len(shape) == 4 else [len(shape) - 1]
    small = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return graph.node("ReduceMean", name, [source, graph.integers(f"{name}_axes", axes)], small, keepdims=1)


def flat(graph: Graph, name: str, source: str) -> str:
    """The same numbers in one row, (1, count)."""
    shape = (1, math.prod(graph.shapes[source]))
    return graph.node("Reshape", name, [source, graph.integers(f"{name}_shape", shape)], shape)
