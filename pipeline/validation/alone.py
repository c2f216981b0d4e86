"""Each kernel in a model of its own, in a loop: how tables of kernels are usually made, as a baseline."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from devices.bundle_store import bundle_for
from devices.conditions import prepared
from devices.discovery import cache_dir, open_device
from devices.install import install
from devices.lock import device_lock, lock_key
from devices.runner import RunnerResult
from devices.transport import Transport
from latency_luts import OpKey
from pipeline.console import Console
from pipeline.deploy import Target
from pipeline.errors import HandsetError
from pipeline.request import Request
from pipeline.runfolder import RunFolder
from pipeline.settings import Settings
from pipeline.sweep.measure import Bundle, Sweep, run, unwritable, write_bundles
from pipeline.sweep.reading import kernels_in
from pipeline.watching import Watching

FOLDER = "alone"
LAUNCH_S, KERNELS_S, WARMUP_S = 0.05, 0.25, 0.1
"""Seconds of a kernel in one launch: only its profile counts."""


def measure_alone(
    keys: Sequence[OpKey], request: Request, settings: Settings, folder: RunFolder, console: Console
) -> tuple[dict[OpKey, float], dict[OpKey, str]]:
    """Kernel -> µs as the profiler reads it, its own share not taken off; and kernel -> why it has no time.

    Under the conditions of the run that the networks were measured in, into a folder of its own there. What lies in it
    already counts.

    Args: settings: those of that run, with the cores that it settled on.

    Raises: DeviceError, StorageError. KeyboardInterrupt: what was measured is in the folder.
    """
    own = folder.path / FOLDER
    own.mkdir(exist_ok=True)
    short = dataclasses.replace(settings, launch_s=LAUNCH_S, kernels_s=KERNELS_S, warmup_s=WARMUP_S)
    (runtime,) = request.runtimes
    with open_device(request.device) as device:
        locks, key = cache_dir() / "locks", lock_key(device)
        with device_lock(device.name, locks, wait_s=request.wait_s, on_wait=console.say, key=key):
            about = device.describe()
            bundle, _ = bundle_for(request.bundles[0], about.abi, [runtime], request.aars, cache_dir())
            target = Target(install(bundle, device), runtime, request.delegate)
            missing = unwritable(keys, target, own)
            bundles = write_alone([key for key in keys if key not in missing], target, device, own, settings.seed)
            gates = None if about.kind == "host" else request.gates
            watching = Watching(device, own, gates, request.settle_s, console)
            seconds = len(bundles) * settings.launches * (LAUNCH_S + KERNELS_S)
            with (
                prepared(device, console.say, touch=not request.keep_settings),
                console.progress("measuring kernels alone", seconds) as bar,
            ):
                results = run(
                    Sweep(bundles, ()), device, target.installed, short, own, bar,
                    run=f"{folder.id}-{FOLDER}", watch=watching.paths, before=watching.before_launch,
                )  # fmt: skip
    with console.stage("reading the kernels alone"):
        return _read(bundles, results, own, settings.confidence, missing)


def write_alone(
    keys: Sequence[OpKey], target: Target, device: Transport, folder: Path, seed: int
) -> tuple[Bundle, ...]:
    """A model a kernel, called after it: what was measured of it is found again, whichever other kernels are asked."""
    bundles: list[Bundle] = []
    for key in keys:
        name = f"{FOLDER}-{hashlib.sha256(str(key).encode()).hexdigest()[:16]}"
        bundles += write_bundles(
            [[key]], target, device, folder, seed=seed, producers=False, consumers=False, name=name
        )
    return tuple(bundles)


def _read(
    bundles: Sequence[Bundle], results: Sequence[RunnerResult], own: Path, confidence: float, missing: dict[OpKey, str]
) -> tuple[dict[OpKey, float], dict[OpKey, str]]:
    found: dict[OpKey, float] = {}
    for bundle in bundles:
        (key,) = bundle.plan.keys
        try:
            seen = kernels_in(bundle, results, own, confidence)
        except HandsetError as error:
            missing[key] = str(error)
            continue
        if seen:
            found[key] = seen[0].us
        else:
            missing[key] = "alone it runs as another kernel"
    return found, missing
