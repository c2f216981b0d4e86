"""Launches of a sweep -> each kernel's time in each bundle -> entries of a latency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.runner import RunnerResult
from latency_luts import Entry, OpKey, stats
from pipeline.collect import graph_file
from pipeline.deploy import Deployed
from pipeline.errors import CheckFailed, HandsetError
from pipeline.kernel_times import KernelTimes, kernel_times, to_launch
from pipeline.kernels.file_op import FileOp
from pipeline.naming import align
from pipeline.result import launches_of
from pipeline.settings import PROFILED
from pipeline.sweep import onnx_model
from pipeline.sweep.fold import Overhead, Seen, Walk, entries, overhead, smooth_us, whole_us
from pipeline.sweep.leveling import level
from pipeline.sweep.measure import Bundle, Sweep


@dataclass(frozen=True)
class Measured:
    """What a sweep gave.

    Args:
        entries: one a kernel that was found in a profile.
        overhead: by how much kernels read longer than they take; taken off already.
        missing: kernels that ran as another one or not at all, or whose bundle failed -> why.
    """

    entries: tuple[Entry, ...]
    overhead: Overhead
    missing: Mapping[OpKey, str]


@dataclass(frozen=True)
class Readings:
    """What the profiles of some bundles, chains and walks say.

    Args:
        seen: each kernel in each bundle.
        added_us: of each chain that told it, by how much a kernel reads longer than it takes.
        missing: kernels that ran as another one or not at all, or whose bundle failed -> why.
        walks: those that ran.
        failed: the numbers of the bundles that could not be measured at all.
    """

    seen: tuple[Seen, ...]
    added_us: tuple[float, ...]
    missing: Mapping[OpKey, str]
    walks: tuple[Walk, ...] = ()
    failed: tuple[int, ...] = ()


def read(sweep: Sweep, results: Sequence[RunnerResult], folder: Path, confidence: float = 0.95) -> Readings:
    """The kernels' times in each bundle; their files in `folder` are not needed any more then."""
    seen: list[Seen] = []
    reasons: dict[OpKey, str] = {}
    failed: list[int] = []
    for number, bundle in enumerate(sweep.bundles):
        try:
            times = _times(bundle.case, results, confidence)
            found = _seen_in(bundle, times, folder)
        except HandsetError as error:
            reasons.update(dict.fromkeys(bundle.plan.keys, str(error)))
            failed.append(number)
            continue
        seen += found
        there = {one.key for one in found}
        reasons.update({key: "it ran as another kernel" for key in bundle.plan.keys if key not in there})
    told = tuple(added for chain in sweep.chains if (added := added_us(chain, results, confidence)) is not None)
    walks = tuple(one for case in sweep.walks if (one := walked(case, results, folder, confidence)) is not None)
    return Readings(tuple(seen), told, reasons, walks, tuple(failed))


def fold(
    sweep: Sweep, results: Sequence[RunnerResult], folder: Path, *, confidence: float = 0.95,
    met: Mapping[OpKey, Sequence[str]] | None = None,
) -> Measured:  # fmt: skip
    """Entries from what was measured in one go, as `combine`."""
    return combine([read(sweep, results, folder, confidence)], confidence=confidence, met=met)


def combine(
    readings: Sequence[Readings], warm: Sequence[Readings] = (), others: Sequence[Readings] = (), *,
    confidence: float = 0.95, met: Mapping[OpKey, Sequence[str]] | None = None,
) -> Measured:  # fmt: skip
    """Entries from what was read, be it in one part or in many.

    Args:
        warm: of bundles so small that their kernels find everything in the caches: for the entries' second time only.
        others: of which only the chains count.
        met: the networks that have a kernel, for its entry.

    Raises: CheckFailed: no bundle gave any time at all; why the first one failed.
    """
    seen = level([part.seen for part in readings])
    reasons = {key: why for part in readings for key, why in part.missing.items()}
    if not seen:
        raise CheckFailed(f"no bundle could be measured: {next(iter(reasons.values()), 'there was none')}")
    warm_seen = level([part.seen for part in warm])
    told = [added for part in (*readings, *warm, *others) for added in part.added_us]
    taken_off = overhead(told, min(one.us for one in (*seen, *warm_seen)), confidence)
    made = entries(seen, taken_off, confidence, met, warm_seen)
    there = {entry.key for entry in made}
    return Measured(tuple(made), taken_off, {key: why for key, why in reasons.items() if key not in there})


