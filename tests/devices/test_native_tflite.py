"""The real runner against a TensorFlow Lite that does what its model file says; where it is here, the real library's names."""

from __future__ import annotations

import os
import platform
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import GLIBC, compile_c
from devices.discovery import cache_dir
from devices.runner import CaseResult

MS = 1_000_000


def compiled(folder: Path, name: str, *defines: str) -> Path:
    source, target = Path(__file__).parent / "fake_tflite.c", f"{platform.machine()}-linux-gnu.{GLIBC}"
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror", *defines]
    compile_c(["-target", target, *flags, str(source)], folder / name, cache_dir())
    return folder / name


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("tflite"), "libfake_tflite.so")


@pytest.fixture
def one(bench: Any, tflite: Path) -> Any:
    """Runs one model and gives its result."""

    def run(text: str, **settings: Any) -> CaseResult:
        settings = {"runtime": "tflite", "library": str(tflite), "profile": True, **settings}
        result: CaseResult = bench.run(replace(bench.case("a", text), **settings)).cases["a"]
        return result

    return run


def test_samples_are_never_shorter_than_the_work(one: Any, bench: Any) -> None:
    case = one("ok 2000", profile=False, max_samples=5, block_samples=2)
    assert (case.failed, case.version) == (None, "9.8.7-fake")
    assert len(bench.samples(case)) == 5 and all(2 * MS <= ns < 200 * MS for ns in bench.samples(case))
    assert case.inputs == ({"name": "input", "bytes": 16, "shape": [1, 4]},)
    assert case.kernel_runs == []


def test_kernels_inside_xnnpack_and_of_the_interpreter(one: Any) -> None:
    case = one("ok 100", warmup_samples=2, max_samples=4, block_samples=2)
    assert [(kernel.name, kernel.index, kernel.kind) for kernel in case.kernel_runs[0].kernels] == [
        ("MEAN", 68, 2),
        ("Convolution (NHWC, F32) GEMM", 0, 8),
        ("Softmax (NC, F32)", 1, 8),
    ]
    assert [run.sample for run in case.kernel_runs] == [0, 1, 2, 3]
    assert [run.us[1:] for run in case.kernel_runs] == [(70, 3), (70, 4), (70, 5), (70, 6)], "warm-ups are runs 1 and 2"
    assert all(300 <= run.us[0] < 100_000 for run in case.kernel_runs), "stamped by the runner"


def test_an_op_is_no_longer_than_its_run(one: Any, bench: Any) -> None:
    case = one("ok 100", max_samples=9)
    for run, ns in zip(case.kernel_runs, bench.samples(case), strict=True):
        assert run.us[0] * 1000 <= ns + 500


@pytest.mark.parametrize(("delegate", "kinds"), [("", [2, 8, 8]), ("xnnpack", [2, 8, 8]), ("builtin", [2])])
def test_delegate(delegate: str, kinds: list[int], one: Any, bench: Any) -> None:
    log = bench.folder / "log"
    case = one("ok 100", delegate=delegate, threads=3, log=str(log))
    assert [kernel.kind for kernel in case.kernel_runs[0].kernels] == kinds
    asked = "xnnpack threads 3 flags 0x15 kept 1 newer fields\n"
    assert log.read_text() == ("" if delegate == "builtin" else asked).join(["interpreter threads 3\n", ""])


def test_a_list_that_changes_is_written_again(one: Any) -> None:
    case = one("ok 100 changing", max_samples=4)
    assert [len(run.kernels) for run in case.kernel_runs] == [3, 4, 3, 4]
    assert case.kernel_runs[1].kernels[3].name == "Sometimes, and with a longer name than before"


def test_a_profiler_that_says_nothing(one: Any) -> None:
    case = one("ok 100 silent")
    assert case.failed is None and [run.kernels for run in case.kernel_runs] == [(), (), ()]


def test_an_op_that_never_ends_has_no_time(one: Any) -> None:
    assert [run.us[0] for run in one("ok 100 unended").kernel_runs] == [0, 0, 0]


def test_an_end_without_a_begin_changes_nothing(one: Any) -> None:
    assert one("ok 100 unbegun").kernel_runs[0].us[1:] == one("ok 100").kernel_runs[0].us[1:] == (70, 2)


