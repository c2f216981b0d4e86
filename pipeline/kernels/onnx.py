"""The kernels of an ONNX model as onnxruntime runs it: after its optimiser, from the model that it writes.

The optimised model has the ops that run and the weights, which tell kernel sizes and groups. Two things it does not
tell. Shapes of activations come from the profile of a run (`node_shapes`). And where convolutions run in the blocked
layout NCHWc, channels there and in the profile are padded to the block (8 or 16): 20 channels look like 32. The true
number is that of the original model's tensor, whose name the blocked node carries ("relu_nchwc" computes "relu").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency_luts.key import OpKey
from pipeline.kernels.file_op import FileOp, Shape
from pipeline.kernels.onnx_keys import ACTIVATIONS, CONVOLUTIONS, LINEAR, Operands, conv_key, linear_key, other_key

NodeShapes = Mapping[str, tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]

_BLOCKED = "com.microsoft.nchwc"
_BLOCKED_NAME = re.compile(r"(.*)_nchwc(_token_\d+)?")
_MADE_CONVOLUTION = re.compile(r"(.*)_(bn|mul)")  # a normalisation or a factor a channel, run as a depthwise 1x1
_SMALL = 64  # elements of a constant that is part of what a node does: limits, axes, pads


@dataclass
class _Values:
    """What is known of the tensors, by name."""

    original: dict[str, Shape]
    layers: dict[str, str]  # original tensor -> the layer that makes it
    constants: dict[str, Any]
    dtypes: dict[str, str]
    channels: dict[str, int] = field(default_factory=dict)  # true channels of a tensor in the blocked layout


def keys(optimised: Path, node_shapes: NodeShapes, original: Path) -> dict[str, FileOp]:
    """node name, as in the optimised model and in the profile -> its op.

    Args:
        optimised: what onnxruntime wrote with SetOptimizedModelFilePath, optimisation level "all" or lower.
        node_shapes: node name -> (input shapes, output shapes) of the profile. A node that is not there is left with
            the key None. Profiles leave out weights that were packed, so only the first input is read.
        original: the model that onnxruntime was given.

    Raises:
        ModelError: a file is no ONNX model.
        OSError: a file cannot be read.
    """
    model = _load(optimised)
    values = _values(model, _load(original))
    ops: dict[str, FileOp] = {}
    for index, (name, node) in enumerate(zip(_profile_names(model, node_shapes), model.graph.node, strict=True)):
        op = _file_op(index, node, node_shapes.get(name), values)
        if name in ops and ops[name].key != op.key:  # two nodes of one name: the profile cannot tell them apart
            op = FileOp(op.index, op.name, op.op_type, None, None)
        ops[name] = op
    return ops


def _profile_names(model: Any, node_shapes: NodeShapes) -> list[str]:
    """The name of each node in the profile: its own; for a nameless one its type and onnxruntime's number ("Mul_18").

    The numbers rise with the order of the file, so the nameless nodes of one type and their names pair up in order.
    """
    named = {node.name for node in model.graph.node}
    numbered: dict[str, list[tuple[int, str]]] = {}
    for name in node_shapes:
        op_type, _, number = name.rpartition("_")
        if name not in named and number.isascii() and number.isdigit():
            numbered.setdefault(op_type, []).append((int(number), name))
    waiting = {op_type: iter(sorted(names)) for op_type, names in numbered.items()}
    nameless = [node.op_type for node in model.graph.node if not node.name]
    paired = {op_type for op_type, names in numbered.items() if len(names) == nameless.count(op_type)}
    return [
        node.name or (next(waiting[node.op_type])[1] if node.op_type in paired else f"nameless {index}")
        for index, node in enumerate(model.graph.node)
    ]


def _load(path: Path) -> Any:
    import onnx

    from pipeline.errors import ModelError

    content = path.read_bytes()
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, which has no stubs, or a plain one
        raise ModelError(f"{path.name} is no ONNX model ({error})", try_="to write it again") from error


def _values(model: Any, original: Any) -> _Values:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(original).graph
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output, *model.graph.value_info, *model.graph.input):
        tensor = value.type.tensor_type
        sizes = [size.dim_value for size in tensor.shape.dim]
        if tensor.HasField("shape") and all(size > 0 for size in sizes):
            shapes.setdefault(value.name, tuple(sizes))
        if tensor.elem_type:
            dtypes.setdefault(value.name, _dtype(tensor.elem_type))
    constants = {weight.name: weight for weight in model.graph.initializer}
    dtypes.update({name: _dtype(weight.data_type) for name, weight in constants.items()})
    return _Values(shapes, _layers(original), constants, dtypes)


def _layers(original: Any) -> dict[str, str]:
    """Original tensor -> name of the node that makes it; an activation behind a convolution counts to it."""
    layers: dict[str, str] = {}
    convolved = set()
    for node in original.graph.node:
        follows = node.op_type in ACTIVATIONS and node.input[0] in convolved
        for output in node.output:
            layers[output] = layers[node.input[0]] if follows else node.name or output
            if follows or node.op_type == "Conv":
                convolved.add(output)
    return layers


def _dtype(number: int) -> str:
    import onnx

    name: str = onnx.TensorProto.DataType.Name(number)
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


def _file_op(index: int, node: Any, shapes: Any, values: _Values) -> FileOp:
    attributes = _attributes(node)
    computed = _computed(node, values)
    name = values.layers.get(computed, node.name)
    dtype = next((values.dtypes[i] for i in node.input if i in values.dtypes), None)
    for output in node.output:
        if dtype is not None:
            values.dtypes.setdefault(output, dtype)
    sides = _true_shapes(node, shapes, attributes, computed, values)
    if sides is None or dtype is None:
        return FileOp(index, name, node.op_type, None, None)
    second = _shape_of(node.input[1], values) if len(node.input) > 1 else None
    added = len(node.input) > 3 and bool(node.input[3])
    operands = Operands(*sides, dtype, second, _constants(node, values), added)
    key, macs = _key(node, attributes, operands, values)
    return FileOp(index, name, node.op_type, key, macs)


def _computed(node: Any, values: _Values) -> str:
    """The original model's tensor that a blocked node gives; "" where there is none."""
    found = _BLOCKED_NAME.fullmatch(node.name) if node.domain == _BLOCKED else None
    if found is None:
        return ""
    made = _MADE_CONVOLUTION.fullmatch(found.group(1))
    return made.group(1) if made and made.group(1) in values.original else found.group(1)


