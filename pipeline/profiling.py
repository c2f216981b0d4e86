"""Deployed -> raw launches: what to run, how often and when to stop.

One *launch* is one start of the on-device runner with every case that still needs samples: each network in each runtime,
once without the profiler (end to end) and once with it (kernels), all interleaved in blocks of 0.1 s. After each launch
the interval of the noise-corrected median decides which cases need another; a case ends when its interval is as narrow
as asked or its budget is spent. Several launches, because a process's own memory layout is part of the noise.

Every launch is a file of raw samples in the run folder before the next begins: that is what a resumed run starts from.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from devices.bundle import RuntimeBundle
from devices.errors import DeviceError, DeviceLost, TransferError
from devices.ort_profile import profile_lines
from devices.runner import Case, CaseResult, RunnerResult, format_job, parse_results, read_lines
from devices.transport import Transport
from latency_luts import stats
from pipeline.deploy import Deployed, pull
from pipeline.errors import StorageError
from pipeline.kernel_times import has_samples, to_launch

OnProgress = Callable[[float, str], None]
"""Called with the seconds of timed inference done since the last call, and which case did them."""

PROFILED = "+kernels"
"""Suffix of the id of a case that runs with the runtime's profiler on."""


PROFILED_SAMPLES = 150
"""Profiled inferences of a case in one launch at most: enough for its kernels, and onnxruntime writes 600 bytes for each."""

MAX_LOG_BYTES = 64 << 10

LAST_WORDS = re.compile(
    r"error|unresolved|unsupported|not (?:found|registered|supported|implemented)|fail", re.IGNORECASE
)
"""Lines of a runtime's log that may tell why a case failed."""

STOP_RULE_RESAMPLES = 200
"""Bootstrap resamples for deciding whether to go on; the result takes a thousand."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        interval: the half-width of the interval of the median to reach, as a share of it (0.01 is ±1 %).
        budget_s: seconds of timed inference at most for one case, however wide its interval still is.
        launches: at least that many launches.
        launch_s, kernels_s: seconds of timed inference a case gets in one launch, without and with the profiler.
        warmup_s: at least that long before the first sample; what was not steady by then is cut off afterwards.
        limit_s: a load or an inference that takes longer has hung.
        memory_bytes: limit on a case's address space; 0 for none.
        cpu_mask: cores to run on; 0 lets the device's own capacities decide.
    """

    threads: int = 1
    cpu_mask: int = 0
    interval: float = 0.01
    confidence: float = 0.95
    budget_s: float = 6.0
    launches: int = 3
    launch_s: float = 1.0
    kernels_s: float = 0.5
    warmup_s: float = 0.2
    limit_s: float = 60.0
    memory_bytes: int = 0
    canary: bool = True
    seed: int = 1


def measure(
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    settings: Settings,
    folder: Path,
    on_progress: OnProgress,
) -> list[RunnerResult]:
    """Launches until every case has its interval, its budget is spent or it has failed.

    Args: folder: where launches are written, `launch-NN.jsonl`; those that are there already count.

    Raises: DeviceError (lost, runner damaged), StorageError; KeyboardInterrupt after what was measured is in `folder`.
    """
    results = load_launches(folder)
    silent: set[str] = set()  # neither measured nor failed in a launch of their own: they would be asked for ever
    while active := [case for case in cases if case.id not in silent and needs_more(case.id, results, settings)]:
        path = folder / f"launch-{len(results):02d}.jsonl"
        profiled = sum(result.complete for result in results) < settings.launches
        run_launch(active, device, bundle, settings, path, on_progress, profiled=profiled)
        results.append(parse_results(read_lines(str(path))))
        told = results[-1].cases if results[-1].complete else {}
        silent |= {case.id for case in active if case.id not in told or not has_samples(told[case.id])}
    return results


def load_launches(folder: Path) -> list[RunnerResult]:
    """What earlier launches left in a run folder, in their order."""
    paths = sorted(folder.glob("launch-[0-9]*.jsonl"), key=lambda path: (len(path.name), path.name))  # 99 before 100
    return [parse_results(read_lines(str(path))) for path in paths]


def needs_more(case: str, results: Sequence[RunnerResult], settings: Settings) -> bool:
    """The stop rule. A case that failed in any launch gets no other.

    The samples of a launch that was stopped count, but not as a launch: its kernels may be missing.
    """
    own = [result.cases[case] for result in results if case in result.cases]
    whole = [result.cases[case] for result in results if case in result.cases and result.complete]
    if any(one.failed for one in own):
        return False
    launches = [to_launch(one) for one in own if has_samples(one)]
    if sum(has_samples(one) for one in whole) < settings.launches:
        return True
    # canaries too, as in the runner: a network of a few µs would else take minutes to spend its seconds
    if sum(float(launch.samples.sum() + launch.canary.sum()) for launch in launches) >= settings.budget_s * 1e9:
        return False
    summary = stats.summarise(
        launches, stats.canary_reference(launches), confidence=settings.confidence, resamples=STOP_RULE_RESAMPLES
    )
    return summary.corrected.half_width > settings.interval


