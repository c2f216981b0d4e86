"""The kernels of a .tflite file, in its order of execution: what its tables say, as `pipeline.kernels.tflite_keys` asks it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.kernels.file_op import FileOp, activation, snake_case
from pipeline.kernels.tflite_keys import CONVOLUTIONS, PADS, POOLS, Operands, key_of, window_padding
from pipeline.tflite_file import Operator, Tensor, TfliteModel, names, read


def keys(path: Path) -> list[FileOp]:
    """The ops of the file's main graph.

    Raises:
        ModelError: the file is no TFLite model, or damaged.
        OSError: it cannot be read.
    """
    model = read(path)
    return [_file_op(model, operator) for operator in model.operators]


def _file_op(model: TfliteModel, operator: Operator) -> FileOp:
    name = f"{snake_case(operator.op)}_{operator.index}"
    reads = tuple(i for i in operator.inputs if i >= 0 and not model.tensors[i].is_constant)
    if not operator.inputs or operator.inputs[0] < 0 or not operator.outputs:
        return FileOp(operator.index, name, operator.op, None, None, reads, operator.outputs)
    inputs = [model.tensors[i] for i in operator.inputs if i >= 0]
    if operator.op == "TRANSPOSE_CONV":  # its first input tells the shape of the output
        inputs = inputs[2:] + inputs[:2]
    source, sink = inputs[0], model.tensors[operator.outputs[0]]
    others = [tensor.shape for tensor in inputs[1:]]
    operands = Operands(source.shape, sink.shape, source.dtype, others, _attributes(operator, inputs))
    key, macs = key_of(operator.op, operands)
    return FileOp(operator.index, name, operator.op, key, macs, reads, operator.outputs)


def _attributes(operator: Operator, inputs: Sequence[Tensor]) -> dict[str, Any]:
    op, options, source = operator.op, operator.options, inputs[0].shape
    found: dict[str, Any] = {}
    if hasattr(options, "FusedActivationFunction"):
        found["activation"] = activation(names("ActivationFunctionType")[options.FusedActivationFunction()])
    if op in CONVOLUTIONS and len(source) == 4:
        weight = inputs[1].shape  # (c_out, h, w, c_in/groups); depthwise (1, h, w, c_out)
        found["groups"] = source[3] if op == "DEPTHWISE_CONV_2D" else source[3] // weight[3]
        found["kernel"] = (weight[1], weight[2])
        found["dilation"] = (options.DilationHFactor(), options.DilationWFactor())
    elif op == "TRANSPOSE_CONV" and len(inputs[-1].shape) == 4:
        found["kernel"] = inputs[-1].shape[1:3]
    elif op in POOLS and len(source) == 4:
        found["kernel"] = (options.FilterHeight(), options.FilterWidth())
    elif op == "FULLY_CONNECTED" and inputs[1].is_constant:
        found["out_channels"], found["in_channels"] = inputs[1].shape
    elif op == "LEAKY_RELU":
        found["alpha"] = options.Alpha()
    elif op == "MEAN":
        found["axes"] = _ints(inputs[1])
    elif op in PADS:
        found["pads"] = tuple(zip(*[iter(_ints(inputs[1]))] * 2, strict=True))
    elif op == "TRANSPOSE":
        found["perm"] = _ints(inputs[1])
    elif op == "CONCATENATION":
        found["axis"] = options.Axis()
    elif op == "STRIDED_SLICE":
        found.update(
            {word: _ints(tensor) for word, tensor in zip(("begin", "end", "strides"), inputs[1:4], strict=True)}
        )
    if "kernel" in found:
        found["stride"] = (options.StrideH(), options.StrideW())
        same = names("Padding")[options.Padding()] != "VALID" and op != "TRANSPOSE_CONV"
        windows = found["kernel"], found["stride"], found.get("dilation", (1, 1))
        found["padding"] = window_padding(same, (source[1], source[2]), *windows)
    return found


def _ints(tensor: Tensor) -> tuple[int, ...]:
    """A constant's whole numbers; () for a tensor that is computed or of another kind."""
    code = {"int32": "i", "int64": "q"}.get(tensor.dtype)
    if not tensor.is_constant or code is None:
        return ()
    return struct.unpack(f"<{len(tensor.data) // struct.calcsize(code)}{code}", tensor.data)
