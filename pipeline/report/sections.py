"""The sections about whole networks: latency, before and after compression, samples. Rows for their templates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from pipeline.report import charts
from pipeline.report.correction import corrected_ms, kept, undisturbed
from pipeline.report.facts import Case, cases, comparable, mismatch_text, parent_case, speed_up
from pipeline.report.scales import Scale, around, from_zero, positions
from pipeline.report.text import count, duration, number, percent, plural, plus_minus, signed_percent
from pipeline.report.timeline import Timeline, stride, timeline
from pipeline.report.views import Bench, Estimate, Layer, Measured, NetworkRow


def runtimes(bench: Bench) -> list[str]:
    """The labels of all runtimes in order of appearance: a runtime's place picks its colour and its marker."""
    return list(dict.fromkeys(profile.label for profile in bench.profiles))


def interval_text(estimate: Estimate) -> str:
    """ "9.68 – 9.73", with as many digits as tell the ends apart, in the unit of `duration(median)`."""
    unit = duration(estimate.median).split()[-1]
    scale = {"s": 1e-3, "ms": 1.0, "µs": 1e3}[unit]
    low, high = estimate.low * scale, estimate.high * scale
    digits = next((d for d in (3, 4, 5) if number(low, d) != number(high, d)), 3)
    return f"{number(low, digits)} – {number(high, digits)}"


@dataclass(frozen=True)
class LatencyRow:
    network: str
    label: str
    shape: int
    chart: Markup | None
    value: str
    sure: str
    interval: str
    plain: str
    stable: bool
    failed: str
    mismatch: str


def latency(bench: Bench) -> tuple[list[LatencyRow], Markup, bool]:
    """All profiles on one axis, that axis, and if it is logarithmic.

    The estimate is the noise-corrected one where there is one, with the plain median beside it.
    """
    measured = [case.measured for case in cases(bench.profiles)]
    ends = [value for m in measured for e in (m.plain, m.best) for value in (e.low, e.median, e.high)]
    scale, order = positions(ends), runtimes(bench)
    rows = []
    for profile in bench.profiles:
        shape, m = order.index(profile.label), profile.measured
        if m is None:
            rows.append(
                LatencyRow(profile.network, profile.label, shape, None, "failed", "", "", "", False, profile.failed, "")
            )
            continue
        title = f"{profile.network} in {profile.label}: {duration(m.best.median)}, interval {interval_text(m.best)}"
        chart = charts.whisker(scale, m.best, m.plain if m.corrected else None, shape, title)
        value, sure = duration(m.best.median), plus_minus(m.best.half_width)
        plain, wrong = duration(m.plain.median), profile.numerics if profile.mismatch else None
        rows.append(
            LatencyRow(
                profile.network,
                profile.label,
                shape,
                chart,
                value,
                sure,
                interval_text(m.best),
                plain,
                m.stable,
                "",
                mismatch_text(wrong) if wrong else "",
            )
        )
    return rows, charts.axis(scale, "ms"), scale.log


@dataclass(frozen=True)
class PairRow:
    label: str
    chart: Markup | None
    before: str
    after: str
    speed: str
    interval: str


@dataclass(frozen=True)
class Pair:
    """A compressed network beside the one it came from."""

    network: str
    before: str
    method: str
    rows: list[PairRow]
    axis: Markup
    facts: list[tuple[str, str, str, str]]
    layers: list[Layer]


def pairs(bench: Bench) -> list[Pair]:
    return [_pair(bench, network) for network in bench.networks if network.compressed_from]


def _pair(bench: Bench, network: NetworkRow) -> Pair:
    measured = {p.label: p.measured for p in bench.of(network.name)}
    older = {p.label: p.measured for p in bench.of(network.compressed_from)}
    both = [m for m in (*measured.values(), *older.values()) if m]
    longest = max((value for m in both for value in (m.best.high, m.plain.median)), default=0.0)
    unit, per_ms = charts.unit_of(longest)
    scale = from_zero([longest * per_ms])
    rows = []
    for label in dict.fromkeys((*measured, *older)):
        case = parent_case(bench, network, label)
        new, old = measured.get(label), case.measured if case else None
        before, after = (duration(m.best.median) if m else "not measured" for m in (old, new))
        if new is None or old is None:
            rows.append(PairRow(label, None, before, after, "", ""))
            continue
        speed = speed_up(old, new)
        drawn = [
            charts.Bar(e.median * per_ms, class_, f"{name}: {duration(e.median)}", (e.low * per_ms, e.high * per_ms))
            for e, class_, name in zip(
                comparable(old, new), ("before", "after"), (network.compressed_from, network.name), strict=True
            )
        ]
        chart = charts.bars(scale, drawn, f"{network.compressed_from}: {before}, {network.name}: {after}")
        interval = f"{speed.low:.2f} – {speed.high:.2f}"
        rows.append(PairRow(label, chart, before, after, f"{speed.median:.2f}x", interval))
    parent = next((n for n in bench.networks if n.name == network.compressed_from), None)
    return Pair(
        network.name,
        network.compressed_from,
        network.method,
        rows,
        charts.axis(scale, unit),
        _changes(parent, network),
        network.layers,
    )


