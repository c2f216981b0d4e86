"""handset lut build: networks -> their kernels and what varies them -> rounds of bundles -> a latency table."""

from __future__ import annotations

import shlex
import shutil
import time
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
from pipeline.console import Console
from pipeline.deploy import RUNTIME_FORMATS, Target, case_of, targets_of
from pipeline.device_trace import noted_conditions
from pipeline.errors import ModelError, UsageError
from pipeline.graph import kernels
from pipeline.installing import install_bundles
from pipeline.lut_build import context_of
from pipeline.request import check_same_device
from pipeline.resume import with_resume
from pipeline.runfolder import RunFolder
from pipeline.subjects import subjects_of
from pipeline.sweep.document import document_of
from pipeline.sweep.grid import variants
from pipeline.sweep.measure import WRITER, unwritable
from pipeline.sweep.part import Bench
from pipeline.sweep.pieces import check_methods, piece_keys
from pipeline.sweep.plan import distinct
from pipeline.sweep.relatives import relatives
from pipeline.sweep.request import BuildRequest, plan_of
from pipeline.sweep.rounds import measure_rounds, to_vary
from pipeline.sweep.state import Build
from pipeline.watching import Watching


def build(request: BuildRequest, console: Console) -> dict[str, Any]:
    """Measures, and gives the result document; the table and its page lie in `console.run_folder`.

    Raises: UsageError: an unknown runtime or method, a device that is emulated, a grid that is too large. ModelError,
    DeviceError, StorageError. CheckFailed: no kernel could be measured. KeyboardInterrupt: what was measured is in the run
    folder.
    """
    if request.runtime not in RUNTIME_FORMATS:
        raise UsageError(f"there is no runtime {request.runtime!r}", try_=", ".join(RUNTIME_FORMATS))
    check_methods(request.pieces)
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
    own, related = _kernels(request, about.abi, console)
    if not own:
        raise UsageError("a table of no kernels was asked for", try_="--for with a network, or --grid FILE with kernels")
    if request.grid is not None:
        variants(to_vary(request, own), request.grid)  # one that is too large is refused now, not after minutes
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
    build = Build(request, bench, folder, own, unwritable(own, target, folder.path), context, related)
    with prepared(device, console.say, touch=not request.keep_settings):
        with console.progress("measuring", request.budget_s) as bar:
            measure_rounds(build, bar)
    measured = build.measured()
    missing = {**build.missing, **measured.missing}
    build.context = context_of(about, _any_case(target, device), settings, _clocks(build.parts), created)
    with console.stage("looking for staircases and errors"):
        table = build.table()
        return document_of(build, table, measured, missing, notes), table


def _kernels(request: BuildRequest, abi: str, console: Console) -> tuple[dict[OpKey, tuple[str, ...]], list[OpKey]]:
    """Each kernel once, with the networks that have it; those of pieces, and others that none has, with none. And those of
    the networks at other widths and resolutions, where a grid is asked for.

    Raises: UsageError: pieces of no network. ModelError: a network that is a file of a runtime, whose kernels are not known
    before it runs.
    """
    networks: dict[str, list[OpKey]] = {}
    pieces: list[OpKey] = []
    if request.pieces and not request.models:
        raise UsageError("pieces of no network were asked for", try_="--for with a network")
    networks_of = [subject.network for subject in subjects_of(request.models, console)] if request.models else []
    for network in networks_of:
        if network.module is None:
            what = f"{network.name} is a .{network.source} file, whose kernels are known only when it has run"
            raise ModelError(what, try_="it as file.py:function or .pt2, or `handset bench`, which makes a first table")
        uses = kernels(network.module, network.input_shape, request.runtime, abi=abi)
        networks[network.name] = [use.key for use in uses]
        if request.pieces:
            with console.stage(f"decomposing {network.name}"):
                pieces += piece_keys(network.module, network.input_shape, request.runtime, request.pieces, abi=abi)
    own = {**dict.fromkeys([*request.kernels, *pieces], ()), **distinct(networks)}
    if request.grid is None or not networks_of:
        return own, []
    with console.stage("tracing other widths and resolutions"):
        related = relatives(networks_of, request.grid, request.runtime, abi)
    return own, [key for key in related if key not in own]


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


def _clocks(parts: Path) -> str:
    clocks = [
        khz for folder in parts.glob("[0-9]*") for row in noted_conditions(folder) for khz in _numbers(row.get("clock_khz"))
    ]
    return f"{min(clocks)}-{max(clocks)} kHz" if clocks else "not readable"


def _numbers(values: Any) -> list[int]:
    found = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [value for value in found if type(value) is int]


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


