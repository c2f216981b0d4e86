"""handset lut build: networks -> their kernels and what varies them -> rounds of bundles -> a latency table."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import latency_luts
from devices.conditions import prepared
from devices.discovery import cache_dir, open_device
from devices.errors import DeviceError
from devices.lock import device_lock, lock_key
from devices.transport import Transport
from latency_luts import LatencyTable, OpKey
from pipeline import runfolder
from pipeline.artifact import Exported
from pipeline.console import Advance, Console
from pipeline.deploy import RUNTIME_FORMATS, Target, case_of, targets_of
from pipeline.device_trace import noted_conditions
from pipeline.errors import CheckFailed, ModelError, UsageError
from pipeline.graph import kernels
from pipeline.installing import install_bundles
from pipeline.lut_build import context_of
from pipeline.request import check_same_device
from pipeline.resume import with_resume
from pipeline.runfolder import RunFolder
from pipeline.subjects import subjects_of
from pipeline.sweep import again, sampling, walk
from pipeline.sweep.grid import variants
from pipeline.sweep.measure import WRITER, Measured, unwritable
from pipeline.sweep.part import WALKS, Bench, Part, measure, parts_in, plan_groups, plan_parts, plan_walks, readings_of
from pipeline.sweep.plan import BUNDLE_SIZE, WARM, bundles, distinct
from pipeline.sweep.request import KIND, BuildRequest, command_of, plan_of
from pipeline.sweep.sampling import Round
from pipeline.sweep.state import Build
from pipeline.sweep.warmth import LEAST_WALKS
from pipeline.version import VERSION
from pipeline.watching import Watching

MIN_ROUND = 2 * BUNDLE_SIZE
MAX_ROUND = 20 * BUNDLE_SIZE
"""Kernels in bundles of one round: few enough that what it teaches can steer the next."""

WALKS_COUNT, WALK_GUESS_S = 96, 1.2
WALKS_FROM_S = 120.0
"""Of a build's time: in a shorter one, the kernels of walks and the walks themselves would take most of it."""

WARMTH_SHARE = 0.25
"""Of what is left of the time: for a second warm copy of each kernel at most, and for walks."""


