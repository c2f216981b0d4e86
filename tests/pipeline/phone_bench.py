"""`handset bench` on the test phone: what a test compares before and after, and how it is started."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import runpy
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from devices.bundle import RuntimeBundle
from devices.bundle_store import bundle_for
from devices.discovery import cache_dir
from devices.errors import BundleError
from pipeline import cli
from pipeline.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
WORKDIR = "data/local/tmp/handset"
QUICK = ("--launches", "1", "--budget", "0.2", "--interval", "50")
ABIS = {"x86_64": "x86_64", "arm64-v8a": "arm64"}
"""Android's name -> the test phone's."""


def need(abi: str = "x86_64") -> RuntimeBundle:
    """The linux bundle, built once a session; skips where there is no test phone or no way to Debian's packages.

    Args: abi: Android's name.
    """
    if (reason := Phone.available(ABIS[abi])) is not None:
        pytest.skip(reason)
    try:
        return bundle_for("linux", abi, None, [], cache_dir())[0]
    except BundleError as error:
        if "cannot download" in str(error) or "cannot fetch" in str(error):
            pytest.skip(str(error))
        raise


def place(files: Mapping[str, Any], folder: Path) -> Path:
    """a.onnx and b.tflite, of the same network, in `folder`; gives the folder."""
    for name, kind in (("a.onnx", "onnx"), ("b.tflite", "tflite")):
        shutil.copyfile(files[kind].path, folder / name)
    return folder


def bench(*words: str, launch_s: float = 0.3) -> tuple[int, str, list[str]]:
    """(exit status, stdout, lines of stderr) of `handset bench WORDS` in this process. Launches are short."""
    out, err = io.StringIO(), io.StringIO()
    short = functools.partial(Settings, launch_s=launch_s, kernels_s=launch_s / 2)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch("pipeline.settings.Settings", short):
        status = cli.main(["bench", *words])
    lines = err.getvalue().splitlines()
    assert all(line.startswith("handset: ") and line.isprintable() for line in lines), lines
    return status, out.getvalue(), [line.removeprefix("handset: ") for line in lines]


def settings(phone: Phone) -> dict[str, str]:
    """All that a run may change on a phone."""
    folder = phone.state / "settings"
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return found | {name: (phone.state / name).read_text() for name in ("fixed_performance", "deviceidle")}


def left(phone: Phone) -> list[str]:
    """What lies in our folder on the phone that is no whole file of a bundle and no whole model."""
    folder = phone.path(WORKDIR)
    found = [path for path in folder.rglob("*") if path.is_file() or path.parent.name == "runs"]
    names = [str(path.relative_to(folder)) for path in found]
    return [name for name in names if name.endswith(".part") or not name.startswith(("bundles/", "models/"))]


def processes(phone: Phone) -> list[str]:
    """The command lines of what runs on the phone besides adbd."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "root").readlink() == phone.root:
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return [line for line in found if line and "adbd" not in line.split()[0]]


def is_tidy(phone: Phone, before: Mapping[str, str]) -> bool:
    """Whether all is as before. What adbd has just been told to end takes a moment."""
    deadline = time.monotonic() + 20
    while processes(phone) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (running := processes(phone)), running
    after = settings(phone)
    assert after == before, {key: (before.get(key), after.get(key)) for key in before if before.get(key) != after.get(key)}
    assert not (files := left(phone)), files
    return True


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "reports").glob("*")) if (folder / "reports").exists() else []


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def results_on(phone: Phone) -> str:
    """What the runner has written of the launch that is going on."""
    text = ""
    for path in phone.path(f"{WORKDIR}/runs").glob("*/launch-*/results.jsonl"):
        with contextlib.suppress(OSError):
            text += path.read_text("utf-8", "replace")
    return text


def environment(home: Path) -> dict[str, str]:
    """Without an adb server that somebody runs here, and with keys of its own."""
    return {**os.environ, "HOME": str(home), "ANDROID_ADB_SERVER_PORT": "1"}
