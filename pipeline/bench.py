"""handset bench: Network -> Exported -> Deployed -> launches -> tables -> report, one run folder."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.bundle import RuntimeBundle, host_bundle
from devices.conditions import cpu_mask, read_conditions
from devices.discovery import cache_dir, open_device
from devices.errors import DeviceError
from devices.lock import device_lock
from devices.runner import RunnerResult
from devices.transport import Transport
from pipeline import runfolder
from pipeline.artifact import Network
from pipeline.console import Console
from pipeline.default_set import DEFAULT_SET, compressed_digits
from pipeline.deploy import RUNTIME_FORMATS, Deployed, deploy
from pipeline.document import Measured, Subject, run_document
from pipeline.errors import CheckFailed, ModelError, UsageError
from pipeline.profiling import Settings, load_launches, measure
from pipeline.runfolder import RunFolder
from pipeline.version import VERSION


@dataclass(frozen=True)
class Request:
    """What was asked: `models` empty is the default set."""

    models: tuple[str, ...]
    device: str
    runtimes: tuple[str, ...]
    settings: Settings
    reports: Path
    wait_s: float = 600.0
    resume: Path | None = None


def bench(request: Request, console: Console) -> dict[str, Any]:
    """Runs all stages and gives the result document; its page and tables lie in `console.run_folder`.

    Raises: UsageError, ModelError, DeviceError, StorageError. KeyboardInterrupt: what was measured is in the run folder.
    CheckFailed: no case could be measured at all; the page says why for each.
    """
    unknown = [runtime for runtime in request.runtimes if runtime not in RUNTIME_FORMATS]
    if unknown or not request.runtimes:
        raise UsageError(f"there is no runtime {(unknown or [''])[0]!r}", try_=", ".join(RUNTIME_FORMATS))
    begun = time.monotonic()
    with open_device(request.device) as device:
        if device.describe().kind != "host":
            raise DeviceError(
                f"{device.name} answers, but this version brings no runtimes to phones yet", try_="--device host"
            )
        subjects = _subjects(request.models, request.runtimes, console)
        with device_lock(device.name, cache_dir() / "locks", wait_s=request.wait_s, on_wait=console.say):
            try:
                document = _run(request, subjects, device, console)
            except Exception:
                if request.resume is None and console.run_folder is not None:
                    runfolder.discard_unmeasured(console.run_folder)
                raise
    document["stages_s"] = {**console.seconds, "all": time.monotonic() - begun}
    assert console.run_folder is not None
    _finish(console.run_folder, document)
    if all(profile["failed"] for profile in document["profiles"]):
        page = console.run_folder / runfolder.PAGE
        raise CheckFailed(f"no case could be measured: {document['profiles'][0]['failed']}", try_=f"the page {page}")
    return document


def _subjects(models: Sequence[str], runtimes: Sequence[str], console: Console) -> list[Subject]:
    """The networks, each of which can run in one of the runtimes at least; nothing is written yet."""
    from pipeline.spec import resolve

    subjects: list[Subject] = []
    for text in models or DEFAULT_SET:
        with console.stage(f"preparing {text}"):
            network = resolve(text)
            if any(subject.network.name == network.name for subject in subjects):
                raise UsageError(f"two of the models are called {network.name}", try_="rename one of the files")
            formats = [RUNTIME_FORMATS[runtime] for runtime in runtimes]
            if network.module is None and network.source not in formats:
                fitting = next(runtime for runtime, form in RUNTIME_FORMATS.items() if form == network.source)
                raise UsageError(f"{text} cannot run in {', '.join(runtimes)}", try_=f"--runtime {fitting}")
            subjects.append(_subject(network))
            if not models and text == "digits_cnn":
                smaller, compression = compressed_digits(network)
                subjects.append(dataclasses.replace(_subject(smaller), compressed_from=text, compression=compression))
    return subjects


def _subject(network: Network) -> Subject:
    from pipeline.export.base import first_line
    from pipeline.graph import count_macs

    if network.module is None:
        return Subject(network)
    try:
        return Subject(network, count_macs(network.module, network.input_shape))
    except Exception as error:  # whatever the user's module raises
        shape = "x".join(map(str, network.input_shape))
        raise ModelError(
            f"{network.name} fails on an input of {shape}: {first_line(error)}", try_="another input shape"
        ) from error


def _run(request: Request, subjects: Sequence[Subject], device: Transport, console: Console) -> dict[str, Any]:
    """Everything that needs the device, which is ours alone for that long."""
    folder = _open_folder(request)
    console.run_folder = folder.path
    with console.stage("building the runner"):
        bundle = host_bundle(device.describe().abi, list(request.runtimes), cache_dir())
    cases = _export_and_deploy(subjects, device, bundle, folder, console)
    settings = request.settings
    if settings.cpu_mask == 0:
        settings = dataclasses.replace(settings, cpu_mask=cpu_mask(device, settings.threads))
    subjects = [_with_accuracy(subject, cases, device, bundle, folder, console) for subject in subjects]
    conditions = [read_conditions(device)]
    with console.stage("measuring"):
        results = _measure(cases, device, bundle, settings, folder, console)
    conditions.append(read_conditions(device))
    with console.stage("reckoning"):
        command = command_of(request)
        run = Measured(command, settings, folder, device.describe(), bundle, subjects, cases, results, conditions)
        return run_document(run)


def _open_folder(request: Request) -> RunFolder:
    if request.resume is not None:
        runfolder.tidy(request.resume)
        return runfolder.reopen(request.resume)
    plan = {
        "kind": "bench",
        "handset": VERSION,
        "models": list(request.models),
        "device": request.device,
        "runtimes": list(request.runtimes),
        "settings": dataclasses.asdict(request.settings),
    }
    return runfolder.create(request.reports, request.device, plan)


def _export_and_deploy(
    subjects: Sequence[Subject], device: Transport, bundle: RuntimeBundle, folder: RunFolder, console: Console
) -> list[Deployed]:
    from pipeline.export import EXPORTERS

    cases = []
    for subject in subjects:
        network = subject.network
        for runtime in bundle.libraries:
            wanted = RUNTIME_FORMATS[runtime]
            if network.module is None and network.source != wanted:
                console.say(f"{network.name} is a .{network.source} file: not measured in {runtime}")
                continue
            exported = folder.recall(network.name, wanted)
            if exported is None:
                if load_launches(folder.path):
                    raise UsageError(
                        f"{network.name}.{wanted} is not the file any more that {folder.path} has launches of",
                        try_="a new run",
                    )
                with console.stage(f"exporting {network.name} to {wanted}"):
                    exported = EXPORTERS[wanted]().export(network, folder.artifacts)
                folder.remember(exported)
            with console.stage(f"deploying {network.name} for {runtime}"):
                cases.append(deploy(exported, runtime, device, bundle))
    return cases


def _with_accuracy(
    subject: Subject,
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    folder: RunFolder,
    console: Console,
) -> Subject:
    """Top-1 in torch and in each runtime on the device, for the networks whose data are at hand."""
    from pipeline.default_set import is_digits

    network = subject.network
    if network.module is None or not is_digits(network):
        return subject
    from pipeline.accuracy import device_logits
    from pipeline.datasets import digits
    from pipeline.evaluate import top1, torch_logits

    with console.stage(f"top-1 of {network.name} on the device"):
        _, _, images, labels = digits()
        row: dict[str, Any] = {"data": f"digits, {len(labels)} test images", "metric": "top1"}
        row["torch"] = top1(torch_logits(network.module, images), labels)
        for case in cases:
            if case.artifact.network == network.name:
                row[case.runtime] = top1(device_logits(case, images, device, bundle, folder.path), labels)
        return dataclasses.replace(subject, accuracy=row)


def _measure(
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    settings: Settings,
    folder: RunFolder,
    console: Console,
) -> list[RunnerResult]:
    launches = max(0, settings.launches - len(load_launches(folder.path)))
    total_s = len(cases) * launches * (settings.launch_s + settings.kernels_s)
    with console.progress("measuring", total_s) as advance:
        return measure(cases, device, bundle, settings, folder.path, advance)


def command_of(request: Request) -> str:
    """The command line that asks for the same again."""
    words = ["handset", "bench", *request.models, "--device", request.device, "--runtime", ",".join(request.runtimes)]
    settings, default = request.settings, Settings()
    options = (
        ("--threads", settings.threads, default.threads),
        ("--cpu-mask", hex(settings.cpu_mask), hex(default.cpu_mask)),
        ("--interval", f"{100 * settings.interval:g}", f"{100 * default.interval:g}"),
        ("--budget", f"{settings.budget_s:g}", f"{default.budget_s:g}"),
        ("--launches", settings.launches, default.launches),
        ("--limit", f"{settings.limit_s:g}", f"{default.limit_s:g}"),
    )
    words += [word for name, value, usual in options if value != usual for word in (name, str(value))]
    return shlex.join(words)


def _finish(folder: Path, document: dict[str, Any]) -> None:
    from pipeline.report import render

    runfolder.write_json(folder / runfolder.RESULT, document)
    render(document, folder / runfolder.PAGE)
