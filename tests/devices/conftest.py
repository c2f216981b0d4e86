"""The runner, built once a session, a runtime that does what its model file says, and a transport to this machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import GLIBC, build_runner
from devices.discovery import cache_dir
from devices.host import HostTransport
from devices.runner import Block, Case, CaseResult, RunnerResult, format_job, parse_results, read_lines
from devices.transport import CommandResult


@pytest.fixture(scope="session")
def runner(cache_home: Path) -> Path:
    return build_runner(platform.machine(), cache_dir()).path


@pytest.fixture
def host(tmp_path: Path) -> HostTransport:
    return HostTransport(tmp_path / "work")


@pytest.fixture(scope="session")
def library(cache_home: Path) -> Path:
    """The fake runtime, compiled."""
    source, built = Path(__file__).parent / "fake_runtime.c", cache_home / "libfake.so"
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, "-o", str(built), str(source)]
    zig = str(cache_dir() / "zig")
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": zig, "ZIG_GLOBAL_CACHE_DIR": zig}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return built


@dataclass
class Bench:
    """Makes cases and runs jobs in a folder of its own."""

    folder: Path
    runner: Path
    library: Path
    host: HostTransport
    patience_s: float = 20.0

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    def case(self, name: str, model: str, **settings: Any) -> Case:
        path = self.folder / f"{len(list(self.folder.glob('*.model')))}.model"
        path.write_text(model)
        quick = Case(
            id=name,
            model=str(path),
            runtime="litert",
            library=str(self.library),
            warmup_ns=0,
            warmup_samples=1,
            block_ns=0,
            block_samples=1,
            max_samples=3,
            limit_ns=60_000_000_000,
        )
        return replace(quick, **settings)

    def start(self, job: str) -> CommandResult:
        (self.folder / "job").write_text(job)
        return self.host.run([str(self.runner), str(self.folder / "job")], timeout_s=120)

    def run(self, *cases: Case, canary: bool = True, seed: int = 1) -> RunnerResult:
        ended = self.start(format_job(cases, str(self.results), canary=canary, seed=seed))
        assert (ended.status, ended.stderr) == (0, b"")
        result = parse_results(read_lines(str(self.results)))
        assert result.complete and not result.torn
        return result

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results.read_bytes().splitlines()]

    def running(self) -> list[int]:
        """The processes, zombies apart, whose program is the runner."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and (entry / "exe").readlink() == self.runner:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_for(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self.patience_s
        while not condition():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.01)

    @staticmethod
    def measured(case: CaseResult) -> list[Block]:
        return [block for block in case.blocks if not block.warmup]

    @staticmethod
    def samples(case: CaseResult) -> list[int]:
        return [ns for block in Bench.measured(case) for ns in block.sample_ns]


@pytest.fixture
def bench(tmp_path: Path, runner: Path, library: Path, host: HostTransport) -> Iterator[Bench]:
    bench = Bench(tmp_path, runner, library, host)
    yield bench
    bench.wait_for(lambda: bench.running() == [], "a runner or a worker is left running")