def build(request: BuildRequest, console: Console) -> dict[str, Any]:
    """Measures, and gives the result document; the table and its page lie in `console.run_folder`.

    Raises: UsageError: an unknown runtime, a device that is emulated, a grid that is too large. ModelError, DeviceError,
    StorageError. CheckFailed: no kernel could be measured. KeyboardInterrupt: what was measured is in the run folder.
    """
    if request.runtime not in RUNTIME_FORMATS:
        raise UsageError(f"there is no runtime {request.runtime!r}", try_=", ".join(RUNTIME_FORMATS))
    start_s = time.monotonic()
    with open_device(request.device) as device:
        if device.describe().simulated:
            what = f"{device.name} is emulated: its times are not a phone's, and no table is made of them"
            raise UsageError(what, try_="a phone, or --device host")
        locks, key = cache_dir() / "locks", lock_key(device)
        with device_lock(device.name, locks, wait_s=request.wait_s, on_wait=console.say, key=key):
            try:
                document, table = _run(request, device, console)
            except Exception as error:
                folder = console.run_folder
                if folder is not None and request.resume is None and not _begun(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                elif folder is not None and isinstance(error, DeviceError):
                    words = shlex.join(["handset", "lut", "build", "--resume", str(folder)])
                    raise with_resume(error, words) from error
                raise
    document["stages_s"] = {**console.seconds, "all": time.monotonic() - start_s}
    _finish(request, console, document, table)
    return document


def _run(request: BuildRequest, device: Transport, console: Console) -> tuple[dict[str, Any], LatencyTable]:
    about = device.describe()
    own = _kernels(request, about.abi, console)
    if not own:
        raise UsageError("a table of no kernels was asked for", try_="--for with a network, or --grid FILE with kernels")
    if request.grid is not None:
        variants(list(own), request.grid)  # one that is too large is refused now, not after minutes
    kinds = (request.bundle,) if request.bundle else ()
    installed, notes = install_bundles(kinds, [request.runtime], request.aars, device, console)
    (target,) = targets_of(list(installed.values()), request.delegate)
    folder = _open_folder(request, device)
    console.run_folder = folder.path
    (folder.path / "parts").mkdir(exist_ok=True)
    watching = Watching(device, folder.path, None, 0, console)
    settings = watching.settle_cores(request.settings)
    gates = None if about.kind == "host" else request.gates
    bench = Bench(device, target, settings, folder.id, gates, request.settle_s, console)
    created = str(folder.plan["created"])
    context = context_of(about, _any_case(target, device), settings, "not readable", created)
    build = Build(request, bench, folder, own, unwritable(own, target, folder.path), context)
    with prepared(device, console.say, touch=not request.keep_settings):
        with console.progress("measuring", request.budget_s) as bar:
            _measure(build, bar)
    measured = build.measured()
    missing = {**build.missing, **measured.missing}
    build.context = context_of(about, _any_case(target, device), settings, _clocks(build.parts), created)
    with console.stage("looking for staircases and errors"):
        table = build.table()
        return _document(build, table, measured, missing, notes), table


def _kernels(request: BuildRequest, abi: str, console: Console) -> dict[OpKey, tuple[str, ...]]:
    """Each kernel once, with the networks that have it.

    Raises: ModelError: a network that is a file of a runtime, whose kernels are not known before it runs.
    """
    networks: dict[str, list[OpKey]] = {}
    for subject in subjects_of(request.models, console) if request.models else []:
        network = subject.network
        if network.module is None:
            what = f"{network.name} is a .{network.source} file, whose kernels are known only when it has run"
            raise ModelError(what, try_="it as file.py:function or .pt2, or `handset bench`, which makes a first table")
        uses = kernels(network.module, network.input_shape, request.runtime, abi=abi)
        networks[network.name] = [use.key for use in uses]
    return {**dict.fromkeys(request.kernels, ()), **distinct(networks)}


def _open_folder(request: BuildRequest, device: Transport) -> RunFolder:
    about = device.describe()
    if request.resume is None:
        return runfolder.create(request.reports, request.device, plan_of(request, about), "lut")
    folder = runfolder.reopen(request.resume)
    check_same_device(folder.plan, about, folder.path)
    return folder


def _begun(folder: Path) -> bool:
    """Whether anything was measured; a device that is lost may have it still."""
    kinds = ("readings.json", "launch-*", "conditions.jsonl")
    return any(path for kind in kinds for path in folder.glob(f"parts/*/{kind}"))


def _any_case(target: Target, device: Transport) -> Any:
    return case_of(Exported("any", target.format, Path("any"), "", 0, (), (), WRITER), target, device, name_bundle=False)


def _measure(build: Build, bar: Advance) -> None:
    """Parts that were planned before; then rounds until the time is up or nothing is left to learn."""
    planned = parts_in(build.parts)
    begun = {part.purpose for part in planned}
    for part in planned:
        if part.is_done:
            readings, seconds = readings_of(part)
            build.keep(part, readings, seconds)
            bar(min(seconds, build.request.budget_s), "what was measured before")
    _run_parts(build, [part for part in planned if not part.is_done], bar)
    writable = [key for key in build.own if key not in build.missing]
    walks = walk.walks(WALKS_COUNT) if build.request.budget_s >= WALKS_FROM_S else []
    keys = dict.fromkeys([*writable, *(key for some in walks for key in some)])
    if "networks" not in begun and writable:
        _run_round(build, [Round("networks", tuple(keys))], bar)
    if not build.done:
        raise CheckFailed(f"none of {len(build.own)} kernels can be measured: {next(iter(build.missing.values()))}")
    _measure_warmth(build, begun, tuple(keys), walks, bar)
    grid = build.request.grid
    if grid is not None and "staircases" not in begun:
        new = [key for key in sampling.lines(writable) if key not in build.own]
        affordable = int(build.left_s / 2 / build.bundle_s()) * BUNDLE_SIZE // 2
        _run_round(build, [Round("staircases", tuple(new[: max(0, affordable)]))], bar)
    points: Sequence[OpKey] = sampling.candidates(writable, grid, build.table()) if grid is not None else ()
    while slots := _slots(build):
        table = build.table()
        error = sampling.error_of(table)
        if error is not None:
            build.history.append((len(table), error))
        if grid is None or (error is not None and error <= build.request.error):
            points = ()
        given_up = build.missing | dict(build.measured().missing)
        rounds = sampling.next_round(table, points, slots, build.request.settings.interval, given_up)
        if not rounds:
            break
        _run_round(build, rounds, bar)


def _measure_warmth(
    build: Build, begun: Container[str], keys: Sequence[OpKey], walks: Sequence[Sequence[OpKey]], bar: Advance
) -> None:
    """The kernels in small bundles, and networks of some of them from short to long ones."""
    if "warm" not in begun:
        there = {entry.key for entry in build.measured().entries}
        found = tuple(key for key in keys if key in there)
        twice_s = 2 * len(bundles(found, copies=1, limits=WARM)) * build.bundle_s(cold=False)
        copies = 2 if twice_s <= WARMTH_SHARE * build.left_s else 1
        _run_round(build, [Round("warm", found, copies, WARM)], bar)
    affordable = int(WARMTH_SHARE * build.left_s / WALK_GUESS_S)
    if WALKS not in begun and affordable >= LEAST_WALKS:
        _run_parts(build, plan_walks(walks[:affordable], build.parts), bar)


def _slots(build: Build) -> int:
    """So many kernels in bundles fit into what is left of the time; 0 for too few to be worth it."""
    warm = [part for part, _ in build.done if part.purpose == "warm"]
    kernels = sum(len(group) for part in warm for group in part.groups)
    warm_s = build.seconds["warm"] / kernels if kernels else 0.0
    # every new kernel is in two usual bundles and in one small one
    slots = min(MAX_ROUND, int(build.left_s / (build.bundle_s() / BUNDLE_SIZE + warm_s / 2)))
    return slots if slots >= MIN_ROUND else 0


def _run_round(build: Build, rounds: Sequence[Round], bar: Advance) -> None:
    _run_parts(build, plan_parts([one for one in rounds if one.keys], build.parts), bar)


def _run_parts(build: Build, parts: Sequence[Part], bar: Advance) -> None:
    _measure_parts(build, parts, bar)
    while retry := again.next_retry(build.done):
        _measure_parts(build, plan_groups(retry.purpose, retry.groups, retry.limits, build.parts), bar)


def _measure_parts(build: Build, parts: Sequence[Part], bar: Advance) -> None:
    for part in parts:
        told = time.monotonic()
        text = build.text(part.purpose)

        def tick(seconds: float, case: str, text: str = text) -> None:
            nonlocal told
            now = time.monotonic()
            bar(now - told, text)
            told = now

        bench = build.bench
        if part.purpose == again.TRIAL:
            bench = dataclasses.replace(bench, settings=again.trial_settings(bench.settings))
        readings, seconds = measure(part, bench, tick)
        tick(0, "")
        build.keep(part, readings, seconds)


def _clocks(parts: Path) -> str:
    clocks = [
        khz for folder in parts.glob("[0-9]*") for row in noted_conditions(folder) for khz in _numbers(row.get("clock_khz"))
    ]
    return f"{min(clocks)}-{max(clocks)} kHz" if clocks else "not readable"


def _numbers(values: Any) -> list[int]:
    found = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [value for value in found if type(value) is int]


def _document(
    build: Build, table: LatencyTable, measured: Measured, missing: Mapping[OpKey, str], notes: Sequence[str]
) -> dict[str, Any]:
    halves = [(e.interval_ns[1] - e.interval_ns[0]) / 2 / e.latency_ns_median for e in table if e.latency_ns_median]
    wanted, overhead = build.request.settings.interval, measured.overhead
    label = build.context.runtime + (f"-{build.context.delegate}" if build.request.delegate else "")
    name = f"{label}-float32-t{build.context.threads}.parquet"
    return {
        "schema_version": runfolder.SCHEMA_VERSION,
        "kind": KIND,
        "handset": VERSION,
        "run": build.folder.name,
        "created": build.folder.plan["created"],
        "command": command_of(build.request),
        "table": name,
        "models": list(build.request.models),
        "kernels": {"networks": len(build.own), "measured": len(table)},
        "bundles": build.bundles,
        "seconds": sum(build.seconds.values()),
        "seconds_by_purpose": build.seconds,
        "interval": {"asked": wanted, "share_within": sum(half <= wanted for half in halves) / max(1, len(halves))},
        "error": sampling.error_of(table),
        "warmth": [point._asdict() for point in table.warmth],
        "rounds": [{"kernels": count, "error": error} for count, error in build.history],
        "profiler_ns": {"taken_off": overhead.ns, "low": overhead.low_ns, "high": overhead.high_ns, "chains": overhead.chains},
        "missing": [{"key": str(key), "why": why} for key, why in missing.items()],
        "notes": [*notes, *again.notes(build.done)],
    }


def _finish(request: BuildRequest, console: Console, document: dict[str, Any], table: LatencyTable) -> None:
    from pipeline.report.table_page import render_table

    assert console.run_folder is not None
    with console.stage("writing the table and its page"):
        path = console.run_folder / document["table"]
        latency_luts.save(table, path)
        if request.out is not None:
            latency_luts.save(table, request.out)
        runfolder.write_json(console.run_folder / runfolder.RESULT, document)
        render_table(table, console.run_folder / runfolder.PAGE, about=document)


