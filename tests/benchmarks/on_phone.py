"""What a whole bench costs on the test phone: the second one against the first, and hundreds of cases in one start."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / "phone")]

MODEL = "resnet20"
CASES = 1000


def again(folder: Path, rounds: int) -> None:
    """The same bench twice on a phone that had nothing: what travels the second time."""
    with _phone("second bench") as phone:
        if phone is None:
            return
        print(f"\nthe second bench of {MODEL} on a phone (bar: no byte for the bundle)")
        for what in ("first", "second"):
            document = bench(folder, phone.serial)
            pushed = sum(bundle["pushed_bytes"] for bundle in document["bundles"])
            seconds = document["stages_s"]["all"] - document["stages_s"]["measuring"]
            verdict = "" if what == "first" else "reached" if pushed == 0 else "MISSED"
            print(f"  {what:<8} {pushed:>10,} bytes for the bundle, {seconds:.1f} s beside measuring  {verdict}".rstrip())


def bench(folder: Path, serial: str) -> dict[str, Any]:
    out = folder / "out.json"
    words = ["bench", MODEL, "--device", serial, "--launches", "1", "--budget", "1", "--reports", str(folder)]
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline", *words, "--json", str(out)], capture_output=True, text=True, check=False
    )
    if not out.exists():
        sys.exit(f"handset bench on the phone ended with {ended.returncode}: {ended.stderr}")
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def cases(folder: Path, rounds: int) -> None:
    """A thousand single-kernel models in one start of the runner against one start each, on the host and on a phone."""
    import platform

    from many_cases import MODELS, measure, report

    from devices.adb.find import phone_at
    from devices.bundle_store import bundle_for
    from devices.discovery import cache_dir
    from devices.host import HostTransport
    from devices.install import install

    print(f"\n{CASES} single-kernel models in one start of the runner against one start each (bar: 5x; round trips: 0.1)")
    with HostTransport(folder / "device") as host:
        bundle, _ = bundle_for("host", platform.machine(), sorted(MODELS), (), cache_dir(), lambda step: None)
        figures = measure(host, install(bundle, host), folder, count=CASES, rounds=rounds)
        print("on this machine", *report(figures), sep="\n")
    with _phone("cases on a phone") as phone:
        if phone is None:
            return
        with phone_at("127.0.0.1", phone.port, phone.serial).open() as device:
            bundle, _ = bundle_for("linux", "x86_64", sorted(MODELS), (), cache_dir(), lambda step: None)
            figures = measure(device, install(bundle, device), folder, count=CASES, rounds=rounds)
            print("on the test phone, over adb", *report(figures), sep="\n")


def _phone(what: str) -> Any:
    """A test phone as a context, or None with a line that says why."""
    from phone import Phone

    if (reason := Phone.available()) is not None:
        print(f"\n{what}: not measured: {reason}")
        return contextlib.nullcontext(None)
    return Phone("x86_64", "pixel", cores=2)


PARTS: dict[str, Callable[[Path, int], None]] = {"again": again, "cases": cases}

