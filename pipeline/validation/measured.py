"""The networks that a table is judged by: what was measured of each, which kernels it has, and what the table says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from latency_luts import Answer, LatencyTable, OpKey
from pipeline.console import Console
from pipeline.errors import HandsetError


@dataclass(frozen=True)
class Planned:
    """A network's kernels before it was exported. keys: None where there is no torch module, or its kernels cannot be
    told; then `why` says it."""

    keys: tuple[OpKey, ...] | None
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A kernel of a network's own profile, ms, corrected for the machine's noise; the profiler's share is in it."""

    op: str
    key: OpKey | None
    ms: float


@dataclass(frozen=True)
class Case:
    """A network that was measured, or why it was not.

    Args:
        measured_ms: end to end without the profiler, corrected median; None where `failed` says why.
        planned: its kernels as `pipeline.graph.kernels` tells them; None for a model file.
        why: why they cannot be told; "" where they can, or are not asked.
        profiler_cost_ms: by how much it takes longer with the profiler on.
    """

    name: str
    source: str
    measured_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    stable: bool = False
    reasons: tuple[str, ...] = ()
    failed: str = ""
    planned: tuple[OpKey, ...] | None = None
    why: str = ""
    profile: tuple[Row, ...] = ()
    profiler_cost_ms: float | None = None
    model_bytes: int | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Judged:
    """A case that the table knows all kernels of. kernel_ms: the table's time of each of `keys`."""

    case: Case
    measured_ms: float
    keys: tuple[OpKey, ...]
    answer: Answer
    kernel_ms: tuple[float, ...]

    @property
    def table_ms(self) -> float:
        return self.answer.latency_ms or 0.0


@dataclass(frozen=True)
class LeftOut:
    """A network that the table is not judged by. missing: the kernels that the table does not know, each once."""

    case: Case
    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """The kernels that were told of a network beside those of its profile.

    Args:
        same: the same kernels in the same order.
        reordered: the same kernels in another order.
        only_told, only_profile: kernel -> how many times more often it is there than in the other list.
    """

    same: bool
    reordered: bool
    only_told: Mapping[str, int] = field(default_factory=dict)
    only_profile: Mapping[str, int] = field(default_factory=dict)


def plan_keys(models: Sequence[str], runtime: str, abi: str, console: Console) -> dict[str, Planned]:
    """Name of each network -> its kernels, as far as they are known before it is exported.

    Raises: UsageError, ModelError, StorageError: there is no such model.
    """
    from pipeline.graph import kernels
    from pipeline.spec import resolve

    planned: dict[str, Planned] = {}
    for text in models:
        with console.stage(f"the kernels of {text}"):
            network = resolve(text)
            if network.module is None:
                planned[network.name] = Planned(None)
                continue
            try:
                uses = kernels(network.module, network.input_shape, runtime, abi=abi)
                planned[network.name] = Planned(tuple(use.key for use in uses))
            except HandsetError as error:
                planned[network.name] = Planned(None, f"its kernels cannot be told: {error.message}")
    return planned


def cases_of(document: Mapping[str, Any], planned: Mapping[str, Planned]) -> list[Case]:
    """From the result document of a bench in one runtime."""
    sources = {network["name"]: network["source"] for network in document["networks"]}
    return [
        _case(profile, sources[profile["network"]], planned[profile["network"]]) for profile in document["profiles"]
    ]


def _case(profile: Mapping[str, Any], source: str, planned: Planned) -> Case:
    told: dict[str, Any] = {"planned": planned.keys, "why": planned.why}
    if profile["failed"] is not None:
        return Case(profile["network"], source, failed=profile["failed"], **told)
    best, verdict = profile["latency_ms"]["corrected"], profile["verdict"]
    return Case(
        name=profile["network"],
        source=source,
        measured_ms=best["median"],
        interval_ms=(best["interval"][0], best["interval"][1]),
        stable=verdict["stable"],
        reasons=tuple(verdict["reasons"]),
        profile=tuple(_row(kernel) for kernel in profile["kernels"]),
        profiler_cost_ms=profile.get("profiler_cost_ms"),
        model_bytes=profile["artifact"]["bytes"],
        peak_memory_bytes=profile["peak_memory_bytes"],
        **told,
    )


def _row(kernel: Mapping[str, Any]) -> Row:
    key = None if kernel["key"] is None else OpKey.parse(kernel["key"])
    return Row(kernel["op"], key, kernel["latency_ms"]["corrected"]["median"])


def ask(cases: Sequence[Case], table: LatencyTable, *, interpolate: bool) -> tuple[list[Judged], list[LeftOut]]:
    """The networks that the table knows all kernels of, and the others with the reason."""
    judged, left_out = [], []
    for case in cases:
        one = _ask(case, table, interpolate)
        if isinstance(one, Judged):
            judged.append(one)
        else:
            left_out.append(one)
    return judged, left_out


def _ask(case: Case, table: LatencyTable, interpolate: bool) -> Judged | LeftOut:
    if case.measured_ms is None:
        return LeftOut(case, f"it could not be measured: {case.failed}")
    if case.why:
        return LeftOut(case, case.why)
    keys = case.planned
    if keys is None:
        found = [row.key for row in case.profile]
        keys = tuple(key for key in found if key is not None)
        if not keys or len(keys) < len(found):
            return LeftOut(case, f"{len(found) - len(keys)} of the {len(found)} kernels of its profile have no key")
    answer = table.total(keys, on_missing="report", interpolate=interpolate)
    if answer.missing:
        missing = tuple(dict.fromkeys(map(str, answer.missing)))
        return LeftOut(case, f"the table does not know {len(answer.missing)} of its {len(keys)} kernels", missing)
    if not answer.latency_ms:
        return LeftOut(case, "its kernels take no time in the table")
    measured = iter(entry.latency_ns_median for entry in answer.entries)
    between = iter(one.latency_ns for one in answer.interpolated)
    times = tuple(next(measured if kind == "measured" else between) / 1e6 for kind in answer.kinds)
    return Judged(case, case.measured_ms, keys, answer, times)


def listed(case: Case) -> Listed | None:
    """How the kernels that were told agree with the profile; None where only one of the two is there."""
    if case.planned is None or not case.profile:
        return None
    told = [str(key) for key in case.planned]
    ran = [str(row.key) if row.key is not None else f"{row.op} without a key" for row in case.profile]
    only_told, only_profile = Counter(told) - Counter(ran), Counter(ran) - Counter(told)
    same = told == ran
    return Listed(same, not (same or only_told or only_profile), dict(only_told), dict(only_profile))
