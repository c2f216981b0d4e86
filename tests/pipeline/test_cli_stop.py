"""Ctrl-C, kill, and two at once: nothing measured is lost, nothing keeps running, and a run goes on where it stopped."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices.runner import parse_results, read_lines
from pipeline import cli

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
QUICK = CLI["QUICK"]
ONNX = ("a.onnx", "--runtime", "onnxruntime", *QUICK)


@dataclass
class Stopped:
    status: int
    out: str
    err: str
    folder: Path
    run: Path


def stop_in_the_middle(folder: Path, cache: Path, words: tuple[str, ...], number: int, *, group: bool) -> Stopped:
    process = CLI["start"]("bench", *words, cwd=folder)
    CLI["wait_until"](lambda: CLI["sampling"](cache) or process.poll() is not None, "the first samples")
    (os.killpg if group else os.kill)(process.pid, number)
    status, out, err = CLI["finish"](process)
    return Stopped(status, out, err, folder, CLI["reports"](folder)[-1])


@pytest.fixture(scope="module")
def stopped(small_files: dict[str, Any], cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A run of one network that Ctrl-C stopped in its first launch, when the process alone was told."""
    folder = CLI["place"](small_files, tmp_path_factory.mktemp("stopped"))
    return stop_in_the_middle(folder, cache_home, ONNX, signal.SIGINT, group=False)


@pytest.fixture
def copied(stopped: Stopped) -> Path:
    """The stopped run once more, beside it, since paths in it are relative."""
    path = stopped.run.with_name(f"copy-{len(list(stopped.run.parent.iterdir()))}")
    shutil.copytree(stopped.run, path)
    return path


def samples_of(run: Path) -> list[int]:
    """The samples of a.onnx in all launches of a run folder, warm-ups left out."""
    cases = [parse_results(read_lines(str(path))).cases for path in sorted(run.glob("launch-*.jsonl"))]
    blocks = [block for launch in cases for block in launch["a.onnxruntime"].blocks if not block.warmup]
    return [ns for block in blocks for ns in block.sample_ns]


def check_stopped(stopped: Stopped, cache: Path) -> None:
    assert (stopped.status, stopped.out) == (cli.STOPPED, ""), stopped.err
    run = stopped.run.relative_to(stopped.folder)
    again = f"handset bench --resume {run}"
    assert CLI["error_line"](stopped.err) == f"handset: stopped; what was measured is in {run}; go on with: {again}"
    assert CLI["runners"](cache) == []
    assert [path.name for path in stopped.run.glob("launch-*")] == ["launch-00.jsonl"] and samples_of(stopped.run)
    assert not (stopped.run / "result.json").exists() and CLI["half_written"](stopped.folder) == []
    assert not list((cache / "handset" / "work").glob("runs/*/*"))


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(stopped: Stopped, cache_home: Path) -> None:
    check_stopped(stopped, cache_home)


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)])
def test_other_ways_to_stop_are_the_same(
    number: int, group: bool, small_files: dict[str, Any], cache_home: Path, tmp_path: Path
) -> None:
    check_stopped(
        stop_in_the_middle(CLI["place"](small_files, tmp_path), cache_home, ONNX, number, group=group), cache_home
    )


def test_command_that_was_printed_finishes_the_run_with_the_earlier_samples(stopped: Stopped, copied: Path) -> None:
    before = samples_of(copied)
    words = shlex.split(stopped.err.partition("go on with: ")[2])
    assert words[:-1] == ["handset", "bench", "--resume"]
    status, out, err = CLI["run"]("bench", "--resume", str(copied), "--json", "out.json", cwd=stopped.folder)
    assert status in (0, 4) and "a " in out, err
    document = json.loads((copied / "result.json").read_text())
    (profile,) = document["profiles"]
    assert document["complete"] is True and document == json.loads((stopped.folder / "out.json").read_text())
    assert profile["samples_ns"][: len(before)] == before and set(profile["launch"]) == {0, 1}
    assert profile["kernels"] and (copied / "index.html").is_file()


