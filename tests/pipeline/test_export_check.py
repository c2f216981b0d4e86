"""Users' files: shapes read, and everything that cannot be timed refused by name, however broken the file is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.errors import HandsetError, ModelError, StorageError, UnsupportedOp
from pipeline.export import FileInfo, check_file


def onnx_file(
    path: Path, shape: Sequence[Any] | None, op: str = "Relu", domain: str = "", **changes: Callable[[Any], None]
) -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], name="only", domain=domain)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    for change in changes.values():
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_shapes_and_types_are_those_of_the_file(digits_files: dict[str, Any]) -> None:
    assert check_file(digits_files["onnx"].path) == FileInfo("onnx", (1, 1, 8, 8), "float32", (1, 10), "float32")
    assert check_file(digits_files["tflite"].path) == FileInfo("tflite", (1, 8, 8, 1), "float32", (1, 10), "float32")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["batch", 3, 8, 8], "axis 0 ('batch') of the input 'x'"),
        ([1, 3, None, 8], "axis 2 of the input 'x'"),
        ([1, 0, 8, 8], "axis 1 of the input 'x'"),
        (None, "the input 'x' of net.onnx declares no shape"),
    ],
)
def test_dynamic_axis_of_onnx_is_named(shape: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        check_file(onnx_file(tmp_path / "net.onnx", shape))
    assert message in str(caught.value)


def test_dynamic_axis_of_tflite_is_named(tflite_with: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"axis 0 of the input 'x' of net\.tflite is dynamic"):
        check_file(tflite_with(signature=[-1, 4]))


@pytest.mark.parametrize(
    ("op", "domain", "named"), [("Wobble", "", "'Wobble'"), ("Relu", "com.acme", "'com.acme.Relu'")]
)
def test_unsupported_op_of_onnx_is_named(op: str, domain: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOp) as caught:
        check_file(onnx_file(tmp_path / "net.onnx", [1, 4], op, domain))
    assert named in str(caught.value)


def test_unsupported_op_of_tflite_is_named(tflite_with: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedOp, match="'FlexFFT2D'"):
        check_file(tflite_with(custom="FlexFFT2D"))
    assert check_file(tflite_with()).input_shape == (1, 4)


def test_weights_in_a_second_file_are_refused(tmp_path: Path) -> None:
    def external(model: Any) -> None:
        weight = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../etc/passwd")
        model.graph.initializer.append(weight)

    with pytest.raises(ModelError, match="keeps its weights in a second file"):
        check_file(onnx_file(tmp_path / "net.onnx", [1, 4], change=external))


def test_second_input_and_text_are_refused(tmp_path: Path) -> None:
    def second(model: Any) -> None:
        model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))

    def text(model: Any) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = TensorProto.STRING
        model.graph.node[0].op_type = "Identity"

    with pytest.raises(ModelError, match="has 2 inputs"):
        check_file(onnx_file(tmp_path / "net.onnx", [1, 4], change=second))
    with pytest.raises(ModelError, match="not a tensor of numbers"):
        check_file(onnx_file(tmp_path / "net.onnx", [1, 4], change=text))


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_file_cut_short_is_told(suffix: str, share: float, digits_files: dict[str, Any], tmp_path: Path) -> None:
    content = digits_files[suffix].path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError) as caught:
        check_file(cut)
    assert f"{cut.stat().st_size} bytes" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize(
    "content", [b"\0" * 100, b"TFL3" * 40, b"\x20\0\0\0TFL3" + b"\xff" * 100, "Grüße".encode() * 9]
)
def test_file_of_something_else_is_told(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"net.{suffix} is"):
        check_file(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_damaged_file_gives_a_model_or_our_error(
    suffix: str, data: st.DataObject, digits_files: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / f"net.{suffix}"
    content = bytearray(digits_files[suffix].path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Between the two ends lie weights, which may be anything.
        place = data.draw(st.integers(0, 3000) | st.integers(len(content) - 9000, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert check_file(path).format == suffix
    except HandsetError as error:
        assert "\n" not in str(error)


def test_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*no\.onnx: No such file"):
        check_file(tmp_path / "no.onnx")


@pytest.fixture
def tflite_with(tmp_path: Path) -> Callable[..., Path]:
    """A one-op TFLite file, written with the schema; RELU on (1, 4) unless told otherwise."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def make(signature: list[int] | None = None, custom: str | None = None) -> Path:
        tensors = []
        for name in ("x", "y"):
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.shapeSignature, tensor.buffer = name, [1, 4], signature, 0
            tensors.append(tensor)
        code = schema.OperatorCodeT()
        code.builtinCode = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.RELU
        code.deprecatedBuiltinCode, code.customCode = code.builtinCode, custom
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
        model = schema.ModelT()
        model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [schema.BufferT()]
        builder = flatbuffers.Builder(256)
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / "net.tflite"
        path.write_bytes(bytes(builder.Output()))
        return path

    return make
