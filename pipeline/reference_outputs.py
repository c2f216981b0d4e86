"""What a network is asked on a device and what it should answer: real inputs, and the outputs of torch for them.

A network that came as a .onnx or .tflite file has no torch module; what this machine's own runtime gives for the same
file stands in for it. That tells a device apart from this machine, not a wrong conversion from a right one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifact import Exported, Network
from pipeline.default_set import is_digits
from pipeline.errors import ModelError
from pipeline.export.check import check_file
from pipeline.export.quiet import import_onnxruntime, quiet

Numbers = NDArray[Any]
Output = tuple[str, Numbers]

NOISES = 2
MOST_BYTES = 64 << 20
"""Inputs and outputs of one network together; a network with large ones is asked fewer questions, one at least."""

CHANNELS = (1, 3, 4)
"""Sizes of an axis that holds colours: they tell in which layout a file that somebody gave us wants its image."""


@dataclass(frozen=True)
class Reference:
    """Inputs with the answers expected for them.

    Args:
        name: who gave them; "none: ..." and empty arrays where nobody could.
        input_names: "china", "flower", "seed 0", ... or "digits test 0-359".
        inputs: (n, *the network's input shape) in its own layout, NCHW for a torch module.
        outputs: (name, (n, *shape of this output)) each; a torch module has one, without a name.
        labels: (n,) the right class for each input, where that is known.
        data: what the inputs are, for a reader of the accuracy.
        tolerance: bound on the relative error of a device's answers.
    """

    name: str
    input_names: tuple[str, ...]
    inputs: Numbers
    outputs: tuple[Output, ...]
    tolerance: float
    labels: NDArray[np.int64] | None = None
    data: str = ""


FLOAT_TOLERANCE = 1e-3
"""Bound on the relative error of float32 networks.

Another processor's kernels sum in another order. Over digits_cnn, ResNet-20 and MobileNetV2, onnxruntime and LiteRT on x86
and arm64 and TensorFlow Lite on arm64, with XNNPACK and without, differ from torch by 3e-7 to 1.3e-5; the bound leaves
eighty times as much. A kernel that is wrong
(a padding on the other side, a lost activation) gives 3e-2 and more. Arithmetic in float16 gives 4e-4 (digits_cnn) to 4e-2
(MobileNetV2), so it is refused for all but shallow networks: whoever wants its time says so with --allow-mismatch.
"""

INTEGER_TOLERANCE = 0.2
"""The same for a file with 8-bit weights or activations. Its kernels round, and a rounding that falls to the other side is
carried on: onnxruntime's 8-bit kernels differ from the same file computed in float by 0.01 (ResNet-20) to 0.08
(MobileNetV2). Only what is grossly wrong shows.
"""


def reference_of(network: Network, artifact: Exported) -> Reference:
    """The questions for a network and their right answers; torch's where there is a module, whatever the artifact."""
    if network.module is None:
        return _of_file(network.path or artifact.path)
    if is_digits(network):
        return _of_digits(network)
    return _of_module(network, artifact)


def as_bytes(inputs: Numbers, network: Network, format: str) -> bytes:
    """Inputs as the runner reads them: one raw tensor after another, in the layout of the file.

    A torch module's image becomes (n, h, w, c) for TFLite, as the exporter wants it; a file's own inputs stay as they are.
    """
    if network.module is not None and format == "tflite" and inputs.ndim == 5:
        inputs = inputs.transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(inputs, inputs.dtype.newbyteorder("<")).tobytes()


def _of_module(network: Network, artifact: Exported) -> Reference:
    import torch

    assert network.module is not None
    images = questions(network.input_shape, 4 * prod(artifact.output_shape))
    with torch.inference_mode(), quiet():  # one by one, as on the device: not every module takes a batch
        outputs = [network.module(torch.from_numpy(image)).numpy() for image in images.values()]
    # a network that amplifies rounding is told by the tolerance that its file needed
    tolerance = max(FLOAT_TOLERANCE, 10 * artifact.parity.tolerance if artifact.parity else 0.0)
    return Reference("torch", tuple(images), np.stack(list(images.values())), (("", np.stack(outputs)),), tolerance)


def _of_digits(network: Network) -> Reference:
    from pipeline.datasets import digits
    from pipeline.evaluate import torch_logits

    assert network.module is not None
    _, _, images, labels = digits()
    outputs = torch_logits(network.module, images)
    names = (f"digits test 0-{len(images) - 1}",)
    data = f"digits, {len(images)} test images"
    return Reference("torch", names, images[:, None], (("", outputs[:, None]),), FLOAT_TOLERANCE, labels, data)


def _of_file(path: Path) -> Reference:
    info = check_file(path)
    if info.input_dtype not in ("float32", "int8", "uint8"):
        return _nobody(f"its input is {info.input_dtype}, not float32, int8 or uint8")
    image_shape, back = as_image(info.input_shape, info.format)
    images = {
        name: image.transpose(back) for name, image in questions(image_shape, 4 * prod(info.output_shape)).items()
    }
    if info.input_dtype != "float32":
        images = {name: in_8_bits(image, info.input_dtype) for name, image in images.items()}
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}[info.format]
    try:
        run = file_runner(path)
        answers = [run(np.ascontiguousarray(image)) for image in images.values()]
    except ModelError as error:
        return _nobody(str(error))
    outputs = tuple((same[0][0], np.stack([values for _, values in same])) for same in zip(*answers, strict=True))
    tolerance = INTEGER_TOLERANCE if holds_8_bits(path) else FLOAT_TOLERANCE
    return Reference(f"{runtime} on this machine", tuple(images), np.stack(list(images.values())), outputs, tolerance)


