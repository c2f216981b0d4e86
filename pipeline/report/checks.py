"""The trust sections of the page: stability, parity and accuracy, how it was measured."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.correction import canaries_ns
from pipeline.report.facts import (
    Case,
    accuracy_change,
    accuracy_text,
    cases,
    numerics_text,
    score,
    top1_text,
    value_range,
)
from pipeline.report.sections import line_of
from pipeline.report.text import duration, number, percent, plus_minus, shorten, signed_percent
from pipeline.report.timeline import timeline
from pipeline.report.views import Bench, Canary, Measured, NetworkRow, Numerics, Profile

TIMES = (
    "Every time was taken on the device itself ({where}), in nanoseconds around one inference on a batch of one. "
    "Warm-ups, the first sample of each block and those before the steady state are kept in the result but count for "
    "nothing."
)
LATENCIES = (
    "A latency is the median of its samples with a {confidence} interval, taken with the profiler off. Kernels are "
    "timed in runs of their own with the profiler on, so their sum and the latency differ, as the table below shows."
)
CORRECTED = (
    "A canary, always the same small piece of work, is timed before and after every inference: half of it is arithmetic "
    "in the first cache, half a read of 4 MB, so that it slows with the clock, the caches and the memory. Undisturbed "
    "samples are those during which the core was not taken away and beside which the canary was not interrupted; the "
    "noise-corrected median is the median of these, each times (the canary's reference / the canary) to the power of "
    "an exponent."
)
EXPONENT = (
    "The exponent comes from the samples themselves and says how closely they follow the canary: with 1 in step, with "
    "0 not at all, and then nothing is scaled. The reference is what the canary takes beside that very network and "
    "runtime when little disturbs it; it is kept from run to run, so that runs can be compared. Both medians are shown, "
    "comparisons are made between noise-corrected ones."
)
ONE_NODE = (
    "Where a profile has a single kernel, the runtime shows the network as one node and what is inside cannot be seen."
)
SIMULATED = "The device is simulated or emulated: its times say nothing about a real phone."
ORIGINS = {
    "first": "taken by this run",
    "kept": "kept from an earlier run",
    "reset": "taken anew: this run was clearly quieter than earlier ones",
}

MOST_NAMES = 8
"""Inputs that are called by their names."""


@dataclass(frozen=True)
class Stability:
    network: str
    label: str
    stable: bool
    verdict: str
    reasons: list[str]
    chart: Markup | None
    facts: list[tuple[str, str]]


def stability(bench: Bench) -> list[Stability]:
    return [_stability(case, bench.disturbed_over) for case in cases(bench.profiles)]


def _stability(case: Case, disturbed_over: float | None) -> Stability:
    m, name = case.measured, f"{case.profile.network} in {case.profile.label}"
    chart = None
    if m.canary and m.canary.reference_ns > 0 and m.canary_ns:
        line = line_of(m, [ns / m.canary.reference_ns for ns in canaries_ns(m)], disturbed_over)
        chart = timeline(line, "×", f"Canary over its reference over time, {name}", level=disturbed_over, height=58)
    found, answers = _facts(m), case.profile.numerics
    found += [("numerics", numerics_text(answers))] if answers else []
    return Stability(case.profile.network, case.profile.label, m.stable, m.verdict, m.reasons, chart, found)


def _facts(m: Measured) -> list[tuple[str, str]]:
    """(what, value) of how undisturbed a measurement was; what is not known is left out."""
    found = [("plain", f"{duration(m.plain.median)} {plus_minus(m.plain.half_width)}")]
    if m.corrected:
        found.append(("noise-corrected", f"{duration(m.corrected.median)} {plus_minus(m.corrected.half_width)}"))
        if m.corrected.median:
            found.append(("plain against corrected", signed_percent(m.plain.median / m.corrected.median - 1)))
    if len(m.launch_medians_ms) > 1:
        unit = duration(m.launch_medians_ms[0]).split()[-1]
        per_ms = {"s": 1e-3, "ms": 1.0, "µs": 1e3}[unit]
        found.append(("launches", f"{', '.join(number(ms * per_ms, 4) for ms in m.launch_medians_ms)} {unit}"))
    if m.disturbed_share is not None:
        preempted = f" ({percent(m.preempted_share)} preempted)" if m.preempted_share is not None else ""
        found.append(("disturbed", percent(m.disturbed_share) + preempted))
    found.append(("canary", _canary(m.canary)))
    clocks = [end.clock_khz for end in m.block_ends if end.clock_khz is not None]
    found += [("clock", value_range(clocks, "GHz", 1e-6))] if clocks else []
    cores = sorted({end.core for end in m.block_ends if end.core is not None})
    found += [("ran on core", ", ".join(f"{core:.0f}" for core in cores))] if cores else []
    return found


def _canary(canary: Canary | None) -> str:
    if canary is None or canary.reference_ns <= 0:
        return "none"
    text = f"exponent {canary.exponent:.2f}, reference {duration(canary.reference_ns / 1e6)}"
    origin = ORIGINS.get(canary.origin, canary.origin)
    text += f" ({origin})" if origin else ""
    own = canary.own_ns
    return text if own is None or own == canary.reference_ns else f"{text}, in this run {duration(own / 1e6)}"


@dataclass(frozen=True)
class ParityRow:
    network: str
    label: str
    error: str
    tolerance: str
    where: str
    verdict: str
    torch: str
    accuracy: str
    change: str
    data: str


def parity(bench: Bench) -> list[ParityRow]:
    by_name = {network.name: network for network in bench.networks}
    return [_parity(profile, by_name.get(profile.network)) for profile in bench.profiles if profile.artifact]


def _parity(profile: Profile, network: NetworkRow | None) -> ParityRow:
    artifact = profile.artifact
    assert artifact is not None
    found, accuracy = artifact.parity, network.accuracy if network else None
    worst = max(found.errors, key=lambda name: found.errors[name]) if found and found.errors else ""
    verdict = "no torch model to compare with"
    if found:
        verdict = "within" if found.worst_error <= found.tolerance else "exceeds"
    return ParityRow(
        profile.network,
        profile.label,
        f"{found.worst_error:.1e}" if found else "",
        f"{found.tolerance:.0e}" if found else "",
        worst,
        verdict,
        score(accuracy.torch) if accuracy and accuracy.torch is not None else "",
        accuracy_text(accuracy, profile),
        accuracy_change(accuracy, profile) if accuracy else "",
        ", ".join(filter(None, (accuracy.metric, accuracy.data))) if accuracy else "not measured",
    )


@dataclass(frozen=True)
class NumericsRow:
    """`verdict`: "agrees", "disagrees" or "not compared"."""

    network: str
    label: str
    verdict: str
    reference: str
    error: str
    tolerance: str
    cosine: str
    top1: str
    largest: str
    inputs: str


def numerics(bench: Bench) -> list[NumericsRow]:
    """What each profile's device answered to real inputs; empty where no run looked."""
    return [_numerics(profile, profile.numerics) for profile in bench.profiles if profile.numerics]


