"""What the command prints and to whom: help, lists, pipes that close early, terminals, and names made to harm."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.models import MODELS

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
QUICK = CLI["QUICK"]


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in cli.make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("command", [None, *subparsers()])
def test_help_documents_every_option(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"] if command else ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    parser = subparsers()[command] if command else cli.make_parser()
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
        assert all(option in text for option in action.option_strings)
    if command is None:
        assert all(name in text for name in subparsers())


@pytest.mark.parametrize("words", [["--help"], ["bench", "--help"], ["--version"], ["models"], ["devices"]])
def test_light_commands_load_no_heavy_library(words: list[str]) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from pipeline import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    cli.main({words!r})\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(CLI["ROOT"])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    heavy = {
        "torch",
        "numpy",
        "pandas",
        "pyarrow",
        "onnx",
        "onnxruntime",
        "ai_edge_litert",
        "litert_torch",
        "rich",
        "jinja2",
    }
    assert not loaded & heavy and "pipeline" in loaded
    assert time.monotonic() - begun < 2


def test_lists_as_json_and_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json", str(tmp_path / "models.json")]) == 0
    assert cli.main(["devices", "--json", str(tmp_path / "devices.json")]) == 0
    models = json.loads((tmp_path / "models.json").read_text())
    devices = json.loads((tmp_path / "devices.json").read_text())
    assert (models["schema_version"], models["kind"], devices["kind"]) == (1, "models", "devices")
    assert {row["name"]: row["params"] for row in models["models"]} == {name: m.params for name, m in MODELS.items()}
    (host,) = (device for device in devices["devices"] if device["name"] == "host")
    assert host["cores"] >= 1 and host["simulated"] is False
    out = capsys.readouterr().out
    assert all(name in out for name in (*MODELS, "host", "3,504,872"))


def test_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    for words in (["models"], ["--help"], ["bench", "--help"]):
        read, write = os.pipe()
        os.close(read)
        process = CLI["start"](*words, cwd=tmp_path, stdout=write)
        os.close(write)
        status, _, err = CLI["finish"](process)
        assert (status, err) == (0, ""), words


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full", "2>&-", ">&- 2>&-"])
def test_closed_and_full_outputs_are_no_traceback(redirect: str, tmp_path: Path) -> None:
    shell = f'"$0" -m pipeline models --json out.json {redirect}'
    environment = {**os.environ, "PYTHONPATH": str(CLI["ROOT"])}
    command = ["sh", "-c", shell, sys.executable]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if redirect == ">/dev/full":
        assert done.returncode == 1 and "No space left on device" in CLI["error_line"](done.stderr)
    else:
        assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())["kind"] == "models"


HOSTILE = [
    "a quote's \"twin\" $(touch gone);touch gone;`touch gone`.onnx", "new\nline\tesc\x1b[31mred.onnx",
    "-rf%s%n名前\udcff\udcfe.onnx", "y" * 200 + ".onnx",
]  # fmt: skip


def test_names_made_to_harm_are_measured_and_reach_no_shell(
    small_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CLI["place"](small_files, tmp_path))
    for name in HOSTILE:
        shutil.copyfile("a.onnx", name)
    before = set(Path().iterdir())
    paths = [f"./{name}" for name in HOSTILE]
    settings = [*QUICK, "--runtime", "onnxruntime", "--json", "out.json"]
    assert cli.main(["bench", *paths, *settings]) in (0, 4)
    out, err = capfd.readouterr()
    assert all(line.isprintable() for line in (out + err).splitlines()), out + err
    document = json.loads(Path("out.json").read_text())
    assert len({row["name"] for row in document["networks"]}) == len(HOSTILE) == len(document["profiles"])
    assert all(profile["samples_ns"] for profile in document["profiles"])
    assert set(Path().iterdir()) == before | {Path("reports"), Path("out.json")}
    (run,) = Path("reports").iterdir()
    assert "\x1b" not in (run / "index.html").read_text()


def test_reports_folder_of_any_name(small_files: dict[str, Any], tmp_path: Path) -> None:
    folder, name = CLI["place"](small_files, tmp_path), "my [/red] 報\x1b[31m\n"
    words = ("a.onnx", "--runtime", "onnxruntime", *QUICK, "--reports", name)
    status, out, err = CLI["run"]("bench", *words, cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    assert status in (0, 4) and err == ""
    assert out.isascii() and all(line.isprintable() for line in out.splitlines())
    (run,) = (folder / name).iterdir()
    status, out, err = CLI["run"]("report", str(run), cwd=folder, env={"PYTHONIOENCODING": "ascii"})
    assert (status, err) == (0, "") and out[:-1].isascii() and out[:-1].isprintable()


def on_a_terminal(*words: str, cwd: Path) -> tuple[int, str]:
    """(exit status, everything written) of the command with a terminal as stdout and stderr."""
    main, other = pty.openpty()
    process = CLI["start"](*words, cwd=cwd, stdout=other, stderr=other, env={"TERM": "xterm", "COLUMNS": "100"})
    os.close(other)
    written = b""
    with contextlib.suppress(OSError):  # EIO when the last writer is gone
        while data := os.read(main, 1 << 16):
            written += data
    os.close(main)
    return CLI["finish"](process)[0], written.decode()


def test_terminal_sees_progress_and_no_markup_of_a_name(small_files: dict[str, Any], tmp_path: Path) -> None:
    folder = CLI["place"](small_files, tmp_path)
    name = "[red]net[blue]\x1b]0;title\x07.onnx"
    shutil.copyfile(folder / "a.onnx", folder / name)
    status, text = on_a_terminal("bench", name, "--runtime", "onnxruntime", *QUICK, cwd=folder)
    assert status in (0, 4), text
    assert "preparing [red]net[blue]" in text and "measuring" in text and "Traceback" not in text
    assert "\x1b]0;" not in text and "\x07" not in text
    status, text = on_a_terminal("bench", "none.onnx", cwd=folder)
    assert status == 2 and "there is no file" in text and "Traceback" not in text


def test_report_is_rendered_again_and_a_damaged_result_refused(
    small_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CLI["place"](small_files, tmp_path))
    assert cli.main(["bench", "a.onnx", "--runtime", "onnxruntime", *QUICK]) in (0, 4)
    (run,) = Path("reports").iterdir()
    page, result = run / "index.html", run / "result.json"
    first, whole = page.read_bytes(), result.read_text()
    for asked in (run, result):
        page.unlink()
        capsys.readouterr()
        assert cli.main(["report", str(asked)]) == 0
        assert capsys.readouterr().out == f"{page}\n" and page.read_bytes() == first
    document = json.loads(whole)
    assert cli.main(["report", str(run), "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text()) == document
    capsys.readouterr()
    damaged = [
        whole[: len(whole) // 2], "", "[]", "3", "null", "{}", "[" * 100_000, '{"kind": "bench"}', "\ufeff" + whole,
        *(json.dumps(document | change) for change in (
            {"schema_version": 99}, {"kind": "farm"}, {"profiles": 3}, {"profiles": [{}]}, {"device": None},
            {"networks": "none"},
        )),
        *(json.dumps(document | {"profiles": [document["profiles"][0] | change]}) for change in (
            {"latency_ms": None}, {"samples_ns": "many"}, {"kernels": [1]}, {"verdict": {}}, {"latency_ms": {"median": "1"}},
        )),
        whole.replace('"median": ', '"median": 1e999, "was": ', 1),
    ]  # fmt: skip
    for text in damaged:
        result.write_text(text)
        assert cli.main(["report", str(run)]) == 2, text[:200]
        out, err = capsys.readouterr()
        assert out == "" and CLI["error_line"](err)
        assert page.read_bytes() == first
