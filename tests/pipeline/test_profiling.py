"""The loop of launches against a runner that writes what it is told: when it stops, what stays, and who is told."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.errors import CommandTimeout, DeviceError, DeviceLost
from devices.runner import CaseResult, RunnerResult, parse_results, read_lines
from pipeline.errors import StorageError
from pipeline.kernel_times import to_launch
from pipeline.launch import Order, _Follower, run_launch
from pipeline.profiling import load_launches, measure, needs_more
from pipeline.settings import PROFILED, Settings

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
CASE = "net.litert"
RUN = "0123456789abcdef"
QUICK = Settings(launches=2, budget_s=3.0)


@dataclasses.dataclass
class Bench:
    """Everything that `measure` takes; `told` is what progress was reported."""

    device: Any
    folder: Path
    cases: list[Any]
    told: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def measure(self, settings: Settings = QUICK) -> list[RunnerResult]:
        installed = FAKE["installed"](self.folder)
        return measure(
            self.cases, self.device, installed, settings, self.folder, lambda s, case: self.told.append((s, case)), run=RUN
        )

    def order(self, settings: Settings = QUICK, *, profiled: bool = True) -> Order:
        names = frozenset(case.id for case in self.cases) if profiled else frozenset()
        return Order(self.cases, FAKE["installed"](self.folder)["host"], settings, names)

    def launch(self, *, profiled: bool = True) -> Path:
        path = self.folder / "launch-00.jsonl"
        run_launch(self.order(profiled=profiled), self.device, RUN, path, lambda s, case: None)
        return path

    def left(self) -> list[str]:
        """What lies in the run folder that is no launch and no model."""
        return [path.name for path in self.folder.iterdir() if path.suffix not in (".jsonl", ".tflite", ".onnx")]

    def scratch(self) -> list[str]:
        """Folders that were left on the device."""
        return [path.name for path in Path(self.device.workdir).glob("runs/*/*")]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def build(*runtimes: str, **settings: Any) -> Bench:
        folder, device = tmp_path / "run", tmp_path / "device"
        folder.mkdir()
        device.mkdir()
        cases = [FAKE["deployed"](folder, "net", runtime) for runtime in runtimes or ("litert",)]
        return Bench(FAKE["FakeDevice"](device, **settings), folder, cases)

    return build


def result(*blocks: list[int], failed: str | None = None, finished: bool = True) -> RunnerResult:
    lines = [FAKE["block"](one) | {"case": CASE} for one in blocks]
    if finished:
        lines.append({"type": "finished", "case": CASE, "peak_memory_bytes": 1, "profile": ""})
    if failed:
        lines.append({"type": "failed", "case": CASE, "signal": 0, "why": failed})
    return parse_results(json.dumps(line).encode() + b"\n" for line in lines)


# needs_more


def test_a_case_needs_its_number_of_launches_however_good_they_are() -> None:
    good = result([100_000] * 20, [100_000] * 20)
    settings = Settings(launches=3)
    assert [needs_more(CASE, [good] * count, settings) for count in range(4)] == [True, True, True, False]


def test_a_case_goes_on_until_its_interval_is_reached_or_its_budget_is_spent() -> None:
    launches = [result([90_000_000] * 10), result([110_000_000] * 10)]  # 2 s, and 0.01 s of canaries
    wide = Settings(launches=2, interval=0.01, budget_s=2.02)
    assert needs_more(CASE, launches, wide)
    assert not needs_more(CASE, launches, dataclasses.replace(wide, budget_s=2.0))
    assert not needs_more(CASE, launches, dataclasses.replace(wide, interval=1.0))  # two launches tell little


def test_the_minimum_of_launches_comes_before_the_budget() -> None:
    assert needs_more(CASE, [result([10**9] * 20)], Settings(launches=2, budget_s=1))


def test_a_case_that_failed_once_gets_no_other_launch() -> None:
    good = result([100_000] * 20)
    assert not needs_more(CASE, [good, result([100_000], failed="SIGSEGV")], Settings(launches=9))


def test_a_launch_in_which_a_case_was_cut_off_is_none_but_its_samples_count() -> None:
    good, stopped = result([100_000] * 20), result([10**9] * 2, finished=False)
    empty = RunnerResult({CASE: CaseResult(CASE)}, False, 0)
    settings = Settings(launches=2, budget_s=1.9, interval=1e-6)
    assert needs_more(CASE, [empty, good], settings) and needs_more(CASE, [stopped, good], settings)
    assert not needs_more(CASE, [stopped, good, good], settings)


def test_the_time_of_canaries_is_spent_too() -> None:
    short = [result([10_000] * 100, [30_000] * 100), result([20_000] * 100, [60_000] * 100)]
    spent_s = (100 * 10e3 + 100 * 30e3 + 100 * 20e3 + 100 * 60e3 + 400 * FAKE["CANARY_NS"]) / 1e9
    settings = Settings(launches=2, interval=1e-6)
    assert needs_more(CASE, short, dataclasses.replace(settings, budget_s=spent_s + 1e-6))
    assert not needs_more(CASE, short, dataclasses.replace(settings, budget_s=spent_s - 1e-6))


# measure


def test_a_quiet_device_gets_the_launches_asked_and_every_sample_is_kept_on_disk(make: Any) -> None:
    bench = make("litert", "onnxruntime")
    results = bench.measure()
    assert len(results) == 2 and all(one.complete and one.torn == 0 for one in results)
    assert [path.name for path in sorted(bench.folder.glob("launch-*"))] == ["launch-00.jsonl", "launch-01.jsonl"]
    assert load_launches(bench.folder) == results
    for one in results:
        assert set(one.cases) == {"net.litert", "net.litert+kernels", "net.onnxruntime", "net.onnxruntime+kernels"}
        assert [len(case.blocks) for case in one.cases.values()] == [6] * 4
        kernels = {case: len(one.cases[case].kernel_runs) for case in one.cases}
        assert kernels == {
            "net.litert": 0,
            "net.litert+kernels": 40,
            "net.onnxruntime": 0,
            "net.onnxruntime+kernels": 40,
        }
    assert bench.left() == bench.scratch() == []
    assert (bench.folder / "net.onnxruntime.optimized.onnx").read_bytes() == b"the optimised graph"


def test_a_noisy_device_gets_launches_until_its_budget_is_spent(make: Any) -> None:
    bench = make(samples=FAKE["noisy"](0.3))
    results = bench.measure(Settings(launches=2, budget_s=1.5, interval=0.001))
    launches = [to_launch(one.cases[CASE]) for one in results]
    spent = np.cumsum([launch.samples.sum() + launch.canary.sum() for launch in launches])
    assert spent[-2] < 1.5e9 <= spent[-1]
    assert [len(job) for job in bench.device.jobs] == [2, 2, *[1] * (len(results) - 2)]  # no profiler after the minimum


def test_a_case_that_has_its_interval_is_in_no_further_launch(make: Any) -> None:
    def samples(launch: int, case: Any) -> list[list[int]]:
        spread = 0.3 if case["case"].startswith("net.onnx") else 0.0
        return list(FAKE["noisy"](spread)(launch, case))

    bench = make("litert", "onnxruntime", samples=samples)
    bench.measure(Settings(launches=2, budget_s=1.5, interval=0.001))
    assert [[case["case"] for case in job] for job in bench.device.jobs[2:]] == [["net.onnxruntime"]] * (
        len(bench.device.jobs) - 2
    )
    assert len(bench.device.jobs) > 2


def test_progress_adds_up_to_the_timed_seconds(make: Any) -> None:
    bench = make()
    bench.measure()
    assert bench.told == [(0.5, CASE), (0.5, CASE + PROFILED)] * 2


def test_a_failed_case_stops_and_the_others_go_on(make: Any) -> None:
    log = "loading\nERROR: Could not find an op called Wobble\nerror: and more\n"
    bench = make("litert", "onnxruntime", failures={CASE: "cannot load"}, logs={CASE: log})
    first, second = bench.measure()
    assert first.cases[CASE].failed == "cannot load; ERROR: Could not find an op called Wobble"
    assert CASE not in second.cases and second.cases["net.onnxruntime"].failed is None
    assert bench.left() == []


@pytest.mark.parametrize("log", ["all is well\n", None])
def test_a_failure_without_last_words_keeps_the_runners_own(make: Any, log: str | None) -> None:
    bench = make(failures={CASE: "cannot load"}, logs={} if log is None else {CASE: log})
    assert bench.measure()[0].cases[CASE].failed == "cannot load"


def test_a_runner_that_measures_nothing_and_says_no_reason_is_not_started_for_ever(make: Any) -> None:
    bench = make("litert", "onnxruntime", mute=[CASE])
    first, second = bench.measure()
    assert first.cases[CASE].blocks == [] and CASE not in second.cases
    assert len(second.cases["net.onnxruntime"].blocks) == 6


def test_a_transport_that_always_loses_the_last_line_is_not_asked_for_ever(make: Any) -> None:
    results = make(torn=3).measure()  # the runner's own last line; every case has ended
    assert [(one.complete, len(one.cases[CASE].blocks)) for one in results] == [(False, 6)] * 2


def test_a_resumed_run_adds_only_what_is_missing(make: Any) -> None:
    bench = make()
    results = bench.measure()
    assert bench.measure() == results and len(bench.device.jobs) == 2
    assert len(bench.measure(dataclasses.replace(QUICK, launches=3))) == 3
    assert len(list(bench.folder.glob("launch-*.jsonl"))) == 3


def test_launches_are_read_in_their_order_also_beyond_a_hundred(make: Any) -> None:
    bench = make()
    line = json.dumps(FAKE["block"]([1]) | {"case": "?"}) + "\n"
    for number in (9, 10, 100, 99, 101):
        (bench.folder / f"launch-{number:02d}.jsonl").write_text(line.replace("?", str(number)), "utf-8")
    assert [next(iter(one.cases)) for one in load_launches(bench.folder)] == ["9", "10", "99", "100", "101"]


# one launch


def test_the_job_says_how_to_measure(make: Any) -> None:
    bench = make("litert", "onnxruntime")
    settings = Settings(threads=4, cpu_mask=6, launch_s=1.5, kernels_s=0.25, warmup_s=0.4, limit_s=7, memory_bytes=99)
    path = bench.folder / "launch-00.jsonl"
    run_launch(bench.order(settings), bench.device, RUN, path, lambda s, case: None)
    (plain, kernels, onnx, onnx_kernels) = bench.device.jobs[0]
    for case in bench.device.jobs[0]:
        assert (case["threads"], case["cpu_mask"], case["limit_ns"], case["memory_bytes"]) == (
            "4",
            "6",
            "7000000000",
            "99",
        )
        assert case["log"].endswith(f"/{case['case']}.log")
    assert (plain["model"], plain["library"], plain["delegate"]) == (
        bench.cases[0].remote_path, "/lib/litert.so", "xnnpack",
    )  # fmt: skip
    assert (plain["profile"], plain["max_ns"], plain["warmup_ns"]) == ("0", "1500000000", "400000000")
    assert (kernels["profile"], kernels["max_ns"], kernels["warmup_ns"]) == ("1", "250000000", "100000000")
    assert kernels["max_samples"] == str(Settings().kernel_runs_most) and "profile_prefix" not in kernels
    assert onnx_kernels["optimized_model"] == onnx_kernels["profile_prefix"] + ".onnx" and "delegate" not in onnx
    assert "profile_prefix" not in onnx


def test_a_runner_that_ends_badly_is_an_error_with_its_last_line(make: Any) -> None:
    bench = make(status=74, stderr=b"first\nhandset-runner: cannot write the results\n")
    with pytest.raises(DeviceError, match="status 74: handset-runner: cannot write the results$"):
        bench.launch()
    assert bench.left() == bench.scratch() == [] and load_launches(bench.folder) == []
    bench.device.stderr = b""
    with pytest.raises(DeviceError, match="it said nothing"):
        bench.launch()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceLost("gone"), CommandTimeout("too long")])
def test_what_was_measured_before_the_link_was_lost_or_ctrl_c_stays(make: Any, error: BaseException) -> None:
    bench = make(raises=[error], torn=7)
    with pytest.raises(type(error)):
        bench.measure()
    (saved,) = load_launches(bench.folder)
    assert not saved.complete and saved.torn == 0
    assert len(saved.cases[CASE].blocks) == 6
    assert bench.left() == bench.scratch() == []
    bench.device.torn = 0
    results = bench.measure()  # the case had ended: nothing of it is done again
    assert [one.complete for one in results] == [False, True] and results[0] == saved
    assert [len(job) for job in bench.device.jobs] == [2, 2]


def test_what_a_lost_launch_left_on_the_device_is_brought_home_by_the_next_start(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(raises=[DeviceLost("gone")])
    with monkeypatch.context() as patch:
        patch.setattr(bench.device, "pull_folder", _lost)
        with pytest.raises(DeviceLost, match="^gone"):
            bench.measure()
    assert bench.left() == [] and load_launches(bench.folder) == []
    assert bench.scratch() == ["launch-00"]
    (Path(bench.device.workdir) / "runs" / RUN / "launch-7 x").mkdir()  # no name of ours
    results = bench.measure()
    assert [one.complete for one in results] == [False, True] and len(results[0].cases[CASE].blocks) == 6
    assert [len(job) for job in bench.device.jobs] == [2, 2] and bench.scratch() == []


@pytest.mark.parametrize("content", [b"", b"nonsense\n", None])
def test_what_was_left_and_cannot_be_read_is_given_up(make: Any, content: bytes | None) -> None:
    bench = make()
    left = Path(bench.device.workdir) / "runs" / RUN / "launch-00"
    left.mkdir(parents=True)
    if content is not None:
        (left / "results.jsonl").write_bytes(content)
    assert len([one for one in bench.measure() if one.cases]) == 2 and bench.scratch() == []


def test_a_launch_that_came_home_before_the_link_was_lost_is_not_brought_again(make: Any) -> None:
    bench = make()
    first, second = bench.measure()
    left = Path(bench.device.workdir) / "runs" / RUN / "launch-01"
    left.mkdir(parents=True)
    (left / "results.jsonl").write_bytes(b"")
    assert bench.measure() == [first, second] and bench.scratch() == []


def _lost(*arguments: Any, **more: Any) -> None:
    raise DeviceLost("still gone")


def test_results_cut_short_lose_their_last_line_only(make: Any) -> None:
    whole = make("litert", torn=3)
    path = whole.launch()
    assert path.read_bytes().endswith(b"\n")
    parsed = parse_results(read_lines(str(path)))
    assert (parsed.torn, parsed.complete) == (0, False) and len(parsed.cases[CASE].blocks) == 6


def test_lines_are_appended_after_what_was_cut_off(make: Any) -> None:
    bench = make("onnxruntime", torn=3)
    parsed = parse_results(read_lines(str(bench.launch())))
    assert parsed.torn == 0 and len(parsed.cases["net.onnxruntime" + PROFILED].kernel_runs) == 40


def test_damaged_results_are_an_error_and_leave_no_file(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    pull = bench.device.pull

    def damaged(remote: str, local: Path) -> None:
        pull(remote, local)
        local.write_bytes(b"{nonsense\n" + local.read_bytes())

    monkeypatch.setattr(bench.device, "pull", damaged)
    with pytest.raises(DeviceError, match="damaged in line 1"):
        bench.launch()
    assert bench.left() == [] and load_launches(bench.folder) == []


def test_without_the_profiler_there_is_one_job_a_case(make: Any) -> None:
    bench = make("litert", "onnxruntime")
    bench.launch(profiled=False)
    assert [case["case"] for case in bench.device.jobs[0]] == ["net.litert", "net.onnxruntime"]


@pytest.mark.parametrize("where", ["job", "results"])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bench = make()
    full = OSError(errno.ENOSPC, "No space left on device")
    if where == "job":
        write_text = Path.write_text

        def half(self: Path, data: str, *arguments: Any) -> int:
            write_text(self, data[:9], *arguments)
            raise full

        monkeypatch.setattr(Path, "write_text", half)
    else:
        monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(full))
    with pytest.raises(StorageError, match=r"launch-00\.jsonl: No space left on device; try: free some space"):
        bench.launch()
    assert bench.left() == [] and load_launches(bench.folder) == []


# progress


@contextlib.contextmanager
def following() -> Iterator[tuple[_Follower, list[tuple[float, str]]]]:
    told: list[tuple[float, str]] = []
    yield _Follower(lambda seconds, case: told.append((seconds, case))), told


def test_progress_is_the_difference_for_each_case_however_its_bytes_come() -> None:
    text = b"".join(
        b"case %s samples 3 timed_ns %d alive 1\n" % (case, ns)
        for case, ns in ((b"a", 10**9), (b"b", 5 * 10**8), (b"a", 3 * 10**9))
    )
    for size in (1, 7, len(text)):
        with following() as (follow, told):
            for begin in range(0, len(text), size):
                follow(text[begin : begin + size])
            assert told == [(1.0, "a"), (0.5, "b"), (2.0, "a")]


def test_other_output_is_passed_over_and_never_piles_up() -> None:
    with following() as (follow, told):
        follow(b"hello\ncase a samples x timed_ns 5 alive 1\n\xff\xfe\ncase a samples 1 timed_ns 1000000000 alive 1")
        assert told == []
        follow(b"\n")
        assert told == [(1.0, "a")]
        for _ in range(40):
            follow(b"x" * 10_000)
        assert len(follow._rest) <= 65536
