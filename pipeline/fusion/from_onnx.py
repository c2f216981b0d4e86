"""An ONNX file as a graph of torch's ops: its nodes in the file's order, its shapes inferred."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipeline.errors import HandsetError, ModelError
from pipeline.fusion.from_file import as_torch_calls_them, check_size
from pipeline.fusion.from_onnx_entries import ENTRIES, FileNode
from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.kernels.file_op import snake_case

_PASSES = frozenset({"Identity", "Dropout", "Cast"})
_SHAPES = frozenset({"Shape", "Size", "Constant", "ConstantOfShape"})
_SMALL = 64  # elements of a constant that is part of what a node does


def read(path: Path) -> Graph:
    """The graph of a file; each node's `module` is the name of the file's node.

    An op that torch's vocabulary has no word for keeps its own, in small letters; what is computed from constants alone is one.

    Raises:
        ModelError: no ONNX model, damaged, with too many ops, or the shape of a tensor cannot be told.
        OSError: it cannot be read.
    """
    import onnx

    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        check_size(path.name, len(model.graph.node))
        # data_prop: shapes that the file computes, as older exporters have them
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        return as_torch_calls_them(_Reader(path.name, inferred).run())
    except HandsetError:
        raise
    except Exception as error:  # protobuf's and onnx's own, and what damaged attributes make
        lines = str(error).strip().splitlines()
        what = lines[0][:200] if lines else type(error).__name__
        raise ModelError(f"{path.name} cannot be looked into: {what}", try_="to export it again") from error


class _Reader:
    def __init__(self, name: str, graph: Any) -> None:
        self.name, self.graph = name, graph
        self.constants = {weight.name: weight for weight in graph.initializer}
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, str] = {}
        for value in (*graph.value_info, *graph.input, *graph.output):
            tensor = value.type.tensor_type
            sizes = tuple(size.dim_value for size in tensor.shape.dim)
            if tensor.HasField("shape") and all(size > 0 for size in sizes):
                self.shapes[value.name] = sizes
            self.dtypes[value.name] = _dtype(tensor.elem_type)
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []

    def run(self) -> Graph:
        for name, weight in self.constants.items():
            self.values[name] = Value(tuple(weight.dims), _dtype(weight.data_type), True, self._number(name))
        sources = [value.name for value in self.graph.input if value.name not in self.constants]
        for name in sources:
            self._make(name)
        for node in self.graph.node:
            self._node(node)
        return Graph(self.nodes, self.values[sources[0]], self.values[self.graph.output[0].name])

    def _node(self, node: Any) -> None:
        attributes = _attributes(node)
        inputs = [self.values[name] for name in node.input if name in self.values]
        if node.op_type in _SHAPES or (inputs and all(value.constant for value in inputs)):
            if node.op_type == "Constant" and "value" in attributes:
                self.constants[node.output[0]] = attributes["value"]
            for name in filter(None, node.output):
                known = self.constants.get(name)
                shape = tuple(known.dims) if known is not None else self.shapes.get(name, ())
                self.values[name] = Value(shape, self.dtypes.get(name, "float32"), True, self._number(name))
            return
        if node.op_type in _PASSES:
            self.values[node.output[0]] = inputs[0]
            return
        outputs = [self._make(name) for name in node.output if name]
        entry = ENTRIES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        known = {place: found for place, name in enumerate(node.input) if (found := self._numbers(name)) is not None}
        made = entry(FileNode(node.op_type, attributes, inputs, outputs, known)) if entry else None
        self.nodes.append(made or Node(snake_case(node.op_type), inputs, outputs, {}))
        self.nodes[-1].module = node.name or node.output[0]

    def _make(self, name: str) -> Value:
        if name not in self.shapes:
            raise ModelError(
                f"{self.name} does not tell the shape of {name[:80]!r}",
                try_="onnx.shape_inference, or a fixed input shape",
            )
        made = self.values[name] = Value(self.shapes[name], self.dtypes.get(name, "float32"))
        return made

    def _number(self, name: str) -> float | None:
        found = self._numbers(name)
        return float(found[0]) if found is not None and len(found) == 1 else None

    def _numbers(self, name: str) -> tuple[Any, ...] | None:
        """The values of a small constant; None of a large one and of what is computed."""
        import onnx

        weight = self.constants.get(name)
        if weight is None or math.prod(weight.dims) > _SMALL:
            return None
        return tuple(onnx.numpy_helper.to_array(weight).reshape(-1).tolist())


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def _dtype(number: int) -> str:
    import onnx

    name: str = onnx.TensorProto.DataType.Name(number)
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())