def test_hostile_names_stay_valid_json(one: Any, bench: Any) -> None:
    case = one("ok 100 hostile")
    assert case.failed is None
    names = [kernel.name for kernel in case.kernel_runs[0].kernels[3:]]
    assert names == ["", '"quoted\\" \x01\n�</script>{}', "x" * 500]
    assert all(line.isascii() for line in bench.results.read_bytes().splitlines())


FAULTS = [
    ("nonsense", "loading: The model is not a valid Flatbuffer"),
    ("fail-load", "loading: Didn't find op for builtin opcode 'FAKE'"),
    ("fail-load dumb", "loading: it gives no reason"),
    ("fail-allocate", "loading: node 3 failed to prepare (TensorFlow Lite status 1)"),
    ("fail-run 3", "inference: node 3 (CONV_2D) failed to invoke (TensorFlow Lite status 2)"),
    ("no-xnnpack", "XNNPACK does not start"),
    ("segv-load", "SIGSEGV"),
    ("segv-run 3", "SIGSEGV"),
    ("abort-run 3", "SIGABRT"),
    ("hang-run 3", "no answer within 0.5 s while sampling"),
    ("ok 1 string", "element type 5, which cannot be filled"),
    ("ok 1 empty", "element type 1, which cannot be filled"),
    ("ok 1 deep", "input has 9 dimensions, more than 8"),
    ("ok 1 many-inputs", "more than 64 inputs or outputs"),
    ("ok 1 flood", "profiler events in a run"),
]


@pytest.mark.parametrize(("model", "said"), FAULTS, ids=[model for model, _ in FAULTS])
def test_a_fault_costs_its_case_and_no_other(model: str, said: str, bench: Any, tflite: Path) -> None:
    settings = {"runtime": "tflite", "library": str(tflite), "profile": True}
    limits = {"limit_ns": 500 * MS} if "hang" in model else {}
    result = bench.run(bench.case("bad", model, **settings, **limits), bench.case("good", "ok 100", **settings))
    assert said in (result.cases["bad"].failed or "")
    assert len(bench.samples(result.cases["bad"])) == (1 if model.endswith(" 3") else 0)
    assert result.cases["good"].failed is None and len(bench.samples(result.cases["good"])) == 3


def test_a_model_that_is_not_there(one: Any) -> None:
    assert "loading: Could not open '/no/such.tflite'." in one("ok 1", model="/no/such.tflite").failed


def test_libraries_that_lack_something(one: Any, tmp_path: Path) -> None:
    assert "/no/such/library.so" in one("ok 1", library="/no/such/library.so").failed
    assert "libm.so.6 has no TfLiteVersion: another version?" in one("ok 1", library="libm.so.6").failed
    plain = str(compiled(tmp_path, "libplain.so", "-DPLAIN"))
    assert "has no XNNPACK delegate" in one("ok 1", library=plain).failed
    assert "has no telemetry profiler" in one("ok 1", library=plain, delegate="builtin").failed
    assert one("ok 1", library=plain, delegate="builtin", profile=False).failed is None


def test_infer_answers_every_input(one: Any, bench: Any) -> None:
    given, answer = bench.folder / "input", bench.folder / "output"
    given.write_bytes(content := os.urandom(48))
    case = one("ok 10", input=str(given), output=str(answer))
    assert (case.failed, case.blocks, answer.read_bytes()) == (None, [], content)
    assert case.outputs == ({"name": "output", "bytes": 16, "shape": [1, 4]},)


def test_output_whose_shape_comes_with_a_run(one: Any, bench: Any) -> None:
    given, answer = bench.folder / "input", bench.folder / "output"
    given.write_bytes(content := struct.pack("<8f", *range(8)))
    case = one("ok 10 grows", input=str(given), output=str(answer))
    assert answer.read_bytes() == content[:16] + bytes(4) + content[16:]
    assert case.outputs == ({"name": "output", "bytes": 16, "shape": [1, 4]},)


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_inputs_are_filled_before_the_first_run(kind: str, one: Any, bench: Any) -> None:
    case = one(f"ok 10 tell {kind}", profile=False, log=str(log := bench.folder / "log"))
    assert case.inputs == ({"name": "input", "bytes": 16, "shape": [1, 4 if kind == "float" else 16]},)
    content = bytes.fromhex(log.read_text().splitlines()[-1])
    if kind == "float":
        assert all(0 < value < 1 for value in struct.unpack("<4f", content))
    else:
        assert all(byte < 64 for byte in content)
    assert len(set(content)) > 4
