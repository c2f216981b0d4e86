"""The real runner when something goes wrong: a case that crashes, hangs or eats memory; being stopped; bad jobs."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from devices.runner import format_job, parse_results, read_lines

MS = 1_000_000


# What goes wrong costs one case and is named.

FAULTS = [
    ("segv-load", ["SIGSEGV", "loading"], 0),
    ("segv-run 5", ["SIGSEGV", "sampling"], 3),
    ("segv-run 1", ["SIGSEGV", "warming up"], 0),
    ("ill-run 3", ["SIGILL", "sampling"], 1),
    ("abort-run 4", ["SIGABRT", "sampling"], 2),
    ("exit-run 4", ["status 3", "sampling"], 2),
    ("hang-load", ["no answer within 0.5 s", "loading", "SIGKILL"], 0),
    ("hang-run 4", ["no answer within 0.5 s", "sampling"], 2),
    ("hang-run 1", ["no answer within 0.5 s", "warming up"], 0),
    ("fail-load", ["loading", "compilation failed", "504"], 0),
    ("fail-run 3", ["inference", "runtime failure"], 1),
    ("bomb-load", ["out of memory"], 0),
    ("bomb-run 3", ["SIGABRT", "sampling"], 1),
    ("nonsense", ["not a valid model file"], 0),
    ("ok 10 dynamic", ["input has a dynamic dimension at axis 1"], 0),
    ("ok 10 odd-type", ["element type 99"], 0),
    ("ok 10 many-inputs", ["more than 64"], 0),
]


@pytest.mark.parametrize(("model", "said", "kept"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_costs_its_case_and_no_other(model: str, said: list[str], kept: int, bench: Any) -> None:
    limits = {"memory_bytes": 256 << 20} if "bomb" in model else {"limit_ns": 500 * MS} if "hang" in model else {}
    before, after = bench.case("before", "ok 100"), bench.case("after", "ok 100")
    result = bench.run(
        before, bench.case("bad", model, max_samples=9, **limits), after, bench.case("late", "ok 0", group=1)
    )
    bad = result.cases.pop("bad")
    assert bad.failed is not None
    for part in said:
        assert part in bad.failed
    assert len(bench.samples(bad)) == kept, "what was measured before the fault stays"
    assert {case.id: (case.failed, len(bench.samples(case))) for case in result.cases.values()} == dict.fromkeys(
        ("before", "after", "late"), (None, 3)
    )


def test_memory_limit_is_of_one_case_only(bench: Any) -> None:
    result = bench.run(bench.case("free", "bomb-run 2"), bench.case("bound", "bomb-run 2", memory_bytes=256 << 20))
    assert result.cases["free"].failed is None
    assert result.cases["bound"].failed is not None


def test_a_limit_is_for_one_inference_not_for_a_block(bench: Any) -> None:
    case = bench.case("a", "ok 200000", limit_ns=500 * MS, block_samples=4, max_samples=4, warmup_samples=3)
    assert bench.run(case).cases["a"].failed is None


def test_missing_model_and_library(bench: Any) -> None:
    def failed(**settings: str) -> str:
        result = bench.run(replace(bench.case("bad", "ok 0"), **settings), bench.case("good", "ok 0"))  # type: ignore[arg-type]
        assert result.cases["good"].failed is None and len(bench.samples(result.cases["good"])) == 3
        return result.cases["bad"].failed or ""

    assert "file cannot be read" in failed(model="/no/such.tflite")
    for runtime in ("litert", "onnxruntime"):
        assert "/no/such/library.so" in failed(runtime=runtime, library="/no/such/library.so")
    assert "has no LiteRtCreateEnvironment" in failed(library="libm.so.6")
    assert "has no OrtGetApiBase" in failed(runtime="onnxruntime", library="libm.so.6")


# Being stopped.


def long_job(bench: Any) -> str:
    """Two cases that would take a minute."""
    cases = [bench.case(name, "ok 1000", max_samples=100_000, max_ns=60_000 * MS, block_samples=5) for name in "ab"]
    return format_job(cases, str(bench.results))


def start_long(bench: Any) -> subprocess.Popen[bytes]:
    """The runner, both of whose cases have had a block."""
    (bench.folder / "job").write_text(long_job(bench))
    process = subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"samples 10 " in line:
            return process
    raise AssertionError("the runner ended by itself")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_in_the_middle_leaves_whole_lines(sent: signal.Signals, bench: Any) -> None:
    with start_long(bench) as process:
        assert len(bench.running()) == 4, "supervisor, nursery, two workers"
        process.send_signal(sent)
        assert process.wait(bench.patience_s) == 130
    assert bench.running() == [], "workers go before the runner does"
    result = parse_results(read_lines(str(bench.results)))
    assert (result.complete, result.torn) == (False, 0)
    assert bench.lines()[-1]["type"] == "end"
    assert all(len(bench.samples(case)) >= 5 for case in result.cases.values())
    assert all(case.failed is None for case in result.cases.values())


def test_killed_runner_takes_its_workers_along(bench: Any) -> None:
    with start_long(bench) as process:
        assert len(bench.running()) == 4, "supervisor, nursery, two workers"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    bench.wait_for(lambda: bench.running() == [], "a worker outlived its runner")
    result = parse_results(read_lines(str(bench.results)))
    assert not result.complete
    assert all(len(bench.samples(case)) >= 5 for case in result.cases.values())


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_a_worker_hangs(sent: signal.Signals, bench: Any) -> None:
    log = bench.folder / "log"
    job = format_job([bench.case("a", "ok 10"), bench.case("b", "hang-load", log=str(log))], str(bench.results))
    (bench.folder / "job").write_text(job)
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.DEVNULL) as process:
        bench.wait_for(lambda: log.exists() and "option" in log.read_text(), "the second case was never loaded")
        process.send_signal(sent)
        assert process.wait(bench.patience_s / 2) == (130 if sent == signal.SIGTERM else -sent)
    bench.wait_for(lambda: bench.running() == [], "a worker outlived its runner")
    result = parse_results(read_lines(str(bench.results)))
    assert not result.complete and "a" in result.cases


def test_killed_worker_costs_its_case(bench: Any) -> None:
    cases = [bench.case(name, "ok 1000", max_samples=200) for name in "ab"]
    (bench.folder / "job").write_text(format_job(cases, str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b"samples 2 " not in process.stdout.readline():
            pass
        _nursery, worker, _other = sorted(pid for pid in bench.running() if pid != process.pid)
        os.kill(worker, signal.SIGKILL)
        process.stdout.read()
    result = parse_results(read_lines(str(bench.results)))
    assert result.complete
    (bad,) = [case for case in result.cases.values() if case.failed]
    (good,) = [case for case in result.cases.values() if not case.failed]
    assert "SIGKILL" in (bad.failed or "") and len(bench.samples(good)) == 200 > len(bench.samples(bad))


def test_ctrl_c_through_the_transport(bench: Any) -> None:
    (bench.folder / "job").write_text(long_job(bench))

    def interrupt(data: bytes) -> None:
        if b"samples 5 " in data:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.host.run([str(bench.runner), str(bench.folder / "job")], timeout_s=60, on_output=interrupt)
    assert bench.running() == []
    result = parse_results(read_lines(str(bench.results)))
    assert (result.complete, result.torn) == (False, 0)


def test_a_reader_that_goes_away_stops_the_runner_with_whole_lines(bench: Any) -> None:
    """A bench that was killed must not go on disturbing the next one."""
    (bench.folder / "job").write_text(format_job([bench.case("a", "ok 1000", max_samples=20)], str(bench.results)))
    with subprocess.Popen([bench.runner, bench.folder / "job"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(bench.patience_s) == 130
    results = parse_results(read_lines(str(bench.results)))
    assert not results.complete and results.torn == 0


# What it refuses.


@pytest.mark.parametrize("results", ["/no/such/folder/results", "/dev/full", "/proc/self"])
def test_results_that_cannot_be_written(results: str, bench: Any) -> None:
    ended = bench.start(format_job([bench.case("a", "ok 100")], results))
    assert ended.status == 74
    assert b"cannot write the results" in ended.stderr


HEAD = "handset-job 1\nresults /dev/null\n"
CASE = "case a\nmodel m\nruntime litert\nlibrary l\n"
BAD_JOBS = [
    ("", "needs a results line"),
    ("\n" + HEAD + CASE, "line 1: not a handset-job"),
    ("# comment\n" + HEAD + CASE, "line 1: not a handset-job"),
    ("handset-job 2\n", "line 1: not a handset-job of version 1"),
    ("{}\n", "line 1"),
    ("handset-job 1\n" + CASE, "needs a results line"),
    (HEAD, "at least one case"),
    (HEAD + "case a\nmodel m\n", "case a needs model, runtime and library"),
    (HEAD + CASE.replace("litert", "tvm"), "case a asks for the runtime tvm"),
    (HEAD + CASE + "max_sample 3\n", "line 7: unknown key max_sample"),
    (HEAD + "\n# comment\n" + CASE + "max_samples three\n", "line 9: bad value for max_samples"),
    (HEAD + CASE + "max_samples\n", "line 7: bad value for max_samples"),
    (HEAD + CASE + "max_samples -1\n", "line 7: bad value for max_samples"),
    (HEAD + CASE + "max_samples 3 4\n", "line 7: bad value for max_samples"),
    (HEAD + CASE + "max_samples 1e3\n", "line 7: bad value for max_samples"),
    (HEAD + CASE + "limit_ns 9223372036854775807\n", "line 7: bad value for limit_ns"),
    (HEAD + CASE + "limit_ns 99999999999999999999999\n", "line 7: bad value for limit_ns"),
    (HEAD + CASE + "threads 99999999\n", "line 7: bad value for threads"),
    (HEAD + CASE + "cpu_mask -1\n", "line 7: bad value for cpu_mask"),
    (HEAD + CASE + "cpu_mask 0x1ffffffffffffffff\n", "line 7: bad value for cpu_mask"),
    (HEAD + CASE + "cpu_mask cores\n", "line 7: bad value for cpu_mask"),
    (HEAD + "model " + "x" * 9000 + "\n", "line 3: longer than"),
    (HEAD + CASE * 65537, "more than 65536 cases"),
    (HEAD + "watch \n" + CASE, "line 3: bad value for watch"),
    (HEAD + CASE + "watch /proc/uptime\n", "line 7: bad value for watch"),
    (HEAD + "watch /proc/uptime\n" * 65 + CASE, "line 67: bad value for watch"),
    (HEAD + "watch_ns soon\n" + CASE, "line 3: bad value for watch_ns"),
    (HEAD + CASE + "log\0 /tmp/x\nnonsense 1\n", "line 8: unknown key nonsense"),
]


@pytest.mark.parametrize(("job", "said"), BAD_JOBS, ids=[said for _, said in BAD_JOBS])
def test_bad_job_files(job: str, said: str, bench: Any) -> None:
    ended = bench.start(job)
    assert ended.status == 2
    assert said in ended.stderr.decode()
    assert ended.stdout == b""


def test_bad_arguments(bench: Any) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ended = bench.host.run([str(bench.runner), *arguments])
        return ended.status, ended.stderr.decode()

    assert run() == run("one", "two") == (2, "usage: handset-runner JOB\n")
    status, said = run("/no/such/job")
    assert status == 2 and "cannot open the job file /no/such/job" in said
