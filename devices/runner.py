"""What the on-device runner writes: JSON lines of raw samples, by `native/worker.c` and `native/results.c`.

What comes back is not trusted: sizes are bounded, types and lengths checked. The job file, what goes there, is
`devices.job_file`; its names are to be had from here too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from devices.errors import DeviceError
from devices.job_file import MAX_LINE_BYTES, MAX_WATCHED, Case, format_job

__all__ = [
    "MAX_LINE_BYTES", "MAX_RESULT_BYTES", "MAX_WATCHED", "Block", "Case", "CaseResult", "Kernel", "KernelRun",
    "RunnerResult", "Watch", "format_job", "parse_results", "read_lines",
]  # fmt: skip

MAX_RESULT_BYTES = 1 << 30
MAX_WATCHED_CHARS = 64
SIGNAL_NAMES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}


@dataclass(frozen=True)
class Block:
    """Samples that followed each other without a pause. All arrays have one entry a sample, in ns.

    `canary_ns[i]` was timed just before sample i, and `last_canary_ns` after the last one. `preempted[i]` says how
    often the kernel took a core away during sample i: what the machine did to us, told by the machine.
    """

    warmup: bool
    start_ns: tuple[int, ...]
    canary_ns: tuple[int, ...]
    sample_ns: tuple[int, ...]
    preempted: tuple[int, ...]
    last_canary_ns: int
    core: tuple[int, int]
    clock_khz: tuple[int | None, int | None]


@dataclass(frozen=True)
class Kernel:
    """A kernel as the runtime names it. `index` is the runtime's own number, `kind` LiteRT's event type (0 elsewhere).

    `op` and the shapes are there for onnxruntime only.
    """

    name: str
    index: int
    kind: int = 0
    op: str = ""
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class KernelRun:
    """One profiled inference: which list of kernels it ran, and each one's time in µs."""

    sample: int
    kernels: tuple[Kernel, ...]
    us: tuple[int, ...]


@dataclass(frozen=True)
class Watch:
    """What the watched files said at one moment, one text of at most 64 characters each; None: it could not be read.

    at_ns: since the runner's begin, as `Block.start_ns`.
    """

    at_ns: int
    values: tuple[str | None, ...]


@dataclass
class CaseResult:
    """What one case gave. `failed` says why it ended early, or is None; what was measured before stays.

    Args:
        load_ns: from the model's file to what can be run, in a runtime that is open.
        open_ns: opening the runtime's library, and what it does once a process.
        peak_memory_bytes: of the case's process, whatever of the open runtime it uses included.
        finished: it got to its end: everything that it was asked for is here, whatever became of the runner afterwards.
    """

    id: str
    load_ns: int | None = None
    open_ns: int | None = None
    version: str = ""
    cpu_mask: int = 0
    canary: str = ""
    inputs: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()
    blocks: list[Block] = field(default_factory=list)
    kernel_runs: list[KernelRun] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    profile: str = ""
    failed: str | None = None
    finished: bool = False


@dataclass(frozen=True)
class RunnerResult:
    """What one start of the runner gave.

    Args:
        complete: False where the runner was stopped or died.
        torn: lines that were cut short.
        begin_realtime_ns: the device's clock, Unix time, at the moment that all `start_ns` and `at_ns` count from; None
            where the runner did not say.
        watched: what the watched files said, in the order of the job's paths.
    """

    cases: Mapping[str, CaseResult]
    complete: bool
    torn: int
    begin_realtime_ns: int | None = None
    watched: tuple[Watch, ...] = ()


def parse_results(lines: Iterable[bytes]) -> RunnerResult:
    """Reads the runner's lines. A last line that was cut short is left out; anything else that is odd is an error.

    Raises: DeviceError: a whole line is not what the runner writes; its number and what is wrong are named.
    """
    cases: dict[str, CaseResult] = {}
    lists: dict[tuple[str, int], tuple[Kernel, ...]] = {}
    watched: list[Watch] = []
    begin_realtime_ns: int | None = None
    watching: int | None = None
    complete, torn = False, 0
    for number, raw in enumerate(lines, 1):
        if not raw.endswith(b"\n"):
            torn += 1
            continue
        try:
            line = json.loads(raw)
            kind = line["type"]
            if kind == "end":
                complete = line["stopped"] == 0
            elif kind == "begin":
                begin_realtime_ns, watching = _integer(line["realtime_ns"]), _integer(line["watched"])
            elif kind == "watch":
                watched.append(_watch(line, watching))
            else:
                _take(kind, line, cases.setdefault(str(line["case"]), CaseResult(str(line["case"]))), lists)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            what = f"{type(error).__name__} {error}"[:300]
            raise DeviceError(f"the runner's results are damaged in line {number}: {what}") from error
    return RunnerResult(cases, complete, torn, begin_realtime_ns, tuple(watched))


