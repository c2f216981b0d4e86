"""Keys from model files: those of onnxruntime's optimised model and of a TFLite file, against what torch declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.kernels import onnx as onnx_kernels
from pipeline.kernels import tflite as tflite_kernels
from pipeline.kernels.file_op import FileOp, activation, conv_macs, detail, same_padding, snake_case
from pipeline.models import MODELS


def run_profiled(path: Path, folder: Path, level: str = "ORT_ENABLE_ALL") -> dict[str, FileOp]:
    """One run in onnxruntime with its optimised model and its profile, read by `keys`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    import numpy as np

    session.run(None, {source.name: np.zeros(source.shape, np.float32)})
    shapes = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["cat"] == "Node":
            sides = [event["args"][side] for side in ("input_type_shape", "output_type_shape")]
            inputs, outputs = ([next(iter(entry.values())) for entry in side] for side in sides)
            shapes[event["name"].removesuffix("_kernel_time")] = (inputs, outputs)
    ops = onnx_kernels.keys(folder / "optimised.onnx", shapes, path)
    assert set(ops) == set(shapes)
    return ops


CONVOLUTIONS = {
    "stem": "conv2d[in=1x3x16x16 out=20 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=1 act=relu add=0 dtype=float32]",
    "depthwise": "conv2d[in=1x20x8x8 out=20 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=20 act=hardswish add=0 dtype=float32]",
    "point": "conv2d[in=1x20x4x4 out=37 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=0 dtype=float32]",
    "mix": "conv2d[in=1x37x4x4 out=37 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=1 act=relu add=1 dtype=float32]",
    "grouped": "conv2d[in=1x20x8x8 out=40 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=4 act=sigmoid add=0 dtype=float32]",
    "linear": "linear[in=1x77 out=5 act=none add=0 dtype=float32]",
}
MACS = {
    "stem": 20 * 64 * 27, "depthwise": 20 * 64 * 9, "point": 37 * 16 * 20, "mix": 37 * 16 * 37 * 9,
    "grouped": 40 * 64 * 5 * 9, "linear": 77 * 5,
}  # fmt: skip


def test_optimised_model_of_onnxruntime(small_files: dict[str, Any], tmp_path: Path) -> None:
    ops = run_profiled(small_files["onnx"].path, tmp_path)
    by_layer = {op.name: op for op in ops.values()}
    # 20 and 37 channels fill no block of 8 or 16: the profile says 24 or 32 and 40 or 48 inside the blocked layout.
    assert {name: str(by_layer[name].key) for name in CONVOLUTIONS} == CONVOLUTIONS
    assert {name: by_layer[name].macs for name in MACS} == MACS
    assert all(op.key is not None for op in ops.values())
    keys = {str(op.key) for op in ops.values()}
    assert "max_pool[in=1x20x8x8 k=3x3 s=2x2 p=1,1,1,1 dtype=float32]" in keys
    assert "avg_pool[in=1x40x8x8 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]" in keys
    assert "concat[in=1x37x4x4 dtype=float32 detail=axis=1 out=1x77x4x4]" in keys
    assert "mean[in=1x77x4x4 dtype=float32 detail=axes=2,3]" in keys


def test_model_without_optimisation_has_plain_ops(small_files: dict[str, Any], tmp_path: Path) -> None:
    ops = run_profiled(small_files["onnx"].path, tmp_path, "ORT_DISABLE_ALL")
    assert str(ops["stem"].key) == CONVOLUTIONS["stem"].replace("act=relu", "act=none")
    assert str(ops["mix"].key) == CONVOLUTIONS["mix"].replace("act=relu add=1", "act=none add=0")
    assert str(ops["relu"].key) == "activation[in=1x20x8x8 act=relu dtype=float32]"
    assert str(ops["add"].key) == "add[in=1x37x4x4 act=none dtype=float32]"


def test_node_that_the_profile_does_not_have_gets_no_key(small_files: dict[str, Any]) -> None:
    path = small_files["onnx"].path
    ops = onnx_kernels.keys(path, {}, path)
    assert ops and all(op.key is None and op.macs is None for op in ops.values())


