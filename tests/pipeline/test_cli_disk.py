"""A disk that is full or read-only, at every stage: one line that says which file, and nothing half-written."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
ONNX = ("bench", "a.onnx", "--runtime", "onnxruntime", *CLI["QUICK"])
Mount = Callable[..., Path]


@pytest.fixture
def mount(small_files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """(name, options of tmpfs) -> a folder that is a file system of its own; again for the same name: other options."""
    monkeypatch.chdir(CLI["place"](small_files, tmp_path))
    mounted: list[Path] = []

    def make(name: str, options: str) -> Path:
        path = tmp_path / name
        if path in mounted:
            options = f"remount,{options}"
        path.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        if path not in mounted:
            mounted.append(path)
        return path

    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    yield make
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main([*ONNX, *words])
    return status, CLI["error_line"](capsys.readouterr().err)


def test_no_space_for_the_run_folder(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = mount("reports", "size=64k")
    with (disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    status, line = failed(capsys)
    assert status == 1 and "plan.json: No space left on device" in line and "try: free some space" in line
    assert names(disk) == ["fill"]


def test_no_space_for_the_exported_file(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = mount("reports", "size=16k")
    assert cli.main(["bench", "nets.py:tiny", *CLI["QUICK"]]) == 1
    assert "No space left on device" in CLI["error_line"](capsys.readouterr().err)
    assert names(disk) == []


def test_no_space_for_the_samples(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = mount("reports", "size=48k")
    status, line = failed(capsys)
    assert status == 1 and "launch-00" in line and "No space left on device" in line and "--reports" in line
    assert names(disk) == []


def test_no_space_for_the_result_and_the_run_goes_on_when_there_is(
    mount: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = mount("reports", "size=8m")
    assert cli.main([*ONNX]) in (0, 4)
    (run,) = disk.iterdir()
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in run.rglob("*") if path.is_file())
    spared = (run / "result.json").stat().st_size // 1024
    for name in ("result.json", "index.html"):
        (run / name).unlink()
    capsys.readouterr()
    mount("reports", f"size={used - spared + 24}k")
    assert cli.main(["bench", "--resume", str(run)]) == 1
    assert "result.json: No space left on device" in CLI["error_line"](capsys.readouterr().err)
    assert not (run / "result.json").exists() and CLI["half_written"](disk) == []
    mount("reports", "size=8m")
    assert cli.main(["bench", "--resume", str(run)]) in (0, 4)
    assert [path.name for path in run.glob("launch-*")] == ["launch-00.jsonl"]
    assert json.loads((run / "result.json").read_text())["complete"] is True


def test_no_space_for_the_json(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = mount("small", "size=8k")
    status, line = failed(capsys, "--json", str(disk / "out.json"))
    assert status == 1 and "out.json: No space left on device" in line and names(disk) == []
    (run,) = CLI["reports"](Path())
    assert (run / "result.json").is_file()


def test_read_only_folders(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    disk = mount("reports", "size=64k,ro")
    status, line = failed(capsys)
    assert status == 1 and "Read-only file system" in line and "--reports" in line
    status, line = failed(capsys, "--reports", "elsewhere", "--json", str(disk / "out.json"))
    assert status == 1 and "out.json" in line and not Path("elsewhere").exists()


@pytest.mark.parametrize(("options", "told"), [("size=100m", "No space left"), ("size=100m,ro", "Read-only")])
def test_workdir_of_the_device_is_full_or_read_only(
    options: str, told: str, mount: Mount, cache_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    disk = mount("work", "size=100m")
    shutil.copytree(cache_home / "handset" / "runner", disk / "handset" / "runner")
    (disk / "handset" / "locks").mkdir()
    (disk / "handset" / "locks" / "host.lock").touch()
    with (disk / "fill").open("wb", buffering=0) as file:
        while os.statvfs(disk).f_bavail > 1:
            file.write(bytes(4096))
    mount("work", options)
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    status, line = failed(capsys)
    assert status == 3 and told in line and str(disk) in line
    assert CLI["reports"](Path()) == [] and CLI["half_written"](disk) == []
