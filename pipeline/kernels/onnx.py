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

from pipeline.kernels.file_op import (
    FileOp,
    Shape,
    activation,
    conv_macs,
    detail,
    make_key,
    same_padding,
    snake_case,
    text_of,
)

NodeShapes = Mapping[str, tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]

_BLOCKED = "com.microsoft.nchwc"
_BLOCKED_NAME = re.compile(r"(.*)_nchwc(_token_\d+)?")
_CONVOLUTIONS = ("Conv", "FusedConv")
_LINEAR = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")
_POOLS = {"MaxPool": "max_pool", "AveragePool": "avg_pool"}
_ARITHMETIC = {"Add": "add", "Sum": "add", "Mul": "mul", "Sub": "sub", "Div": "div"}
_ACTIVATIONS = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Elu",
        "Selu",
        "Gelu",
        "QuickGelu",
        "Softplus",
        "Mish",
        "Erf",
    }
)
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_OTHER_NAMES = {"ReorderInput": "reorder_in", "ReorderOutput": "reorder_out", "GlobalAveragePool": "global_avg_pool"}
# The parameters that follow an activation's name in a key.
_ACTIVATION_NUMBERS = {"LeakyRelu": ("alpha",), "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


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
        follows = node.op_type in _ACTIVATIONS and node.input[0] in convolved
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
    found = _BLOCKED_NAME.fullmatch(node.name)
    computed = found.group(1) if found and node.domain == _BLOCKED else ""
    name = values.layers.get(computed, node.name)
    dtype = next((values.dtypes[i] for i in node.input if i in values.dtypes), None)
    for output in node.output:
        if dtype is not None:
            values.dtypes.setdefault(output, dtype)
    sides = _true_shapes(node, shapes, attributes, computed, values)
    if sides is None or dtype is None:
        return FileOp(index, name, node.op_type, None, None)
    source, sink = sides
    if node.op_type in _CONVOLUTIONS and len(source) == 4:
        key, macs = _conv(node, attributes, source, sink, dtype, values)
    elif node.op_type in _LINEAR and len(node.input) > 1 and node.input[1] in values.constants:
        c_out = sink[-1]
        key = make_key("linear", source, dtype, out_channels=c_out, activation=_fused_activation(attributes))
        macs = math.prod(source) * c_out
    else:
        key, macs = _other(node, attributes, source, sink, dtype, values), None
    return FileOp(index, name, node.op_type, key, macs)


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


def _conv(
    node: Any, attributes: Mapping[str, Any], source: Shape, sink: Shape, dtype: str, values: _Values
) -> tuple[Any, int | None]:
    weight = values.constants.get(node.input[1])
    kernel = tuple(attributes.get("kernel_shape") or (weight.dims[2:] if weight is not None else ()))
    if len(kernel) != 2:
        return None, None
    stride = tuple(attributes.get("strides", (1, 1)))
    dilation = tuple(attributes.get("dilations", (1, 1)))
    groups = int(attributes.get("group", 1))
    if groups > 1 and node.domain == _BLOCKED and weight is not None and weight.dims[1] == 1:
        groups = source[1]  # depthwise: as many groups as channels, both padded in the file
    key = make_key(
        "conv2d",
        source,
        dtype,
        out_channels=sink[1],
        kernel=kernel,
        stride=stride,
        padding=_padding(attributes, source, kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
        activation=_fused_activation(attributes),
        fused_add=len(node.input) > 3 and bool(node.input[3]),
    )
    return key, conv_macs(sink, source[1], kernel, groups)


def _padding(
    attributes: Mapping[str, Any], source: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[int, ...]:
    """(top, left, bottom, right) with auto_pad made explicit."""
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = [
            same_padding(source[2 + axis], kernel[axis], stride[axis], dilation[axis], lower=auto == "SAME_LOWER")
            for axis in (0, 1)
        ]
        return sides[0][0], sides[1][0], sides[0][1], sides[1][1]
    return tuple(attributes.get("pads", (0, 0, 0, 0))) if auto != "VALID" else (0, 0, 0, 0)


def _fused_activation(attributes: Mapping[str, Any]) -> str:
    name = attributes.get("activation", "")
    if not name:
        return "none"
    numbers = attributes.get("activation_params") or [
        attributes[f"activation_{parameter}"]
        for parameter in _ACTIVATION_NUMBERS.get(name, ())
        if f"activation_{parameter}" in attributes
    ]
    return activation(name, numbers)


def _other(node: Any, attributes: Mapping[str, Any], source: Shape, sink: Shape, dtype: str, values: _Values) -> Any:
    op = node.op_type
    more: dict[str, object] = {}
    if op in _POOLS and len(source) == 4:
        kernel = tuple(attributes.get("kernel_shape", ()))
        stride, dilation = tuple(attributes.get("strides", (1, 1))), tuple(attributes.get("dilations", (1, 1)))
        padding = _padding(attributes, source, kernel, stride, dilation)
        return make_key(_POOLS[op], source, dtype, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    if op in _ACTIVATIONS:
        return make_key("activation", source, dtype, activation=_standalone_activation(node, attributes, values))
    if op in _ARITHMETIC:
        other = _shape_of(node.input[1], values) if len(node.input) > 1 else None
        more["with"] = text_of(other, "x") or "scalar" if other is not None and other != source else ""
        return make_key(_ARITHMETIC[op], source, dtype, detail=detail(more))
    if op == "ReduceMean":
        axes = _constant(node, 1, values) or attributes.get("axes", range(len(source)))
        return make_key("mean", source, dtype, detail=detail({"axes": text_of(sorted(a % len(source) for a in axes))}))
    if op == "Transpose":
        return make_key("transpose", source, dtype, detail=detail({"perm": text_of(attributes.get("perm", ()))}))
    if op == "Concat":
        more["axis"] = attributes["axis"] % max(1, len(source))
        more["out"] = text_of(sink, "x")
        return make_key("concat", source, dtype, detail=detail(more))
    if op in ("Resize", "Upsample"):
        return make_key(
            "resize", source, dtype, detail=detail({"mode": attributes.get("mode"), "out": text_of(sink, "x")})
        )
    if op in _RESHAPES:
        return make_key("reshape", source, dtype, detail=detail({"out": text_of(sink, "x")}))
    if op == "Pad":
        return make_key("pad", source, dtype, detail=detail({"pads": text_of(_constant(node, 1, values))}))
    if sink != source:
        more["out"] = text_of(sink, "x")
    more.update({name: _plain(value) for name, value in sorted(attributes.items()) if _plain(value)})
    name = _OTHER_NAMES.get(op, snake_case(op))
    if name in _OTHER_NAMES.values():
        more = {}
    return make_key(name, source, dtype, detail=detail(more))


def _standalone_activation(node: Any, attributes: Mapping[str, Any], values: _Values) -> str:
    if node.op_type == "Clip":
        limits = [_constant(node, i, values) for i in (1, 2)]
        low, high = (
            float(limit[0]) if len(limit) else default for limit, default in zip(limits, (-3.4e38, 3.4e38), strict=True)
        )
        return activation("Clip", (low, high))
    names = _ACTIVATION_NUMBERS.get(node.op_type, ())
    return activation(node.op_type, [attributes[name] for name in names if name in attributes])


def _shape_of(name: str, values: _Values) -> Shape | None:
    if name in values.constants:
        return tuple(values.constants[name].dims)
    return values.original.get(name)


def _constant(node: Any, position: int, values: _Values) -> tuple[Any, ...]:
    """The values of a constant input; () where there is none."""
    import onnx

    if position >= len(node.input) or node.input[position] not in values.constants:
        return ()
    return tuple(onnx.numpy_helper.to_array(values.constants[node.input[position]]).reshape(-1).tolist())


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def _plain(value: object) -> str:
    """An attribute's value as text; "" for tensors, graphs and the like."""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and all(isinstance(item, int | float) for item in value):
        return text_of([f"{item:.6g}" for item in value])
    return ""
