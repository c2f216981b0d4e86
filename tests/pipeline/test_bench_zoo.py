"""`handset bench --zoo`: all networks of the zoo in one run; one that cannot be exported is named and does not end it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import MappingProxyType

import pytest

from pipeline import bench_command, cli, models
from pipeline.artifact import Exported, Network
from pipeline.bench import _exported
from pipeline.console import Console
from pipeline.errors import UnsupportedOp
from pipeline.export import EXPORTERS, Exporter
from pipeline.request import ZOO, command_of, plan_of, planned
from pipeline.runfolder import reopen

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
NAMES = ("digits_cnn", "resnet20", "resnet44", "vgg11_cifar")
QUICK = ["--launches", "1", "--budget", "0.2", "--interval", "50"]


@pytest.fixture
def small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MODELS", MappingProxyType({name: models.MODELS[name] for name in NAMES}))


def test_the_whole_zoo_is_the_default_for_a_short_time() -> None:
    asked = bench_command._request(cli.make_parser().parse_args(["bench", "--zoo", "--runtime", "litert"]))
    assert asked.zoo and asked.models == () and asked.settings.budget_s == ZOO["budget_s"] < 6
    longer = bench_command._request(cli.make_parser().parse_args(["bench", "--zoo", "--budget", "9"]))
    assert longer.settings.budget_s == 9 and longer.settings.launch_s == ZOO["launch_s"]
    again = bench_command._request(cli.make_parser().parse_args(command_of(longer).split()[1:]))
    assert again == longer and "--zoo" in command_of(longer)


def test_zoo_and_a_model_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--zoo", "resnet20"]) == 2
    assert "--zoo is the whole zoo, and resnet20 was asked too" in capsys.readouterr().err


def test_one_that_cannot_be_exported_is_named_left_out_and_not_tried_again(
    small_zoo: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cache_home: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    honest, tried = EXPORTERS["onnx"].export, list[str]()

    def export(self: Exporter, network: Network, folder: Path) -> Exported:
        tried.append(network.name)
        if network.name == "resnet44":
            raise UnsupportedOp("resnet44 uses wobble, which the .onnx converter does not have")
        return honest(self, network, folder)

    monkeypatch.setattr(EXPORTERS["onnx"], "export", export)
    assert cli.main(["bench", "--zoo", "--runtime", "onnxruntime", *QUICK, "--json", "out.json"]) == 1
    out, err = capsys.readouterr()
    assert "handset: left out: resnet44 uses wobble" in err and "failed" in out
    document = json.loads(Path("out.json").read_text())
    failed = {one["network"]: one["failed"] for one in document["profiles"] if one["failed"]}
    assert failed == {"resnet44": "resnet44 uses wobble, which the .onnx converter does not have"}
    assert [one["name"] for one in document["networks"]] == list(NAMES) and not document["complete"]
    (found,) = document["counts_against_latency"]
    assert found["runtime"] == "onnxruntime" and found["networks"] == 3 and -1 <= found["macs"]["kendall"] <= 1
    (run,) = CLI["reports"](tmp_path)
    assert 'id="counts"' in (run / "index.html").read_text() and CLI["half_written"](tmp_path) == []
    asked = planned(reopen(run).plan, run)
    assert asked.zoo and asked.models == () and tried == list(NAMES)
    again = _exported(Network("resnet44", "zoo", (1, 3, 32, 32)), "onnx", reopen(run), Console(), skip=True)
    assert again == (None, failed["resnet44"]) and tried == list(NAMES)  # a run that goes on


def test_a_plan_of_before_is_no_zoo() -> None:
    asked = bench_command._request(cli.make_parser().parse_args(["bench", "resnet20"]))
    device = type("Device", (), {"kind": "host", "model": "m", "os": "o", "abi": "a"})()
    plan = plan_of(asked, device)
    del plan["zoo"]
    assert planned(plan, Path("run")).zoo is False
