"""What the real runner leaves behind when its link, its reader, its device or its supervisor goes away."""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import signal
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import GLIBC, compile_c
from devices.discovery import cache_dir
from devices.runner import format_job, parse_results, read_lines

MS = 1_000_000

SHIM = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int fdatasync(int fd) {
  struct timespec t;
  char line[64];
  int log = open(getenv("SHIM_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0644);
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  int size = snprintf(line, sizeof line, "%lld\\n", t.tv_sec * 1000000000ll + t.tv_nsec);
  if (write(log, line, size) != size) abort();
  close(log);
  if (!getenv("SHIM_ERRNO")) return 0;
  errno = atoi(getenv("SHIM_ERRNO"));
  return -1;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes down when fdatasync is called, and fails where it is told to."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    target = f"{platform.machine()}-linux-gnu.{GLIBC}"
    compile_c(["-target", target, "-shared", "-fPIC", str(folder / "shim.c")], folder / "shim.so", cache_dir())
    return folder / "shim.so"


def run_shimmed(bench: Any, shim: Path, job: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    (bench.folder / "job").write_text(job)
    (bench.folder / "shim.log").write_text("")
    settings = {"LD_PRELOAD": str(shim), "SHIM_LOG": str(bench.folder / "shim.log"), **environment}
    command = [str(bench.runner), str(bench.folder / "job")]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, timeout=60, check=False)


def test_data_goes_to_the_disk_every_two_seconds_between_blocks(bench: Any, shim: Path) -> None:
    cases = [bench.case(name, "ok 20000", max_samples=60, max_ns=60_000 * MS) for name in "ab"]
    ended = run_shimmed(bench, shim, format_job(cases, str(bench.results)))
    assert (ended.returncode, ended.stderr) == (0, b"")
    result = parse_results(read_lines(str(bench.results)))
    begin = bench.lines()[0]["monotonic_raw_ns"]
    times = [int(line) - begin for line in (bench.folder / "shim.log").read_text().split()]
    *regular, last = times
    assert regular and all(later - earlier >= 2000 * MS for earlier, later in pairwise([0, *regular]))
    blocks = [block for case in result.cases.values() for block in case.blocks]
    spans = [(block.start_ns[0], block.start_ns[-1] + block.sample_ns[-1]) for block in blocks]
    assert not [at for at in times for start, end in spans if start <= at <= end]
    assert last > max(end for _, end in spans), "and when all is written"


@pytest.mark.parametrize(("number", "status"), [(5, 74), (28, 74), (22, 0), (4, 0)])
def test_a_disk_that_fails(number: int, status: int, bench: Any, shim: Path) -> None:
    job = format_job([bench.case("a", "ok 0")], str(bench.results))
    ended = run_shimmed(bench, shim, job, SHIM_ERRNO=str(number))
    assert ended.returncode == status
    assert (b"cannot write the results" in ended.stderr) == (status != 0)


def test_a_finished_case_counts_in_a_runner_that_was_killed(bench: Any) -> None:
    quick, slow = (
        bench.case("quick", "ok 0"),
        bench.case("slow", "ok 1000", group=1, max_samples=50_000, max_ns=60_000 * MS),
    )
    (bench.folder / "job").write_text(format_job([quick, slow], str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"case slow samples 3 " not in process.stdout.readline():
            pass
        process.kill()
    bench.wait_for(lambda: bench.running() == [], "a worker outlived its runner")
    result = parse_results(read_lines(str(bench.results)))
    assert not result.complete
    assert [result.cases[name].finished for name in ("quick", "slow")] == [True, False]


@pytest.mark.parametrize("model", ["hang-load", "hang-run 2", "ok 5000"])
def test_a_reader_that_goes_away_is_noticed_whatever_a_worker_does(model: str, bench: Any) -> None:
    cases = [bench.case("good", "ok 0"), bench.case("a", model, group=1, max_samples=10_000, max_ns=60_000 * MS)]
    (bench.folder / "job").write_text(format_job(cases, str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"case good samples 3 " not in process.stdout.readline():
            pass
        process.stdout.close()
        assert process.wait(bench.patience_s / 2) == 130
    assert bench.running() == []
    result = parse_results(read_lines(str(bench.results)))
    assert (result.complete, result.torn) == (False, 0)
    assert bench.lines()[-1]["type"] == "end" and bench.lines()[-1]["stopped"] == signal.SIGPIPE
    assert len(bench.samples(result.cases["good"])) == 3
    assert "a" not in result.cases or result.cases["a"].failed is None


def test_a_reader_that_does_not_read_holds_nothing_up(bench: Any) -> None:
    """A link that hangs: its buffers are full, and it may come back."""
    case = bench.case("a", "ok 0", max_samples=400)
    (bench.folder / "job").write_text(format_job([case], str(bench.results), canary=False))
    receiver, sender = os.pipe()
    with os.fdopen(receiver, "rb") as ours:
        fcntl.fcntl(sender, fcntl.F_SETPIPE_SZ, 8192)
        with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=sender) as process:
            os.close(sender)
            assert process.wait(bench.patience_s) == 0
        lines = ours.read().splitlines()
    assert parse_results(read_lines(str(bench.results))).complete
    assert 1 < len(lines) < 400, "it had room for some"
    assert all(line.startswith(b"case a samples ") and line.endswith(b" alive 1") for line in lines), "whole lines"


def test_without_any_output_or_input(bench: Any) -> None:
    (bench.folder / "job").write_text(format_job([bench.case("a", "ok 0")], str(bench.results)))
    script = 'exec "$0" "$1" <&- >&- 2>&-'
    ended = subprocess.run(["sh", "-c", script, bench.runner, bench.folder / "job"], timeout=60, check=False)
    assert ended.returncode == 0
    result = parse_results(read_lines(str(bench.results)))
    assert result.complete and result.cases["a"].finished


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_whole_group_of_processes_that_is_told_to_stop_fails_no_case(sent: signal.Signals, bench: Any) -> None:
    cases = [bench.case(name, "ok 500", max_samples=50_000, max_ns=60_000 * MS) for name in "ab"]
    (bench.folder / "job").write_text(format_job(cases, str(bench.results)))
    command = [bench.runner, bench.folder / "job"]
    for _ in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            while b"samples 3 " not in process.stdout.readline():
                pass
            os.killpg(process.pid, sent)
            assert process.wait(bench.patience_s) == 130
        result = parse_results(read_lines(str(bench.results)))
        assert [case.failed for case in result.cases.values()] == [None, None]
        assert (result.complete, result.torn, bench.running()) == (False, 0, [])


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_only_the_supervisor_is_told_to_stop(sent: signal.Signals, bench: Any) -> None:
    """Where a whole group is told, a worker may hear it first: its case has not failed."""
    cases = [bench.case(name, "ok 500", max_samples=100) for name in "ab"]
    (bench.folder / "job").write_text(format_job(cases, str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"samples 3 " not in process.stdout.readline():
            pass
        others = [pid for pid in bench.running() if pid != process.pid]
        assert len(others) == 3
        for pid in others:
            os.kill(pid, sent)
        process.stdout.read()
    result = parse_results(read_lines(str(bench.results)))
    assert result.complete
    assert [(case.failed, len(bench.samples(case))) for case in result.cases.values()] == [(None, 100), (None, 100)]


# Many cases.


def test_hundreds_of_cases_in_one_start(bench: Any) -> None:
    one = bench.case("one", "ok 0", max_samples=1)
    cases = [replace(one, id=f"c{n}", group=n // 8) for n in range(600)]
    result = bench.run(*cases, canary=False)
    assert list(result.cases) == [f"c{n}" for n in range(600)]
    assert all(case.finished and case.failed is None for case in result.cases.values())


@pytest.mark.parametrize(("soft", "hard", "count", "fits"), [(40, 40, 4, True), (40, 40, 5, False), (40, 80, 20, True)])
def test_a_group_is_at_most_what_the_open_files_allow(soft: int, hard: int, count: int, fits: bool, bench: Any) -> None:
    cases = [bench.case("one", "ok 0"), *(bench.case(f"c{n}", "ok 0", group=7) for n in range(count))]
    (bench.folder / "job").write_text(format_job(cases, str(bench.results), canary=False))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [str(bench.runner), str(bench.folder / "job")]
    ended = subprocess.run(command, preexec_fn=limited, capture_output=True, timeout=60, check=False)
    if fits:
        result = parse_results(read_lines(str(bench.results)))
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert all(case.failed is None for case in result.cases.values()) and len(result.cases) == count + 1
    else:
        assert ended.returncode == 2
        said = f"group 7 has {count} cases, more than the {(hard - 32) // 2} that may be loaded together with {hard} open files"
        assert said in ended.stderr.decode()