def _nobody(why: str) -> Reference:
    return Reference(f"none: {why}", (), np.zeros(0, np.float32), (), FLOAT_TOLERANCE)


def questions(shape: tuple[int, ...], output_bytes: int) -> dict[str, NDArray[np.float32]]:
    """name -> float32 array of `shape`: both photographs where the shape is NCHW, and noise."""
    from pipeline.datasets import noise, photographs

    found = {}
    if len(shape) == 4:
        found = {name: np.repeat(image, shape[0], axis=0) for name, image in photographs(shape).items()}
    most = max(1, MOST_BYTES // (4 * prod(shape) + output_bytes))
    names = [*found, *(f"seed {seed}" for seed in range(NOISES))][:most]
    return {name: found[name] if name in found else noise(shape, int(name.split()[1])) for name in names}


def as_image(shape: tuple[int, ...], format: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The NCHW shape for a file's input, and the axes that bring an image of it back into the file's own layout.

    TFLite files are NHWC and ONNX files NCHW by custom; where only the other axis can hold colours, that one does.
    """
    if len(shape) != 4:
        return shape, tuple(range(len(shape)))
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if last > first or (last == first and format == "tflite"):
        return (shape[0], shape[3], shape[1], shape[2]), (0, 2, 3, 1)
    return shape, (0, 1, 2, 3)


def in_8_bits(image: NDArray[np.float32], dtype: str) -> Numbers:
    """The image stretched over all values of int8 or uint8."""
    low, high = float(image.min()), float(image.max())
    scaled = np.rint((image - low) / ((high - low) or 1.0) * 255)
    return (scaled - 128).astype(np.int8) if dtype == "int8" else scaled.astype(np.uint8)


def holds_8_bits(path: Path) -> bool:
    """Whether a model file computes with 8-bit numbers anywhere."""
    if path.suffix == ".tflite":
        from pipeline.tflite_file import read

        return any(tensor.dtype in ("int8", "uint8") for tensor in read(path).tensors)
    import onnx

    model = onnx.load(path)
    kinds = {onnx.TensorProto.DataType.Name(weight.data_type) for weight in model.graph.initializer}
    ops = {node.op_type for node in model.graph.node}
    return bool(kinds & {"INT8", "UINT8"}) or any("Quantize" in op or "QLinear" in op or "Integer" in op for op in ops)


def file_runner(path: Path) -> Callable[[Numbers], list[Output]]:
    """This machine's own runtime on a model file: a function from one input, as the file wants it, to every output.

    Raises: ModelError: the runtime refuses the file; so does the function, where it fails to run.
    """
    return _onnx_runner(path) if path.suffix == ".onnx" else _tflite_runner(path)


def _onnx_runner(path: Path) -> Callable[[Numbers], list[Output]]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this one
        raise _refused("onnxruntime", "load", path, error) from error
    source, names = session.get_inputs()[0].name, [output.name for output in session.get_outputs()]

    def run(x: Numbers) -> list[Output]:
        try:
            return list(zip(names, map(np.asarray, session.run(None, {source: x})), strict=True))
        except Exception as error:
            raise _refused("onnxruntime", "run", path, error) from error

    return run


def _tflite_runner(path: Path) -> Callable[[Numbers], list[Output]]:
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise _refused("LiteRT", "load", path, error) from error
    source = interpreter.get_input_details()[0]["index"]
    sinks = [(sink["name"], sink["index"]) for sink in interpreter.get_output_details()]

    def run(x: Numbers) -> list[Output]:
        try:
            interpreter.set_tensor(source, x)
            interpreter.invoke()
            return [(name, np.array(interpreter.get_tensor(index))) for name, index in sinks]
        except (RuntimeError, ValueError) as error:
            raise _refused("LiteRT", "run", path, error) from error

    return run


def _refused(runtime: str, doing: str, path: Path, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines()
    return ModelError(f"{runtime} cannot {doing} {path.name}: {lines[0][:200] if lines else type(error).__name__}")