def _take(kind: str, line: dict[str, Any], case: CaseResult, lists: dict[tuple[str, int], tuple[Kernel, ...]]) -> None:
    if kind == "loaded":
        case.load_ns = _integer(line["load_ns"])
        case.open_ns = _integer(line["open_ns"]) if "open_ns" in line else None
        case.version, case.canary = str(line["version"]), str(line["canary"])
        case.cpu_mask = int(line["cpu_mask"], 16)
        case.inputs = _mappings(line["inputs"])
    elif kind == "block":
        case.blocks.append(_block(line))
    elif kind == "kernel_list":
        lists[case.id, _integer(line["list"])] = tuple(_kernel(kernel) for kernel in line["kernels"])
    elif kind == "kernels":
        kernels, us = lists[case.id, _integer(line["list"])], _integers(line["us"])
        if len(kernels) != len(us):
            raise ValueError(f"{len(us)} times for {len(kernels)} kernels")
        if any(time < 0 for time in us):
            raise ValueError("a negative time")
        case.kernel_runs.append(KernelRun(_integer(line["sample"]), kernels, us))
    elif kind == "inferred":
        case.outputs = _mappings(line["outputs"])
    elif kind == "finished":
        peak = _integer(line["peak_memory_bytes"])
        case.peak_memory_bytes = peak if peak >= 0 else None
        case.profile = str(line["profile"])
        case.finished = True
    elif kind == "failed":
        signal = _integer(line["signal"])
        why = str(line["why"])[:1000]
        case.failed = f"{why} [{SIGNAL_NAMES.get(signal, f'signal {signal}')}]" if signal else why
    else:
        raise ValueError(f"unknown type {kind!r}")


def _watch(line: dict[str, Any], count: int | None) -> Watch:
    at_ns, values = _integer(line["at_ns"]), line["values"]
    if at_ns < 0:
        raise ValueError("a negative time")
    if not isinstance(values, list) or len(values) > MAX_WATCHED:
        raise ValueError(f"not a list of at most {MAX_WATCHED} watched values")
    if not all(value is None or (type(value) is str and len(value) <= MAX_WATCHED_CHARS) for value in values):
        raise ValueError(f"a watched value that is no text of at most {MAX_WATCHED_CHARS} characters")
    if count is not None and len(values) != count:
        raise ValueError(f"{len(values)} values of {count} watched files")
    return Watch(at_ns, tuple(values))


def _kernel(entry: dict[str, Any]) -> Kernel:
    shapes = (tuple(_integers(shape) for shape in entry.get(key, [])) for key in ("inputs", "outputs"))
    name, op = str(entry["name"])[:500], str(entry.get("op", ""))[:100]
    return Kernel(name, _integer(entry["index"]), _integer(entry["kind"]), op, *shapes)


def _block(line: dict[str, Any]) -> Block:
    starts, canaries, samples, preempted = (
        _integers(line[key]) for key in ("start_ns", "canary_ns", "sample_ns", "preempted")
    )
    if not len(starts) == len(canaries) == len(samples) == len(preempted):
        raise ValueError("arrays of different lengths")
    last_canary = _integer(line["last_canary_ns"])
    if min((*starts, *canaries, last_canary)) < 0 or min(samples, default=1) < 1:
        raise ValueError("a negative time, or an inference that took none")
    core, clock = _integers(line["core"]), _integers(line["clock_khz"])
    return Block(
        warmup=bool(line["warmup"]),
        start_ns=starts,
        canary_ns=canaries,
        sample_ns=samples,
        preempted=preempted,
        last_canary_ns=last_canary,
        core=(core[0], core[1]),
        clock_khz=(clock[0] if clock[0] >= 0 else None, clock[1] if clock[1] >= 0 else None),
    )


def _mappings(values: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError("not a list of objects")
    return tuple(values)


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise ValueError("not a list of whole numbers")
    return tuple(_integer(value) for value in values)


def _integer(value: Any) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"not a whole number of 64 bits: {str(value)[:40]}")
    return value


def read_lines(path: str) -> Iterator[bytes]:
    """The lines of a result file, at most 1 GiB of them. Raises: DeviceError: it is larger. OSError."""
    taken = 0
    with open(path, "rb") as file:
        while line := file.readline(MAX_RESULT_BYTES + 1):
            taken += len(line)
            if taken > MAX_RESULT_BYTES:
                raise DeviceError(f"{path} is larger than {MAX_RESULT_BYTES >> 20} MiB and is not read")
            yield line
