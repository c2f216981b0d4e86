"""A run in the Trace Event Format, for ui.perfetto.dev and chrome://tracing.

Two files, because they have two axes of time. `trace.json` has one inference of each network: its kernels one behind
another from 0 on, and on a second track its end-to-end latency, so that sum and whole stand side by side. Beside it,
`trace_over_time.json` has the run itself: every sample when it was taken, the canary, clocks and temperatures.

**Reference**: Trace Event Format (Google): the JSON Object Format, complete ("X"), counter ("C") and metadata ("M") events.
Times are in µs. Perfetto keeps whole ns, and two events of one thread that overlap by a single ns are an error there: so
times are laid out in whole ns and written with three decimals. It takes no `displayTimeUnit`. Older versions cannot read
a string with a \\u escape; texts are written as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

from pipeline.errors import CheckFailed, UsageError
from pipeline.report.document import read
from pipeline.report.reader import Node
from pipeline.report.text import duration, shorten
from pipeline.report.views import Bench, Estimate, Kernel, Measured, Moment, Profile
from pipeline.runfolder import write_text

TRACE = "trace.json"
NAME_CHARACTERS = 200
LONGEST_NS = 10**15
"""Eleven days: as µs with three decimals it is still written without an exponent, which older versions cannot read."""

Event = dict[str, object]


def write(result: Mapping[str, object], path: Path) -> list[Path]:
    """Writes the trace to `path`; beside it, as `<stem>_over_time.json`, what the run's document tells over time.

    Returns: the files that were written, one or two.

    Raises:
        UsageError: the document is no bench result, or a time in it is below zero or beyond all reason.
        CheckFailed: it has nothing that was measured.
        StorageError: a file cannot be written.
    """
    bench = read(result)
    measured = [(profile, profile.measured) for profile in bench.profiles if profile.measured is not None]
    if not measured:
        why = next((f": {profile.failed}" for profile in bench.profiles if profile.failed), "")
        raise CheckFailed(f"{shorten(bench.run, 80)} has no network that was measured{shorten(why, 300)}")
    events = list(_inferences(bench, measured))
    left_out = {f"{p.network} {p.label}": p.failed for p in bench.profiles if p.failed}
    left_out |= {f"{p.network} {p.label}": m.kernels_missing for p, m in measured if not m.kernels}
    _write(path, events, bench, left_out)
    over_time, untimed = _run(bench, measured, _begins(result))
    if not over_time:
        return [path]
    beside = path.with_name(f"{path.stem}_over_time{path.suffix}")
    _write(beside, over_time, bench, untimed)
    return [path, beside]


def _write(path: Path, events: Sequence[Event], bench: Bench, left_out: Mapping[str, str]) -> None:
    other = {
        "handset": bench.handset,
        "run": bench.run,
        "created": bench.created,
        "command": bench.command,
        "device": ", ".join(filter(None, (bench.device.get(name, "") for name in ("name", "model", "os", "abi")))),
        "simulated": bench.simulated,
        "left_out": dict(left_out),
    }
    lines = ",\n".join(json.dumps(event, ensure_ascii=False, allow_nan=False) for event in events)
    about = json.dumps(other, ensure_ascii=False, allow_nan=False)
    write_text(path, f'{{"traceEvents": [\n{lines}\n],\n"otherData": {about}}}\n')


def _inferences(bench: Bench, measured: Sequence[tuple[Profile, Measured]]) -> Iterator[Event]:
    """One process a runtime, two threads a network; a thread's number is its own in the whole file, and never a process's."""
    processes = _processes(bench, measured)
    for name, pid in processes.items():
        yield from _named("process", name, pid, pid, pid)
    threads = count(1000)
    for profile, own in measured:
        pid, whole, kernels = processes[_process(bench, profile)], next(threads), next(threads)
        network = shorten(profile.network, NAME_CHARACTERS)
        yield from _named("thread", f"{network}: end to end", pid, whole, whole)
        yield _complete(duration(own.best.median), pid, whole, 0, _ns(own.best.median, "a latency"), _whole(own))
        if own.kernels:
            yield from _named("thread", f"{network}: kernels, back to back", pid, kernels, kernels)
        start = 0
        for kernel in own.kernels:
            # what the runtime's clock cannot resolve is 0 there; events of no length would nest in one another
            length = max(1, _ns((kernel.corrected or kernel.plain).median, f"kernel {kernel.index}"))
            yield _complete(kernel.name or kernel.op, pid, kernels, start, length, _kernel(kernel))
            start += length


def _whole(own: Measured) -> Event:
    found: Event = {
        "time": "noise-corrected median" if own.corrected else "median",
        **_interval(own.best, "ms", 1.0),
        "plain_ms": own.plain.median,
        "profiled_ms": own.profiled.median if own.profiled else None,
        "kernels_sum_ms": own.kernels_sum_ms,
        "profiler_cost_ms": own.profiler_cost_ms,
        "between_kernels_ms": own.between_kernels_ms,
        "stable": own.stable,
        "verdict": own.verdict,
    }
    return {name: value for name, value in found.items() if value is not None}


def _kernel(kernel: Kernel) -> Event:
    found: Event = {
        "index": kernel.index,
        "op": kernel.op,
        "runtime_kernel": kernel.runtime_kernel,
        "key": kernel.key,
        "time": "noise-corrected" if kernel.corrected else "plain",
        "us": (kernel.corrected or kernel.plain).median * 1e3,
        **_interval(kernel.corrected or kernel.plain, "us", 1e3),
        "plain_us": kernel.plain.median * 1e3,
        "share_percent": kernel.share * 100,
        "macs": kernel.macs,
    }
    return {name: value for name, value in found.items() if value is not None}


def _interval(estimate: Estimate, unit: str, factor: float) -> Event:
    return {f"interval_low_{unit}": estimate.low * factor, f"interval_high_{unit}": estimate.high * factor}


def _run(
    bench: Bench, measured: Sequence[tuple[Profile, Measured]], begins: Sequence[float]
) -> tuple[list[Event], dict[str, str]]:
    """The run on its own axis, and the profiles whose samples cannot be put on it, each with the reason."""
    events: list[Event] = []
    untimed: dict[str, str] = {}
    processes, threads = _processes(bench, measured), count(1000)
    device = len(processes) + 1
    for moment in bench.conditions.trace if bench.conditions else []:
        events += _looks(moment, device)
    if events:
        events = [*_named("process", f"{_device(bench)}: clocks, temperature, load", device, device, 0), *events]
    for profile, own in measured:
        name = f"{shorten(profile.network, NAME_CHARACTERS)} {profile.label}"
        numbers = sorted({int(number) for number in own.launch})
        if not own.start_ns or not own.launch or numbers != list(range(len(begins))):
            untimed[name] = "the document does not tell when its launches began"
            continue
        events += _samples(name, own, begins, processes[_process(bench, profile)], next(threads))
    used = {event["pid"] for event in events}
    for name, pid in processes.items():
        events += _named("process", name, pid, pid, pid) if pid in used else ()
    return events, untimed


def _samples(name: str, own: Measured, begins: Sequence[float], pid: int, tid: int) -> Iterator[Event]:
    yield from _named("thread", f"{name}: samples", pid, tid, tid)
    for i, (ns, start_ns, launch) in enumerate(zip(own.samples_ns, own.start_ns, own.launch, strict=True)):
        start = _ns(begins[int(launch)] * 1e3 + start_ns / 1e6, "the begin of a sample")
        kept = not own.kept or bool(own.kept[i])
        args: Event = {"launch": int(launch), "kept": kept}
        if own.preempted:
            args["preempted"] = own.preempted[i]
        yield _complete("sample" if kept else "sample, not kept", pid, tid, start, _ns(ns / 1e6, "a sample"), args)
        if own.canary_ns:
            yield _counter(f"canary beside {name}", pid, start, "µs", own.canary_ns[i] / 1e3)


def _looks(moment: Moment, pid: int) -> Iterator[Event]:
    at = _ns(moment.at_s * 1e3, "a moment of the trace")
    for core, khz in moment.clock_khz.items():
        yield _counter(f"clock of core {shorten(core, 40)}", pid, at, "MHz", khz / 1e3)
    for name, unit, value in (
        ("temperature", "°C", moment.temperature_c),
        ("thermal status", "of Android", moment.thermal_status),
        ("load", "1 min", moment.load1),
    ):
        if value is not None:
            yield _counter(name, pid, at, unit, value)


def _begins(result: Mapping[str, object]) -> list[float]:
    """When each launch began, s, on the axis of the trace; [] where the document does not tell.

    Only what was noted between two launches has an uptime; the last such note was made after the last launch. A trace that
    was thinned has lost some of them: then their numbers do not run from 0 on.
    """
    conditions = Node(result).maybe_child("device_conditions")
    noted: dict[int, float] = {}
    for point in conditions.children("trace") if conditions else []:
        if point.has("uptime_s") and point.has("launch"):
            noted.setdefault(int(point.number("launch")), point.number("at_s"))
    return [noted[number] for number in sorted(noted)[:-1]] if sorted(noted) == list(range(len(noted))) else []


def _processes(bench: Bench, measured: Sequence[tuple[Profile, Measured]]) -> dict[str, int]:
    return {name: pid for pid, name in enumerate(dict.fromkeys(_process(bench, profile) for profile, _ in measured), 1)}


def _process(bench: Bench, profile: Profile) -> str:
    return f"{_device(bench)}: {shorten(f'{profile.label} {profile.runtime_version}'.strip(), NAME_CHARACTERS)}"


def _device(bench: Bench) -> str:
    return shorten(bench.device_name, 80) + (" (SIMULATED)" if bench.simulated else "")


def _named(kind: str, name: str, pid: int, tid: int, rank: int) -> tuple[Event, Event]:
    return (
        {"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": f"{kind}_name", "args": {"name": name}},
        {"ph": "M", "pid": pid, "tid": tid, "ts": 0, "name": f"{kind}_sort_index", "args": {"sort_index": rank}},
    )


def _complete(name: str, pid: int, tid: int, start_ns: int, length_ns: int, args: Event) -> Event:
    times = {"ts": start_ns / 1e3, "dur": length_ns / 1e3}
    name = shorten(name, NAME_CHARACTERS) or "?"
    return {"ph": "X", "pid": pid, "tid": tid, **times, "cat": "handset", "name": name, "args": args}


def _counter(name: str, pid: int, at_ns: int, unit: str, value: float) -> Event:
    return {"ph": "C", "pid": pid, "tid": pid, "ts": at_ns / 1e3, "name": name, "args": {unit: value}}


def _ns(ms: float, what: str) -> int:
    ns = ms * 1e6
    if not 0 <= ns <= LONGEST_NS:
        raise UsageError(f"the result document says {ms:g} ms for {what}", try_="measure again")
    return round(ns)
