"""handset bench: Network -> Exported -> Deployed -> launches -> tables -> report, one run folder."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devices.conditions import prepared
from devices.discovery import cache_dir, open_device
from devices.errors import DeviceError, DeviceLost
from devices.install import Installed
from devices.lock import device_lock, lock_key
from devices.transport import DeviceDescription, Transport
from pipeline import models, runfolder
from pipeline.artifact import Exported, Network
from pipeline.console import Console
from pipeline.deploy import RUNTIME_FORMATS, Deployed, case_of, deploy, targets_of
from pipeline.document import Measured, run_document
from pipeline.errors import CheckFailed, ModelError, UsageError
from pipeline.installing import install_bundles
from pipeline.numerics import Agreement, accuracy_row, check_on_device
from pipeline.profiling import launch_files, launches_to_go, load_launches, measure
from pipeline.request import Request, check_same_device, command_of, plan_of
from pipeline.resume import with_resume
from pipeline.runfolder import RunFolder
from pipeline.settings import Settings
from pipeline.subjects import Subject, check_formats, fitting, subjects_of
from pipeline.watching import Watching, begun


def bench(request: Request, console: Console) -> dict[str, Any]:
    """Runs all stages and gives the result document; its page and tables lie in `console.run_folder`.

    Raises: UsageError, ModelError, DeviceError, StorageError. KeyboardInterrupt: what was measured is in the run folder.
    CheckFailed: no case could be measured at all; the page says why for each.
    """
    unknown = [runtime for runtime in request.runtimes if runtime not in RUNTIME_FORMATS]
    if unknown:
        raise UsageError(f"there is no runtime {unknown[0]!r}", try_=", ".join(RUNTIME_FORMATS))
    start_s = time.monotonic()
    with open_device(request.device) as device:
        subjects = subjects_of(_models(request), console, request.weights)
        locks, key = cache_dir() / "locks", lock_key(device)
        with device_lock(device.name, locks, wait_s=request.wait_s, on_wait=console.say, key=key):
            try:
                document = _run(request, subjects, device, console)
            except Exception as error:
                folder = console.run_folder
                if folder is not None and isinstance(error, DeviceError) and _can_go_on(folder, error):
                    raise _with_resume(error, folder, console) from error
                if folder is not None and request.resume is None:
                    runfolder.discard_unmeasured(folder)
                raise
    document["stages_s"] = {**console.seconds, "all": time.monotonic() - start_s}
    assert console.run_folder is not None
    _finish(console.run_folder, document)
    if all(profile["failed"] for profile in document["profiles"]):
        page = console.run_folder / runfolder.PAGE
        raise CheckFailed(f"no case could be measured: {document['profiles'][0]['failed']}", try_=f"the page {page}")
    return document


def _run(request: Request, subjects: Sequence[Subject], device: Transport, console: Console) -> dict[str, Any]:
    """Everything that needs the device, which is ours alone for that long."""
    about = device.describe()
    installed, notes = install_bundles(request.bundles, request.runtimes, request.aars, device, console)
    check_formats(subjects, [runtime for one in installed.values() for runtime in one.bundle.libraries])
    folder = _open_folder(request, about, _hashes(subjects))
    console.run_folder = folder.path
    cases, left_out = _export(subjects, request, device, installed, folder, console)
    gates = None if about.kind == "host" else request.gates
    watching = Watching(device, folder.path, gates, request.settle_s, console)
    with prepared(device, console.say, touch=not request.keep_settings) as knobs:
        settings = watching.settle_cores(request.settings)
        agreements = _deploy_and_check(subjects, cases, device, installed, settings, folder, console)
        disagreeing = {} if request.allow_mismatch else {a.case: a.complaint for a in agreements.values() if not a.agrees}
        timed = [case for case in cases if case.id not in disagreeing]
        results = _measure(timed, device, installed, settings, folder, watching, console)
        watching.note_end(len(results))
    with console.stage("reckoning"):
        run = Measured(
            command=command_of(request),
            settings=settings,
            folder=folder,
            device=about,
            installed=installed,
            subjects=[dataclasses.replace(one, accuracy=_accuracy(one, cases, agreements)) for one in subjects],
            cases=cases,
            results=results,
            refused=disagreeing,
            agreements=agreements,
            conditions=watching.document(results, knobs),
            notes=notes,
        )
        document = run_document(run)
        document["profiles"] += left_out
        document["complete"] = all(profile["failed"] is None for profile in document["profiles"])
        document["counts_against_latency"] = counts_against_latency(document)
    for network, subject in zip(document["networks"], subjects, strict=True):
        network["weights"] = subject.weights
    return document


def _models(request: Request) -> tuple[str, ...]:
    return tuple(models.MODELS) if request.zoo else request.models


def counts_against_latency(document: dict[str, Any]) -> list[dict[str, Any]]:
    """How far MACs and parameters tell which network is faster, for each runtime with enough networks."""
    from pipeline.report.document import read
    from pipeline.report.ranks import as_document, ranks

    return as_document(ranks(read(document)))


def _hashes(subjects: Sequence[Subject]) -> dict[str, str]:
    """SHA-256 of the weights file of each network that has one."""
    return {subject.network.name: subject.weights["sha256"] for subject in subjects if subject.weights}


def _open_folder(request: Request, device: DeviceDescription, weights: dict[str, str]) -> RunFolder:
    if request.resume is not None:
        folder = runfolder.reopen(request.resume)
        check_same_device(folder.plan, device, folder.path)
        if folder.plan.get("weights_sha256", {}) != weights:
            raise UsageError(
                f"the weights files are not those any more that {folder.path} was begun with", try_="a new run"
            )
        runfolder.tidy(folder.path)
        return folder
    plan = plan_of(request, device) | {"weights_sha256": weights}
    return runfolder.create(request.reports, request.device, plan)


def _export(
    subjects: Sequence[Subject],
    request: Request,
    device: Transport,
    installed: dict[str, Installed],
    folder: RunFolder,
    console: Console,
) -> tuple[list[Deployed], list[dict[str, Any]]]:
    """Every network in every format that it is measured in; of the zoo also those that cannot be, as failed profiles."""
    cases, left_out = [], []
    targets = targets_of(list(installed.values()), request.delegate)
    for subject in subjects:
        network = subject.network
        wanted = fitting(subject, targets)
        for target in targets:
            if target not in wanted:
                console.say(f"{network.name} is a .{network.source} file: not measured in {target.runtime}")
                continue
            exported, why = _exported(network, target.format, folder, console, skip=request.zoo)
            if exported is None:
                left_out.append({"network": network.name, "runtime": target.runtime, "failed": why})
            else:
                cases.append(case_of(exported, target, device, name_bundle=len(installed) > 1))
    if not cases and left_out:
        raise CheckFailed(f"no network could be exported: {left_out[0]['failed']}")
    return cases, left_out


def _exported(
    network: Network, format: str, folder: RunFolder, console: Console, *, skip: bool
) -> tuple[Exported | None, str]:
    """The file of a network. Args: skip: where there can be none, None and why; a run that goes on does not try again."""
    from pipeline.export import EXPORTERS

    exported, note = folder.recall(network.name, format), folder.artifacts / f"{network.name}.{format}.left-out"
    if exported is not None:
        return exported, ""
    if skip and note.is_file():
        return None, note.read_text("utf-8")
    if load_launches(folder.path):
        raise UsageError(
            f"{network.name}.{format} is not the file any more that {folder.path} has launches of", try_="a new run"
        )
    try:
        with console.stage(f"exporting {network.name} to {format}"):
            exported = EXPORTERS[format]().export(network, folder.artifacts)
    except (ModelError, CheckFailed) as error:
        if not skip:
            raise
        console.say(f"left out: {error}")
        runfolder.write_text(note, str(error))
        return None, str(error)
    folder.remember(exported)
    return exported, ""


def _deploy_and_check(
    subjects: Sequence[Subject],
    cases: Sequence[Deployed],
    device: Transport,
    installed: dict[str, Installed],
    settings: Settings,
    folder: RunFolder,
    console: Console,
) -> dict[str, Agreement]:
    with console.stage(f"deploying {len(cases)} models"):
        deploy(cases, device)
    with console.stage("comparing outputs on the device"):
        networks = {subject.network.name: subject.network for subject in subjects}
        agreements = check_on_device(cases, networks, device, installed, folder.path, settings.cpu_mask)
    for one in agreements.values():
        if not one.agrees:
            console.say(one.complaint)
    return agreements


def _measure(
    cases: Sequence[Deployed],
    device: Transport,
    installed: dict[str, Installed],
    settings: Settings,
    folder: RunFolder,
    watching: Watching,
    console: Console,
) -> list[Any]:
    togo = launches_to_go(cases, load_launches(folder.path), settings)
    with console.progress("measuring", togo * (settings.launch_s + settings.kernels_s)) as bar:
        return measure(
            cases,
            device,
            installed,
            settings,
            folder.path,
            bar,
            run=folder.id,
            watch=watching.paths,
            before=watching.before_launch,
        )


def _can_go_on(folder: Path, error: DeviceError) -> bool:
    """Whether something is measured; a device that is lost may have it still."""
    return bool(launch_files(folder)) or (isinstance(error, DeviceLost) and begun(folder))


def _with_resume(error: DeviceError, folder: Path, console: Console) -> DeviceError:
    """The same error, which says how to go on."""
    if launch_files(folder):
        console.say(f"what was measured until then is in {folder}")
    return with_resume(error, shlex.join(["handset", "bench", "--resume", str(folder)]))


def _accuracy(subject: Subject, cases: Sequence[Deployed], agreements: dict[str, Agreement]) -> dict[str, Any] | None:
    own = [case for case in cases if case.artifact.network == subject.network.name]
    return accuracy_row([agreements[case.id] for case in own if case.id in agreements], own)


def _finish(folder: Path, document: dict[str, Any]) -> None:
    from pipeline.report import render

    runfolder.write_json(folder / runfolder.RESULT, document)
    render(document, folder / runfolder.PAGE)
