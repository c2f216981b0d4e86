"""Does a file compute what torch computes? Two photographs and three noises through both, one number each.

error = max |y - y_torch| / max |y_torch|, over all outputs of one input: relative to the largest logit, because a
logit that is nearly zero by cancellation has no relative accuracy in any runtime.

The tolerance is for float32, where sums are taken in another order. Measured over the zoo: torch in float32 differs
from torch in float64 by 1e-7 (digits_cnn) to 8e-6 (MobileNetV2), files differ from torch by 2e-7 to 1e-5. One padding
moved to the other side or one activation lost gives 3e-2 and more, wherever it is. 1e-4 leaves both a wide margin.
What it cannot see: an epsilon of 1e-3 for 1e-5 in the last normalisation of a ResNet, 3e-5 to 1e-4.

A network may amplify rounding so much that torch itself is further off than that: SqueezeNext with the zoo's untrained
weights is 3e-4 to 1e-3 from float64, behind a hundred convolutions in a row. No file can then be nearer to torch than torch
is to the truth, and its tolerance is a few times that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.artifact import Network, Parity
from pipeline.datasets import Array, examples
from pipeline.errors import CheckFailed, ModelError
from pipeline.export.quiet import import_onnxruntime, quiet

__all__ = ["TOLERANCE", "Parity", "check", "relative_error", "runner"]

TOLERANCE = 1e-4

AMPLIFIED = 4.0
"""The tolerance of a network that amplifies rounding, as a multiple of torch's own error in float32."""

MOST_AMPLIFIED = 2e-2
"""Never more than that: a wrong padding gives 3e-2."""


def check(network: Network, path: Path, tolerance: float = TOLERANCE) -> Parity:
    """The file at `path` against `network.module` on every example input.

    Args: tolerance: raised where torch's own error in float32 is above a fourth of it.

    Raises:
        CheckFailed: an error above the tolerance, or not a number; the message has every number.
        ModelError: the runtime cannot run the file.
    """
    import torch

    if network.module is None:
        raise ValueError("parity needs a torch module")
    run = runner(path)
    errors = {}
    for name, x in examples(network.input_shape).items():
        with torch.inference_mode():
            expected = network.module(torch.from_numpy(x)).numpy()
        errors[name] = relative_error(run(x), expected)
    worst = max(errors.values())
    if not worst <= tolerance:
        tolerance = max(tolerance, min(MOST_AMPLIFIED, AMPLIFIED * _own_error(network)))
    if not worst <= tolerance:
        numbers = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        raise CheckFailed(
            f"{network.name}{path.suffix} differs from torch by {worst:.1e} of the largest output, "
            f"above the tolerance {tolerance:.0e} ({numbers})",
            try_="the other format; if both differ, look at the network's numbers (overflow, random ops)",
        )
    return Parity(tolerance, worst, errors)


def _own_error(network: Network) -> float:
    """The error of torch's own float32 against float64, the worst over the example inputs; 0 where it runs in float32 only."""
    import torch

    assert network.module is not None
    try:
        exact = copy.deepcopy(network.module).double()
        errors = []
        for x in map(torch.from_numpy, examples(network.input_shape).values()):
            with torch.inference_mode():
                errors.append(relative_error(network.module(x).numpy(), exact(x.double()).numpy()))
    except Exception:  # whatever the user's module raises
        return 0.0
    return max(errors)


def relative_error(actual: Array, expected: Array) -> float:
    """max |actual - expected| / max |expected|; infinite for another shape or anything not finite."""
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    difference = float(np.abs(actual - expected).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    if scale == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / scale


def runner(path: Path) -> Callable[[Array], Array]:
    """The reference runtime's Python interpreter on a file: a function from one NCHW input to the first output.

    A TFLite file is fed NHWC, as `TfliteExporter` writes it.

    Raises:
        ModelError: the runtime refuses the file.
    """
    return _onnx_runner(path) if path.suffix == ".onnx" else _tflite_runner(path)


def _onnx_runner(path: Path) -> Callable[[Array], Array]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but this one
        raise ModelError(f"onnxruntime cannot load {path.name}: {str(error).splitlines()[0][:200]}") from error
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def _tflite_runner(path: Path) -> Callable[[Array], Array]:
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot load {path.name}: {str(error).splitlines()[0][:200]}") from error
    source = interpreter.get_input_details()[0]
    sink = interpreter.get_output_details()[0]["index"]

    def run(x: Array) -> Array:
        if x.ndim == 4:
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(sink))

    return run
