"""handset bench --weights: which file is for which model, what is told, what the result and a resumed run keep of it."""

from __future__ import annotations

import hashlib
import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from devices.transport import DeviceDescription
from pipeline import bench_command, cli
from pipeline.console import Console
from pipeline.errors import ModelError, UsageError
from pipeline.models import build
from pipeline.request import command_of, plan_of, planned
from pipeline.subjects import subjects_of, weights_files

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(build("resnet20").state_dict() | {"note\x1b.x": torch.ones(2)}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_which_file_is_for_which_model() -> None:
    assert weights_files(["resnet20"], ["a=b.pth"]) == {"resnet20": Path("a=b.pth")}
    assert weights_files(["a", "b=c.py:f"], ["b=c.py:f=x=y.pt", "a=w.pt"]) == {
        "b=c.py:f": Path("x=y.pt"),
        "a": Path("w.pt"),
    }
    assert weights_files(["a", "a=b"], ["a=b=c.pt"]) == {"a=b": Path("c.pt")}
    assert weights_files(["a", "b"], []) == {}


@pytest.mark.parametrize(
    ("models", "weights", "told"),
    [
        (
            ["a", "b"],
            ["w.pt"],
            "--weights w.pt is for none of a, b; try: MODEL --weights FILE, or --weights MODEL=FILE",
        ),
        ([], ["w.pt"], "--weights w.pt is for none of the default set; "),
        (["a", "b"], ["c=w.pt"], "--weights c=w.pt is for none of a, b; "),
        (["a"], ["w.pt", "v.pt"], "--weights was given twice for a; "),
    ],
)
def test_a_file_for_none_or_two_for_one(models: list[str], weights: list[str], told: str) -> None:
    with pytest.raises(UsageError) as error:
        weights_files(models, weights)
    assert str(error.value).startswith(told)


def test_what_is_told_and_what_the_result_will_have(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "nets.py").write_text(CLI["NETS"])
    models = ["resnet20", f"{file.parent}/nets.py:tiny"]
    one, other = subjects_of(models, Console(quiet=True), [f"resnet20={file}"])
    assert other.weights is None
    assert one.weights == {
        "file": "w.pth",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "source": "handset or akamaster",
        "filled": 97,
        "unplaced": ["note\x1b.x"],
        "note": "",
    }
    expected = torch.load(file, weights_only=True)["linear.weight"]
    assert one.network.module is not None and not one.network.module.training
    assert torch.equal(one.network.module.get_parameter("linear.weight"), expected)
    told = "handset: resnet20: 97 tensors from w.pth by the names of handset or akamaster; not placed: note?.x\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.pt2"])
def test_a_model_file_has_weights_of_its_own(name: str, file: Path) -> None:
    with pytest.raises(UsageError, match="has weights of its own; try: --weights with a zoo name or file.py:function"):
        subjects_of([name], Console(quiet=True), [str(file)])


def test_no_such_file() -> None:
    with pytest.raises(ModelError, match="there is no weights file no.pth"):
        subjects_of(["resnet20"], Console(quiet=True), ["no.pth"])


def test_a_function_may_build_other_classes(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from pipeline.models import build\ndef seven(): return build('resnet20', num_classes=7), (1, 3, 32, 32)\n"
    )
    torch.save(build("resnet20", num_classes=7).state_dict(), tmp_path / "w.pth")
    (one,) = subjects_of([f"{tmp_path}/nets.py:seven"], Console(quiet=True), [str(tmp_path / "w.pth")])
    assert one.network.name == "seven" and one.weights is not None and one.weights["filled"] == 97


def test_request_plan_and_command_keep_it() -> None:
    words = ["bench", "a", "b", "--weights", "a=x y.pt", "--weights", "b=z.pt"]
    request = bench_command._request(cli.make_parser().parse_args(words))
    assert request.weights == ("a=x y.pt", "b=z.pt")
    assert bench_command._request(cli.make_parser().parse_args(shlex.split(command_of(request))[1:])) == request
    device = DeviceDescription("host", "host", "m", "o", "k", "x86_64", 2, 1 << 33)
    plan = json.loads(json.dumps(plan_of(request, device)))
    assert planned(plan, Path("reports/run")).weights == request.weights
    assert planned({k: v for k, v in plan.items() if k != "weights"}, Path("reports/run")).weights == ()
    with pytest.raises(UsageError, match="goes on with what that run was asked"):
        bench_command._request(cli.make_parser().parse_args(["bench", "--resume", "r", "--weights", "w.pt"]))


def test_a_bench_from_file_to_result_and_its_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(CLI["NETS"])
    given = {"0.weight": (8, 3, 3, 3), "0.bias": (8,), "2.weight": (8, 8, 3, 3), "2.bias": (8,)}
    state = {key: torch.randn(shape) for key, shape in given.items()}
    torch.save(state, "w.pth")
    words = [
        "bench",
        "nets.py:tiny",
        "--weights",
        "w.pth",
        "--runtime",
        "onnxruntime",
        *CLI["QUICK"],
        "--json",
        "out.json",
    ]
    assert cli.main(words) in (0, 4)
    (network,) = json.loads(Path("out.json").read_text())["networks"]
    sha256 = hashlib.sha256(Path("w.pth").read_bytes()).hexdigest()
    assert (network["weights"]["file"], network["weights"]["sha256"]) == ("w.pth", sha256)
    (run,) = CLI["reports"](tmp_path)
    exported = onnx.load(run / "artifacts" / "tiny.onnx")
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer]
    assert any(array.shape == (8, 8, 3, 3) and np.allclose(array, state["2.weight"]) for array in stored)

    assert cli.main(["bench", "--resume", str(run), "--json", "again.json"]) in (0, 4)
    assert json.loads(Path("again.json").read_text())["networks"][0]["weights"] == network["weights"]
    torch.save({key: tensor + 1 for key, tensor in state.items()}, "w.pth")
    capsys.readouterr()
    assert cli.main(["bench", "--resume", str(run)]) == 2
    assert "the weights files are not those any more that" in capsys.readouterr().err
    assert (run / "launch-00.jsonl").exists()