def kernels_in(bundle: Bundle, results: Sequence[RunnerResult], folder: Path, confidence: float) -> list[Seen]:
    """The kernels of one bundle that ran as what they were written for.

    Raises: CheckFailed: the bundle failed or was never measured.
    """
    return _seen_in(bundle, _times(bundle.case, results, confidence), folder)


def _seen_in(bundle: Bundle, times: Sequence[KernelTimes], folder: Path) -> list[Seen]:
    case, wanted = bundle.case, bundle.plan.by_place()
    return [
        Seen(
            op.key, case.id, smooth_us(time), (time.high_us - time.low_us) / 2, time.samples_us,
            time.kernel.op or time.kernel.name,
        )
        for time, (place, op) in zip(times, _places(case, times, folder), strict=True)
        if op is not None and op.key is not None and wanted.get(place) == op.key
    ]  # fmt: skip


def added_us(case: Deployed, results: Sequence[RunnerResult], confidence: float) -> float | None:
    """By how many µs each kernel of a model reads longer than it takes; None where its latency is not told."""
    try:
        times = _times(case, results, confidence)
    except CheckFailed:
        return None
    plain = launches_of(case.id, results)
    whole = whole_us(plain, confidence) if plain else None
    return None if whole is None else (sum(map(smooth_us, times)) - whole) / len(times)


def walked(case: Deployed, results: Sequence[RunnerResult], folder: Path, confidence: float) -> Walk | None:
    """A walk as it ran; None where it failed, or where its latency is not told."""
    try:
        times = _times(case, results, confidence)
        places = _places(case, times, folder)
    except HandsetError:
        return None
    plain = launches_of(case.id, results)
    whole = whole_us(plain, confidence) if plain else None
    kernels = tuple((op.key if op else None, smooth_us(time)) for time, (_, op) in zip(times, places, strict=True))
    return None if whole is None else Walk(whole, kernels)


def _times(case: Deployed, results: Sequence[RunnerResult], confidence: float) -> list[KernelTimes]:
    profiled = launches_of(case.id + PROFILED, results)
    if not any(one.kernel_runs for one in profiled):
        own = [
            result.cases[name] for result in results for name in (case.id, case.id + PROFILED) if name in result.cases
        ]
        raise CheckFailed(next((one.failed for one in own if one.failed), "it was never measured"))
    reference = stats.canary_reference([to_launch(one) for one in profiled])
    return kernel_times(profiled, reference, confidence)


def _places(case: Deployed, times: Sequence[KernelTimes], folder: Path) -> list[tuple[str, FileOp | None]]:
    """For each kernel the place in the file that it runs, and its op; ("", None) where that cannot be told."""
    if case.runtime == "onnxruntime":
        from pipeline.kernels.onnx import keys

        graph = graph_file(folder, case.id)
        shapes = {time.kernel.name: (time.kernel.inputs, time.kernel.outputs) for time in times}
        ops = keys(graph, shapes, case.artifact.path)
        reorders = onnx_model.reorder_places(graph)
        found = [(reorders.get(time.kernel.name), ops.get(time.kernel.name)) for time in times]
        # a linear layer and its activation are one node of a new name
        return [(place or (op.name.removeprefix("fused ") if op else ""), op) for place, op in found]
    from pipeline.kernels.tflite import keys as file_keys

    assigned = align([time.kernel for time in times], file_keys(case.artifact.path))
    return [(op.name if op else "", op) for op in assigned]
