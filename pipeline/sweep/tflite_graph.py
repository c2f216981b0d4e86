"""A TFLite model under construction, through the schema that ai-edge-litert ships. Shapes are the file's: NHWC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.sweep.bundle import check_size, numbers

Shape = tuple[int, ...]
_OPTIONS = {
    "ADD": "AddOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "LEAKY_RELU": "LeakyReluOptions", "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions", "MUL": "MulOptions", "RESHAPE": "ReshapeOptions", "SOFTMAX": "SoftmaxOptions",
    "STRIDED_SLICE": "StridedSliceOptions", "SUB": "SubOptions",
}  # fmt: skip
_NHWC_TO_NCHW = (0, 2, 3, 1)


def nhwc(shape: Shape) -> Shape:
    """A key's shape as the file has it."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def nhwc_axis(axis: int, rank: int) -> int:
    """A key's axis as the file has it."""
    return _NHWC_TO_NCHW.index(axis) if rank == 4 else axis


class Graph:
    """Tensors by number, operators in the order in which they run."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.shapes: list[Shape] = []
        self.outputs: list[int] = []
        self.ops: list[str] = []  # the schema's name of each operator
        self._tensors: list[Any] = []
        self._buffers = [schema.BufferT()]  # the first one is empty: of tensors that are computed
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._inputs: dict[Shape, int] = {}
        self._own_inputs: list[int] = []
        self._constant_bytes = 0

    def node(self, op: str, inputs: Sequence[int], shape: Shape, *, more: Sequence[Shape] = (), **options: Any) -> int:
        """The number of its first output, a tensor of that shape; `more`: of further outputs.

        Args: options: fields of the op's options table, in the schema's spelling.
        """
        outputs = [self._tensor(shape) for shape in (shape, *more)]
        operator = self._made("OperatorT", opcodeIndex=self._code(op), inputs=list(inputs), outputs=outputs)
        if op in _OPTIONS:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, _OPTIONS[op])
            operator.builtinOptions = self._made(f"{_OPTIONS[op]}T", **options)
        self._operators.append(operator)
        self.ops.append(op)
        return outputs[0]

    def weights(self, shape: Shape) -> int:
        """A new float32 constant of random numbers. Raises: UnsupportedOp: the model grows too large; before it is made."""
        check_size(self._constant_bytes + 4 * math.prod(shape), len(self._buffers))
        return self.constant(numbers(shape, len(self._buffers)))

    def integers(self, values: Any) -> int:
        """An int32 constant."""
        import numpy as np

        return self.constant(np.array(values, dtype=np.int32))

    def constant(self, array: Any) -> int:
        """Raises: UnsupportedOp: the model grows too large."""
        import numpy as np

        self._constant_bytes += array.nbytes
        check_size(self._constant_bytes, len(self._buffers))
        flat = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self._buffers.append(self._made("BufferT", data=flat))
        types = self.schema.TensorType
        kind = types.INT32 if array.dtype == np.int32 else types.FLOAT32
        return self._tensor(array.shape, kind, len(self._buffers) - 1)

    def input(self, shape: Shape, *, shared: bool) -> int:
        """A tensor that the model is given. `shared`: the same one for all who ask for that shape."""
        if shared and shape in self._inputs:
            return self._inputs[shape]
        number = self._tensor(shape)
        if shared:
            self._inputs[shape] = number
        self._own_inputs.append(number)
        return number

    def serialized(self) -> bytes:
        import flatbuffers

        graph = self._made(
            "SubGraphT", name="main", inputs=self._own_inputs, outputs=self.outputs, operators=self._operators,
            tensors=self._tensors,
        )  # fmt: skip
        codes = [self._operator_code(op) for op in self._codes]
        model = self._made("ModelT", version=3, operatorCodes=codes, subgraphs=[graph], buffers=self._buffers)
        builder = flatbuffers.Builder(self._constant_bytes + 4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, shape: Sequence[int], kind: int = 0, buffer: int = 0) -> int:
        number = len(self._tensors)
        name = f"t{number}"
        self._tensors.append(self._made("TensorT", name=name, shape=list(shape), type=kind, buffer=buffer))
        self.shapes.append(tuple(shape))
        return number

    def _code(self, op: str) -> int:
        return self._codes.setdefault(op, len(self._codes))

    def _operator_code(self, op: str) -> Any:
        number = getattr(self.schema.BuiltinOperator, op)
        return self._made("OperatorCodeT", builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=1)

    def _made(self, kind: str, **fields: Any) -> Any:
        table = getattr(self.schema, kind)()
        for name, value in fields.items():
            if not hasattr(table, name):
                raise AttributeError(f"the TFLite schema has no {kind}.{name}")
            setattr(table, name, value)
        return table


def written(graph: Graph, shape: Shape) -> int:
    """A tensor that an op writes just before it is read: the sum of a small input, which is shared, and a constant."""
    small = (*shape[:-1], 1) if len(shape) == 4 else (*(1 for _ in shape[:-1]), shape[-1])
    rest = tuple(1 if size == given else size for size, given in zip(shape, small, strict=True))
    return graph.node("ADD", [graph.input(small, shared=True), graph.weights(rest)], shape)


def shrunk(graph: Graph, source: int) -> int:
    """A cheap reader of a tensor: its mean over the image, or over the last axis."""
    shape = graph.shapes[source]
    axes = [1, 2] if len(shape) == 4 else [len(shape) - 1]
    small = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return graph.node("MEAN", [source, graph.integers(axes)], small, keepDims=True)
