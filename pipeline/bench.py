"""handset bench: Network -> Exported -> Deployed -> launches -> table -> report, one run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.bundle import RuntimeBundle, host_bundle
from devices.conditions import Conditions, cpu_mask, read_conditions
from devices.discovery import cache_dir, open_device
from devices.lock import device_lock
from devices.reference import Reference, settle_reference
from devices.runner import RunnerResult
from devices.transport import Transport
from latency_luts.stats import DISTURBED_CANARY
from pipeline import runfolder
from pipeline.artifact import Network
from pipeline.console import Console
from pipeline.default_set import DEFAULT_SET, compressed_digits
from pipeline.deploy import RUNTIME_FORMATS, Deployed, deploy
from pipeline.errors import CheckFailed, StorageError, UsageError
from pipeline.profiling import PROFILED, Settings, load_launches, measure
from pipeline.result import NamedKernel, failure_of, kernels_of, own_canary, profile_document
from pipeline.runfolder import RunFolder
from pipeline.version import VERSION

SCHEMA_VERSION = 1


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


@dataclass(frozen=True)
class Subject:
    """One network of a run with what is known of it before it is measured."""

    network: Network
    macs: int | None = None
    compressed_from: str | None = None
    compression: Mapping[str, Any] | None = None


def bench(request: Request, console: Console) -> dict[str, Any]:
    """Runs all stages and gives the result document; its page and tables lie in the run folder.

    Raises: UsageError, ModelError, DeviceError, StorageError. KeyboardInterrupt: what was measured is in the run folder.
    """
    unknown = [runtime for runtime in request.runtimes if runtime not in RUNTIME_FORMATS]
    if unknown:
        raise UsageError(f"there is no runtime {unknown[0]!r}", try_=", ".join(RUNTIME_FORMATS))
    begun = time.monotonic()
    with open_device(request.device) as device:
        with device_lock(device.name, cache_dir() / "locks", wait_s=request.wait_s, on_wait=console.say):
            subjects = _subjects(request.models, console)
            folder = _open_folder(request)
            console.run_folder = folder.path
            with console.stage("building the runner"):
                bundle = host_bundle(device.describe().abi, list(request.runtimes), cache_dir())
            cases = _export_and_deploy(subjects, request.runtimes, device, bundle, folder, console)
            settings = request.settings
            if settings.cpu_mask == 0:
                settings = dataclasses.replace(settings, cpu_mask=cpu_mask(device, settings.threads))
            accuracies = _accuracies(subjects, cases, device, bundle, folder, console)
            conditions = [read_conditions(device)]
            measuring = time.monotonic()
            results = _measure(cases, device, bundle, settings, folder, console)
            measured_s = time.monotonic() - measuring
            conditions.append(read_conditions(device))
            document = _document(
                request, settings, folder, device, bundle, subjects, cases, results, conditions, accuracies
            )
    document["stages_s"] = {**console.seconds, "measuring": measured_s, "all": time.monotonic() - begun}
    _finish(folder, document)
    if all(profile["failed"] for profile in document["profiles"]):
        why = document["profiles"][0]["failed"] if document["profiles"] else "there was nothing to measure"
        raise CheckFailed(f"no case could be measured; {why}", try_=f"the page {folder.path / runfolder.PAGE}")
    return document


def _subjects(models: Sequence[str], console: Console) -> list[Subject]:
    from pipeline.spec import resolve

    subjects: list[Subject] = []
    for text in models or DEFAULT_SET:
        with console.stage(f"preparing {text}"):
            network = resolve(text)
            if any(subject.network.name == network.name for subject in subjects):
                raise UsageError(f"two of the models are called {network.name}", try_="rename one of the files")
            subjects.append(_subject(network))
            if not models and text == "digits_cnn":
                smaller, compression = compressed_digits(network)
                subjects.append(dataclasses.replace(_subject(smaller), compressed_from=text, compression=compression))
    return subjects


def _subject(network: Network) -> Subject:
    from pipeline.graph import count_macs

    macs = None if network.module is None else count_macs(network.module, network.input_shape)
    return Subject(network, macs)


def _open_folder(request: Request) -> RunFolder:
    if request.resume is not None:
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
    subjects: Sequence[Subject],
    runtimes: Sequence[str],
    device: Transport,
    bundle: RuntimeBundle,
    folder: RunFolder,
    console: Console,
) -> list[Deployed]:
    from pipeline.export import EXPORTERS

    cases = []
    for subject in subjects:
        network = subject.network
        for runtime in runtimes:
            wanted = RUNTIME_FORMATS[runtime]
            if network.module is None and network.source != wanted:
                console.say(f"{network.name} is a .{network.source} file: not measured in {runtime}")
                continue
            exported = folder.recall(network.name, wanted)
            if exported is None:
                with console.stage(f"exporting {network.name} to {wanted}"):
                    exported = EXPORTERS[wanted]().export(network, folder.artifacts)
                folder.remember(exported)
            with console.stage(f"deploying {network.name} for {runtime}"):
                cases.append(deploy(exported, runtime, device, bundle))
    if not cases:
        raise UsageError(
            f"none of the models can run in {', '.join(runtimes)}",
            try_="--runtime onnxruntime for .onnx, litert for .tflite",
        )
    return cases


def _accuracies(
    subjects: Sequence[Subject],
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    folder: RunFolder,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Top-1 of the networks whose data are at hand, in torch and in each runtime on the device."""
    from pipeline.default_set import is_digits

    if not any(is_digits(subject.network) for subject in subjects):
        return {}
    from pipeline.accuracy import device_logits
    from pipeline.datasets import digits
    from pipeline.evaluate import top1, torch_logits

    _, _, images, labels = digits()
    found: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        network = subject.network
        if not is_digits(network) or network.module is None:
            continue
        with console.stage(f"top-1 of {network.name} on the device"):
            row: dict[str, Any] = {"data": f"digits, {len(labels)} test images", "metric": "top1"}
            row["torch"] = top1(torch_logits(network.module, images), labels)
            for case in cases:
                if case.artifact.network == network.name:
                    with contextlib.suppress(
                        CheckFailed
                    ):  # the same failure is reported, with its reason, as a profile
                        row[case.runtime] = top1(device_logits(case, images, device, bundle, folder.path), labels)
            found[network.name] = row
    return found