def _numerics(profile: Profile, found: Numerics) -> NumericsRow:
    def text(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    verdict = "agrees" if found.agrees else "disagrees"
    if not found.inputs:
        verdict = "not compared"
    return NumericsRow(
        profile.network,
        profile.label,
        verdict,
        found.reference,
        text(found.relative_error, ".1e") or ("not finite" if found.inputs else ""),
        text(found.tolerance, "g") if found.inputs else "",
        text(found.cosine, ".6f"),
        top1_text(found),
        text(found.max_abs_error, ".1e"),
        ", ".join(found.input_names[:MOST_NAMES]) + (", …" if len(found.input_names) > MOST_NAMES else ""),
    )


def differences(bench: Bench) -> list[dict[str, str]]:
    """End to end against the profiled run against the sum of kernels, in ms; noise-corrected where that is known."""

    def ms(value: float | None, sign: str = "") -> str:
        return "" if value is None else (f"+{number(value)}" if sign and value > 0 else number(value))

    rows = []
    for case in cases(bench.profiles):
        m = case.measured
        cost = m.profiler_cost_ms
        rows.append(
            {
                "network": case.profile.network,
                "label": case.profile.label,
                "end_to_end": ms(m.best.median),
                "cost": ms(cost, "+"),
                "cost_share": signed_percent(cost / m.best.median) if cost is not None and m.best.median else "",
                "profiled": ms(m.profiled.median if m.profiled else None),
                "between": ms(m.between_kernels_ms),
                "sum": ms(m.kernels_sum_ms),
                "sum_plain": ms(m.kernels_sum_plain_ms),
                "kernels": str(len(m.kernels)),
            }
        )
    return rows


def method(bench: Bench) -> list[str]:
    """How it was measured, in a few sentences with this run's own numbers."""
    measured = [case.measured for case in cases(bench.profiles)]
    confidence = percent(measured[0].confidence) if measured else "95 %"
    found = [TIMES.replace("{where}", shorten(bench.device_name, 40)), LATENCIES.format(confidence=confidence)]
    if any(m.corrected and m.canary and m.canary.reference_ns > 0 for m in measured):
        found += [CORRECTED, EXPONENT]
    if any(len(m.kernels) == 1 for m in measured):
        found.append(ONE_NODE)
    return [*found, SIMULATED] if bench.simulated else found
