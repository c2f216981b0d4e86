"""A TFLite file as a graph of torch's ops.

Images lie with the channels last there. Each tensor's shape is turned into torch's order, and the transposes between the two
layouts, which torch has not, are left out.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import HandsetError, ModelError
from pipeline.fusion.from_file import as_torch_calls_them, check_size
from pipeline.fusion.from_tflite_entries import ENTRIES, TO_FIRST, TO_LAST, FileOp
from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.kernels.file_op import activation, snake_case
from pipeline.kernels.tflite_keys import CONVOLUTIONS, POOLS, RESHAPES, nchw
from pipeline.tflite_file import Operator, Tensor, TfliteModel, names
from pipeline.tflite_file import read as read_file

_LAST_ONLY = (*CONVOLUTIONS, *POOLS, "TRANSPOSE_CONV", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
_FUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("relu", {}), "relu6": ("relu6", {}), "tanh": ("tanh", {}),
    "clip(-1,1)": ("clamp", {"low": -1.0, "high": 1.0}),
}  # fmt: skip


def read(path: Path) -> Graph:
    """The graph of a file; each node's `module` is the name that the file's op has in a report ("conv_2d_12").

    An op that torch's vocabulary has no word for keeps its own, in small letters.

    Raises:
        ModelError: no TFLite model, damaged, or with too many ops.
        OSError: it cannot be read.
    """
    model = read_file(path)
    check_size(path.name, len(model.operators))
    try:
        return as_torch_calls_them(_Reader(model).run())
    except HandsetError:
        raise
    except Exception as error:  # what damaged options and shapes make
        lines = str(error).strip().splitlines()
        what = lines[0][:200] if lines else type(error).__name__
        raise ModelError(f"{path.name} cannot be looked into: {what}", try_="to export it again") from error


class _Reader:
    """`values`: of each tensor that is there. `last`: those that are stored with the channels last."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.values: dict[int, Value] = {}
        self.last: set[int] = set()
        self.nodes: list[Node] = []
        for number, tensor in enumerate(model.tensors):
            if tensor.is_constant:
                self.values[number] = Value(tensor.shape, tensor.dtype, True, _number(tensor))

    def run(self) -> Graph:
        (source,) = (self._make(number, len(self.model.tensors[number].shape) == 4) for number in self.model.inputs)
        for operator in self.model.operators:
            self._operator(operator)
        return Graph(self.nodes, source, self.values[self.model.outputs[0]])

    def _make(self, number: int, is_last: bool) -> Value:
        shape = self.model.tensors[number].shape
        if is_last and len(shape) == 4:
            self.last.add(number)
            shape = nchw(shape)
        made = self.values[number] = Value(shape, self.model.tensors[number].dtype)
        return made

    def _operator(self, operator: Operator) -> None:
        op, name = operator.op, f"{snake_case(operator.op)}_{operator.index}"
        reads = [number for number in operator.inputs if number >= 0]
        if op == "TRANSPOSE_CONV":  # its first input tells the shape of the output
            reads = reads[2:] + reads[:2]
        computed = [number for number in reads if not self.values[number].constant]
        if not computed:  # of constants alone
            for number in operator.outputs:
                tensor = self.model.tensors[number]
                self.values[number] = Value(tensor.shape, tensor.dtype, True)
            return
        if op == "TRANSPOSE" and self._layout_only(operator, reads):
            return
        is_last = op in _LAST_ONLY or (op not in ("TRANSPOSE", *RESHAPES) and any(n in self.last for n in computed))
        if op in RESHAPES:  # to an image of one pixel, which is what a gate reads
            shape = self.model.tensors[operator.outputs[0]].shape
            is_last = len(shape) == 4 and shape[1:3] == (1, 1)
        if op in RESHAPES and self._same_shape(reads[0], operator.outputs[0], is_last):
            return
        outputs = [self._make(number, is_last) for number in operator.outputs]
        inputs = [self._read(number, op, is_last, name) for number in reads]
        if op == "FULLY_CONNECTED" and len(inputs[0].shape) == 4 and len(outputs[0].shape) == 2:
            inputs[0] = self._reshaped(inputs[0], (inputs[0].shape[0], math.prod(inputs[0].shape[1:])), name)
        tensors = [self.model.tensors[number] for number in reads]
        numbers, stored = [_ints(tensor) for tensor in tensors], [tensor.shape for tensor in tensors]
        entry = ENTRIES.get(op)
        made = entry(FileOp(op, operator.options, inputs, outputs, numbers, stored, is_last)) if entry else None
        made = made or Node(snake_case(op), [self.values[number] for number in computed], outputs)
        made.module = name
        self.nodes.append(made)
        if made.op == "adaptive_avg_pool2d" and len(made.output.shape) == 2:  # torch keeps the axes
            sink, shape = made.output, made.inputs[0].shape
            made.outputs = [Value((*shape[:2], 1, 1), sink.dtype)]
            self.nodes.append(Node("reshape", made.outputs, [sink], {}, name))
        self._fused(operator, made)

    def _same_shape(self, source: int, sink: int, is_last: bool) -> bool:
        """A reshape between the layouts of an image of one pixel is none to torch."""
        shape = self.model.tensors[sink].shape
        if self.values[source].shape != (nchw(shape) if is_last else shape):
            return False
        self.values[sink] = self.values[source]
        if is_last:
            self.last.add(sink)
        return True

    def _reshaped(self, value: Value, shape: Shape, name: str) -> Value:
        self.nodes.append(Node("reshape", [value], [Value(shape, value.dtype)], {}, name))
        return self.nodes[-1].output

    def _layout_only(self, operator: Operator, reads: list[int]) -> bool:
        """From one layout to the other: the same tensor to torch."""
        source, sink, perm = reads[0], operator.outputs[0], _ints(self.model.tensors[reads[1]])
        if (source in self.last and perm == TO_FIRST) or (source not in self.last and perm == TO_LAST):
            self.values[sink] = self.values[source]
            self.last.discard(sink)
            if perm == TO_LAST:
                self.last.add(sink)
            return True
        return False

    def _read(self, number: int, op: str, is_last: bool, name: str) -> Value:
        """A constant beside images is turned as they are; what an op of images reads is one, however it came about."""
        value = self.values[number]
        if len(value.shape) != 4 or not is_last or number in self.last:
            return value
        if value.constant:
            return Value(nchw(value.shape), value.dtype, True, value.number)
        if op not in _LAST_ONLY:
            return value
        image = Value(nchw(value.shape), value.dtype)
        self.nodes.append(Node("permute", [value], [image], {"perm": TO_FIRST}, name))
        return image

    def _fused(self, operator: Operator, made: Node) -> None:
        """An activation that is part of an op is a node of its own behind it, of the same name."""
        if not hasattr(operator.options, "FusedActivationFunction"):
            return
        word = activation(names("ActivationFunctionType")[operator.options.FusedActivationFunction()])
        if word == "none":
            return
        op, attributes = _FUSED.get(word, (word, {}))
        sink = made.output
        made.outputs = [Value(sink.shape, sink.dtype)]
        self.nodes.append(Node(op, made.outputs, [sink], dict(attributes), made.module))


def _number(tensor: Tensor) -> float | None:
    if tensor.dtype != "float32" or len(tensor.data) != 4:
        return None
    (number,) = struct.unpack("<f", tensor.data)
    return float(number)


def _ints(tensor: Tensor) -> tuple[int, ...]:
    """A constant's whole numbers; () for a tensor that is computed or of another kind."""
    code = {"int32": "i", "int64": "q"}.get(tensor.dtype)
    if not tensor.is_constant or code is None:
        return ()
    return struct.unpack(f"<{len(tensor.data) // struct.calcsize(code)}{code}", tensor.data)
