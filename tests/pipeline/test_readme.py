"""Every command in README.md works: `make` targets are there, `handset` lines are run with small settings."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.bench_command import UNSTABLE

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
ROOT: Path = CLI["ROOT"]
README = ROOT / "README.md"
SMALL = ["--launches", "1", "--budget", "0.3", "--interval", "50"]


def commands(text: str) -> list[str]:
    """The lines of all blocks that are fenced as ```sh, without comments; a line that ends in \\ goes on."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            found += [shlex.join(words)] if words else []
    return found


def needs_more_than_a_host(words: list[str]) -> bool:
    """A phone, or packages to download: only that the line is understood is tried."""
    device = words[words.index("--device") + 1] if "--device" in words else "host"
    return device != "host" or words[1:3] == ["bundle", "build"]


def check(command: str, reports: Path) -> None:
    """Runs one line in the working folder, which has the repository's files. Fails where a reader's would."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        asked = [word for word in words[1:] if "=" not in word]
        assert asked and set(asked) <= targets, f"{command}: the Makefile has no such target"
        subprocess.run(["make", "-n", "-C", str(ROOT), *words[1:]], check=True, capture_output=True)
    elif words[0] == "handset":
        if needs_more_than_a_host(words):
            cli.make_parser().parse_args(words[1:])
            return
        quickly = {"bench": SMALL, "compress": ["--no-measure"]}
        more = [*quickly[words[1]], "--reports", str(reports)] if words[1] in quickly else []
        try:
            status = cli.main([*words[1:], *more])
        except SystemExit as ended:
            status = int(str(ended.code or 0))
        assert status in (0, UNSTABLE), f"{command}: status {status}"
    else:
        raise AssertionError(f"{command}: neither make nor handset")


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_every_command_of_the_readme_works(
    cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    CLI["export_once"](cache_home, monkeypatch)
    found = commands(README.read_text("utf-8"))
    assert any(command.startswith("handset bench ") for command in found) and "make bench" in found
    for folder in ("docs", "tests", "latency_luts"):  # what a line may name, without writing into the repository
        if (ROOT / folder).is_dir():
            (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    for command in found:
        check(command, tmp_path / "reports")
    assert any((run / "index.html").is_file() for run in (tmp_path / "reports").iterdir())


def test_commands_are_found_in_blocks_of_sh_only() -> None:
    text = (
        "```sh\nhandset models  # a list\n\n# nothing\nhandset bench 'a b.onnx' \\\n  --threads 2\n```\n"
        "```\nhandset output\n```\n"
        "```python\nhandset = 1\n```\n"
        "```sh\nmake test ARGS=\"-k 'x y'\"\n```\n"
    )
    expected = ["handset models", "handset bench 'a b.onnx' --threads 2"]
    assert commands(text)[:2] == expected and shlex.split(commands(text)[2]) == ["make", "test", "ARGS=-k 'x y'"]
    assert len(commands(text)) == 3


@pytest.mark.parametrize(
    "command",
    [
        "handset bnech mobilenet_v2",
        "handset bench --no-such-option",
        "handset bench no_such_network",
        "handset report reports/none",
        "make no_such_target",
        "make",
        "pip install something",
    ],
)
def test_command_that_does_not_work_is_found(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check(command, tmp_path)


def test_command_that_works_is_not_reported(
    small_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(small_files["onnx"].path, "net.onnx")
    for command in ("handset models", "handset --version", "handset bench net.onnx --runtime onnxruntime", "make help"):
        check(command, tmp_path / "reports")
