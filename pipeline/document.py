"""What a run found, as one JSON document, and the latency tables beside it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.bundle import RuntimeBundle
from devices.conditions import Conditions
from devices.discovery import cache_dir
from devices.reference import Reference, settle_reference
from devices.runner import RunnerResult
from devices.transport import DeviceDescription
from latency_luts.stats import DISTURBED_CANARY
from pipeline.artifact import Network
from pipeline.deploy import Deployed
from pipeline.profiling import PROFILED, Settings
from pipeline.result import NamedKernel, failure_of, kernels_of, own_canary, profile_document
from pipeline.runfolder import RunFolder
from pipeline.version import VERSION

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Subject:
    """One network of a run with what is known of it before it is measured."""

    network: Network
    macs: int | None = None
    compressed_from: str | None = None
    compression: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Measured:
    """A run when its last sample is taken: everything that its document is made from."""

    command: str
    settings: Settings
    folder: RunFolder
    device: DeviceDescription
    bundle: RuntimeBundle
    subjects: Sequence[Subject]
    cases: Sequence[Deployed]
    results: Sequence[RunnerResult]
    conditions: Sequence[Conditions]


def run_document(run: Measured) -> dict[str, Any]:
    """The result document, schema version 1; writes the tables into the run folder.

    Raises: latency_luts.TableStorageError: a table cannot be written.
    """
    from pipeline.naming import name_kernels

    references = _references(run)
    before_after = [dataclasses.asdict(one) | {"at_ns": None} for one in run.conditions]
    profiles, named, notes = [], {}, []
    for case in run.cases:
        kernels: list[NamedKernel] = []
        if failure_of(case, run.results) is None:
            times = kernels_of(case, run.results, references, run.settings)
            kernels, note = name_kernels(case, times, run.folder.path)
            notes += [f"{case.id}: {note}"] if note else []
        named[case.id] = kernels
        profile = profile_document(case, run.results, kernels, references, run.settings, before_after)
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
        "settings": dataclasses.asdict(run.settings) | {"runtimes": list(run.bundle.libraries)},
        "device": dataclasses.asdict(run.device),
        "runner": {"sha256": run.bundle.runner.sha256, "origin": run.bundle.runner.origin},
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
                run.bundle.runner.sha256,
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
    """One table a runtime, beside the result. A simulated device gets none."""
    import latency_luts
    from pipeline.lut_build import build_lut

    clocks = [khz for one in run.conditions for khz in one.clocks_khz if khz]
    text = f"{min(clocks)}-{max(clocks)} kHz" if clocks else "not readable"
    tables: dict[str, str] = {}
    for case in run.cases:
        if case.runtime in tables or run.device.simulated:
            continue
        kernels = {one.artifact.network: named[one.id] for one in run.cases if one.runtime == case.runtime}
        table = build_lut(run.device, case, run.settings, text, str(run.folder.plan["created"]), kernels)
        if len(table):
            tables[case.runtime] = f"table-{case.runtime}-float32-t{run.settings.threads}.parquet"
            latency_luts.save(table, run.folder.path / tables[case.runtime])
    return tables


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
