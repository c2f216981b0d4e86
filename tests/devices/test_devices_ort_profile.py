"""onnxruntime's profile as kernel lines: small profiles by hand, and a real one through the real runner."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import pytest

import devices.ort_profile
from devices.bundle import host_bundle
from devices.discovery import cache_dir
from devices.errors import DeviceError
from devices.host import HostTransport
from devices.ort_profile import profile_lines
from devices.runner import Case, CaseResult, format_job, parse_results, read_lines


def node(name: str, index: int, ts: int, dur: int, op: str = "Conv") -> dict[str, Any]:
    return {
        "cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur,
        "args": {
            "node_index": str(index), "op_name": op,
            "input_type_shape": [{"float": [1, 3, 8, 8]}, {"float": [4, 3, 3, 3]}],
            "output_type_shape": [{"float": [1, 4, 8, 8]}],
        },
    }  # fmt: skip


def run_end(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 99, "args": {}}


SESSION = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5, "args": {}}
FENCE = {"cat": "Node", "name": "conv_fence_before", "ts": 9, "dur": 5, "args": {}}


def read(path: Path, events: object, warmup: int = 0) -> CaseResult:
    path.write_text(json.dumps(events))
    return parse_results(profile_lines(path, "a", warmup)).cases.get("a", CaseResult("a"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile.json"


def test_runs_are_told_apart_and_warmups_left_out(path: Path) -> None:
    events = [SESSION, run_end(1)]
    for number in range(4):
        events += [FENCE, node("conv", 0, 10, 100 + number), node("relu", 1, 20, 7, "Relu"), run_end(30)]
    case = read(path, events, warmup=2)
    assert [(run.sample, run.us) for run in case.kernel_runs] == [(0, (101, 7)), (1, (102, 7)), (2, (103, 7))]
    conv, relu = case.kernel_runs[0].kernels
    assert (conv.name, conv.index, conv.op, conv.kind) == ("conv", 0, "Conv", 0)
    assert conv.inputs == ((1, 3, 8, 8), (4, 3, 3, 3)) and conv.outputs == ((1, 4, 8, 8),)
    assert (relu.name, relu.index, relu.op) == ("relu", 1, "Relu")


def test_kernels_are_in_the_order_in_which_they_began(path: Path) -> None:
    case = read(path, [node("late", 0, 30, 1), node("early", 1, 10, 2), run_end(40)])
    assert [kernel.name for kernel in case.kernel_runs[0].kernels] == ["early", "late"]
    assert case.kernel_runs[0].us == (2, 1)


def test_list_is_written_once_and_again_where_it_changes(path: Path) -> None:
    one, two = node("one", 0, 1, 5), node("two", 1, 2, 6)
    path.write_text(json.dumps([one, run_end(3), one, run_end(3), one, two, run_end(3), one, run_end(3)]))
    lines = [json.loads(line) for line in profile_lines(path, "a", 0)]
    assert [line["type"] for line in lines] == (
        ["kernel_list", "kernels", "kernels", "kernel_list", "kernels", "kernel_list", "kernels"]
    )
    runs = parse_results(profile_lines(path, "a", 0)).cases["a"].kernel_runs
    assert [len(run.kernels) for run in runs] == [1, 1, 2, 1]


def test_names_that_look_like_the_suffix(path: Path) -> None:
    case = read(path, [node("a_kernel_time", 0, 1, 5), node("", 1, 2, 5), node('"\n', 2, 3, 5), run_end(9)])
    assert [kernel.name for kernel in case.kernel_runs[0].kernels] == ["a_kernel_time", "", '"\n']


def test_a_run_that_did_not_end_is_left_out(path: Path) -> None:
    assert len(read(path, [node("a", 0, 1, 5), run_end(3), node("a", 0, 4, 5)]).kernel_runs) == 1


@pytest.mark.parametrize("events", [[], [SESSION], [run_end(1)]])
def test_profiles_without_kernels(events: list[Any], path: Path) -> None:
    assert all(run.kernels == () for run in read(path, events).kernel_runs)


def without(event: dict[str, Any], *keys: str) -> dict[str, Any]:
    copy = json.loads(json.dumps(event))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return dict(copy)


DAMAGED: list[Any] = [
    {},
    {"traceEvents": []},
    "text",
    None,
    7,
    [7],
    [None],
    [[]],
    [{"cat": "Node"}],
    [{"cat": "Node", "name": 7}],
    *([without(node("a", 0, 1, 5), *keys), run_end(2)] for keys in (["dur"], ["ts"], ["args"], ["args", "node_index"])),
    *([without(node("a", 0, 1, 5), "args", key), run_end(2)] for key in ("op_name", "input_type_shape")),
    [{**node("a", 0, 1, 5), "dur": "long"}, run_end(2)],
    [{**node("a", 0, 1, 5), "dur": math.inf}, run_end(2)],
    [{**node("a", 0, 1, 5), "args": {**node("a", 0, 1, 5)["args"], "input_type_shape": [7]}}, run_end(2)],
    [{**node("a", 0, 1, 5), "args": {**node("a", 0, 1, 5)["args"], "input_type_shape": [{"float": 7}]}}, run_end(2)],
]


@pytest.mark.parametrize("events", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_profiles(events: object, path: Path) -> None:
    with pytest.raises(DeviceError, match="profile.json is no onnxruntime profile"):
        read(path, events)


@pytest.mark.parametrize("content", [b"", b"[", b'[{"cat":', b"\xff\xfe", b"[" * 200_000])
def test_profiles_that_are_no_json(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="is no onnxruntime profile"):
        list(profile_lines(path, "a", 0))


def test_a_profile_that_is_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.ort_profile, "MAX_PROFILE_BYTES", 10)
    path.write_text("[" + " " * 10 + "]")
    with pytest.raises(DeviceError, match="larger than"):
        list(profile_lines(path, "a", 0))


def test_a_missing_profile(path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be read"):
        list(profile_lines(path, "a", 0))


# A real network in the real runtime through the real runner.


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conv 3x3 (3 to 4 channels) + Relu, a mean over the image, Softmax: three or four kernels."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.linspace(-1, 1, 108, dtype=np.float32).reshape(4, 3, 3, 3), "weights")
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["conv"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"], name="pool"),
        helper.make_node("Softmax", ["mean"], ["y"], name="soft", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 1, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(model, path)
    return path


def run_tiny(model: Path, folder: Path, host: HostTransport, **settings: Any) -> CaseResult:
    bundle = host_bundle(platform.machine(), ["onnxruntime"], cache_dir())
    library = str(bundle.libraries["onnxruntime"].path)
    case = Case("a", str(model), "onnxruntime", library, warmup_ns=0, **settings)
    (folder / "job").write_text(format_job([case], str(folder / "results")))
    ended = host.run([str(bundle.runner.path), str(folder / "job")], timeout_s=120)
    assert (ended.status, ended.stderr) == (0, b"")
    result = parse_results(read_lines(str(folder / "results"))).cases["a"]
    assert result.failed is None
    assert result.version == bundle.versions["onnxruntime"]
    return result


def test_real_profile(tiny_model: Path, tmp_path: Path, host: HostTransport) -> None:
    result = run_tiny(
        tiny_model,
        tmp_path,
        host,
        profile=True,
        profile_prefix=str(tmp_path / "prof"),
        optimized_model=str(tmp_path / "optimised.onnx"),
        warmup_samples=2,
        max_samples=5,
    )
    assert result.profile.startswith(str(tmp_path / "prof"))
    assert (tmp_path / "optimised.onnx").stat().st_size > 0
    warmups = sum(len(block.sample_ns) for block in result.blocks if block.warmup)
    runs = parse_results(profile_lines(Path(result.profile), "a", warmups)).cases["a"].kernel_runs
    assert [run.sample for run in runs] == list(range(5))
    assert len({run.kernels for run in runs}) == 1, "the list of kernels is stable"
    ops = [kernel.op for kernel in runs[0].kernels]
    assert any("Conv" in op for op in ops) and ops[-1] == "Softmax"
    assert (1, 3, 16, 16) in [shape for kernel in runs[0].kernels for shape in kernel.inputs]
    samples = [ns for block in result.blocks if not block.warmup for ns in block.sample_ns]
    for run, ns in zip(runs, samples, strict=True):
        assert sum(run.us) * 1000 <= ns


def test_real_inference(tiny_model: Path, tmp_path: Path, host: HostTransport) -> None:
    """The answer of the C API is that of onnxruntime's own Python."""
    import numpy as np
    import onnxruntime

    inputs = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    (tmp_path / "input").write_bytes(inputs.tobytes())
    result = run_tiny(tiny_model, tmp_path, host, input=str(tmp_path / "input"), output=str(tmp_path / "output"))
    assert result.outputs == ({"name": "y", "bytes": 16, "shape": [1, 4, 1, 1]},)
    outputs = np.frombuffer((tmp_path / "output").read_bytes(), np.float32).reshape(3, 4)
    session = onnxruntime.InferenceSession(tiny_model)
    for given, got in zip(inputs, outputs, strict=True):
        np.testing.assert_allclose(got, session.run(None, {"x": given[None]})[0].ravel(), rtol=1e-5, atol=1e-6)


def test_file_that_is_no_model(tmp_path: Path, host: HostTransport) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(AssertionError, match=r"loading: .*bad\.onnx"):
        run_tiny(tmp_path / "bad.onnx", tmp_path, host)
