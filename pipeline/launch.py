"""One launch: a start of the on-device runner with many cases, and everything it wrote brought home as one file.

On the device a launch is a folder of its own, named after the run: a launch whose link was lost lies there until the run
is resumed, which brings home what was measured. Nothing of a launch costs a round trip a case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import DeviceError, DeviceLost
from devices.install import Installed
from devices.runner import Case, format_job
from devices.transport import Transport
from pipeline.collect import RESULTS, collect, ended_badly, graph_file, runs_folder, storage_of
from pipeline.deploy import Deployed
from pipeline.settings import PROFILED, Settings

OnProgress = Callable[[float, str], None]
"""Called with the seconds of timed inference done since the last call, and which case did them."""

LOADED_AT_ONCE = 32
"""Cases that are loaded together and take turns: more would not fit a phone's memory."""

WATCH_NS = 1_000_000_000

REMOVE = 'rm -rf -- "$1"; rmdir -- "${1%/*}" 2>/dev/null; exit 0'
"""A launch's folder, and its run's where that is empty now."""


@dataclass(frozen=True)
class Order:
    """What one launch is to do: the cases, which of them also with the profiler, and what to watch meanwhile.

    All cases are of one bundle, the one that `installed` is. `watch`: paths on the device that are read between blocks.
    """

    cases: Sequence[Deployed]
    installed: Installed
    settings: Settings
    profiled: frozenset[str] = frozenset()
    watch: tuple[str, ...] = ()


def run_launch(order: Order, device: Transport, run: str, path: Path, on_progress: OnProgress) -> None:
    """One start of the runner; its raw results, onnxruntime's profiles folded in, become the file `path`.

    Raises: DeviceError: the runner failed; DeviceLost: what it measured is still on the device, see `recover`.
    KeyboardInterrupt: what was measured is in `path`. StorageError.
    """
    scratch = f"{runs_folder(device, run)}/{path.stem}"
    jobs = _jobs(order, scratch, path.parent)
    job_file = path.with_suffix(".job")
    logs = {job.id: Path(job.log).name for job in jobs}
    models_bytes = sum(case.artifact.bytes for case in order.cases)
    lost = False
    try:
        with storage_of(path):
            text = format_job(
                jobs,
                f"{scratch}/{RESULTS}",
                seed=order.settings.seed,
                canary=order.settings.canary,
                watch=order.watch,
                watch_ns=WATCH_NS,
            )
            job_file.write_text(text, "utf-8")
        device.push(job_file, f"{scratch}/job")
        argv = [*order.installed.start, f"{scratch}/job"]
        try:
            result = device.run(argv, timeout_s=_limit_s(order, len(jobs)), on_output=_Follower(on_progress))
        except KeyboardInterrupt:
            with contextlib.suppress(DeviceError, OSError):
                collect(device, scratch, path, logs, models_bytes)
            raise
        if result.status != 0:
            raise ended_badly(result)
        collect(device, scratch, path, logs, models_bytes)
    except DeviceLost:
        lost = True  # its results are worth more than a tidy folder: the next start of this run finds them
        with contextlib.suppress(DeviceError, OSError):
            collect(device, scratch, path, logs, models_bytes)
            lost = False
        raise
    finally:
        if not lost:
            with contextlib.suppress(DeviceError):
                device.run(["sh", "-c", REMOVE, "sh", scratch], timeout_s=30)
        job_file.unlink(missing_ok=True)


def _limit_s(order: Order, jobs: int) -> float:
    settings = order.settings
    return 60 + jobs * (settings.limit_s + 10 * (settings.launch_s + settings.warmup_s))


def _jobs(order: Order, scratch: str, folder: Path) -> list[Case]:
    jobs: list[Case] = []
    for case in order.cases:
        own = _pair(case, order.settings, scratch, keep_graph=not graph_file(folder, case.id).exists())
        wanted = own[1:] if case.kernels_only else own if case.id in order.profiled else own[:1]
        group = (len(jobs) + 1) // LOADED_AT_ONCE
        jobs += [dataclasses.replace(job, group=group) for job in wanted]
    return jobs


def _pair(case: Deployed, settings: Settings, scratch: str, *, keep_graph: bool) -> list[Case]:
    """A case without and with the profiler. keep_graph: onnxruntime is to write down the graph that it really runs."""
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
        min_samples=settings.kernel_runs,
        max_samples=settings.kernel_runs_most,
        profile=True,
        profile_prefix=f"{scratch}/{name}" if onnx else "",
        optimized_model=f"{scratch}/{name}.onnx" if onnx and keep_graph else "",
        **common,
    )
    return [plain, profiled]


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
