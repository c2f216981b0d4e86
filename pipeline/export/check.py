"""Is this file a model that a phone's runtime can load, with one input of a fixed shape? Used for users' files too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import HandsetError, ModelError, StorageError, UnsupportedOp

_ONNX_DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
# The names that onnx gives to what onnxruntime's C API can be fed from plain bytes.
_FIXED_SIZE = ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "BOOL")

MAX_BYTES = (2 << 30) - 1
"""What protobuf and flatbuffers can hold; nothing larger is read into memory."""


@dataclass(frozen=True)
class FileInfo:
    """Shapes as the file declares them (NHWC in most TFLite files); dtypes "float32", "int8", ..."""

    format: str
    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    output_dtype: str


def check_file(path: Path) -> FileInfo:
    """Reads a .onnx or .tflite file without running it.

    Raises:
        UnsupportedOp: an op that the runtime does not have, by name.
        ModelError: not a model, cut short, weights in a second file, not one input, or a dynamic axis (named).
        StorageError: the file cannot be read.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            what = f"{path.name} has {size >> 20:,} MiB, and a {path.suffix} model at most {MAX_BYTES >> 20:,}"
            raise ModelError(what, try_="the path of a model file")
        return _check_onnx(path) if path.suffix == ".onnx" else _check_tflite(path)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", try_="the path of a model file") from error


def _check_onnx(path: Path) -> FileInfo:
    content = path.read_bytes()
    try:
        return _onnx_info(path, content)
    except HandsetError:
        raise
    except Exception as error:  # protobuf and the checker raise their own, and damaged text makes plain ones
        lines = str(error).strip().splitlines()
        raise _damaged(path, len(content), lines[0][:200] if lines else type(error).__name__) from error


def _onnx_info(path: Path, content: bytes) -> FileInfo:
    import onnx

    model = onnx.load_model_from_string(content)
    if not model.graph.node or not model.graph.output:
        raise _damaged(path, len(content), "holds no graph")
    for weight in model.graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(
                f"{path.name} keeps its weights in a second file", try_="onnx.save(onnx.load(path), new_path)"
            )
    _check_onnx_ops(path, model)
    stored = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise ModelError(f"{path.name} has {len(inputs)} inputs", try_="a network with one input")
    source, sink = inputs[0], model.graph.output[0]
    info = FileInfo("onnx", *_onnx_tensor(path, "input", source), *_onnx_tensor(path, "output", sink))
    onnx.checker.check_model(model)
    return info


def _check_onnx_ops(path: Path, model: Any) -> None:
    import onnx

    own = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if (node.domain, node.op_type) in own:
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        # onnxruntime's own ops are not in onnx's lists.
        if domain not in _ONNX_DOMAINS or (domain != "com.microsoft" and not onnx.defs.has(node.op_type, domain)):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnsupportedOp(
                f"{path.name} uses the op {name!r}, which onnxruntime does not have",
                try_="to export it with standard ops",
            )


def _onnx_tensor(path: Path, role: str, value: Any) -> tuple[tuple[int, ...], str]:
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if not value.type.HasField("tensor_type") or kind not in _FIXED_SIZE:
        raise ModelError(f"the {role} {value.name!r} of {path.name} is not a tensor of numbers", try_="a CNN")
    if not tensor.HasField("shape"):
        raise ModelError(f"the {role} {value.name!r} of {path.name} declares no shape", try_="a fixed shape at export")
    shape = []
    for axis, dimension in enumerate(tensor.shape.dim):
        if not dimension.HasField("dim_value") or dimension.dim_value < 1:
            raise _dynamic(path, role, value.name, axis, dimension.dim_param)
        shape.append(int(dimension.dim_value))
    return tuple(shape), {"FLOAT": "float32", "DOUBLE": "float64"}.get(kind, kind.lower())


def _check_tflite(path: Path) -> FileInfo:
    from pipeline.tflite_file import read

    model = read(path)
    if not model.operators or not model.outputs:
        raise _damaged(path, path.stat().st_size, "holds no graph")
    for operator in model.operators:
        if operator.is_custom or operator.op.startswith("builtin op "):
            raise UnsupportedOp(
                f"{path.name} uses the op {operator.op!r}, which LiteRT does not have",
                try_="to export it with built-in ops",
            )
    if len(model.inputs) != 1:
        raise ModelError(f"{path.name} has {len(model.inputs)} inputs", try_="a network with one input")
    ends = []
    for role, number in (("input", model.inputs[0]), ("output", model.outputs[0])):
        tensor = model.tensors[number]
        for axis, size in enumerate(tensor.shape):
            if size < 1:
                raise _dynamic(path, role, tensor.name, axis, "")
        ends.append(tensor)
    source, sink = ends
    return FileInfo("tflite", source.shape, source.dtype, sink.shape, sink.dtype)


def _damaged(path: Path, size: int, reason: str) -> ModelError:
    return ModelError(
        f"{path.name} is no {path.suffix} model, or cut short or damaged ({size} bytes: {reason})",
        try_="to copy or export it again",
    )


def _dynamic(path: Path, role: str, name: str, axis: int, symbol: str) -> ModelError:
    called = f" ({symbol!r})" if symbol else ""
    return ModelError(
        f"axis {axis}{called} of the {role} {name!r} of {path.name} is dynamic; a latency needs a fixed shape",
        try_="to export it with a fixed shape",
    )
