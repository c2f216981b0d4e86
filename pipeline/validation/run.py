"""From a table and the networks that were asked to the document of their validation; what was measured is in a run folder."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latency_luts
from latency_luts import Context, LatencyTable, OpKey
from pipeline import runfolder
from pipeline.artifact import sha256_file
from pipeline.bench import bench
from pipeline.console import Console
from pipeline.errors import CheckFailed, UsageError
from pipeline.request import Request
from pipeline.resume import instead_of_bench
from pipeline.settings import Settings
from pipeline.validation import PAGE, RESULT
from pipeline.validation.alone import measure_alone
from pipeline.validation.baselines import Predicted, by_forests, by_kernels_alone, by_macs
from pipeline.validation.context import Place, check_context, differences, place_of
from pipeline.validation.document import Found, validation_document
from pipeline.validation.judge import ALONE, FOREST, MACS, TABLE, judge, required
from pipeline.validation.measured import Judged, Planned, ask, cases_of, plan_keys

_MASK = re.compile("0x[0-9a-f]{1,16}")


@dataclass(frozen=True)
class Asked:
    """What a validation was asked for.

    Args:
        request: which networks, on which device and how; its runtime, its delegate and its threads become the table's.
        within5: the share of networks that must be within 5 %; None asks for none.
        isolated: whether kernels are timed alone too.
    """

    lut: Path
    request: Request
    allow_other_context: bool = False
    within5: float | None = None
    interpolate: bool = True
    isolated: bool = True


def validate_table(asked: Asked, console: Console) -> dict[str, Any]:
    """All stages; gives the document, which lies in `console.run_folder` with its page.

    Raises:
        UsageError, ModelError: no such model; another context; a table that is no measurement.
        CheckFailed: the table knows all kernels of none of the networks, or none could be measured.
        LutError, DeviceError, StorageError. KeyboardInterrupt: what was measured is in the run folder.
    """
    table = latency_luts.load(asked.lut)
    check_context(table.context, [], allowed=True)
    place = place_of(table.context, asked.request, console, allowed=asked.allow_other_context)
    differ = differences(table.context, place)
    check_context(table.context, differ, allowed=asked.allow_other_context)
    request = in_context(asked.request, table.context, place)
    planned = plan_keys(request.models, request.runtimes[0], place.abi, console)
    _check_any_known(planned, table, asked.interpolate)
    with instead_of_bench(console, lambda folder: resume_words(asked.lut, folder)):
        result = bench(request, console)
    assert console.run_folder is not None
    judged, left_out = ask(cases_of(result, planned), table, interpolate=asked.interpolate)
    if not judged:
        raise CheckFailed(
            f"none of {len(left_out)} networks can be judged: {left_out[0].case.name}: {left_out[0].reason}",
            try_="a table with their kernels",
        )
    ways = {TABLE: Predicted({one.case.name: one.table_ms for one in judged})}
    if asked.isolated:
        with instead_of_bench(console, lambda folder: resume_words(asked.lut, folder)):
            ways[ALONE] = _alone(judged, request, result, console)
    with console.stage("random forests"):
        ways[FOREST] = by_forests(judged, table, request.settings.seed)
    ways[MACS] = by_macs(judged)
    verdicts = [judge(name, predicted, judged) for name, predicted in ways.items()]
    assert verdicts[0].validation is not None
    document = validation_document(
        Found(
            command=command_of(asked),
            lut=str(asked.lut),
            lut_sha256=sha256_file(asked.lut),
            table=table,
            place=place,
            differences=differ,
            bench=result,
            judged=judged,
            left_out=left_out,
            verdicts=verdicts,
            requirement=required(asked.within5, verdicts[0].validation),
            interpolate=asked.interpolate,
            isolated=asked.isolated,
            seed=request.settings.seed,
        )
    )
    _write(document, console.run_folder)
    return document


def in_context(request: Request, context: Context, place: Place) -> Request:
    """The request with what the table fixes; its cores too, where none were asked and the device is the table's.

    Raises: UsageError: a run that is to go on was begun in another context.
    """
    delegate = str(place.measured["delegate"])
    if request.resume is not None:
        begun = (request.runtimes, request.delegate, request.settings.threads)
        wanted = ((context.runtime,), delegate, context.threads)
        if begun != wanted:
            raise UsageError(
                f"{request.resume} was begun with runtime, delegate and threads {begun}, the table has {wanted}",
                try_="a new run, or the table that it was begun with",
            )
        return dataclasses.replace(request, bundles=(place.bundle,))
    own = all(getattr(context, name) == place.measured[name] for name in ("device", "soc"))
    mask = int(context.cpu_mask, 16) if own and _MASK.fullmatch(context.cpu_mask) else 0
    settings = dataclasses.replace(
        request.settings, threads=context.threads, cpu_mask=request.settings.cpu_mask or mask
    )
    return dataclasses.replace(
        request, runtimes=(context.runtime,), delegate=delegate, bundles=(place.bundle,), settings=settings
    )


def _check_any_known(planned: Mapping[str, Planned], table: LatencyTable, interpolate: bool) -> None:
    """Fails before minutes of measuring where it is clear already that no network can be judged."""
    reasons = []
    for name, one in planned.items():
        if one.keys is None and not one.why:
            return  # a model file: its profile will tell
        answer = None if one.keys is None else table.total(one.keys, on_missing="report", interpolate=interpolate)
        if answer is not None and not answer.missing:
            return
        missing = () if answer is None else answer.missing
        reasons.append(
            f"{name}: {one.why or f'the table does not know {len(missing)} of its kernels, {missing[0]} for one'}"
        )
    raise CheckFailed(f"none of {len(reasons)} networks can be judged: {reasons[0]}", try_="a table with their kernels")


def resume_words(lut: Path, folder: Path) -> str:
    return shlex.join(["handset", "lut", "validate", "--lut", str(lut), "--resume", str(folder)])


def _alone(judged: Sequence[Judged], request: Request, result: Mapping[str, Any], console: Console) -> Predicted:
    assert console.run_folder is not None
    settings = Settings(**{key: value for key, value in result["settings"].items() if key != "runtimes"})
    keys: list[OpKey] = list(dict.fromkeys(key for one in judged for key in one.keys))
    found, missing = measure_alone(keys, request, settings, runfolder.reopen(console.run_folder), console)
    return by_kernels_alone(judged, found, missing)


def _write(document: Mapping[str, Any], folder: Path) -> None:
    from pipeline.report.validation_page import render

    runfolder.write_json(folder / RESULT, document)
    render(document, folder / PAGE)


def command_of(asked: Asked) -> str:
    """The command line that asks for the same again."""
    request, settings, usual = asked.request, asked.request.settings, Settings()
    words = ["handset", "lut", "validate", "--lut", str(asked.lut), *request.models, "--device", request.device]
    words += [word for aar in request.aars for word in ("--aar", aar)]
    options = (
        ("--bundle", ",".join(request.bundles), ""),
        ("--cpu-mask", hex(settings.cpu_mask), hex(usual.cpu_mask)),
        ("--interval", f"{100 * settings.interval:g}", f"{100 * usual.interval:g}"),
        ("--budget", f"{settings.budget_s:g}", f"{usual.budget_s:g}"),
        ("--launches", str(settings.launches), str(usual.launches)),
        ("--seed", str(settings.seed), str(usual.seed)),
        ("--require-within5", f"{asked.within5:g}" if asked.within5 is not None else "", ""),
    )
    words += [word for name, value, default in options if value != default for word in (name, value)]
    switches = {
        "--no-interpolate": not asked.interpolate,
        "--no-isolated": not asked.isolated,
        "--allow-other-context": asked.allow_other_context,
        "--ignore-conditions": request.gates is None,
    }
    return shlex.join([*words, *(name for name, on in switches.items() if on)])