def _changes(before: NetworkRow | None, after: NetworkRow) -> list[tuple[str, str, str, str]]:
    """(what, before, after, change) for parameters, MACs and every accuracy that both networks have."""
    found = []
    for what, old, new in (
        ("parameters", before.params if before else None, after.params),
        ("MACs", before.macs if before else None, after.macs),
    ):
        if old and new is not None:
            found.append((what, count(old), count(new), signed_percent(new / old - 1)))
    if before and before.accuracy and after.accuracy:
        names = {"torch": (before.accuracy.torch, after.accuracy.torch)}
        names |= {k: (v, after.accuracy.by_runtime.get(k)) for k, v in before.accuracy.by_runtime.items()}
        for name, (was, now) in names.items():
            if was is not None and now is not None:
                points = f"{(now - was) * 100:+.2f} points".replace("-", "−") if now != was else "same"
                found.append((f"{after.accuracy.metric}, {name}", percent(was, 3), percent(now, 3), points))
    return found


@dataclass(frozen=True)
class Distribution:
    network: str
    label: str
    histogram: Markup
    axis: Markup
    timeline: Markup
    notes: list[str]


def distributions(bench: Bench) -> list[Distribution]:
    return [_distribution(case, bench.disturbed_over) for case in cases(bench.profiles) if case.measured.samples_ns]


def _distribution(case: Case, disturbed_over: float | None) -> Distribution:
    m, name = case.measured, f"{case.profile.network} in {case.profile.label}"
    plain = [ns / 1e6 for ns, keep in zip(m.samples_ns, kept(m), strict=True) if keep]
    plain = plain or [ns / 1e6 for ns in m.samples_ns]
    corrected = corrected_ms(m, disturbed_over)
    medians = (m.plain.median, m.corrected.median if m.corrected and corrected else None)
    scale = around(
        [*charts.body(plain), *(charts.body(corrected) if corrected else []), *(x for x in medians if x is not None)]
    )
    unit, per_ms = charts.unit_of(scale.high)
    shown = Scale(scale.low * per_ms, scale.high * per_ms)
    title = f"{name}: {plural(len(plain), 'sample')}, plain median {duration(medians[0])}"
    title += f", noise-corrected {duration(medians[1])}" if medians[1] is not None else ""
    histogram = charts.histogram(
        shown, [v * per_ms for v in plain], [v * per_ms for v in corrected],
        (medians[0] * per_ms, None if medians[1] is None else medians[1] * per_ms), f"Distribution of {title}",
    )  # fmt: skip
    line = line_of(m, [ns / 1e6 * per_ms for ns in m.samples_ns], disturbed_over, per_ms)
    return Distribution(
        case.profile.network,
        case.profile.label,
        histogram,
        charts.axis(shown, unit, target=5),
        timeline(line, unit, f"Samples over time, {name}"),
        _notes(m, plain, corrected, scale),
    )


def _notes(m: Measured, plain: list[float], corrected: list[float], scale: Scale) -> list[str]:
    """How many samples there are, which of them count, and what is not drawn."""
    dropped, launches = len(m.samples_ns) - len(plain), len(set(m.launch)) or 1
    notes = [f"{plural(len(plain), 'sample')} in {plural(launches, 'launch', 'launches')}"]
    notes[0] += f", {f'{len(corrected):,}' if corrected else 'none'} of them undisturbed" if m.corrected else ""
    notes += [f"{dropped:,} more dropped as first of a block or not steady yet"] if dropped else []
    notes += [f"{plural(len(m.warmup_ns), 'warm-up')}"] if m.warmup_ns else []
    beyond = sum(not scale.low <= ms <= scale.high for ms in plain)
    notes += [f"{beyond:,} beyond the axis, the slowest {duration(max(plain))}"] if beyond else []
    thinned = stride(len(m.samples_ns))
    return [*notes, f"one in {thinned} is drawn over time"] if thinned > 1 else notes


def line_of(m: Measured, values: list[float], disturbed_over: float | None, warmup_per_ms: float = 0.0) -> Timeline:
    """The time-line of one value a sample; without a factor for them the warm-ups are left out."""
    starts = m.start_ns or list(accumulate(m.samples_ns, initial=0.0))[:-1]
    ones = [1.0] * len(values)
    warmup = [ns / 1e6 * warmup_per_ms for ns in m.warmup_ns] if warmup_per_ms else []
    return Timeline(values, starts, m.launch or ones, m.block or ones, undisturbed(m, disturbed_over), warmup)
