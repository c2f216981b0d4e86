"""How fast files travel to and from the test phone: against the native adb client, and over a link of a known rate."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))

SIZE_BYTES = 50 << 20
RATE = 10e6
"""Bytes a second: a phone on Wi-Fi."""
REMOTE = "/data/local/tmp/benchmark"
NATIVE_BAR = 0.5
RATE_BAR = 0.95


@dataclass(frozen=True)
class Bed:
    """The phone's three ways in. native: runs adb with these words; both transports are ours."""

    native: Callable[..., None]
    direct: Any
    through_server: Any
    port: int


def push(folder: Path, rounds: int) -> None:
    """50 MiB to the phone, verified on both sides by us and not by adb."""
    with _bed(folder, "push") as bed:
        if bed is None:
            return
        local = folder / "file"
        local.write_bytes(os.urandom(SIZE_BYTES))
        ways = {
            "adb push": lambda: bed.native("push", str(local), f"{REMOTE}-native"),
            "ours, directly": lambda: bed.direct.push(local, REMOTE),
            "ours, through the adb server": lambda: bed.through_server.push(local, REMOTE),
        }
        _against_native("push", ways, rounds)
        _against_rate("push", bed.port, lambda device: device.push(local, REMOTE))


def pull(folder: Path, rounds: int) -> None:
    """The same way back."""
    with _bed(folder, "pull") as bed:
        if bed is None:
            return
        local, back = folder / "file", str(folder / "back")
        local.write_bytes(os.urandom(SIZE_BYTES))
        bed.direct.push(local, REMOTE)
        ways = {
            "adb pull": lambda: bed.native("pull", REMOTE, back),
            "ours, directly": lambda: bed.direct.pull(REMOTE, Path(back)),
            "ours, through the adb server": lambda: bed.through_server.pull(REMOTE, Path(back)),
        }
        _against_native("pull", ways, rounds)
        _against_rate("pull", bed.port, lambda device: device.pull(REMOTE, Path(back)))


def trips(folder: Path, rounds: int) -> None:
    """How many streams of the link, each a round trip and more, an action opens."""
    with _bed(folder, "round trips") as bed:
        if bed is None:
            return
        from devices.adb.direct import DirectLink

        files = {f"{number}": folder / f"{number}" for number in range(100)}
        for path in files.values():
            path.write_bytes(os.urandom(10_000))
        device = bed.direct
        actions = {
            "run": lambda: device.run(["true"]),
            "push": lambda: device.push(files["1"], f"{REMOTE}/file"),
            "pull": lambda: device.pull(f"{REMOTE}/file", folder / "back"),
            "push_many, 100 files": lambda: device.push_many(files, f"{REMOTE}/many"),
            "pull_folder, 100 files": lambda: device.pull_folder(f"{REMOTE}/many", folder / "many"),
        }
        opened: list[str] = []
        real = DirectLink.open

        def counted(link: DirectLink, service: str, timeout_s: float) -> Any:
            opened.append(service.partition(":")[0].partition(",")[0])
            return real(link, service, timeout_s)

        print("\nstreams opened by each action (no bar)")
        DirectLink.open = counted  # type: ignore[method-assign]
        try:
            for name, action in actions.items():
                opened.clear()
                start = time.perf_counter()
                action()
                seconds = time.perf_counter() - start
                kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(opened).items()))
                print(f"  {name:<24} {len(opened)}  ({kinds}), {seconds * 1e3:.1f} ms on loopback")
        finally:
            DirectLink.open = real  # type: ignore[method-assign]


@contextlib.contextmanager
def _bed(folder: Path, what: str) -> Iterator[Bed | None]:
    """None, and a line that says why, where there is no phone or no adb."""
    from phone import Phone

    from devices.adb.find import phone_at, server_phones

    reason = Phone.available() or ("" if shutil.which("adb") else "there is no adb here; try: apt-get install adb")
    if reason:
        print(f"\n{what}: not measured: {reason}")
        yield None
        return
    with Phone("x86_64", "pixel") as phone, _server(folder) as (port, native):
        native("connect", phone.serial)
        (found,) = server_phones(("127.0.0.1", port))
        with phone_at("127.0.0.1", phone.port, "direct").open() as direct, found.open() as through_server:
            yield Bed(native, direct, through_server, phone.port)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[int, Callable[..., None]]]:
    """An adb server of our own: its port, and what runs an adb client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(folder), "ADB_MDNS": "0", "ANDROID_ADB_SERVER_PORT": str(port)}
    for name in ("ADB_SERVER_SOCKET", "ANDROID_SERIAL"):
        environment.pop(name, None)
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(["adb", "server", "nodaemon"], **quiet)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield port, lambda *words: subprocess.run(["adb", *words], check=True, **quiet) and None
    finally:
        server.kill()
        server.wait()


def _against_native(what: str, ways: dict[str, Callable[[], None]], rounds: int) -> None:
    """The first of `ways` is the native one. All are run once before, and then in turn."""
    print(
        f"\n{what}: {SIZE_BYTES >> 20} MiB over loopback, {rounds} interleaved rounds (bar: {NATIVE_BAR} of native adb)"
    )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    native = next(iter(medians.values()))
    for name, median in medians.items():
        ratio = native / median
        verdict = "" if median == native else "reached" if ratio >= NATIVE_BAR else "MISSED"
        print(
            f"  {name:<30} {median:.3f} s  {SIZE_BYTES / median / 1e6:5.0f} MB/s  ratio {ratio:.2f}  {verdict}".rstrip()
        )


def _against_rate(what: str, port: int, act: Callable[[Any], None]) -> None:
    """Through a link with MSS 1460 and a rate; the connection is made before."""
    from proxy import Proxy

    from devices.adb.find import phone_at

    with Proxy(port, rate=RATE) as proxy, phone_at("127.0.0.1", proxy.port, "slow").open() as device:
        device.run(["true"])
        start = time.perf_counter()
        act(device)
        share = SIZE_BYTES / (time.perf_counter() - start) / RATE
    verdict = "reached" if share >= RATE_BAR else "MISSED"
    print(f"  {what} over {RATE / 1e6:.0f} MB/s: {share:.3f} of the line's speed (bar: {RATE_BAR})  {verdict}")


PARTS: dict[str, Callable[[Path, int], None]] = {"push": push, "pull": pull, "trips": trips}
