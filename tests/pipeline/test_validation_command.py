"""`handset lut validate` as it is typed: tiny networks, measured on this machine, against a table that it made itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import latency_luts
from devices.errors import DeviceLost, NotQuiet
from pipeline import cli
from pipeline.validation import run as run_module

QUICK = ("--launches", "1", "--budget", "0.2", "--interval", "50", "--reports", "reports")
NETS = """
import torch
from torch import nn

def net(blocks):
    torch.manual_seed(0)
    layers = [layer for _ in range(blocks) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers), (1, 3, 16, 16)

class Sums(nn.Module):
    def forward(self, x): return torch.cumsum(x, 1)

def two(): return net(2)
def three(): return net(3)
def five(): return net(5)
def other(): return nn.Conv2d(4, 8, 3), (1, 4, 16, 16)
def sums(): return Sums(), (1, 4, 16, 16)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands run: nets.py, t.parquet of one network, and the run of a validation by three others."""
    found = tmp_path_factory.mktemp("validation")
    (found / "nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        assert cli.main(["bench", "nets.py:two", "--runtime", "onnxruntime", *QUICK]) in (0, 4)
        (table,) = found.glob("reports/*/table-*.parquet")
        table.rename("t.parquet")
        yield found


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def validated(folder: Path) -> tuple[int, dict[str, Any], Path]:
    """Exit status, document and run folder of the validation."""
    words = ("nets.py:three", "nets.py:five", "nets.py:sums", "--json", "out.json", *QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        status = cli.main(["lut", "validate", "--lut", "t.parquet", *words])
        document = json.loads(Path("out.json").read_text("utf-8"))
        return status, document, Path("reports") / document["run"]


def changed(name: str, path: Path, **fields: Any) -> str:
    """The table with another context, as a file."""
    table = latency_luts.load("t.parquet")
    context = dataclasses.replace(table.context, **fields)
    latency_luts.save(dataclasses.replace(table, context=context), path / name, allow_simulated=True)
    return str(path / name)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr that an error is."""
    err = capsys.readouterr().err
    assert err.startswith("handset: ") and err.count("\n") == 1, err
    return err


def test_networks_are_measured_and_predicted_each_way(validated: tuple[int, dict[str, Any], Path]) -> None:
    status, document, run = validated
    assert status == 4  # one launch tells no variance
    assert document == json.loads((run / "validation.json").read_text("utf-8"))
    assert [one["name"] for one in document["networks"]] == ["three", "five"]
    assert [one["name"] for one in document["left_out"]] == ["sums"] and "cumsum" in document["left_out"][0]["reason"]
    for one in document["networks"]:
        assert one["listed"]["same"] and one["coverage"]["interpolated"] == 0 and not one["in_table"]
        assert 0.05 < one["predicted_ms"]["table"]["plain"] / one["measured_ms"] < 20
        assert one["predicted_ms"]["alone"]["plain"] > 0 or document["predictors"][1]["not_judged"]
    times = [one["predicted_ms"]["table"]["plain"] for one in document["networks"]]
    assert times[0] < times[1]
    assert document["predictors"][0]["plain"] and document["predictors"][0]["scaled"] is None
    assert document["context"]["differences"] == []
    assert (run / "validation.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_finished_run_goes_on_without_measuring_again(
    validated: tuple[int, dict[str, Any], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, document, run = validated
    launches = sorted(path.name for path in run.rglob("launch-*"))
    words = ["lut", "validate", "--lut", "t.parquet", "--resume", str(run), "--require-within5", "0", "--json", "again.json"]
    assert cli.main(words) == 0
    again = json.loads(Path("again.json").read_text("utf-8"))
    assert sorted(path.name for path in run.rglob("launch-*")) == launches
    assert [one["predicted_ms"] for one in again["networks"]] == [one["predicted_ms"] for one in document["networks"]]
    assert "verdict   good" in capsys.readouterr().out


def test_what_is_required_and_not_found_is_a_failure(
    validated: tuple[int, dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, run = validated
    table = latency_luts.load("t.parquet")
    slow = (
        dataclasses.replace(entry, latency_ns_median=9 * entry.latency_ns_median + 1, interval_ns=(0, 1e9)) for entry in table
    )
    latency_luts.save(dataclasses.replace(table, entries=tuple(slow)), "slow.parquet")
    words = ["lut", "validate", "--lut", "slow.parquet", "--resume", str(run), "--no-isolated", "--require-within5", "0.5"]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert "50 % of the networks within 5 % were asked" in err.replace("50.0", "50") and "0 % were found" in err
    assert "verdict   not good enough" in out and "kernels timed alone" not in out


def test_a_table_without_the_kernels_fails_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path("reports").iterdir())
    assert cli.main(["lut", "validate", "--lut", "t.parquet", "nets.py:other", *QUICK]) == 1
    assert "none of 1 networks can be judged: other: the table does not know" in said(capsys)
    assert sorted(Path("reports").iterdir()) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "pixel", "soc": "SoC 9"}, "differ in device: 'pixel' and 'host'; soc: 'SoC 9'"),
        ({"runtime_sha256": "f" * 64}, "differ in runtime_sha256: 'ffffffffffffffff'"),
        ({"delegate": "gpu"}, "differ in delegate: 'gpu' and ''"),
        ({"runtime": "ncnn"}, "the table is of the runtime 'ncnn'"),
        ({"simulated": True}, "simulated"),
    ],
)
def test_a_table_of_another_place_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed("x.parquet", tmp_path, **fields)
    assert cli.main(["lut", "validate", "--lut", path, "nets.py:three", *QUICK]) == 2
    assert message in said(capsys)


