"""The result of a validation as one JSON document, schema version 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latency_luts import LatencyTable
from pipeline.report.text import percent
from pipeline.sweep.bundle import activation_bytes, weight_bytes
from pipeline.validation.context import Difference, Place
from pipeline.validation.families import FAMILIES, carriers, residuals
from pipeline.validation.judge import LABELS, Requirement, Verdict
from pipeline.validation.measured import Case, Judged, LeftOut, listed
from pipeline.version import VERSION

SCHEMA_VERSION = 1
KIND = "validation"

WORST = 5
KERNELS_SHOWN = 5

PROFILE_NOTE = (
    "The profile's times include what the profiler adds to each kernel; a table made of networks' profiles includes it too,"
    " one made by a sweep does not."
)


@dataclass(frozen=True)
class Found:
    """Everything that the document is made from.

    Args:
        bench: the result document of the run that measured the networks.
        verdicts: the table's first.
        isolated: whether kernels were timed alone as well.
    """

    command: str
    lut: str
    lut_sha256: str
    table: LatencyTable
    place: Place
    differences: Sequence[Difference]
    bench: Mapping[str, Any]
    judged: Sequence[Judged]
    left_out: Sequence[LeftOut]
    verdicts: Sequence[Verdict]
    requirement: Requirement | None
    interpolate: bool
    isolated: bool
    seed: int


def validation_document(found: Found) -> dict[str, Any]:
    table_networks = {name for entry in found.table for name in entry.networks}
    held_in = [one.case.name for one in found.judged if one.case.name in table_networks]
    requirement = found.requirement
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "handset": VERSION,
        "run": found.bench["run"],
        "created": found.bench["created"],
        "command": found.command,
        "headline": headline(found.verdicts[0], len(found.left_out)),
        "lut": {
            "path": found.lut,
            "sha256": found.lut_sha256,
            "entries": len(found.table),
            "context": dataclasses.asdict(found.table.context),
        },
        "context": {
            "measured": dict(found.place.measured),
            "differences": [dataclasses.asdict(one) for one in found.differences],
        },
        "device": found.bench["device"],
        "settings": found.bench["settings"],
        "interpolate": found.interpolate,
        "isolated": found.isolated,
        "seed": found.seed,
        "counts": {
            "asked": len(found.judged) + len(found.left_out),
            "judged": len(found.judged),
            "left_out": len(found.left_out),
            "unstable": sum(not one.case.stable for one in found.judged),
            "failed": sum(bool(one.case.failed) for one in found.left_out),
        },
        "requirement": None
        if requirement is None
        else {
            "within5_asked": requirement.asked,
            "within5_found": requirement.found,
            "judged": requirement.judged,
            "met": requirement.met,
        },
        "predictors": [_predictor(one) for one in found.verdicts],
        "networks": [_network(one, found.verdicts, one.case.name in table_networks) for one in found.judged],
        "left_out": [_left_out(one) for one in found.left_out],
        "families": [
            {
                **dataclasses.asdict(one),
                "label": FAMILIES[one.family],
                "difference_ms": one.difference_ms,
                "relative": one.relative,
            }
            for one in residuals(found.judged)
        ],
        "worst": _worst(found.judged, found.verdicts[0]),
        "notes": _notes(found, held_in),
    }


def headline(table: Verdict, left_out: int) -> str:
    """The answer in one sentence."""
    judged = table.validation
    if judged is None:
        return "no network could be judged"
    one = judged.scaled or judged.plain
    close = round(one.within_5 * judged.count)
    factor = f", times one factor of {judged.factor:.3f}," if judged.scaled and judged.factor is not None else ""
    networks = f"{close} of {judged.count} networks" if judged.count > 1 else f"{close} of 1 network"
    rest = f"; {left_out} left out" if left_out else ""
    return f"the table's sum{factor} is within 5 % of end to end for {networks}, RMSPE {percent(one.rmspe)}{rest}"


def _predictor(verdict: Verdict) -> dict[str, Any]:
    judged = verdict.validation
    told = {} if judged is None else dataclasses.asdict(judged)
    if not verdict.plain_ms:  # multiply-accumulates are no ms: only what the factor makes of them is
        told |= {"plain": None, "fitted": None, "overhead": None, "factor": None}
    return {
        "name": verdict.name,
        "label": LABELS[verdict.name],
        "count": 0 if judged is None else judged.count,
        **{name: told.get(name) for name in ("plain", "scaled", "fitted", "factor", "overhead", "folds")},
        "worst": list(told.get("worst", ())),
        "not_judged": dict(verdict.predicted.not_judged),
        "note": verdict.predicted.note,
    }


def _network(one: Judged, verdicts: Sequence[Verdict], in_table: bool) -> dict[str, Any]:
    case, answer = one.case, one.answer
    return {
        **_measured(case),
        "in_table": in_table,
        "predicted_ms": {
            verdict.name: {"plain": verdict.plain_ms.get(case.name), "scaled": verdict.scaled_ms.get(case.name)}
            for verdict in verdicts
        },
        "table_interval_ms": list(answer.interval_ms or (one.table_ms, one.table_ms)),
        "kernels": len(one.keys),
        "coverage": {"measured": len(answer.entries), "interpolated": len(answer.interpolated)},
        "interpolated_share": _interpolated_share(one),
    }


def _measured(case: Case) -> dict[str, Any]:
    same = listed(case)
    return {
        "name": case.name,
        "source": case.source,
        "measured_ms": case.measured_ms,
        "interval_ms": None if case.interval_ms is None else list(case.interval_ms),
        "stable": case.stable,
        "reasons": list(case.reasons),
        "profile_ms": sum(row.ms for row in case.profile) if case.profile else None,
        "profiler_cost_ms": case.profiler_cost_ms,
        "kernels_from": "profile" if case.planned is None else "torch module",
        "listed": None if same is None else dataclasses.asdict(same),
    }


def _left_out(one: LeftOut) -> dict[str, Any]:
    return {**_measured(one.case), "reason": one.reason, "missing": list(one.missing)}


def _interpolated_share(one: Judged) -> float:
    measured = one.answer.measured_share
    return 0.0 if measured is None else 1 - measured


def _worst(judged: Sequence[Judged], table: Verdict) -> list[dict[str, Any]]:
    by_name = {one.case.name: one for one in judged}
    worst = () if table.validation is None else table.validation.worst[:WORST]
    return [{**dataclasses.asdict(one), **_explained(by_name[one.name])} for one in worst]


def _explained(one: Judged) -> dict[str, Any]:
    """What the error is made of: the table against the network's own profile, and that against end to end."""
    case = one.case
    profile_ms = sum(row.ms for row in case.profile)
    return {
        "table_ms": one.table_ms,
        "profile_ms": profile_ms if case.profile else None,
        "table_minus_profile_ms": one.table_ms - profile_ms if case.profile else None,
        "profile_minus_measured_ms": profile_ms - one.measured_ms if case.profile else None,
        "profiler_cost_ms": case.profiler_cost_ms,
        "interpolated_share": _interpolated_share(one),
        "footprint": {
            "model_bytes": case.model_bytes,
            "peak_memory_bytes": case.peak_memory_bytes,
            "largest_kernel_bytes": max(activation_bytes(key) + weight_bytes(key) for key in one.keys),
        },
        "kernels": [
            {**dataclasses.asdict(row), "label": FAMILIES[row.family], "difference_ms": row.table_ms - row.profile_ms}
            for row in (carriers(one, KERNELS_SHOWN) if case.profile else ())
        ],
    }


def _notes(found: Found, held_in: Sequence[str]) -> list[str]:
    notes = [PROFILE_NOTE]
    if found.differences:
        fields = ", ".join(one.field for one in found.differences)
        notes.append(f"OTHER CONTEXT: the table was made with another {fields}; allowed by --allow-other-context")
    if held_in:
        notes.append(f"not held out: the table names {', '.join(held_in)} among the networks that it was made of")
    told = [listed(one.case) for one in found.judged]
    for one, same in zip(found.judged, told, strict=True):
        if same is not None and not same.same:
            notes.append(f"{one.case.name}: the kernels that were told are not those of its profile, see its row")
    notes += [f"{LABELS[one.name]}: {one.predicted.note}" for one in found.verdicts if one.predicted.note]
    return notes + list(found.bench["notes"])
