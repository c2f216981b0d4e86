"""What a device is asked and what it should answer: inputs, layouts, this machine's runtimes, and how answers are paired."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline import reference_outputs
from pipeline.agreement import Answer, compare, pair_up
from pipeline.artifact import Exported, Network
from pipeline.datasets import noise, photographs
from pipeline.export import quiet
from pipeline.reference_outputs import (
    FLOAT_TOLERANCE,
    INTEGER_TOLERANCE,
    Reference,
    as_bytes,
    as_image,
    holds_8_bits,
    in_8_bits,
    questions,
    reference_of,
)

SHAPE = (1, 3, 6, 5)


def exported(path: Path, output_shape: tuple[int, ...] = (1, 5)) -> Exported:
    return Exported("net", path.suffix[1:], path, "0" * 64, 1, SHAPE, output_shape, "by hand")


def onnx_file(folder: Path, nodes: list[Any], outputs: list[str], dtype: str = "FLOAT", shape: Any = SHAPE) -> Path:
    kind, path = getattr(TensorProto, dtype), folder / "net.onnx"
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", *outputs)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def of_file(path: Path, shape: tuple[int, ...] = SHAPE) -> Reference:
    return reference_of(Network("net", path.suffix[1:], shape, path=path), exported(path, shape))


# ---- inputs


def test_questions_are_both_photographs_and_two_noises() -> None:
    asked = questions(SHAPE, 20)
    assert list(asked) == ["china", "flower", "seed 0", "seed 1"]
    for name, picture in photographs(SHAPE).items():
        assert np.array_equal(asked[name], picture)
    assert np.array_equal(asked["seed 1"], noise(SHAPE, 1))


def test_only_an_image_is_asked_photographs() -> None:
    assert list(questions((1, 64), 40)) == ["seed 0", "seed 1"]
    assert {x.shape for x in questions((1, 64), 40).values()} == {(1, 64)}


def test_a_batch_repeats_the_photograph() -> None:
    asked = questions((2, 3, 6, 5), 20)
    assert asked["china"].shape == (2, 3, 6, 5) and np.array_equal(asked["china"][0], asked["china"][1])


@pytest.mark.parametrize(("output_bytes", "count"), [(1 << 20, 4), (20 << 20, 3), (1 << 30, 1)])
def test_large_outputs_are_asked_for_less_often(output_bytes: int, count: int) -> None:
    assert list(questions(SHAPE, output_bytes)) == ["china", "flower", "seed 0", "seed 1"][:count]


@pytest.mark.parametrize(
    ("shape", "format", "image", "back"),
    [
        ((1, 224, 200, 3), "tflite", (1, 3, 224, 200), (0, 2, 3, 1)),
        ((1, 3, 224, 200), "tflite", (1, 3, 224, 200), (0, 1, 2, 3)),
        ((1, 3, 224, 200), "onnx", (1, 3, 224, 200), (0, 1, 2, 3)),
        ((1, 224, 200, 3), "onnx", (1, 3, 224, 200), (0, 2, 3, 1)),
        ((1, 64, 32, 64), "tflite", (1, 64, 64, 32), (0, 2, 3, 1)),
        ((1, 64, 32, 64), "onnx", (1, 64, 32, 64), (0, 1, 2, 3)),
        ((1, 3, 32, 4), "tflite", (1, 4, 3, 32), (0, 2, 3, 1)),
        ((1, 3, 32, 4), "onnx", (1, 3, 32, 4), (0, 1, 2, 3)),
        ((1, 64), "onnx", (1, 64), (0, 1)),
    ],
)
def test_the_layout_of_a_given_file(
    shape: tuple[int, ...], format: str, image: tuple[int, ...], back: tuple[int, ...]
) -> None:
    assert as_image(shape, format) == (image, back)
    assert np.zeros(image).transpose(back).shape == shape


@pytest.mark.parametrize(("format", "axes"), [("onnx", (0, 1, 2, 3, 4)), ("tflite", (0, 1, 3, 4, 2))])
def test_a_modules_image_goes_in_the_layout_of_the_file(format: str, axes: tuple[int, ...]) -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 1, 3, 4, 5)
    network = Network("net", "python", (1, 3, 4, 5), module=torch.nn.Identity())
    assert as_bytes(images, network, format) == np.ascontiguousarray(images.transpose(axes)).tobytes()
    as_it_is = Network("net", format, (1, 3, 4, 5), path=Path("net"))
    assert as_bytes(images, as_it_is, format) == images.tobytes()


@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_8_bits_are_used_whole(dtype: str, low: int, high: int) -> None:
    image = in_8_bits(noise(SHAPE, 0), dtype)
    assert image.dtype == dtype and (image.min(), image.max()) == (low, high)
    assert len(set(in_8_bits(np.full(SHAPE, 3.0, np.float32), dtype).flat)) == 1


# ---- answers


def test_torch_answers_for_a_module(small_network: Any, small_files: Any) -> None:
    network = small_network(0)
    for file in small_files.values():
        reference = reference_of(network, file)
        assert reference.name == "torch" and reference.tolerance == FLOAT_TOLERANCE
        assert reference.inputs.shape == (4, 1, 3, 16, 16)
        ((name, outputs),) = reference.outputs
        with torch.inference_mode():
            expected = network.module(torch.from_numpy(reference.inputs[2])).numpy()
        assert name == "" and outputs.shape == (4, 1, 5) and np.array_equal(outputs[2], expected)


def test_the_labelled_digits_are_asked_whole(digits_network: Network, digits_files: Any) -> None:
    reference = reference_of(digits_network, digits_files["onnx"])
    assert reference.inputs.shape == (360, 1, 1, 8, 8) and reference.outputs[0][1].shape == (360, 1, 10)
    assert reference.labels is not None
    assert (reference.outputs[0][1][:, 0].argmax(1) == reference.labels).mean() > 0.97


def test_every_output_of_a_file_is_there_by_its_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    reference = of_file(onnx_file(tmp_path, nodes, ["size", "minus"]))
    assert reference.name == "onnxruntime on this machine" and reference.tolerance == FLOAT_TOLERANCE
    assert [name for name, _ in reference.outputs] == ["size", "minus"]
    assert np.array_equal(dict(reference.outputs)["minus"], -reference.inputs)
    assert np.array_equal(dict(reference.outputs)["size"], np.abs(reference.inputs))


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
def test_8_bit_inputs_are_filled(tmp_path: Path, dtype: str) -> None:
    reference = of_file(onnx_file(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], ["y"], dtype))
    assert reference.inputs.dtype == dtype.lower() and reference.inputs.shape == (4, *SHAPE)
    assert np.array_equal(reference.outputs[0][1], reference.inputs)


def test_other_inputs_are_not_judged(tmp_path: Path) -> None:
    reference = of_file(onnx_file(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], ["y"], "INT64"))
    assert reference.name == "none: its input is int64, not float32, int8 or uint8"
    assert reference.outputs == () and reference.input_names == ()


def test_a_file_that_this_machine_cannot_run_is_not_judged(tmp_path: Path) -> None:
    """Celu has no kernel for 8-bit numbers; nothing but loading it tells."""
    node = helper.make_node("Celu", ["x"], ["y"])
    path = onnx_file(tmp_path, [node], ["y"], "INT8")
    reference = of_file(path)
    assert reference.name.startswith("none: onnxruntime cannot load net.onnx: ")
    assert compare("net", reference, Answer()).agrees


def test_files_of_8_bits_have_a_wider_bound(tmp_path: Path, small_files: Any) -> None:
    quantize = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = onnx_file(tmp_path, quantize, ["y"])
    assert holds_8_bits(path) and of_file(path).tolerance == INTEGER_TOLERANCE
    assert not any(holds_8_bits(file.path) for file in small_files.values())


def test_a_tflite_file_of_8_bits(small_files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import tflite_file

    monkeypatch.setattr(
        tflite_file,
        "read",
        lambda path: tflite_file.TfliteModel(
            (tflite_file.Tensor("w", (1,), "int8", True, memoryview(b"")),), (), (), ()
        ),
    )
    assert reference_outputs.holds_8_bits(small_files["tflite"].path)


# ---- pairing


def reference(outputs: list[tuple[str, np.ndarray[Any, Any]]]) -> Reference:
    count = len(outputs[0][1])
    return Reference("torch", tuple(map(str, range(count))), np.zeros(count), tuple(outputs), FLOAT_TOLERANCE)


def answer(outputs: list[tuple[str, np.ndarray[Any, Any]]]) -> Answer:
    """As the runner writes it: all outputs of the first input, then of the second."""
    rows = range(len(outputs[0][1]))
    data = b"".join(values[row].tobytes() for row in rows for _, values in outputs)
    return Answer(data, tuple((name, values[0].nbytes) for name, values in outputs))


arrays = st.tuples(
    st.sampled_from(["float32", "float16", "int8", "uint8", "int64", "bool"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
)


@given(st.integers(1, 5), st.lists(arrays, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_outputs_in_any_order_find_their_partners(count: int, kinds: list[Any], random: Any) -> None:
    outputs = [
        (f"out {i}", (np.arange(count * math.prod(shape)) % 97 + i).astype(dtype).reshape(count, *shape))
        for i, (dtype, shape) in enumerate(kinds)
    ]
    shuffled = random.sample(outputs, len(outputs))
    pairs = pair_up(outputs, answer(shuffled), count)
    assert len(pairs) == len(outputs)
    for expected, given_ in pairs:
        assert given_.dtype == expected.dtype and np.array_equal(given_, expected)
    assert compare("net", reference(outputs), answer(shuffled)).relative_error == 0.0


ONES, TWOS = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)


@pytest.mark.parametrize(
    ("expected", "given_", "error"),
    [
        ([("", ONES)], [("y", ONES)], 0.0),  # torch's one has no name
        ([("", ONES)], [("y", ONES), ("z", TWOS)], 0.0),  # only what both have
        ([("a", ONES), ("b", TWOS)], [("b", TWOS)], 0.0),
        ([("a", ONES), ("b", TWOS)], [("c", ONES), ("d", TWOS)], 0.0),  # no name in common: in their order
        ([("a", ONES), ("b", TWOS)], [("d", TWOS), ("c", ONES)], 0.5),
        ([("a", ONES), ("a", TWOS)], [("a", ONES), ("a", TWOS)], 0.0),  # names that tell nothing apart
        ([("a", ONES), ("b", TWOS)], [("a", TWOS), ("b", TWOS)], 0.5),
    ],
)
def test_which_outputs_are_compared(expected: Any, given_: Any, error: float) -> None:
    assert compare("net", reference(expected), answer(given_)).relative_error == error


def test_another_size_is_no_answer() -> None:
    found = compare("net", reference([("a", ONES)]), answer([("a", ONES[:, :2])]))
    assert found.failed == "it gave 16 bytes for 2 inputs (8 each), not those of torch" and not found.agrees


def test_top1_is_for_one_output_of_classes_only() -> None:
    classes, image = np.ones((2, 1, 4), np.float32), np.ones((2, 1, 4, 2), np.float32)
    for outputs, top1 in (([("a", classes)], 1.0), ([("a", image)], None), ([("a", classes), ("b", image)], None)):
        assert compare("net", reference(outputs), answer(outputs)).top1_agreement == top1


def test_zeros_have_an_angle() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert compare("net", reference([("a", zeros)]), answer([("a", zeros)])).cosine == 1.0
    found = compare("net", reference([("a", zeros)]), answer([("a", ONES)]))
    assert found.cosine == 0.0 and found.relative_error == math.inf and not found.agrees


def test_onnxruntime_is_imported_such_that_it_reports_to_nobody() -> None:
    code = (
        "import os, sys; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import pipeline.export.quiet as quiet; "
        "assert 'onnxruntime' not in sys.modules; quiet.import_onnxruntime(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    for path in Path(quiet.__file__).parents[1].rglob("*.py"):
        imports = [line for line in path.read_text("utf-8").splitlines() if line.strip().startswith("import onnxruntime")]
        assert not imports or path == Path(quiet.__file__), f"{path} imports it on its own"
