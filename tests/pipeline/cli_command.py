"""The command as a user types it: in a process of its own, with small networks and small settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import Exported, Network
from pipeline.export.base import Exporter
from pipeline.runfolder import RunFolder

ROOT = Path(__file__).resolve().parents[2]

QUICK = ("--launches", "1", "--budget", "0.5", "--interval", "50")
"""One start of the runner and whatever interval comes out of it."""

NETS = """
import torch
from torch import nn

class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)), (1, 3, 16, 16)

def channels(): return nn.Conv2d(4, 8, 3), (1, 3, 16, 16)
def bessel(): return Call(torch.special.bessel_j0), (1, 3, 16, 16)
def pair(): return Call(lambda x: (x, x)), (1, 3, 16, 16)
"""


def place(files: Mapping[str, Any], folder: Path) -> Path:
    """a.onnx, b.tflite and nets.py in `folder`; gives the folder."""
    shutil.copyfile(files["onnx"].path, folder / "a.onnx")
    shutil.copyfile(files["tflite"].path, folder / "b.tflite")
    (folder / "nets.py").write_text(NETS)
    return folder


def start(*words: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """The command, begun, in a process group of its own as from a shell; outputs are pipes of text."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command that ends by itself."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    return process.returncode, out, err


def run(*words: str, cwd: Path, **more: Any) -> tuple[int, str, str]:
    return finish(start(*words, cwd=cwd, **more))


def error_line(text: str) -> str:
    """The one line that an error is; fails where it is anything else, a traceback for one."""
    assert text.startswith("handset: ") and text.endswith("\n") and text.count("\n") == 1, text
    assert text[:-1].isprintable(), repr(text)
    return text[:-1]


def runners(cache: Path) -> list[str]:
    """The command lines of runners that work with files in `cache`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if "handset-runner" in words[0] and any(word.startswith(str(cache)) for word in words[1:]):
            found.append(" ".join(words))
    return found


def sampling(cache: Path) -> bool:
    """Whether a runner has written samples of a launch that is still going on, and will be for some blocks."""
    for path in (cache / "handset" / "work").glob("runs/*/launch-*/results.jsonl"):
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if 0 < text.count('"warmup":false') < 5 and '"type":"end"' not in text:
            return True
    return False


def wait_until(true: Callable[[], object], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.02)


def reports(folder: Path) -> list[Path]:
    return sorted((folder / "reports").glob("*"))


def half_written(folder: Path) -> list[str]:
    """Files below `folder` that nobody would leave on purpose."""
    suffixes = (".part", ".job", ".log", ".tmp", ".ort.json")
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith(suffixes)]


def export_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo network that several tests bench is exported for the first of them only: that is most of their time."""
    kept = RunFolder(cache / "exported-once", {})
    real: Callable[..., Exported] = Exporter.export

    def export(self: Exporter, network: Network, folder: Path) -> Exported:
        if network.source != "zoo":
            return real(self, network, folder)
        exported = kept.recall(network.name, self.format)
        if exported is None:
            exported = real(self, network, kept.artifacts)
            kept.remember(exported)
        return exported

    monkeypatch.setattr(Exporter, "export", export)