def run_launch(
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    settings: Settings,
    path: Path,
    on_progress: OnProgress,
    *,
    profiled: bool,
) -> None:
    """One start of the runner; its raw results, onnxruntime's profiles folded in, become the file `path`.

    Args: profiled: whether each case is also run with the profiler; the first launches give kernels times enough.
    """
    scratch = f"{device.workdir}/run-{os.getpid()}"
    jobs = [job for case in cases for job in _jobs(case, settings, scratch)[: 2 if profiled else 1]]
    remote = f"{scratch}/results.jsonl"
    job_file = path.with_suffix(".job")
    follow = _Follower(on_progress)
    try:
        with _storage(path):
            job_file.write_text(format_job(jobs, remote, seed=settings.seed, canary=settings.canary), "utf-8")
        device.push(job_file, f"{scratch}/job")
        limit_s = 60 + len(jobs) * (settings.limit_s + 10 * (settings.launch_s + settings.warmup_s))
        try:
            result = device.run([str(bundle.runner.path), f"{scratch}/job"], timeout_s=limit_s, on_output=follow)
        except (KeyboardInterrupt, DeviceLost):
            with contextlib.suppress(DeviceError, OSError):
                _collect(device, remote, path, {})
            raise
        if result.status != 0:
            raise DeviceError(f"the runner ended with status {result.status}: {_tail(result.stderr)}")
        logs = {job.id: job.log for job in jobs}
        _collect(device, remote, path, logs)
    finally:
        with contextlib.suppress(DeviceError):
            device.run(["rm", "-rf", scratch], timeout_s=30)
        job_file.unlink(missing_ok=True)


def _jobs(case: Deployed, settings: Settings, scratch: str) -> list[Case]:
    common: dict[str, Any] = {
        "model": case.remote_path,
        "runtime": case.runtime,
        "library": case.library,
        "delegate": case.delegate,
        "threads": settings.threads,
        "cpu_mask": settings.cpu_mask,
        "limit_ns": int(settings.limit_s * 1e9),
        "memory_bytes": settings.memory_bytes,
    }
    plain = Case(
        id=case.id,
        log=f"{scratch}/{case.id}.log",
        warmup_ns=int(settings.warmup_s * 1e9),
        max_ns=int(settings.launch_s * 1e9),
        **common,
    )
    name = case.id + PROFILED
    onnx = case.runtime == "onnxruntime"
    profiled = Case(
        id=name,
        log=f"{scratch}/{name}.log",
        # its samples are no latencies: a short warm-up does
        warmup_ns=int(settings.warmup_s * 0.25e9),
        max_ns=int(settings.kernels_s * 1e9),
        max_samples=PROFILED_SAMPLES,
        profile=True,
        profile_prefix=f"{scratch}/{name}" if onnx else "",
        optimized_model=f"{scratch}/{name}.onnx" if onnx else "",
        **common,
    )
    return [plain, profiled]


def _collect(device: Transport, remote: str, path: Path, logs: Mapping[str, str]) -> None:
    """Brings a launch home: results, profiles as lines of the same file, graphs beside it, the reasons of failures."""
    part = path.with_suffix(".part")
    pull(device, remote, part)
    try:
        results = parse_results(read_lines(str(part)))
        with _storage(path), part.open("ab") as file:
            if results.torn:
                _drop_torn_line(part)
            for case in results.cases.values():
                if case.profile:
                    _add_profile(device, case, file, path)
                if case.failed and case.id in logs:
                    _add_last_words(device, case, logs[case.id], file, path.with_suffix(".log"))
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _add_profile(device: Transport, case: CaseResult, file: BinaryIO, path: Path) -> None:
    local = path.with_suffix(".ort.json")
    graph = path.parent / f"{case.id.removesuffix(PROFILED)}.optimized.onnx"
    try:
        pull(device, case.profile, local)
        warmup = sum(len(block.sample_ns) for block in case.blocks if block.warmup)
        for line in profile_lines(local, case.id, warmup):
            file.write(line)
        if not graph.exists():
            pull(device, re.sub(r"_[0-9_-]+\.json$", "", case.profile) + ".onnx", graph)
    finally:
        local.unlink(missing_ok=True)


def _add_last_words(device: Transport, case: CaseResult, remote: str, file: BinaryIO, local: Path) -> None:
    """The runtimes say on stderr what their status numbers do not: which op they do not have, for one."""
    try:
        device.pull(remote, local)
        with local.open("rb") as log:
            log.seek(max(0, local.stat().st_size - MAX_LOG_BYTES))
            lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if LAST_WORDS.search(line)]
    except (TransferError, OSError):
        return
    finally:
        local.unlink(missing_ok=True)
    if lines:
        why = f"{case.failed}; {lines[0].strip()[:400]}"
        file.write(json.dumps({"type": "failed", "case": case.id, "signal": 0, "why": why}).encode() + b"\n")


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", try_="free some space, or another folder with --reports DIR"
        ) from error


def _tail(text: bytes) -> str:
    return text.decode("utf-8", "replace").strip().rpartition("\n")[2][:500] or "it said nothing"


class _Follower:
    """Turns the runner's progress lines into seconds of timed inference."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._rest = b""
        self._done: dict[str, float] = {}

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data)[-65536:].split(b"\n")
        for line in lines:
            if match := re.fullmatch(rb"case (\S+) samples \d+ timed_ns (\d+) alive \d", line):
                case, seconds = match[1].decode("ascii", "replace"), int(match[2]) / 1e9
                self._on_progress(seconds - self._done.get(case, 0.0), case)
                self._done[case] = seconds
