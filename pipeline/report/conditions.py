"""How the device fared during the run: its clocks and its temperature over time, where both were read often enough."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.charts import axis
from pipeline.report.facts import value_range
from pipeline.report.scales import Scale, around
from pipeline.report.svg import line, picture, stretched
from pipeline.report.text import plural
from pipeline.report.timeline import GUTTER, levels
from pipeline.report.views import Bench, Moment

FEWEST = 3
"""Looks at the device below which there is nothing to draw."""
MOST_POINTS = 1500
MOST_LINES = 4
HEIGHT_PX = 64.0

Series = list[tuple[float, float]]
"""(seconds, value) in the order of time."""


@dataclass(frozen=True)
class Strip:
    """One quantity over time; `lines` are the names of its lines, whose places pick their colours, where it has several."""

    title: str
    range: str
    lines: list[str]
    chart: Markup


@dataclass(frozen=True)
class Meanwhile:
    strips: list[Strip]
    axis: Markup
    note: str


def meanwhile(bench: Bench) -> Meanwhile | None:
    """The drawing, or None where the device was looked at too seldom or said nothing."""
    trace = thinned(bench.conditions.trace) if bench.conditions else []
    if len(trace) < FEWEST:
        return None
    end = max(moment.at_s for moment in trace)
    if end <= 0:
        return None
    time, strips = Scale(0.0, end), []
    clocks = {name: [(s, khz / 1e6) for s, khz in series] for name, series in clock_series(trace).items()}
    if clocks:
        strips.append(_strip("clock", clocks, "GHz", time))
    degrees = [(moment.at_s, moment.temperature_c) for moment in trace if moment.temperature_c is not None]
    if len(degrees) >= FEWEST:
        strips.append(_strip("temperature", {"": degrees}, "°C", time))
    if not strips:
        return None
    told = [moment.thermal_status for moment in trace if moment.thermal_status is not None]
    throttled = sum(status > 0 for status in told)
    note = f"throttled, by Android's own word, at {throttled} of {plural(len(told), 'look')}" if throttled else ""
    return Meanwhile(strips, axis(time, "s"), note)


def thinned(trace: list[Moment]) -> list[Moment]:
    return trace[:: -(-len(trace) // MOST_POINTS) or 1]


def clock_series(trace: list[Moment]) -> dict[str, Series]:
    """The clocks worth a line each: of the cores that were read about as often as any.

    During a launch one core of each cluster is read, and its clock is the cluster's. Where there are too many for lines of
    their own, the slowest and the fastest core of each moment stand for all.
    """
    found: dict[str, Series] = {}
    for moment in trace:
        for core, khz in moment.clock_khz.items():
            found.setdefault(core, []).append((moment.at_s, khz))
    often = max((len(series) for series in found.values()), default=0)
    drawn = {f"core {core}": series for core, series in found.items() if len(series) >= max(FEWEST, often / 2)}
    if len(drawn) <= MOST_LINES:
        return drawn
    seen = [(moment.at_s, list(moment.clock_khz.values())) for moment in trace if moment.clock_khz]
    return {
        "slowest core": [(at_s, min(clocks)) for at_s, clocks in seen],
        "fastest core": [(at_s, max(clocks)) for at_s, clocks in seen],
    }


def _strip(title: str, lines: dict[str, Series], unit: str, time: Scale) -> Strip:
    values = [value for series in lines.values() for _, value in series]
    scale, said = around(values, margin=0.12), value_range(values, unit)
    drawn = [
        line([(10 * time.percent(s), 1000 - 10 * scale.percent(value)) for s, value in series], f"r{number}")
        for number, series in enumerate(lines.values())
    ]
    parts = levels(scale, unit, 100 - GUTTER, HEIGHT_PX)
    parts.append(stretched(*drawn, x=0, width=100 - GUTTER, y=0, height=HEIGHT_PX))
    whole = f"{title} over time: {said}"
    names = [name for name in lines if name]
    return Strip(title, said, names, picture(*parts, height=HEIGHT_PX, title=whole, desc=", ".join(names)))
