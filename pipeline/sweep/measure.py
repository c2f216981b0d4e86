"""Keys -> bundles, chains and walks on a device -> launches. What these say: `reading.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.install import Installed
from devices.runner import RunnerResult
from devices.transport import Transport
from latency_luts import OpKey
from pipeline.artifact import Exported, sha256_file
from pipeline.collect import MAX_FOLDER_BYTES
from pipeline.deploy import Deployed, Target, case_of, deploy
from pipeline.errors import UnsupportedOp
from pipeline.launch import OnProgress
from pipeline.profiling import Before, load_launches, needs_more
from pipeline.profiling import measure as measure_cases
from pipeline.recover import recover
from pipeline.settings import Settings
from pipeline.sweep import onnx_model, tflite_model
from pipeline.sweep.bundle import BundlePlan, chain_keys

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
        case = dataclasses.replace(_case(path, plan.model_bytes, target, device), kernels_only=True)
        found.append(Bundle(plan, case))
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
    """Sends the models, times each with the profiler, chains and walks without it too, `settings.launches` times, and removes
    them again.

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
        if waiting := [case for case in cases if needs_more(case.timed_id, results, fixed)]:
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