def test_tflite_file(small_files: dict[str, Any]) -> None:
    ops = tflite_kernels.keys(small_files["tflite"].path)
    assert [op.index for op in ops] == list(range(len(ops)))
    assert all(op.key is not None for op in ops)
    texts = [str(op.key) for op in ops]
    # TFLite has no padding of 1 on both sides at stride 2: a PAD comes first, and its output is what the stem reads.
    assert texts[0] == "pad[in=1x3x16x16 p=1,1,1,1 dtype=float32]"
    assert texts[1] == CONVOLUTIONS["stem"].replace("16x16", "18x18").replace("p=1,1,1,1", "p=0,0,0,0")
    assert texts[2] == CONVOLUTIONS["depthwise"].replace("hardswish", "none")
    assert texts[3] == "activation[in=1x20x8x8 act=hardswish dtype=float32]"
    assert CONVOLUTIONS["point"] in texts and CONVOLUTIONS["linear"] in texts
    assert CONVOLUTIONS["grouped"].replace("sigmoid", "none") in texts
    assert "add[in=1x37x4x4 act=relu dtype=float32]" in texts
    assert "concat[in=1x37x4x4 dtype=float32 detail=axis=1 with=1x40x4x4]" in texts
    assert sum(op.macs or 0 for op in ops) == sum(MACS.values())


def test_macs_of_the_files_are_those_of_the_network(digits_files: dict[str, Any], tmp_path: Path) -> None:
    expected = MODELS["digits_cnn"].macs
    assert sum(op.macs or 0 for op in run_profiled(digits_files["onnx"].path, tmp_path).values()) == expected
    assert sum(op.macs or 0 for op in tflite_kernels.keys(digits_files["tflite"].path)) == expected


def test_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\xff" * 50)
    with pytest.raises(ModelError, match=r"net\.onnx is no ONNX model"):
        onnx_kernels.keys(path, {}, path)
    with pytest.raises(ModelError, match="not a TFLite model"):
        tflite_kernels.keys(path)


@given(st.integers(1, 300), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_an_output_of_the_size_over_the_stride(
    size: int, kernel: int, stride: int, dilation: int
) -> None:
    before, after = same_padding(size, kernel, stride, dilation)
    span = (kernel - 1) * dilation + 1
    if before + after:
        assert (size + before + after - span) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1
    assert same_padding(size, kernel, stride, dilation, lower=True) == (after, before)


@pytest.mark.parametrize(
    ("name", "params", "word"),
    [
        ("Relu", (), "relu"),
        ("Clip", (0.0, 6.0), "relu6"),
        ("Clip", (-1.0, 1.0), "clip(-1,1)"),
        ("Clip", (0.0, 3.4028234663852886e38), "relu"),
        ("RELU6", (), "relu6"),
        ("RELU_N1_TO_1", (), "clip(-1,1)"),
        ("HARD_SWISH", (), "hardswish"),
        ("HardSwish", (), "hardswish"),
        ("LOGISTIC", (), "sigmoid"),
        ("LeakyRelu", (0.1,), "leakyrelu(0.1)"),
        ("NONE", (), "none"),
    ],
)
def test_activations(name: str, params: tuple[float, ...], word: str) -> None:
    assert activation(name, params) == word


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ReduceMean", "reduce_mean"),
        ("STRIDED_SLICE", "strided_slice"),
        ("QLinearConv", "q_linear_conv"),
        ("LRN", "lrn"),
    ],
)
def test_snake_case(name: str, word: str) -> None:
    assert snake_case(name) == word


def test_details_fit_into_a_key() -> None:
    assert detail({"axes": "2,3", "mode": "", "to": "ä"}) == "axes=2,3 to=?"
    assert len(detail({"pads": "1," * 500})) == 200


def test_conv_macs_closed_form() -> None:
    assert conv_macs((1, 32, 112, 112), 3, (3, 3), 1) == 32 * 112 * 112 * 27
    assert conv_macs((1, 96, 56, 56), 96, (3, 3), 96) == 96 * 56 * 56 * 9
