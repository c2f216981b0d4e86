"""handset lut build: a table of the networks' kernels from one command, cut off and gone on with, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import latency_luts
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.graph import kernels
from pipeline.request import planned as bench_planned
from pipeline.spec import resolve
from pipeline.sweep import part, rounds
from pipeline.sweep.part import parts_in, readings_of
from pipeline.sweep.request import USUAL, BuildRequest, command_of, plan_of, planned

NETWORK = """
from torch import nn
def tiny():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(24, 10),
    ).eval(), (1, 3, 32, 32)
def odd():
    return nn.Sequential(nn.Conv3d(1, 2, 3)).eval(), (1, 1, 8, 8, 8)
"""


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORK)
    return f"{path}:tiny"


def lut_build(*words: str) -> int:
    return main(["lut", "build", *words])


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_one_command_makes_a_table_of_what_a_network_has(
    runtime: str, network: str, tmp_path: Path, cache_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = tmp_path / "table.parquet", tmp_path / "told.json"
    words = ["--for", network, "--runtime", runtime, "--exact", "--minutes", "0.01", "--reports", str(tmp_path / "reports")]
    assert lut_build(*words, "--out", str(out), "--json", str(told)) == 0
    table = latency_luts.load(out)
    made = resolve(network)
    assert made.module is not None
    asked = [use.key for use in kernels(made.module, made.input_shape, runtime)]
    answer = table.total(asked, interpolate=False)
    assert answer.kind == "measured" and answer.latency_ms is not None and 0 < answer.latency_ms < 5
    assert {name for entry in table for name in entry.networks} == {"tiny"}
    document = json.loads(told.read_text())
    assert document["kind"] == "lut build" and document["missing"] == [] and document["kernels"]["measured"] == len(table)
    assert all(entry.warm_ns is not None and entry.warm_ns <= entry.latency_ns_median for entry in table)
    assert set(document["seconds_by_purpose"]) >= {"networks", "warm"}
    assert sum(document["seconds_by_purpose"].values()) == pytest.approx(document["seconds"])
    assert document["warmth"] == [point._asdict() for point in table.warmth]
    (folder,) = (tmp_path / "reports").iterdir()
    assert latency_luts.load(folder / document["table"]) == table
    assert "staircase" in (folder / "index.html").read_text().lower()
    assert not list(folder.glob("parts/*/models")) and not list(folder.glob("parts/*/launch-*"))
    assert f"{len(table):,} kernels" in capsys.readouterr().out
    (folder / "index.html").unlink()
    assert main(["report", str(folder)]) == 0 and "staircase" in (folder / "index.html").read_text().lower()
    assert main(["report", str(folder), "--to", "perfetto"]) == 2


def test_a_build_that_was_cut_off_measures_what_is_left_and_nothing_twice(
    network: str, tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []
    real = rounds.measure

    def cut(part: object, *rest: object) -> object:
        if measured:
            raise KeyboardInterrupt
        measured.append(part)
        return real(part, *rest)  # type: ignore[arg-type]

    grid = tmp_path / "grid.toml"
    grid.write_text(f"networks = ['{network}']\nwidth_points = 2\nkernels = []\n")
    monkeypatch.setattr(rounds, "measure", cut)
    words = ["--grid", str(grid), "--runtime", "litert", "--minutes", "0.2", "--reports", str(tmp_path / "reports")]
    assert lut_build(*words) == 130
    (folder,) = (tmp_path / "reports").iterdir()
    assert f"--resume {folder}" in capsys.readouterr().err
    done = [part for part in parts_in(folder / "parts") if part.is_done]
    assert [part.purpose for part in done] == ["networks"] and len(parts_in(folder / "parts")) > 1
    before = readings_of(done[0])
    monkeypatch.setattr(rounds, "measure", real)
    out = tmp_path / "table.parquet"
    assert lut_build("--resume", str(folder), "--out", str(out)) == 0
    assert readings_of(done[0]) == before
    assert all(part.is_done for part in parts_in(folder / "parts"))
    assert {entry.key for entry in latency_luts.load(out)} > {one.key for one in before[0].seen}


def test_a_network_of_another_resolution_is_known_as_a_whole(network: str, tmp_path: Path, cache_home: Path) -> None:
    out, grid = tmp_path / "table.parquet", tmp_path / "grid.toml"
    grid.write_text("width_points = 1\nkernel_sizes = []\nexpansions = []\nresolutions = [160, 224]\n")
    words = ["--for", network, "--runtime", "litert", "--grid", str(grid), "--minutes", "0.5", "--error", "50"]
    told, reports = tmp_path / "told.json", tmp_path / "reports"
    assert lut_build(*words, "--out", str(out), "--json", str(told), "--reports", str(reports)) == 0
    made = resolve(network)
    assert made.module is not None
    asked = [use.key for use in kernels(made.module, (1, 3, 23, 23), "litert")]
    assert latency_luts.load(out).total(asked, interpolate=False).kind == "measured"
    assert "relatives" in json.loads(told.read_text())["seconds_by_purpose"]


def test_a_kernel_that_fails_its_bundle_is_missing_alone(
    network: str, tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = part.write_bundles

    def damaged(groups: Any, target: Any, device: Any, folder: Path, **rest: Any) -> Any:
        written = real(groups, target, device, folder, **rest)
        for bundle in written:
            if any(key.op == "mean" for key in bundle.plan.keys):
                bundle.case.artifact.path.write_bytes(b"no model")
        return written

    monkeypatch.setattr(part, "write_bundles", damaged)
    quick = dataclasses.replace(USUAL, launches=1, launch_s=0.05, kernels_s=0.05, warmup_s=0.01)
    monkeypatch.setattr("pipeline.sweep.request.USUAL", quick)
    told, reports = tmp_path / "told.json", tmp_path / "reports"
    words = ["--for", network, "--runtime", "litert", "--exact", "--minutes", "0.01", "--reports", str(reports)]
    assert lut_build(*words, "--json", str(told)) == 0
    document = json.loads(told.read_text())
    (one,) = document["missing"]
    assert one["key"].startswith("mean[") and one["why"].startswith("loading: ")
    assert document["kernels"]["measured"] == document["kernels"]["networks"] - 1 > 2
    assert set(document["seconds_by_purpose"]) >= {"networks", "trial", "again", "warm"}
    assert any("measured again, without the 1 that fails alone" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--for", "digits_cnn"], "--runtime is missing"),
        (["--runtime", "litert"], "a table of no kernels"),
        (["--for", "digits_cnn", "--runtime", "tensorrt"], "there is no runtime 'tensorrt'"),
        (["--for", "no_such", "--runtime", "litert"], "there is no network 'no_such'"),
        (["--for", "digits_cnn", "--runtime", "litert", "--grid", "{tmp}/none.toml"], "cannot read"),
        (["--for", "digits_cnn", "--runtime", "litert", "--grid", "{tmp}/billion.toml"], "more than max_points"),
        (["--for", "digits_cnn", "--runtime", "litert", "--grid", "{tmp}/unknown.toml"], "unknown key 'widths'"),
        (["--for", "digits_cnn", "--runtime", "litert", "--grid", "{tmp}/kernel.toml"], "kernel.toml"),
        (["--for", "digits_cnn", "--runtime", "litert", "--minutes", "0"], "minutes above 0"),
        (["--for", "digits_cnn", "--runtime", "litert", "--out", "{tmp}/none.toml/x.parquet"], "cannot write"),
        (["--for", "digits_cnn", "--runtime", "litert", "--out", "{tmp}/billion.toml"], "is there already"),
        (["--resume", "{tmp}"], "no run that could be resumed"),
        (["--resume", "{tmp}", "--for", "digits_cnn"], "--resume goes on with what that build was asked"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    words: list[str], said: str, tmp_path: Path, cache_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "billion.toml").write_text("width_points = 4096\nmax_points = 1000000\nresolutions = [64, 128]\n")
    (tmp_path / "unknown.toml").write_text("widths = [1]\n")
    (tmp_path / "kernel.toml").write_text("kernels = ['conv2d[in=1x3']\n")
    reports = tmp_path / "reports"
    try:
        status = lut_build(*(word.format(tmp=tmp_path) for word in words), "--reports", str(reports))
    except SystemExit as ended:  # argparse's own
        status = int(ended.code or 0)
    errors = capsys.readouterr().err
    assert status in (1, 2) and said in errors and errors.count("\n") == 1
    assert not reports.exists() or not list(reports.glob("*/parts/*")), "nothing was measured"


def test_a_network_whose_kernels_are_not_known_beforehand_is_named(
    network: str, tmp_path: Path, cache_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--for", network.replace(":tiny", ":odd"), "--runtime", "litert", "--reports", str(tmp_path / "reports")]
    assert lut_build(*words) == 2
    assert "conv3d" in capsys.readouterr().err.lower()


def test_a_request_survives_its_plan(tmp_path: Path) -> None:
    request = BuildRequest(("resnet20",), "host", "litert", tmp_path, delegate="builtin", budget_s=90, error=0.02)
    about = type("About", (), {"kind": "host", "model": "m", "os": "o", "abi": "a"})()
    plan = json.loads(json.dumps(plan_of(request, about)))
    again = planned(plan, tmp_path / "run")
    assert again == BuildRequest(**{**vars(request), "resume": tmp_path / "run"})
    assert command_of(again) == (
        "handset lut build --device host --runtime litert --for resnet20 --delegate builtin --minutes 1.5 --error 2"
    )
    for field, value in (("kind", "bench"), ("grid", {"width_points": "x"}), ("models", 3), ("kernels", ["no"])):
        with pytest.raises(UsageError):
            planned(plan | {field: value}, tmp_path)
    with pytest.raises(UsageError):
        bench_planned(plan, tmp_path)
