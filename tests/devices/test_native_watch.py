"""What the real runner reads of the device between blocks, and the moment that all its times count from."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from devices.runner import Case, RunnerResult, format_job, parse_results, read_lines

MS = 1_000_000


def run(bench: Any, cases: Sequence[Case], watch: Sequence[Path | str], watch_ns: int = 0) -> RunnerResult:
    job = format_job(cases, str(bench.results), watch=[str(path) for path in watch], watch_ns=watch_ns, canary=False)
    ended = bench.start(job)
    assert (ended.status, ended.stderr) == (0, b"")
    return parse_results(read_lines(str(bench.results)))


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"1950000\n", "1950000"),
        (b"no line end", "no line end"),
        (b"first\nsecond\n", "first"),
        (b"", ""),
        (b"\n", ""),
        (b"x" * 63 + b"\nz", "x" * 63),
        (b"x" * 64 + b"y\n", "x" * 64),
        (b'a"\\\x01\t\x7f', 'a"\\\x01\t\x7f'),
        (b"\xff\xc3(\xe2\x82", "\ufffd\ufffd(\ufffd\ufffd"),
        (b"\xff" * 100, "\ufffd" * 64),
        ("21 \u00b0C\n".encode(), "21 \u00b0C"),
        (b"seen\0hidden", "seen"),
    ],
)
def test_the_first_line_of_a_file(content: bytes, value: str, bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(content)
    watched = run(bench, [bench.case("a", "ok 0", max_samples=1)], [path]).watched
    assert {seen.values for seen in watched} == {(value,)}
    assert all(line.isascii() or b"C" in line for line in bench.results.read_bytes().splitlines())


def test_what_cannot_be_read_is_null(bench: Any, tmp_path: Path) -> None:
    fifo, good = tmp_path / "fifo", tmp_path / "good"
    os.mkfifo(fifo)
    good.write_text("3")
    paths = ["/no/such/file", tmp_path, good, fifo, "/proc/self/mem"]
    watched = run(bench, [bench.case("a", "ok 0")], paths).watched
    assert {seen.values for seen in watched} == {(None, None, "3", "", None)}


def test_between_blocks_and_never_inside(bench: Any) -> None:
    cases = [bench.case(name, "ok 2000", max_samples=6, block_samples=2) for name in "ab"]
    result = run(bench, cases, ["/proc/uptime"])
    times = [seen.at_ns for seen in result.watched]
    # at the start, after each case is warm, after each block, at the end
    assert len(times) == 1 + 2 + 2 * 3 + 1
    assert times == sorted(times) and times[0] < 1000 * MS
    blocks = [
        (block.start_ns[0], block.start_ns[-1] + block.sample_ns[-1])
        for case in result.cases.values()
        for block in case.blocks
    ]
    assert not [at for at in times for start, end in blocks if start <= at <= end]
    assert times[0] < min(start for start, _ in blocks) and times[-1] > max(end for _, end in blocks)


def test_not_more_often_than_asked(bench: Any) -> None:
    case = bench.case("a", "ok 1000", max_samples=300)
    result = run(bench, [case], ["/proc/uptime"], watch_ns=100 * MS)
    *times, last = [seen.at_ns for seen in result.watched]
    assert 3 <= len(times) <= last // (100 * MS) + 1
    assert all(later - earlier >= 100 * MS for earlier, later in pairwise(times))
    seldom = run(bench, [case], ["/proc/uptime"], watch_ns=3_600_000 * MS)
    assert len(seldom.watched) == 2, "once at the start and once at the end"


def test_nothing_is_watched_unasked(bench: Any) -> None:
    result = bench.run(bench.case("a", "ok 0"))
    assert result.watched == ()
    assert bench.lines()[0]["type"] == "begin"
    assert bench.lines()[0]["watched"] == 0


def test_as_many_as_there_may_be(bench: Any) -> None:
    watched = run(bench, [bench.case("a", "ok 0")], ["/proc/uptime"] * 64).watched
    assert {len(seen.values) for seen in watched} == {64}
    assert all(value for seen in watched for value in seen.values)


def test_the_epoch(bench: Any) -> None:
    raw_before, real_before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.time_ns()
    result = bench.run(bench.case("a", "ok 0"))
    raw_after, real_after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.time_ns()
    begin = bench.lines()[0]
    assert raw_before < begin["monotonic_raw_ns"] < raw_after
    assert result.begin_realtime_ns == begin["realtime_ns"]
    # the two are one moment: as far from the clocks read before as each other, but for the readings themselves
    assert real_before - 100 * MS < begin["realtime_ns"] < real_after + 100 * MS
    apart = (begin["realtime_ns"] - real_before) - (begin["monotonic_raw_ns"] - raw_before)
    assert abs(apart) < 200 * MS
    (first, *_) = result.cases["a"].blocks
    assert begin["monotonic_raw_ns"] + first.start_ns[0] < raw_after


def test_a_runner_that_is_stopped_looks_once_more(bench: Any) -> None:
    case = bench.case("a", "ok 1000", max_samples=100_000, max_ns=60_000 * MS)
    job = format_job([case], str(bench.results), watch=["/proc/uptime"], watch_ns=3_600_000 * MS)
    (bench.folder / "job").write_text(job)
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"samples 3 " not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(bench.patience_s) == 130
    assert [line["type"] for line in bench.lines()[-2:]] == ["watch", "end"]
    assert len(parse_results(read_lines(str(bench.results))).watched) == 2