def test_run_that_is_done_is_not_measured_again(
    stopped: Stopped, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stopped.folder)
    assert cli.main(["bench", "--resume", str(copied)]) in (0, 4)
    launches = {path.name: path.read_bytes() for path in copied.glob("launch-*")}
    first = json.loads((copied / "result.json").read_text())
    (copied / "result.json").unlink()
    assert cli.main(["bench", "--resume", str(copied)]) in (0, 4)
    assert {path.name: path.read_bytes() for path in copied.glob("launch-*")} == launches
    second = json.loads((copied / "result.json").read_text())
    assert second["profiles"][0]["samples_ns"] == first["profiles"][0]["samples_ns"]


def test_resumed_run_refuses_to_mix(
    stopped: Stopped, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stopped.folder)
    assert cli.main(["bench", "--resume", str(copied), "--threads", "2"]) == 2
    assert "--threads" in CLI["error_line"](capsys.readouterr().err)
    plan = json.loads((copied / "plan.json").read_text())
    (copied / "plan.json").write_text(json.dumps(plan | {"settings": {"speed": 3}}))
    assert cli.main(["bench", "--resume", str(copied)]) == 2
    assert "is damaged" in CLI["error_line"](capsys.readouterr().err)
    (copied / "plan.json").write_text(json.dumps(plan))
    content = Path("a.onnx").read_bytes()
    try:
        Path("a.onnx").write_bytes(content.replace(b"pytorch", b"pytorcj"))
        assert Path("a.onnx").read_bytes() != content
        assert cli.main(["bench", "--resume", str(copied)]) == 2
        assert "is not the file any more" in CLI["error_line"](capsys.readouterr().err)
    finally:
        Path("a.onnx").write_bytes(content)
    assert samples_of(copied) == samples_of(stopped.run)


def test_second_bench_waits_for_the_first_and_a_killed_one_frees_the_device(
    small_files: dict[str, Any], cache_home: Path, tmp_path: Path
) -> None:
    folder = CLI["place"](small_files, tmp_path)
    first = CLI["start"]("bench", *ONNX, "--launches", "20", cwd=folder)
    try:
        CLI["wait_until"](lambda: CLI["sampling"](cache_home) or first.poll() is not None, "the first samples")
        held = f"handset: device host is held by another bench (process {first.pid})"
        status, _, err = CLI["run"]("bench", *ONNX, "--wait", "0", cwd=folder)
        assert status == 3 and CLI["error_line"](err).startswith(held) and "--wait" in err
        assert len(CLI["reports"](folder)) == 1
        second = CLI["start"]("bench", *ONNX, cwd=folder)
        line = second.stderr.readline()
        assert line == f"{held}; waiting up to 600 s\n" and second.poll() is None
        CLI["wait_until"](lambda: CLI["sampling"](cache_home), "a launch that has just begun")
    finally:
        first.kill()  # nothing that could be tidied up by it
    CLI["finish"](first)
    assert first.returncode == -signal.SIGKILL
    status, out, err = CLI["finish"](second)
    assert status in (0, 4) and err == "" and "page" in out
    CLI["wait_until"](lambda: not CLI["runners"](cache_home), "the killed bench's runner to end", 10)
    (results,) = (cache_home / "handset" / "work").glob("runs/*/launch-*/results.jsonl")
    left = parse_results(read_lines(str(results)))
    assert not left.complete, "the runner went on for nobody"
    killed, done = CLI["reports"](folder)
    (killed / "launch-07.part").write_text("half a launch")
    (killed / "artifacts" / ".net.part.onnx").write_text("half a model")
    assert (done / "result.json").is_file() and not (killed / "result.json").exists()
    status, _, err = CLI["run"]("bench", "--resume", str(killed), "--launches", "1", cwd=folder)
    assert status in (0, 4), err
    assert json.loads((killed / "result.json").read_text())["profiles"][0]["kernels"]
    assert not results.exists() and parse_results(read_lines(str(killed / f"{results.parent.name}.jsonl"))).cases
    assert CLI["half_written"](folder) == []


def test_stop_before_a_run_has_a_folder_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pipeline.bench.bench", stop)
    assert cli.main(["bench", "resnet20"]) == cli.STOPPED
    assert CLI["error_line"](capsys.readouterr().err) == "handset: stopped"
    assert signal.getsignal(signal.SIGTERM) is before
