"""A .tflite file as plain tuples: tensors and operators in execution order, every offset checked before it is used.

The flatbuffer schema is the one that ai-edge-litert ships. Its readers trust the file, so a file is walked once here
with every table, string and buffer held against the file's end before a runtime written in C++ gets to see it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

MAGIC = b"TFL3"


@dataclass(frozen=True)
class Tensor:
    """`shape` is as stored (NHWC for images), -1 where it may vary. `is_constant`: its values are in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_constant: bool
    data: memoryview


@dataclass(frozen=True)
class Operator:
    """`op` is the schema's name ("CONV_2D") or a custom op's own; `options` the schema's options table, if any."""

    index: int
    op: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class TfliteModel:
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(path: Path) -> TfliteModel:
    """The first subgraph of the file.

    Raises:
        ModelError: not a TFLite file, cut short, or an offset that leads outside it.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if len(content) < 8 or content[4:8] != MAGIC:
        raise ModelError(f"{path.name} is not a TFLite model ({len(content)} bytes, no {MAGIC.decode()} at byte 4)")
    try:
        return _parse(content)
    except (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path.name} is a TFLite model cut short or damaged ({len(content)} bytes: {error})",
            try_="to copy or export it again",
        ) from error


@cache
def names(enum: str) -> dict[int, str]:
    """The schema's names of an enum: names("BuiltinOperator")[3] == "CONV_2D"."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enum)).items() if isinstance(value, int)}


def _parse(content: bytes) -> TfliteModel:
    from ai_edge_litert import schema_py_generated as schema

    (root,) = struct.unpack_from("<I", content, 0)
    _bounded(root, 4, content)
    model = schema.Model.GetRootAs(content, 0)
    _table(model, content)
    if _length(model.SubgraphsLength(), content) == 0:
        raise ValueError("no subgraph")
    extents = [_buffer(model.Buffers(i), content) for i in range(_length(model.BuffersLength(), content))]
    codes = [_op_name(model.OperatorCodes(i)) for i in range(_length(model.OperatorCodesLength(), content))]
    graph = model.Subgraphs(0)
    _table(graph, content)
    tensors = tuple(_tensor(graph.Tensors(i), content, extents) for i in range(_length(graph.TensorsLength(), content)))
    operators = tuple(
        _operator(i, graph.Operators(i), content, codes) for i in range(_length(graph.OperatorsLength(), content))
    )
    inputs = _ints(graph.Inputs, graph.InputsLength(), content)
    outputs = _ints(graph.Outputs, graph.OutputsLength(), content)
    for number in _references(inputs, outputs, operators):
        if not -1 <= number < len(tensors):
            raise ValueError(f"there is no tensor {number}")
    return TfliteModel(tensors, operators, inputs, outputs)


def _references(inputs: tuple[int, ...], outputs: tuple[int, ...], operators: Iterable[Operator]) -> list[int]:
    found = [*inputs, *outputs]
    for operator in operators:
        found += [*operator.inputs, *operator.outputs]
    return found


def _op_name(code: Any) -> tuple[str, bool]:
    # Files of before 2020 have the number in the deprecated byte field; newer ones have both, the larger one counts.
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    name = names("BuiltinOperator").get(number, f"builtin op {number}")
    if name == "CUSTOM":
        return (code.CustomCode() or b"unnamed").decode("utf-8", "replace"), True
    return name, False


def _tensor(tensor: Any, content: bytes, extents: list[memoryview]) -> Tensor:
    _table(tensor, content)
    shape = _ints(tensor.Shape, tensor.ShapeLength(), content)
    signature = _ints(tensor.ShapeSignature, tensor.ShapeSignatureLength(), content)
    data = extents[tensor.Buffer()]
    dtype = names("TensorType")[tensor.Type()].lower()
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    return Tensor(name, signature or shape, dtype, len(data) > 0, data)


def _operator(index: int, operator: Any, content: bytes, codes: list[tuple[str, bool]]) -> Operator:
    from ai_edge_litert import schema_py_generated as schema

    _table(operator, content)
    op, is_custom = codes[operator.OpcodeIndex()]
    options = None
    table = operator.BuiltinOptions()
    if table is not None:
        options_class = getattr(schema, names("BuiltinOptions")[operator.BuiltinOptionsType()])
        options = options_class()
        options.Init(table.Bytes, table.Pos)
        _table(options, content)
    inputs = _ints(operator.Inputs, operator.InputsLength(), content)
    outputs = _ints(operator.Outputs, operator.OutputsLength(), content)
    return Operator(index, op, is_custom, inputs, outputs, options)


def _buffer(buffer: Any, content: bytes) -> memoryview:
    _table(buffer, content)
    if buffer.Offset() > 1:  # data behind the flatbuffer, as in files over 2 GB
        _bounded(buffer.Offset(), buffer.Size(), content)
        return memoryview(content)[buffer.Offset() : buffer.Offset() + buffer.Size()]
    length = _length(buffer.DataLength(), content)
    if length == 0:
        return memoryview(b"")
    start = buffer._tab.Vector(buffer._tab.Offset(4))
    _bounded(start, length, content)
    return memoryview(content)[start : start + length]


def _ints(read_one: Callable[[int], int], length: int, content: bytes) -> tuple[int, ...]:
    return tuple(int(read_one(i)) for i in range(_length(length, content)))


def _table(table: Any, content: bytes) -> None:
    """The table's position and its vtable lie inside the file."""
    position = table._tab.Pos
    _bounded(position, 4, content)
    (back,) = struct.unpack_from("<i", content, position)
    _bounded(position - back, 4, content)
    vtable_bytes, table_bytes = struct.unpack_from("<HH", content, position - back)
    _bounded(position - back, vtable_bytes, content)
    _bounded(position, table_bytes, content)


def _length(length: int, content: bytes) -> int:
    """A vector cannot have more items than the file has bytes: stops absurd loops."""
    if not 0 <= length <= len(content):
        raise ValueError(f"a vector of {length} items")
    return length


def _bounded(start: int, length: int, content: bytes) -> None:
    if start < 0 or length < 0 or start + length > len(content):
        raise ValueError(f"bytes {start} to {start + length} of {len(content)}")
