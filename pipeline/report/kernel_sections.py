"""The sections about kernels: waterfalls and tables, kernel types, runtime against runtime."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report import charts, waterfall
from pipeline.report.facts import Case, by_kind, cases, gmacs_per_s, kernel_duration, kernel_ms
from pipeline.report.kinds import KINDS, Kind, detail, kind_of
from pipeline.report.scales import Scale, from_zero
from pipeline.report.sections import runtimes
from pipeline.report.text import count, duration, factor, number, percent, plural
from pipeline.report.views import Bench, Kernel


@dataclass(frozen=True)
class KernelRow:
    """Times in µs: the best estimate with its interval, and the plain one where that is another."""

    kernel: Kernel
    name: str
    slug: str
    detail: str
    best: str
    interval: str
    plain: str
    share: str
    macs: str
    rate: str


@dataclass(frozen=True)
class Fall:
    network: str
    label: str
    total: str
    basis: str
    drawing: Markup
    kernels: list[KernelRow]


def without(bench: Bench) -> list[tuple[str, str, str]]:
    """(network, runtime, why) of the profiles that were measured but have no kernels."""
    return [
        (case.profile.network, case.profile.label, case.measured.kernels_missing or "none were reported")
        for case in cases(bench.profiles)
        if not case.measured.kernels
    ]


def falls(bench: Bench) -> list[Fall]:
    return [_fall(case) for case in cases(bench.profiles) if case.measured.kernels]


def _fall(case: Case) -> Fall:
    m, name = case.measured, f"{case.profile.network} in {case.profile.label}"
    times = kernel_ms(m)
    total = duration(sum(times))
    title = f"Kernels of {name} in order of execution, {plural(len(times), 'kernel')}, together {total}"
    basis = "noise-corrected medians" if all(kernel.corrected for kernel in m.kernels) else "plain medians"
    found = [_kernel_row(kernel, ms) for kernel, ms in zip(m.kernels, times, strict=True)]
    drawing = waterfall.waterfall(waterfall.rows(m.kernels, times), title)
    return Fall(case.profile.network, case.profile.label, total, basis, drawing, found)


def _kernel_row(kernel: Kernel, ms: float) -> KernelRow:
    rate = gmacs_per_s(kernel, ms)
    best, words = kernel.corrected or kernel.plain, detail(kernel.op, kernel.key)
    return KernelRow(
        kernel,
        waterfall.told_apart(kernel),
        kind_of(kernel.op, kernel.key).slug,
        words,
        _us(best.median),
        f"{_us(best.low)} – {_us(best.high)}",
        _us(kernel.plain.median) if kernel.corrected else "",
        percent(kernel.share),
        count(kernel.macs) if kernel.macs is not None else "",
        number(rate) if rate else "",
    )


def _us(ms: float) -> str:
    """See `kernel_duration`, in µs without the unit."""
    return number(ms * 1e3) if ms > 0 else "< 1"


@dataclass(frozen=True)
class Types:
    network: str
    label: str
    total: str
    chart: Markup
    parts: list[tuple[Kind, str, str]]


def types(bench: Bench) -> list[Types]:
    """What each kind of kernel takes, one stacked bar a profile; (kind, time, share) longest first."""
    found = []
    for case in cases(bench.profiles):
        parts = by_kind(case.measured)
        total = sum(ms for _, ms in parts)
        if total:
            texts = [(kind, kernel_duration(ms), percent(ms / total)) for kind, ms in parts]
            title = f"{case.profile.network} in {case.profile.label}: " + ", ".join(
                f"{k.label} {share}" for k, _, share in texts
            )
            found.append(
                Types(case.profile.network, case.profile.label, duration(total), waterfall.stacked(parts, title), texts)
            )
    return found


@dataclass(frozen=True)
class Versus:
    """One network in two or more runtimes, by kind of kernel."""

    network: str
    labels: list[tuple[str, int]]
    rows: list[tuple[str, Markup, list[str], str]]
    totals: list[str]
    axis: Markup


def versus(bench: Bench) -> list[Versus]:
    found, order = [], runtimes(bench)
    for network in bench.networks:
        measured = [case for case in cases(bench.of(network.name)) if case.measured.kernels]
        if len(measured) < 2:
            continue
        labels = [(case.profile.label, order.index(case.profile.label)) for case in measured]
        sums = [{kind.slug: ms for kind, ms in by_kind(case.measured)} for case in measured]
        longest = max((ms for by_slug in sums for ms in by_slug.values()), default=0.0)
        unit, per_ms = charts.unit_of(longest)
        scale = from_zero([longest * per_ms])
        slugs = sorted(
            {slug for by_slug in sums for slug in by_slug}, key=lambda slug: -max(s.get(slug, 0.0) for s in sums)
        )
        rows = [_versus_row(KINDS[slug].label, [s.get(slug) for s in sums], labels, scale, per_ms) for slug in slugs]
        totals = [duration(sum(by_slug.values())) for by_slug in sums]
        found.append(Versus(network.name, labels, rows, totals, charts.axis(scale, unit)))
    return found


def _versus_row(
    kind: str, times: list[float | None], labels: list[tuple[str, int]], scale: Scale, per_ms: float
) -> tuple[str, Markup, list[str], str]:
    texts = [kernel_duration(ms) if ms is not None else "none" for ms in times]
    drawn = [
        charts.Bar((ms or 0.0) * per_ms, f"r{shape % 4}", f"{kind} in {label}: {text}")
        for ms, (label, shape), text in zip(times, labels, texts, strict=True)
    ]
    chart = charts.bars(
        scale,
        drawn,
        f"{kind}: " + ", ".join(f"{text} in {label}" for text, (label, _) in zip(texts, labels, strict=True)),
    )
    known = [(ms, label) for ms, (label, _) in zip(times, labels, strict=True) if ms is not None]
    if len(known) < 2:
        return kind, chart, texts, f"only in {known[0][1]}" if known else ""
    (least, fast), (most, _) = min(known), max(known)
    if least <= 0:
        return kind, chart, texts, f"faster in {fast}" if most > 0 else "the same"
    return kind, chart, texts, f"{factor(most / least)} faster in {fast}" if most > 1.02 * least else "the same"