def test_another_context_that_is_allowed_is_said_loudly(
    validated: tuple[int, dict[str, Any], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed("x.parquet", tmp_path, soc="another")
    words = ["--resume", str(validated[2]), "--no-isolated", "--allow-other-context", "--require-within5", "0"]
    assert cli.main(["lut", "validate", "--lut", path, *words]) == 0
    assert capsys.readouterr().out.startswith("OTHER CONTEXT: the table was made with another soc\n")
    assert "OTHER CONTEXT" in (validated[2] / "validation.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lut", "t.parquet"), "no network was named"),
        (("--lut", "absent.parquet", "nets.py:three"), "reading the latency table absent.parquet"),
        (("--lut", "cut.parquet", "nets.py:three"), "cut short, damaged or no latency table"),
        (("--lut", "nets.py", "nets.py:three"), "cut short, damaged or no latency table"),
        (("--lut", "t.parquet", "wobble"), "there is no network 'wobble'"),
        (("--lut", "t.parquet", "nets.py:three", "nets.py:three"), "two of the models are called three"),
        (("--lut", "t.parquet", "nets.py:three", "--device", "nowhere"), "nowhere"),
        (("--lut", "t.parquet", "--resume", "nowhere"), "nowhere is no run"),
        (("--lut", "t.parquet", "--resume", "nowhere", "nets.py:three"), "--resume goes on with what that run was asked"),
        (("--lut", "t.parquet", "nets.py:three", "--json", "absent/x.json"), "absent/x.json"),
    ],
)
def test_bad_inputs_are_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path("t.parquet").read_bytes()
    Path("cut.parquet").write_bytes(data[: len(data) // 2])
    assert cli.main(["lut", "validate", *words, "--reports", "reports"]) in (1, 2, 3)
    assert message in said(capsys)


@pytest.mark.parametrize("words", [("--require-within5", "1.5"), ("--require-within5", "x"), ("--seed", "-1"), ()])
def test_numbers_out_of_range_are_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lut = ("--lut", "t.parquet") if words else ()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["lut", "validate", *lut, "nets.py:three", *words])
    assert stopped.value.code == 2 and said(capsys)


def test_a_device_that_is_lost_says_how_this_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(request: Any, console: Any) -> Any:
        console.run_folder = tmp_path
        raise DeviceLost("the link was lost", try_=f"plug it in, then handset bench --resume {tmp_path}")

    monkeypatch.setattr(run_module, "bench", lost)
    assert cli.main(["lut", "validate", "--lut", "t.parquet", "nets.py:three", *QUICK]) == 3
    assert f"then handset lut validate --lut t.parquet --resume {tmp_path}" in said(capsys)


@pytest.mark.parametrize("error", [KeyboardInterrupt, NotQuiet])
def test_what_stops_between_the_stages_leaves_a_run_to_go_on_with(
    validated: tuple[int, dict[str, Any], Path], error: type[BaseException], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stop(*given: Any) -> Any:
        raise error("it is hot")

    monkeypatch.setattr(run_module, "measure_alone", stop)
    run = str(validated[2])
    assert cli.main(["lut", "validate", "--lut", "t.parquet", "--resume", run]) == (4 if error is NotQuiet else 130)
    err = capsys.readouterr().err
    assert f"handset lut validate --lut t.parquet --resume {run}" in err
