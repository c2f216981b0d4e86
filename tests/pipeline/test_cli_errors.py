"""One clear line and the right exit status for everything that can be asked in vain; nothing is left behind."""

from __future__ import annotations

import os
import pickle
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
LONG = "x" * 300


@pytest.fixture(scope="module")
def models(small_files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no models, or none that can be timed."""
    import onnx
    import torch
    from onnx import TensorProto, helper

    folder: Path = CLI["place"](small_files, tmp_path_factory.mktemp("models"))
    (folder / "text.onnx").write_text("no model at all\n" * 9)
    (folder / "text.tflite").write_text("no model at all\n" * 9)
    (folder / "text.pt2").write_text("no model at all\n" * 9)
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "folder.onnx").mkdir()
    (folder / "readme.md").write_text("no model")
    os.mkfifo(folder / "fifo")  # stands for /dev/null, which a rename would replace too
    (folder / "net.pt").write_bytes(pickle.dumps(print))
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),)), folder / "c.pt2")
    for name in ("a.onnx", "b.tflite", "c.pt2"):
        content = (folder / name).read_bytes()
        for percent in (1, 50, 99):
            (folder / f"cut{percent}-{name}").write_bytes(content[: len(content) * percent // 100])
    size = torch.export.Dim("size", min=4, max=64)
    dynamic = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3, 8, 8),), dynamic_shapes=({2: size},))
    torch.export.save(dynamic, folder / "dynamic.pt2")
    for name, op, domain, shape in (
        ("dynamic", "Relu", "", ["batch", 4]),
        ("wobble", "Wobble", "", [1, 4]),
        ("acme", "Relu", "com.acme", [1, 4]),
    ):
        value = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in "xy"]
        graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", value[:1], value[1:])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.acme", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / f"{name}.onnx")
    _with_custom_op(folder / "b.tflite", folder / "custom.tflite", "FlexFFT2D")
    return folder


def _with_custom_op(source: Path, target: Path, name: str) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode = name
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))


CASES = [
    # what is typed after "handset", the exit status, what the line says
    ("bench mobilenet", 2, ["'mobilenet'", "mobilenet_v2"]),
    ("bench resnet21", 2, ["'resnet21'", "resnet20", "handset models"]),
    ("bench zzz", 2, ["'zzz'", "handset models", ".pt2"]),
    ("bench a.onnx --runtime tvm", 2, ["'tvm'", "onnxruntime, litert"]),
    ("bench a.onnx --runtime=", 2, ["--runtime ''", "names nothing"]),
    ("bench a.onnx --runtime litert", 2, ["a.onnx", "--runtime onnxruntime"]),
    ("bench a.onnx --device pixel9", 3, ["'pixel9'", "host"]),
    ("bench a.onnx --device=", 3, ["''", "host"]),
    ("bench a.onnx a.onnx", 2, ["two of the models are called a"]),
    ("bench none.onnx", 2, ["there is no file 'none.onnx'"]),
    ("bench folder.onnx", 2, ["is a folder"]),
    ("bench readme.md", 2, ["no kind of model file"]),
    ("bench empty.onnx", 2, ["empty.onnx", "0 bytes"]),
    ("bench text.onnx", 2, ["text.onnx is no .onnx model"]),
    ("bench text.tflite", 2, ["text.tflite is not a TFLite model"]),
    ("bench text.pt2", 2, ["text.pt2 is no .pt2 archive"]),
    *(
        (f"bench cut{n}-{name}", 2, [f"cut{n}-{name} is", " bytes"])
        for n in (1, 50, 99)
        for name in ("a.onnx", "b.tflite")
    ),
    *((f"bench cut{n}-c.pt2", 2, [f"cut{n}-c.pt2 is no .pt2 archive", "cut short"]) for n in (1, 50, 99)),
    ("bench wobble.onnx", 2, ["the op 'Wobble'", "onnxruntime"]),
    ("bench acme.onnx", 2, ["the op 'com.acme.Relu'", "onnxruntime"]),
    ("bench custom.tflite", 2, ["the op 'FlexFFT2D'", "LiteRT"]),
    ("bench nets.py:bessel --runtime onnxruntime", 2, ["bessel_j0", ".onnx converter does not have"]),
    ("bench nets.py:bessel --runtime litert", 2, ["bessel_j0", ".tflite converter does not have"]),
    ("bench dynamic.onnx", 2, ["axis 0 ('batch') of the input 'x'", "fixed shape"]),
    ("bench dynamic.pt2", 2, ["axis 2 of the input", "dynamic"]),
    ("bench net.pt", 2, ["pickle", "runs code", ".pt2"]),
    ("bench nets.py:channels", 2, ["fails on an input of 1x3x16x16", "to have 4 channels"]),
    ("bench nets.py:pair", 2, ["gives a tuple"]),
    ("bench nets.py:nothing", 2, ["nets.py has no function 'nothing'"]),
    ("bench nets.py", 2, ["which function"]),
    (f"bench {LONG}", 2, ["there is no network 'xxx"]),
    (f"bench {LONG}.onnx", 2, ["there is no file 'xxx"]),
    ("bench a.onnx --budget soon", 2, ["--budget", "'soon'", "seconds"]),
    ("bench a.onnx --budget nan", 2, ["--budget", "'nan'"]),
    ("bench a.onnx --limit 0", 2, ["--limit", "0 seconds are over"]),
    ("bench a.onnx --interval 0", 2, ["--interval", "'0'", "percentage"]),
    ("bench a.onnx --launches many", 2, ["--launches", "'many'", "1 to 1024"]),
    ("bench a.onnx --threads 0", 2, ["--threads", "'0'", "1 to 1024"]),
    ("bench a.onnx --cpu-mask all", 2, ["--cpu-mask", "'all'", "0x2"]),
    ("bench a.onnx --nonsense", 2, ["--nonsense", "--help"]),
    ("bench a.onnx --json none/out.json", 1, ["none/out.json"]),
    ("bench a.onnx --json folder.onnx", 1, ["folder.onnx"]),
    (f"bench a.onnx --json {LONG}", 1, ["xxx"]),
    ("bench a.onnx --json fifo", 1, ["cannot write fifo"]),
    (
        "bench a.onnx --runtime onnxruntime --reports readme.md",
        1,
        ["cannot make a run folder in readme.md", "--reports"],
    ),
    ("bench a.onnx --runtime onnxruntime --reports readme.md/x", 1, ["cannot make a run folder in readme.md/x"]),
    ("bench --resume none", 2, ["none is no run", "plan.json"]),
    ("bench --resume folder.onnx", 2, ["folder.onnx is no run"]),
    ("bench --resume a.onnx", 2, ["a.onnx is no run"]),
    ("bench a.onnx --resume none", 2, ["--resume RUN without models"]),
    ("report none", 2, ["none is no result"]),
    ("report folder.onnx", 2, ["result.json is no result"]),
    ("report a.onnx", 2, ["a.onnx is no result"]),
    (f"report {LONG}", 2, ["is no result"]),
    ("models --json none/out.json", 1, ["none/out.json"]),
    ("devices --json folder.onnx", 1, ["folder.onnx"]),
    ("models --json fifo", 1, ["fifo", "no plain file"]),
    ("bnech", 2, ["'bnech'", "'bench'"]),
    ("", 2, ["COMMAND", "--help"]),
]


@pytest.mark.parametrize(("typed", "status", "told"), CASES, ids=[case[0][:60] or "nothing" for case in CASES])
def test_one_line_says_what_was_asked_and_found(
    typed: str,
    status: int,
    told: list[str],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(models)
    before = sorted(path for path in models.rglob("*") if "__pycache__" not in path.parts)
    try:
        found = cli.main(typed.split())
    except SystemExit as exit:  # argparse's way to end
        found = int(str(exit.code))
    out, err = capfd.readouterr()
    line = CLI["error_line"](err)
    assert found == status and out == "", line
    assert all(text in line for text in told), line
    left = set(models.rglob("*")) - set(before) - {models / "reports"}
    assert {path for path in left if "__pycache__" not in path.parts} == set()
    assert not list(Path("reports").glob("*")) and Path("fifo").is_fifo()


def test_nothing_is_imported_or_measured_before_a_wrong_json_path(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("bench was called")

    monkeypatch.chdir(models)
    monkeypatch.setattr("pipeline.bench.bench", never)
    assert cli.main(["bench", "a.onnx", "--json", "none/out.json"]) == 1
    assert "none/out.json" in CLI["error_line"](capsys.readouterr().err)


@pytest.mark.skipif(not shutil.which("setpriv") or os.geteuid() != 0, reason="needs root and setpriv to become nobody")
def test_what_the_user_may_not_read_is_one_line(small_files: dict[str, Any]) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-B"]
    environment = {**os.environ, "PYTHONPATH": str(CLI["ROOT"])}
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = CLI["place"](small_files, Path(name))
        folder.chmod(0o755)
        (folder / "a.onnx").chmod(0)
        if subprocess.run([*nobody, "-c", "import pipeline.cli"], env=environment, check=False).returncode:
            pytest.skip("this interpreter cannot be run by another user")
        command = [*nobody, "-m", "pipeline", "bench", "a.onnx"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot read a.onnx: Permission denied" in CLI["error_line"](done.stderr)