def _measure(
    cases: Sequence[Deployed],
    device: Transport,
    bundle: RuntimeBundle,
    settings: Settings,
    folder: RunFolder,
    console: Console,
) -> list[RunnerResult]:
    already = len(load_launches(folder.path))
    launches = max(0, settings.launches - already)
    total_s = len(cases) * launches * (settings.launch_s + settings.kernels_s)
    with console.progress("measuring", total_s) as advance:
        return measure(cases, device, bundle, settings, folder.path, advance)


def _document(
    request: Request,
    settings: Settings,
    folder: RunFolder,
    device: Transport,
    bundle: RuntimeBundle,
    subjects: Sequence[Subject],
    cases: Sequence[Deployed],
    results: Sequence[RunnerResult],
    conditions: Sequence[Conditions],
    accuracies: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    from pipeline.naming import name_kernels

    references = _references(settings, device, bundle, cases, results)
    rows = [dataclasses.asdict(one) | {"at_ns": None} for one in conditions]
    profiles, named, notes = [], {}, []
    for case in cases:
        kernels: list[NamedKernel] = []
        if failure_of(case, results) is None:
            kernels, note = name_kernels(case, kernels_of(case, results, references, settings), folder.path)
            notes += [f"{case.id}: {note}"] if note else []
        named[case.id] = kernels
        profile = profile_document(case, results, kernels, references, settings, hex(settings.cpu_mask), rows)
        if profile["failed"] is None:
            profile["verdict"]["next"] = _next_command(request, profile)
        profiles.append(profile)
    tables = _tables(folder, device, settings, cases, named, conditions)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "handset": VERSION,
        "run": folder.name,
        "created": folder.plan["created"],
        "command": command_of(request),
        "complete": all(profile["failed"] is None for profile in profiles),
        "settings": dataclasses.asdict(settings) | {"runtimes": list(request.runtimes)},
        "device": dataclasses.asdict(device.describe()),
        "runner": {"sha256": bundle.runner.sha256, "origin": bundle.runner.origin},
        "canary": {"kind": _canary(results), "disturbed_over": DISTURBED_CANARY},
        "networks": [_network_row(subject, accuracies) for subject in subjects],
        "profiles": profiles,
        "notes": notes,
        "tables": tables,
    }


