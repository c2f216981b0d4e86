"""`handset report`: which files it writes, what it prints, and what it says to what is no run."""

from __future__ import annotations

import argparse
import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from latency_luts import Context, Entry, LatencyTable, OpKey, save
from pipeline import report_command
from pipeline.artifact import sha256_file
from pipeline.errors import CheckFailed, HandsetError, StorageError, UsageError
from pipeline.kernels.tflite import keys
from pipeline.report.validation_page import page as validation_page

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))


def report(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    status: int = arguments.command(arguments)
    return status


@pytest.fixture
def run(tmp_path: Path, small_files: Any) -> Path:
    """A run of one network in LiteRT's own kernels; the folder's name needs quotes."""
    folder = tmp_path / "a run"
    (folder / "artifacts").mkdir(parents=True)
    model = folder / "artifacts" / "small.tflite"
    model.write_bytes(small_files["tflite"].path.read_bytes())
    layers = [SAMPLE["small"](op.op_type, "conv2d", 0.01) for op in keys(model)]
    profile = SAMPLE["profile"]("small", SAMPLE["LITERT"], layers, 1.0, 1, quiet=True)
    profile["artifact"] |= {"file": model.name, "sha256": sha256_file(model)}
    (folder / "result.json").write_text(json.dumps(SAMPLE["phone"]() | {"profiles": [profile]}))
    return folder


def test_the_page_alone_where_no_tool_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run, run / "result.json"):
        assert report(path, "--json", run / "copy.json") == 0
        assert capsys.readouterr().out == f"{run / 'index.html'}\n"
    assert json.loads((run / "copy.json").read_text()) == json.loads((run / "result.json").read_text())
    assert sorted(path.name for path in run.iterdir()) == ["artifacts", "copy.json", "index.html", "result.json"]


def test_each_tool_has_a_line_that_says_how_to_open_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(run, "--to", "model-explorer,perfetto") == 0
    page, trace, over_time, command, told, install = capsys.readouterr().out.splitlines()
    assert page == str(run / "index.html")
    assert trace == f"{run / 'trace.json'}: open it in https://ui.perfetto.dev or chrome://tracing"
    assert over_time.startswith(str(run / "trace_over_time.json"))
    words = shlex.split(command)
    assert words[:3] == ["model-explorer", str(run / "artifacts" / "small.tflite"), "--node_data_paths"]
    assert [Path(path).is_file() for path in words[3].split(",")] == [True] * 4
    assert told.startswith("  small in litert: ") and "pip install ai-edge-model-explorer" in install


def test_a_network_without_node_data_says_why(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((run / "result.json").read_text())
    document["profiles"].append(SAMPLE["sample"]()["profiles"][3])
    (run / "result.json").write_text(json.dumps(document))
    assert report(run, "--to", "model-explorer") == 0
    assert "resnet20 in litert: no node data: litert: op STABLEHLO_COMPOSITE" in capsys.readouterr().out


@pytest.mark.parametrize("tools", ["netron", "perfetto,netron", "", ","])
def test_an_unknown_tool_is_refused_before_anything_is_written(run: Path, tools: str) -> None:
    with pytest.raises(UsageError, match="--to perfetto,model-explorer"):
        report(run, "--to", tools)
    assert not (run / "index.html").exists()


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"kind": "bench"', '{"kind": "validation"}', "[" * 100_000])
def test_what_is_no_result_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    for path in (tmp_path, tmp_path / "result.json", tmp_path / "none", tmp_path / "none.json"):
        with pytest.raises(HandsetError) as caught:
            report(path, "--to", "perfetto")
        assert caught.value.exit_status == 2 and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_validation_gets_its_page_again_alone_and_with_the_run_that_it_is_of(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = runpy.run_path(str(Path(__file__).with_name("test_validation_judge.py")))["document"]()
    (run / "validation.json").write_text(json.dumps(judged))
    assert report(run / "validation.json") == 0
    assert capsys.readouterr().out == f"{run / 'validation.html'}\n"
    text = (run / "validation.html").read_text("utf-8")
    assert text == validation_page(judged) and not (run / "index.html").exists()
    (run / "validation.html").unlink()
    assert report(run, "--to", "perfetto", "--json", run / "copy.json") == 0
    assert capsys.readouterr().out.splitlines()[:2] == [str(run / "index.html"), str(run / "validation.html")]
    assert (run / "validation.html").read_text("utf-8") == text and "profiles" in (run / "copy.json").read_text()
    with pytest.raises(UsageError, match="--to is of a run of handset bench"):
        report(run / "validation.json", "--to", "perfetto")


def test_a_damaged_validation_is_refused_before_anything_is_written(run: Path) -> None:
    (run / "validation.json").write_text('{"kind": ')
    with pytest.raises(UsageError, match=r"validation\.json is no result of a run"):
        report(run)
    assert not (run / "index.html").exists()


@pytest.mark.parametrize("tool", report_command.TOOLS)
def test_a_run_in_which_all_failed_still_has_its_page(run: Path, tool: str) -> None:
    document = json.loads((run / "result.json").read_text())
    document["profiles"] = [SAMPLE["sample"]()["profiles"][3]]
    (run / "result.json").write_text(json.dumps(document))
    with pytest.raises(CheckFailed, match="STABLEHLO_COMPOSITE"):
        report(run, "--to", tool)
    assert (run / "index.html").exists() and not (run / "trace.json").exists()


@pytest.mark.parametrize("blocked", ["index.html", "trace.json", "model_explorer"])
def test_what_cannot_be_written_is_named_and_nothing_half_written_stays(run: Path, blocked: str) -> None:
    if blocked == "model_explorer":
        (run / blocked).write_text("in the way")
    else:
        (run / blocked).mkdir()
    with pytest.raises(StorageError, match=blocked):
        report(run, "--to", "perfetto,model-explorer")
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def table(path: Path) -> Path:
    context = Context(
        device="host", soc="a", os_build="b", abi="x86_64", runtime="litert", runtime_version="1", runtime_sha256="00" * 32,
        delegate="xnnpack", threads=1, cpu_mask="0x1", clocks="", handset_version="0", created="2026-01-01T00:00:00Z",
        simulated=False,
    )  # fmt: skip
    key = OpKey("add", (1, 8, 4, 4), dtype="float32")
    save(LatencyTable(context, (Entry(key, 1000.0, (900.0, 1100.0), (1000, 1000), ("small",), "Add (ND)"),)), path)
    return path


def test_a_table_gets_its_page_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(table(tmp_path / "t.parquet")) == 0
    assert capsys.readouterr().out == f"{tmp_path / 't.html'}\n"
    assert "litert" in (tmp_path / "t.html").read_text("utf-8")


def test_a_table_is_no_run(tmp_path: Path) -> None:
    for words in (["--to", "perfetto"], ["--json", "out.json"]):
        with pytest.raises(UsageError, match="is a latency table"):
            report(table(tmp_path / "t.parquet"), *words)
    with pytest.raises(Exception, match=r"none\.parquet") as caught:
        report(tmp_path / "none.parquet")
    assert getattr(caught.value, "exit_status", None) in (1, 2)
