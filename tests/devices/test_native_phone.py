"""The real runner on the test phone, over the real adbd, when the link is cut, freezes or the phone restarts."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devices.adb.find import phone_at
from devices.errors import DeviceError
from devices.runner import Case, RunnerResult, format_job, parse_results, read_lines

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

MS = 1_000_000
FOLDER = "/data/local/tmp/native"
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
C_LIBRARY = [LOADER, *(Path("/lib/x86_64-linux-gnu", name) for name in ("libc.so.6", "libdl.so.2"))]


@dataclass
class Handset:
    phone: Phone
    proxy: Proxy
    folder: Path
    results: Path

    def start(self, cases: list[Case], seen: Callable[[bytes], None]) -> threading.Thread:
        """The runner, through the proxy, in a thread; the transport's error at the end of a link is expected."""
        job = self.folder / "job"
        job.write_text(format_job(cases, f"{FOLDER}/results", canary=False))

        def run() -> None:
            with suppress(DeviceError), phone_at("127.0.0.1", self.proxy.port, "direct").open() as link:
                link.push(job, f"{FOLDER}/job")
                argv = [
                    f"{FOLDER}/{LOADER.name}",
                    "--library-path",
                    FOLDER,
                    f"{FOLDER}/handset-runner",
                    f"{FOLDER}/job",
                ]
                link.run(argv, timeout_s=120, on_output=seen)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def running(self) -> list[int]:
        """The supervisor, the nursery and the workers: all are the loader that started the runner."""
        found, program = [], f"{FOLDER}/{LOADER.name}".encode()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and (entry / "cmdline").read_bytes().startswith(program):
                    found.append(int(entry.name))
        return found

    def parse(self) -> RunnerResult:
        return parse_results(read_lines(str(self.results)))


def wait_for(condition: Callable[[], bool], otherwise: str, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


@pytest.fixture(autouse=True, scope="module")
def possible() -> None:
    if platform.machine() != "x86_64" or not all(path.exists() for path in C_LIBRARY):
        pytest.skip("the host's C library is sent to the phone, which is x86_64")
    if (reason := Phone.available()) is not None:
        pytest.skip(reason)


@pytest.fixture
def handset(tmp_path: Path, runner: Path, library: Path) -> Iterator[Handset]:
    with Phone("x86_64", "pixel", cores=2) as phone, Proxy(phone.port) as proxy:
        with phone_at("127.0.0.1", phone.port, "direct").open() as link:
            for path, name in [
                (runner, "handset-runner"),
                (library, "libfake.so"),
                *((one, one.name) for one in C_LIBRARY),
            ]:
                link.push(path, f"{FOLDER}/{name}")
            link.run(["chmod", "755", f"{FOLDER}/handset-runner", f"{FOLDER}/{LOADER.name}"])
            for name, model in (("quick", "ok 0"), ("slow", "ok 1000"), ("hang", "hang-run 2")):
                (tmp_path / name).write_text(model)
                link.push(tmp_path / name, f"{FOLDER}/{name}")
        yield Handset(phone, proxy, tmp_path, phone.root / FOLDER.strip("/") / "results")


def case(name: str, **settings: Any) -> Case:
    given = Case(name, f"{FOLDER}/{name}", "litert", f"{FOLDER}/libfake.so", warmup_ns=0, block_ns=0, block_samples=2)
    return replace(given, **{"max_samples": 4, "max_ns": 600_000 * MS, **settings})


@pytest.mark.parametrize("last", ["slow", "hang"])
def test_a_cut_link_stops_the_runner_and_loses_nothing(last: str, handset: Handset) -> None:
    began = threading.Event()

    def seen(data: bytes) -> None:
        if b"case quick samples 4 " in data:
            began.set()

    thread = handset.start([case("quick"), case(last, group=1, max_samples=100_000)], seen)
    assert began.wait(30)
    wait_for(lambda: len(handset.running()) >= 3, "no worker is there")
    handset.proxy.cut()
    wait_for(lambda: handset.running() == [], "the runner goes on for nobody")
    thread.join(30)
    result = handset.parse()
    assert (result.complete, result.torn) == (False, 0)
    assert result.cases["quick"].finished and len(result.cases["quick"].blocks) == 3
    assert handset.results.read_bytes().splitlines()[-1].startswith(b'{"type":"end","stopped":')
    assert last not in result.cases or result.cases[last].failed is None


def test_a_frozen_link_does_not_hold_the_runner_up(handset: Handset) -> None:
    frozen = threading.Event()

    def seen(data: bytes) -> None:
        if not frozen.is_set():
            handset.proxy.freeze()
            frozen.set()

    thread = handset.start([case("quick", max_samples=20_000, block_samples=1)], seen)
    assert frozen.wait(30)
    wait_for(lambda: b'"type":"end"' in handset.results.read_bytes()[-100:], "the runner waits for its link")
    handset.proxy.thaw()
    thread.join(60)
    assert not thread.is_alive()
    result = handset.parse()
    assert result.complete and result.cases["quick"].finished
    assert sum(len(block.sample_ns) for block in result.cases["quick"].blocks if not block.warmup) == 20_000


def test_a_phone_that_restarts_keeps_what_was_finished(handset: Handset) -> None:
    began = threading.Event()

    def seen(data: bytes) -> None:
        if b"case slow samples 2 " in data:
            began.set()

    thread = handset.start([case("quick"), case("slow", group=1, max_samples=100_000)], seen)
    assert began.wait(30)
    handset.phone.restart()
    wait_for(lambda: handset.running() == [], "a worker outlived its phone")
    handset.proxy.cut()
    thread.join(30)
    result = handset.parse()
    assert not result.complete
    assert result.cases["quick"].finished and not result.cases["slow"].finished
    assert len(result.cases["slow"].blocks) >= 2


def test_a_killed_supervisor_takes_everything_along(handset: Handset) -> None:
    began = threading.Event()
    thread = handset.start([case("slow", max_samples=100_000)], lambda data: began.set())
    assert began.wait(30)
    wait_for(lambda: len(handset.running()) == 3, "supervisor, nursery and worker")
    os.kill(min(handset.running()), signal.SIGKILL)
    wait_for(lambda: handset.running() == [], "a worker outlived its supervisor")
    thread.join(30)