def _canary(results: Sequence[RunnerResult]) -> str:
    return next((case.canary for result in results for case in result.cases.values() if case.canary), "")


def _references(
    settings: Settings,
    device: Transport,
    bundle: RuntimeBundle,
    cases: Sequence[Deployed],
    results: Sequence[RunnerResult],
) -> dict[str, Reference]:
    """For each case, without and with the profiler, the canary that its times are scaled to."""
    references = {}
    for case in cases:
        for name in (case.id, case.id + PROFILED):
            parts = (
                _canary(results), bundle.runner.sha256, case.artifact.sha256, case.library_sha256, case.delegate,
                str(settings.threads), hex(settings.cpu_mask), name.removeprefix(case.id),
            )  # fmt: skip
            own_ns = own_canary(name, results)
            references[name] = settle_reference(cache_dir() / "canary", device.name, " ".join(parts), own_ns)
    return references


def _next_command(request: Request, profile: Mapping[str, Any]) -> str:
    if profile["verdict"]["stable"]:
        return ""
    budget = request.settings.budget_s * 2
    return f"handset bench {shlex.quote(profile['network'])} --device {shlex.quote(request.device)} --budget {budget:g} --launches 6"


def _tables(
    folder: RunFolder,
    device: Transport,
    settings: Settings,
    cases: Sequence[Deployed],
    named: Mapping[str, Sequence[NamedKernel]],
    conditions: Sequence[Conditions],
) -> dict[str, str]:
    """One table a runtime, beside the result. A simulated device gets none."""
    import latency_luts
    from pipeline.lut_build import build_lut

    description = device.describe()
    clocks = [khz for one in conditions for khz in one.clocks_khz if khz]
    text = f"{min(clocks)}-{max(clocks)} kHz" if clocks else "not readable"
    tables: dict[str, str] = {}
    for case in cases:
        if case.runtime in tables or description.simulated:
            continue
        kernels = {one.artifact.network: named[one.id] for one in cases if one.runtime == case.runtime}
        table = build_lut(
            description, case, settings.threads, hex(settings.cpu_mask), text, str(folder.plan["created"]), kernels
        )
        if len(table):
            tables[case.runtime] = f"table-{case.runtime}-float32-t{settings.threads}.parquet"
            latency_luts.save(table, folder.path / tables[case.runtime])
    return tables


def _network_row(subject: Subject, accuracies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    network = subject.network
    return {
        "name": network.name,
        "source": network.source,
        "input_shape": list(network.input_shape),
        "params": network.params,
        "macs": subject.macs,
        "accuracy": accuracies.get(network.name),
        "compressed_from": subject.compressed_from,
        "compression": subject.compression,
    }


def command_of(request: Request) -> str:
    """The command line that asks for the same again."""
    words = ["handset", "bench", *request.models, "--device", request.device, "--runtime", ",".join(request.runtimes)]
    return shlex.join(words)


def _finish(folder: RunFolder, document: Mapping[str, Any]) -> None:
    from pipeline.report import render

    runfolder.write_json(folder.path / runfolder.RESULT, document)
    try:
        render(document, folder.path / runfolder.PAGE)
    except OSError as error:
        raise StorageError(f"cannot write {folder.path / runfolder.PAGE}: {error.strerror}") from error
