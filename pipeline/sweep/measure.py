"""Keys -> bundles on a device -> launches -> entries of a latency table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.install import Installed
from devices.runner import RunnerResult
from devices.transport import Transport
from latency_luts import Entry, OpKey, stats
from pipeline.artifact import Exported, sha256_file
from pipeline.collect import MAX_FOLDER_BYTES, graph_file
from pipeline.deploy import Deployed, Target, case_of, deploy
from pipeline.errors import CheckFailed, HandsetError, UnsupportedOp
from pipeline.kernel_times import KernelTimes, kernel_times, to_launch
from pipeline.kernels.file_op import FileOp
from pipeline.launch import OnProgress
from pipeline.naming import align
from pipeline.profiling import Before, load_launches, needs_more
from pipeline.profiling import measure as measure_cases
from pipeline.recover import recover
from pipeline.result import launches_of
from pipeline.settings import PROFILED, Settings
from pipeline.sweep import onnx_model, tflite_model
from pipeline.sweep.bundle import BundlePlan, chain_keys
from pipeline.sweep.fold import Overhead, Seen, Walk, entries, overhead, smooth_us, whole_us
from pipeline.sweep.leveling import level

WRITER = "handset sweep"
LAUNCH_BYTES = MAX_FOLDER_BYTES // 2
"""Half of what a launch brings home at most: the other half is for what cannot be told beforehand."""
CHAINS = 3
PROFILE_BYTES = 700_000
"""Of onnxruntime's profile, a kernel with its producer, reorders and consumer."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written, as a case of the runner."""

    plan: BundlePlan
    case: Deployed


@dataclass(frozen=True)
class Sweep:
    """What one sweep measures: bundles of kernels, chains that tell what the profiler adds, and walks through kernels."""

    bundles: tuple[Bundle, ...]
    chains: tuple[Deployed, ...]
    walks: tuple[Deployed, ...] = ()

    @property
    def cases(self) -> list[Deployed]:
        return [*(bundle.case for bundle in self.bundles), *self.chains, *self.walks]


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


def unwritable(keys: Iterable[OpKey], target: Target, folder: Path) -> dict[OpKey, str]:
    """The kernels that no model of one kernel can be written for in this runtime's format -> why."""
    found: dict[OpKey, str] = {}
    for key in keys:
        try:
            _writer(target)([key], folder / f"try.{target.format}")
        except UnsupportedOp as error:
            found[key] = str(error)
    (folder / f"try.{target.format}").unlink(missing_ok=True)
    return found


def _writer(target: Target) -> Callable[..., BundlePlan]:
    return onnx_model.write_bundle if target.format == "onnx" else tflite_model.write_bundle


def write_bundles(
    groups: Sequence[Sequence[OpKey]], target: Target, device: Transport, folder: Path, *, seed: int = 0,
    producers: bool = True, consumers: bool = True, random_order: bool = False, name: str = "bundle",
) -> tuple[Bundle, ...]:  # fmt: skip
    """One file a group, and its case; nothing is sent yet. The same arguments give the same files and names.

    Raises: UnsupportedOp: a key that cannot be written, see `unwritable`. OSError.
    """
    write, found = _writer(target), []
    for number, keys in enumerate(groups):
        path = folder / f"{name}-{number:04d}.{target.format}"
        plan = write(
            keys, path, producers=producers, consumers=consumers, order_seed=seed + number, random_order=random_order
        )
        found.append(Bundle(plan, _case(path, plan.model_bytes, target, device)))
    return tuple(found)


def write_chains(target: Target, device: Transport, folder: Path, count: int = CHAINS) -> tuple[Deployed, ...]:
    """Files and cases of the chains, as `write_bundles` of the bundles."""
    return _write_in_row([chain_keys(number) for number in range(count)], target, device, folder, "chain")


def write_walks(
    walks: Sequence[Sequence[OpKey]], target: Target, device: Transport, folder: Path
) -> tuple[Deployed, ...]:
    """Files and cases of networks whose kernels follow each other."""
    return _write_in_row(walks, target, device, folder, "walk")


def _write_in_row(
    rows: Sequence[Sequence[OpKey]], target: Target, device: Transport, folder: Path, name: str
) -> tuple[Deployed, ...]:
    write, found = onnx_model.write_chain if target.format == "onnx" else tflite_model.write_chain, []
    for number, keys in enumerate(rows):
        path = folder / f"{name}-{number:04d}.{target.format}"
        found.append(_case(path, write(keys, path), target, device))
    return tuple(found)


def _case(path: Path, size: int, target: Target, device: Transport) -> Deployed:
    exported = Exported(path.stem, target.format, path, sha256_file(path), size, (), (), WRITER)
    return case_of(exported, target, device, name_bundle=False)


def run(
    sweep: Sweep, device: Transport, installed: Installed, settings: Settings, folder: Path, on_progress: OnProgress,
    *, run: str = "sweep", watch: tuple[str, ...] = (), before: Before = lambda number: None,
) -> list[RunnerResult]:  # fmt: skip
    """Sends the models, times each with and without the profiler, `settings.launches` times, and removes them again.

    What lies in `folder` already counts, so that a sweep that was cut off goes on. Raises: DeviceError, StorageError.
    """
    recover(device, run, folder, [case.id for case in sweep.cases])
    # so many launches and no more: the interval of a whole bundle's latency interests nobody
    fixed = dataclasses.replace(settings, budget_s=0.0)
    by_kind = {installed.bundle.kind: installed}
    parts = list(_parts(sweep.bundles)) or [[]]
    for number, part in enumerate(parts):
        others = [*sweep.chains[number :: len(parts)], *sweep.walks[number :: len(parts)]]
        cases = [*others, *(bundle.case for bundle in part)]
        results = load_launches(folder)
        if waiting := [case for case in cases if needs_more(case.id, results, fixed)]:
            deploy(waiting, device)
            measure_cases(waiting, device, by_kind, fixed, folder, on_progress, run=run, watch=watch, before=before)
            device.run(["rm", "-f", "--", *(case.remote_path for case in waiting)], timeout_s=60)
    return load_launches(folder)


def _parts(bundles: Sequence[Bundle]) -> Iterator[list[Bundle]]:
    """As many at a time as a launch can bring home: onnxruntime's come with their graph and a long profile."""
    some: list[Bundle] = []
    taken = 0
    for bundle in bundles:
        size = bundle.plan.model_bytes + PROFILE_BYTES * len(bundle.plan.keys)
        if bundle.case.runtime != "onnxruntime":
            size = 0
        if some and taken + size > LAUNCH_BYTES:
            yield some
            some, taken = [], 0
        some.append(bundle)
        taken += size
    if some:
        yield some


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
