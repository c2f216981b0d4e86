"""What a run found, as one JSON document, and the latency tables beside it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.discovery import cache_dir
from devices.install import Installed
from devices.reference import Reference, settle_reference
from devices.runner import RunnerResult
from devices.transport import DeviceDescription
from latency_luts.stats import DISTURBED_CANARY
from pipeline.deploy import Deployed
from pipeline.numerics import Agreement, as_document
from pipeline.result import NamedKernel, failure_of, kernels_of, own_canary, profile_document
from pipeline.runfolder import RunFolder
from pipeline.settings import PROFILED, Settings
from pipeline.subjects import Subject
from pipeline.version import VERSION

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """A run when its last sample is taken: everything that its document is made from.

    Args:
        installed: bundle kind -> that bundle on the device.
        refused: case -> why it was not timed.
        agreements: case -> its outputs on the device against the reference.
        conditions: what the device was like, see `device_trace.trace_document`.
        notes: what the user should know besides.
    """

    command: str
    settings: Settings
    folder: RunFolder
    device: DeviceDescription
    installed: Mapping[str, Installed]
    subjects: Sequence[Subject]
    cases: Sequence[Deployed]
    results: Sequence[RunnerResult]
    refused: Mapping[str, str]
    agreements: Mapping[str, Agreement]
    conditions: Mapping[str, Any]
    notes: Sequence[str] = ()


def run_document(run: Measured) -> dict[str, Any]:
    """The result document, schema version 1; writes the tables into the run folder.

    Raises: latency_luts.TableStorageError: a table cannot be written.
    """
    from pipeline.naming import name_kernels

    references = _references(run)
    trace = run.conditions["trace"]
    around = [point | {"at_ns": None} for point in trace[:1] + trace[-1:]]
    profiles, named, notes = [], {}, list(run.notes)
    for case in run.cases:
        kernels: list[NamedKernel] = []
        failed = run.refused.get(case.id) or failure_of(case, run.results)
        if failed is None:
            times = kernels_of(case, run.results, references, run.settings)
            kernels, note = name_kernels(case, times, run.folder.path)
            notes += [f"{case.id}: {note}"] if note else []
        named[case.id] = kernels
        profile = profile_document(case, run.results, kernels, references, run.settings, failed, around)
        if case.id in run.agreements:
            profile["numerics"] = as_document(run.agreements[case.id])
        if profile["failed"] is None:
            profile["verdict"]["next"] = _next_command(run, profile)
        profiles.append(profile)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "handset": VERSION,
        "run": run.folder.name,
        "created": run.folder.plan["created"],
        "command": run.command,
        "complete": all(profile["failed"] is None for profile in profiles),
        "settings": dataclasses.asdict(run.settings) | {"runtimes": list(dict.fromkeys(case.runtime for case in run.cases))},
        "device": dataclasses.asdict(run.device),
        "runner": _runner(next(iter(run.installed.values()))),
        "bundles": [_bundle(one) for one in run.installed.values()],
        "device_conditions": run.conditions,
        "canary": {"kind": _canary(run.results), "disturbed_over": DISTURBED_CANARY},
        "networks": [_network(subject) for subject in run.subjects],
        "profiles": profiles,
        "notes": notes,
        "tables": _tables(run, named),
    }


def _canary(results: Sequence[RunnerResult]) -> str:
    return next((case.canary for result in results for case in result.cases.values() if case.canary), "")


def _references(run: Measured) -> dict[str, Reference]:
    """For each case, without and with the profiler, the canary that its times are scaled to."""
    references = {}
    for case in run.cases:
        for name in (case.id, case.id + PROFILED):
            parts = (
                _canary(run.results),
                run.installed[case.bundle].bundle.runner.sha256,
                case.artifact.sha256,
                case.library_sha256,
                case.delegate,
                str(run.settings.threads),
                hex(run.settings.cpu_mask),
                name.removeprefix(case.id),
            )
            own_ns = own_canary(name, run.results)
            references[name] = settle_reference(cache_dir() / "canary", run.device.name, " ".join(parts), own_ns)
    return references


def _next_command(run: Measured, profile: Mapping[str, Any]) -> str:
    """What to type where a measurement is not stable: twice the budget, twice the launches."""
    if profile["verdict"]["stable"]:
        return ""
    settings, words = run.settings, shlex.split(run.command)
    for option in ("--budget", "--launches"):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    more = ["--budget", f"{2 * settings.budget_s:g}", "--launches", str(2 * settings.launches)]
    return shlex.join([*words, *more])


def _tables(run: Measured, named: Mapping[str, Sequence[NamedKernel]]) -> dict[str, str]:
    """One table for each runtime with its delegate in each bundle, beside the result. A simulated device gets none."""
    import latency_luts
    from pipeline.lut_build import build_lut

    tables: dict[str, str] = {}
    if run.device.simulated:
        return tables
    clocks = [khz for point in run.conditions["trace"] for khz in point.get("clock_khz", {}).values()]
    text = f"{min(clocks)}-{max(clocks)} kHz" if clocks else "not readable"
    for label, cases in _by_label(run.cases).items():
        kernels = {case.artifact.network: named[case.id] for case in cases}
        table = build_lut(run.device, cases[0], run.settings, text, str(run.folder.plan["created"]), kernels)
        if len(table):
            tables[label] = f"table-{label}-float32-t{run.settings.threads}.parquet"
            latency_luts.save(table, run.folder.path / tables[label])
    return tables


def _by_label(cases: Sequence[Deployed]) -> dict[str, list[Deployed]]:
    """The cases that share a table; a bundle is named where the run has two."""
    several = len({case.bundle for case in cases}) > 1
    labels: dict[str, list[Deployed]] = {}
    for case in cases:
        labels.setdefault(f"{case.label}-{case.bundle}" if several else case.label, []).append(case)
    return labels


def _runner(installed: Installed) -> dict[str, str]:
    runner = installed.bundle.runner
    return {"sha256": runner.sha256, "origin": runner.origin}


def _bundle(installed: Installed) -> dict[str, Any]:
    bundle = installed.bundle
    files = {name: {"sha256": file.sha256, "origin": file.origin} for name, file in bundle.files.items()}
    return {
        "kind": bundle.kind,
        "abi": bundle.abi,
        "sha256": bundle.sha256,
        "versions": dict(bundle.versions),
        "files": files,
        "pushed_bytes": installed.pushed_bytes,
    }


def _network(subject: Subject) -> dict[str, Any]:
    network = subject.network
    return {
        "name": network.name,
        "source": network.source,
        "input_shape": list(network.input_shape),
        "params": network.params,
        "macs": subject.macs,
        "accuracy": subject.accuracy,
        "compressed_from": subject.compressed_from,
        "compression": subject.compression,
    }
