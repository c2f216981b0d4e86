"""The on-device runner's job file, and the parser of what it writes.

A job is many cases; the runner's answer is JSON lines of raw samples. Both sides of the format are here and in
`native/job.c` and `native/worker.c`. What comes back is not trusted: sizes are bounded, types and lengths checked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from devices.errors import DeviceError

MAX_RESULT_BYTES = 1 << 30
MAX_LINE_BYTES = 8000
SIGNAL_NAMES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}


@dataclass(frozen=True)
class Case:
    """One model in one runtime. Paths are the device's. Times in ns; zero or empty means: not set.

    Args:
        group: cases of one group (adjacent in the job) are loaded together and interleaved.
        block_ns, block_samples: a block ends when both are reached.
        max_ns: the time inside inferences and canaries after which no new block is begun.
        limit_ns: a load or an inference that takes longer has hung; the case is given up.
        memory_bytes: limit on the address space of the case's process.
        input, output: raw tensors to run instead of timing, and where the raw outputs go.
    """

    id: str
    model: str
    runtime: str
    library: str
    delegate: str = ""
    group: int = 0
    threads: int = 1
    cpu_mask: int = 0
    profile: bool = False
    profile_prefix: str = ""
    optimized_model: str = ""
    log: str = ""
    input: str = ""
    output: str = ""
    warmup_ns: int = 200_000_000
    warmup_samples: int = 3
    block_ns: int = 100_000_000
    block_samples: int = 3
    min_samples: int = 1
    max_samples: int = 100_000
    max_ns: int = 1_000_000_000
    limit_ns: int = 60_000_000_000
    memory_bytes: int = 0


def format_job(cases: Sequence[Case], results: str, *, seed: int = 1, canary: bool = True) -> str:
    """The text of a job file.

    Raises: DeviceError: a line holds what the format cannot carry: a line break, a NUL, too many bytes; or an id is not
    plain text, so that its results could not be told from another's.
    """
    lines = ["handset-job 1", f"results {results}", f"seed {seed}", f"canary {int(canary)}"]
    for case in cases:
        lines.append(f"case {case.id}")
        for item in dataclasses.fields(case):
            value = getattr(case, item.name)
            if item.name != "id" and value != "" and not (item.name == "cpu_mask" and value == 0):
                lines.append(f"{item.name} {int(value) if isinstance(value, bool) else value}")
    for line in lines:
        if not _fits(line):
            what = f"a line break, no plain text, or more than {MAX_LINE_BYTES} bytes"
            raise DeviceError(f"the runner cannot take {line[:80]!r}: {what}")
    return "\n".join(lines) + "\n"


def _fits(line: str) -> bool:
    if line.startswith("case ") and not (line.isascii() and line.isprintable()):
        return False
    try:
        return not set("\n\r\0") & set(line) and len(line.encode()) <= MAX_LINE_BYTES
    except UnicodeEncodeError:
        return False


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


@dataclass
class CaseResult:
    """What one case gave. `failed` says why it ended early, or is None; what was measured before stays."""

    id: str
    load_ns: int | None = None
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


@dataclass(frozen=True)
class RunnerResult:
    """`complete` is False where the runner was stopped or died; `torn` counts lines that were cut short."""

    cases: Mapping[str, CaseResult]
    complete: bool
    torn: int


def parse_results(lines: Iterable[bytes]) -> RunnerResult:
    """Reads the runner's lines. A last line that was cut short is left out; anything else that is odd is an error.

    Raises: DeviceError: a whole line is not what the runner writes; its number and what is wrong are named.
    """
    cases: dict[str, CaseResult] = {}
    lists: dict[tuple[str, int], tuple[Kernel, ...]] = {}
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
                continue
            _take(kind, line, cases.setdefault(str(line["case"]), CaseResult(str(line["case"]))), lists)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            what = f"{type(error).__name__} {error}"[:300]
            raise DeviceError(f"the runner's results are damaged in line {number}: {what}") from error
    return RunnerResult(cases, complete, torn)


def _take(kind: str, line: dict[str, Any], case: CaseResult, lists: dict[tuple[str, int], tuple[Kernel, ...]]) -> None:
    if kind == "loaded":
        case.load_ns = _integer(line["load_ns"])
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
    elif kind == "failed":
        signal = _integer(line["signal"])
        why = str(line["why"])[:1000]
        case.failed = f"{why} [{SIGNAL_NAMES.get(signal, f'signal {signal}')}]" if signal else why
    else:
        raise ValueError(f"unknown type {kind!r}")


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
    if min((*starts, *samples, *canaries, last_canary)) < 0:
        raise ValueError("a negative time")
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