def _key(node: Any, attributes: dict[str, Any], operands: Operands, values: _Values) -> tuple[OpKey | None, int | None]:
    if node.op_type in CONVOLUTIONS and len(operands.source) == 4:
        weight = values.constants.get(node.input[1])
        if not attributes.get("kernel_shape") and weight is not None:
            attributes["kernel_shape"] = tuple(weight.dims[2:])
        groups = int(attributes.get("group", 1))
        if groups > 1 and node.domain == _BLOCKED and weight is not None and weight.dims[1] == 1:
            groups = operands.source[1]  # depthwise: as many groups as channels, both padded in the file
        return conv_key(attributes, groups, operands)
    if node.op_type in LINEAR and len(node.input) > 1 and node.input[1] in values.constants:
        return linear_key(attributes, operands)
    return other_key(node.op_type, attributes, operands), None


def _true_shapes(
    node: Any, shapes: Any, attributes: Mapping[str, Any], computed: str, values: _Values
) -> tuple[Shape, Shape] | None:
    """First input's and first output's shape without the padding of the blocked layout; None where unknown.

    `computed` is the original model's tensor that a blocked node gives, "" where there is none.
    """
    if shapes is None or not shapes[0] or not shapes[1]:
        return None
    source, sink = (tuple(int(size) for size in side[0]) for side in shapes)
    c_in = values.channels.get(node.input[0])
    if c_in is not None and len(source) == 4:
        source = (source[0], c_in, *source[2:])
    c_out: int | None = None
    if node.domain == _BLOCKED:
        if node.op_type == "ReorderOutput":
            c_out = int(attributes["channels"])
            source = (source[0], c_out, *source[2:])
        elif node.op_type == "ReorderInput":
            c_out = source[1]
        elif computed in values.original:
            c_out = values.original[computed][1]
        else:  # a blocked node that carries no name of the original: its channels cannot be told
            return None
    elif c_in is not None and node.op_type != "Concat":  # element by element in the blocked layout
        c_out = c_in
    if c_out is not None and len(sink) == 4:
        sink = (sink[0], c_out, *sink[2:])
        if node.op_type != "ReorderOutput":
            values.channels[node.output[0]] = c_out
    return source, sink


def _shape_of(name: str, values: _Values) -> Shape | None:
    if name in values.constants:
        return tuple(values.constants[name].dims)
    return values.original.get(name)


def _constants(node: Any, values: _Values) -> dict[int, tuple[Any, ...]]:
    """The values of the small constant inputs, by their place: limits, axes, pads. Weights are not read."""
    import onnx

    found = {}
    for place, name in enumerate(node.input):
        if place > 0 and name in values.constants and math.prod(values.constants[name].dims) <= _SMALL:
            found[place] = tuple(onnx.numpy_helper.to_array(values.constants[name]).reshape(-1).tolist())
    return found


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found
