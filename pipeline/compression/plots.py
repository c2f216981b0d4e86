"""Accuracy against a count or a latency: which networks stand in which plot, and where the published ones would stand."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.compression.drawing import SHAPES, Drawing, Mark, class_of
from pipeline.compression.views import Comparison, Group, Point, Published
from pipeline.report.scales import around, positions
from pipeline.report.text import count, duration, plural, shorten

DEEPEST_POINTS = 10.0
"""An axis reaches no further below the network's own accuracy and the median one: what fell to chance flattens the rest."""
_NAME_CHARACTERS = 24


@dataclass(frozen=True)
class Plot:
    what: str
    chart: Markup
    note: str


@dataclass(frozen=True)
class _Way:
    """What stands to the right. removed: the share of it that a published network lost; None where none is published."""

    what: str
    unit: str
    of: Callable[[Point], float | None]
    text: Callable[[float], str]
    removed: Callable[[Published], float | None]
    runtime: str = ""


def plots(run: Comparison) -> list[Plot]:
    """Those that have the uncompressed network and another one: parameters, MACs, each runtime; predictions if no runtime."""

    def none(_: Published) -> None:
        return None

    ways = [
        _Way("parameters", "parameters", lambda point: point.params, count, lambda one: one.params_removed),
        _Way("MACs", "MACs", lambda point: point.macs, count, lambda one: one.macs_removed),
    ]
    for runtime in run.runtimes:
        what = f"latency in {shorten(runtime, _NAME_CHARACTERS)}"
        ways.append(_Way(what, "", lambda point, runtime=runtime: point.ms(runtime), duration, none, runtime))  # type: ignore[misc]
    if not any(point.measured for group in run.groups for point in group.points):
        ways.append(_Way("predicted latency", "", lambda point: point.predicted_ms, duration, none))
    return [plot for way in ways if (plot := _plot(run, way)) is not None]


def _plot(run: Comparison, way: _Way) -> Plot | None:
    own = _median(run.own, way, None)
    medians = [mark for group in run.groups if (mark := _median(group, way, run.methods.index(group.method)))]
    if own is None or not medians:
        return None
    lone = {id(group) for group in run.groups if len(group.points) == 1}
    seeds = [
        mark
        for group in run.groups
        for point in group.points
        if id(group) not in lone and (mark := _seed(group, point, way, run.methods.index(group.method)))
    ]
    published = [mark for one in run.published if (mark := _published(run, one, way, own))]
    everything = [*seeds, *published, *medians, own]
    reach = [end for mark in everything for end in (mark.x, *(mark.interval or ()))]
    lowest = min(own.y, statistics.median(mark.y for mark in medians)) - DEEPEST_POINTS
    across, up = positions(reach), around([max(mark.y, lowest) for mark in everything], margin=0.07)
    below = sum(mark.y < lowest for mark in everything)
    title = f"Top-1 accuracy against {way.what} of {plural(len(medians) + 1, 'network')}"
    chart = Drawing(across, up, way.what, way.text).chart(own, medians, seeds, published, title)
    note = ["logarithmic"] if across.log else []
    note += [f"{plural(below, 'mark')} lower than the axis, at its end"] if below else []
    return Plot(way.what, chart, "; ".join(note))


def _median(group: Group, way: _Way, shape: int | None) -> Mark | None:
    x, y = group.median(way.of), group.median(lambda point: point.top1)
    if x is None or y is None:
        return None
    seeds = f", median of {len(group.points)} seeds" if len(group.points) > 1 else ""
    interval = None
    if way.runtime and len(group.points) == 1 and (latency := group.latency(way.runtime)):
        interval = latency[1:]
    name = shorten(group.method, _NAME_CHARACTERS) or group.label
    return Mark(x, 100 * y, shape, class_of(shape), _words(group.label + seeds, x, y, way), name, interval)


def _seed(group: Group, point: Point, way: _Way, shape: int) -> Mark | None:
    x, y = way.of(point), point.top1
    if x is None or y is None:
        return None
    interval = point.measured[way.runtime].interval_ms if way.runtime else None
    words = _words(f"{group.label}, seed {point.seed}", x, y, way)
    return Mark(x, 100 * y, shape, f"{class_of(shape)} seed", words, interval=interval)


def _published(run: Comparison, one: Published, way: _Way, own: Mark) -> Mark | None:
    """Where this network would be, had it lost what the published one lost."""
    removed = way.removed(one)
    if removed is None or one.change is None:
        return None
    x, y = own.x * (1 - removed), own.y + one.change
    shape = next((i for i, method in enumerate(run.methods) if method.casefold() == one.method.casefold()), None)
    name = one.method if one.network == run.network else f"{one.method}, {one.network}"
    words = _words(f"published: {one.method} of {one.network}", x, y / 100, way)
    class_ = "hollow" if shape is None else f"hollow p{shape % len(SHAPES)}"
    return Mark(x, y, shape or 0, class_, words, shorten(name, _NAME_CHARACTERS))


def _words(who: str, x: float, y: float, way: _Way) -> str:
    return f"{who}: {way.text(x)}{' ' + way.unit if way.unit else ''}, top-1 {100 * y:.1f} %"
