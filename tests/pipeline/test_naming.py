"""Which op of the file each kernel of a runtime is: by name for onnxruntime, laid along the file's ops for XNNPACK."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import RUNTIMES, host_bundle
from devices.host import HostTransport
from devices.install import install
from devices.runner import Kernel, parse_results, read_lines
from latency_luts import OpKey
from pipeline.deploy import RUNTIME_FORMATS, case_of, deploy, targets_of
from pipeline.graph import count_macs
from pipeline.kernel_times import DELEGATE_OP, INTERPRETER_OP, KernelTimes, kernel_times
from pipeline.kernels.file_op import FileOp
from pipeline.launch import Order, run_launch
from pipeline.naming import XNNPACK_KINDS, align, name_kernels
from pipeline.settings import PROFILED, Settings

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
SHAPE = (1, 8, 12, 12)
CONV = OpKey("conv2d", SHAPE, 8, (3, 3), (2, 2), (0, 1, 0, 1), dtype="float32", activation="relu")
ADD = OpKey("add", SHAPE, activation="relu6", dtype="float32")
PAD = OpKey("pad", (1, 8, 10, 10), padding=(1, 2, 3, 4), dtype="float32")
TYPES = {"conv2d": "CONV_2D", "add": "ADD", "pad": "PAD", "linear": "FULLY_CONNECTED", "reshape": "RESHAPE"}


def kernel(name: str, kind: int = DELEGATE_OP) -> Kernel:
    return Kernel(name, 0, kind)


def op(key: OpKey | None, op_type: str = "", index: int = 0) -> FileOp:
    op_type = op_type or TYPES[key.op if key else ""]
    return FileOp(index, f"{op_type.lower()}_{index}", op_type, key, 9 if key and key.op == "conv2d" else None)


CONVOLUTION, SUM, CLAMP = kernel("Convolution (NHWC, F32) IGEMM"), kernel("Add (ND, F32)"), kernel("Clamp (NC, F32)")
MATRIX, COPY = kernel("Fully Connected (NC, F32) GEMM"), kernel("Copy (NC, X32)")
LINEAR = OpKey("linear", (1, 8), 10, dtype="float32")
RESHAPE = OpKey("reshape", SHAPE, dtype="float32", detail="out=1x8")


def test_kernels_are_laid_along_the_file_in_order() -> None:
    ops = [op(CONV), op(LINEAR), op(CONV, index=2)]
    assert align([CONVOLUTION, MATRIX, CONVOLUTION], ops) == ops


def test_a_pointwise_convolution_may_run_as_a_matrix_product() -> None:
    assert align([MATRIX], [op(CONV)]) == [op(CONV)]


def test_a_pad_is_folded_into_the_convolution_after_it() -> None:
    pad, conv = dataclasses.replace(op(PAD), writes=(5,)), dataclasses.replace(op(CONV), reads=(5,))
    (found,) = align([CONVOLUTION], [pad, conv])
    assert found is not None
    assert found.key == dataclasses.replace(CONV, input_shape=(1, 8, 10, 10), padding=(1, 3, 3, 5))
    assert (found.op_type, found.macs) == ("CONV_2D", 9)


def test_a_pad_that_the_convolution_does_not_read_is_not_folded_into_it() -> None:
    pad, conv = dataclasses.replace(op(PAD), writes=(5,)), dataclasses.replace(op(CONV), reads=(6,))
    assert align([CONVOLUTION], [pad, conv]) == [conv]


@pytest.mark.parametrize(
    "ops",
    [
        [op(dataclasses.replace(PAD, detail="mode=mirror")), op(CONV)],
        [op(None, "PAD"), op(CONV)],
        [op(RESHAPE), op(CONV)],
        [op(PAD), op(None, "CONV_2D")],
    ],
)
def test_only_a_plain_pad_before_a_known_convolution_changes_its_key(ops: list[FileOp]) -> None:
    ops = [dataclasses.replace(ops[0], writes=(5,)), dataclasses.replace(ops[1], reads=(5,))]
    assert align([CONVOLUTION], ops) == [ops[1]]


def test_a_pad_before_anything_but_a_convolution_changes_nothing() -> None:
    assert align([SUM], [op(PAD), op(ADD)]) == [op(ADD)]


def test_a_pad_that_runs_on_its_own_is_a_kernel() -> None:
    ops = [op(PAD), op(CONV)]
    assert align([kernel("Constant Pad (ND, X32)"), CONVOLUTION], ops) == ops


def test_a_reshape_is_a_kernel_where_it_is_copied_and_passed_over_where_not() -> None:
    ops = [op(CONV), op(RESHAPE), op(LINEAR), op(RESHAPE)]
    assert align([CONVOLUTION, COPY, MATRIX], ops) == ops[:3]
    assert align([CONVOLUTION, MATRIX], ops) == [ops[0], ops[2]]


def test_an_addition_with_an_activation_is_a_sum_and_a_clamp() -> None:
    ops = [op(ADD), op(CONV)]
    plain, clamp, conv = align([SUM, CLAMP, CONVOLUTION], ops)
    assert plain is not None and clamp is not None
    assert plain.key == dataclasses.replace(ADD, activation="none")
    assert clamp.key == OpKey("activation", SHAPE, activation="relu6", dtype="float32")
    assert clamp.name == "add_0_clamp" and clamp.macs is None
    assert conv == ops[1]


def test_only_an_addition_with_an_activation_is_split() -> None:
    relu = OpKey("activation", SHAPE, activation="relu", dtype="float32")
    for before in (CONV, dataclasses.replace(ADD, activation="none")):
        ops = [op(before), op(relu, "RELU")]
        first = CONVOLUTION if before is CONV else SUM
        assert align([first, CLAMP], ops) == ops
    assert align([CLAMP], [op(relu, "RELU")]) == [op(relu, "RELU")]
    assert align([SUM, CLAMP, CLAMP], [op(ADD), op(relu, "RELU")])[2] == op(relu, "RELU")


def test_from_the_first_kernel_that_fits_nothing_on_there_are_no_ops() -> None:
    ops = [op(CONV), op(ADD), op(LINEAR)]
    assert align([CONVOLUTION, kernel("Wobble (NC)"), MATRIX], ops) == [ops[0], None, None]
    assert align([CONVOLUTION, MATRIX, MATRIX], ops) == [ops[0], None, None]
    assert align([CONVOLUTION, SUM, CLAMP, MATRIX, COPY], ops)[4] is None


def test_ops_left_over_leave_no_kernel_with_an_op() -> None:
    ops = [op(CONV), op(ADD), op(LINEAR)]
    assert align([CONVOLUTION, SUM], ops) == [None, None]
    assert align([CONVOLUTION], [op(CONV), op(RESHAPE), op(None, "DEQUANTIZE")]) == [op(CONV)]
    assert align([], []) == []


def test_an_op_of_the_interpreter_says_its_own_type() -> None:
    ops = [op(CONV), op(ADD)]
    assert align([kernel("CONV_2D [stem]:0", INTERPRETER_OP), kernel("Add (x)", INTERPRETER_OP)], ops) == ops
    assert align([kernel("Convolution", INTERPRETER_OP)], [op(CONV)]) == [None]


def test_every_prefix_can_be_met() -> None:
    """No prefix stands behind a shorter one that hides it."""
    for prefix, _, ops in XNNPACK_KINDS:
        for op_type in ops:
            one = FileOp(0, "x", op_type, None, None)
            assert align([kernel(f"{prefix.title()} (NHWC, F32)")], [one]) == [one], prefix


# name_kernels


def times(*names: str, kind: int = DELEGATE_OP) -> list[KernelTimes]:
    return [KernelTimes(Kernel(name, i, kind), 2, 1, 1, 2, (1, 2)) for i, name in enumerate(names)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_cannot_be_read_leaves_kernels_without_keys_and_says_so(tmp_path: Path, runtime: str) -> None:
    case = FAKE["deployed"](tmp_path, "net", runtime)
    named, note = name_kernels(case, times("Convolution (NHWC)", "Wobble 7 [x]", "7"), tmp_path)
    assert note.startswith("kernels have no keys: ")
    assert [one.op for one in named] == ["conv2d", "wobble_x", "unknown"]
    assert [(one.key, one.macs) for one in named] == [(None, None)] * 3
    assert [one.runtime_kernel for one in named] == ["Convolution (NHWC)", "Wobble 7 [x]", "7"]


def test_a_note_counts_the_kernels_without_a_key_and_names_five(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = [op(CONV), *(op(None, "CUSTOM_THING") for _ in range(7))]
    monkeypatch.setattr("pipeline.kernels.tflite.keys", lambda path: ops)
    names = [f"CUSTOM_THING {i}" for i in range(7)]
    rows = [*times("CONV_2D a", kind=INTERPRETER_OP), *times(*names, kind=INTERPRETER_OP)]
    named, note = name_kernels(FAKE["deployed"](tmp_path), rows, tmp_path)
    assert note == f"7 of 8 kernels have no key: {', '.join(names[:5])}"
    assert (named[0].op, named[0].key, named[0].macs) == ("conv2d", CONV, 9)
    assert (named[1].op, named[1].key, named[1].runtime_kernel) == ("custom_thing", None, "CUSTOM_THING 0")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_kernel_that_a_runtime_really_runs_has_a_key(
    digits_files: dict[str, Any], digits_network: Any, cache_home: Path, tmp_path: Path, runtime: str
) -> None:
    device = HostTransport(tmp_path / "device")
    bundle = host_bundle(device.describe().abi, [runtime], cache_home / "handset")
    installed = install(bundle, device)
    (target,) = targets_of([installed])
    case = case_of(digits_files[RUNTIME_FORMATS[runtime]], target, device, name_bundle=False)
    deploy([case], device)
    short = Settings(launch_s=0.01, kernels_s=0.02, warmup_s=0.01)
    path = tmp_path / "launch-00.jsonl"
    order = Order([case], installed, short, frozenset([case.id]))
    run_launch(order, device, "0123456789abcdef", path, lambda seconds, name: None)
    result = parse_results(read_lines(str(path))).cases[case.id + PROFILED]
    named, note = name_kernels(case, kernel_times([result], 0, 0.95), tmp_path)
    assert note == "" and all(one.key is not None for one in named)
    assert [one.op for one in named if one.macs] == ["conv2d"] * 4 + ["linear"]
    macs = [one.macs for one in named if one.macs]
    assert sum(macs) == count_macs(digits_network.module, digits_network.input_shape)
