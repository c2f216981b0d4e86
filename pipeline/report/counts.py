"""The section in which MACs and parameters stand against the measured latency: two plots with names, the rank correlations."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report import placing
from pipeline.report.placing import Box
from pipeline.report.ranks import Point, Ranks
from pipeline.report.scales import Scale, ticks
from pipeline.report.svg import tag
from pipeline.report.text import count, duration, percent, shorten

WIDTH, HEIGHT = 1150.0, 640.0
"""Of the drawing. It is scaled as a whole: where names stand depends on how wide they are."""
_LEFT, _RIGHT, _TOP, _BELOW = 62.0, 18.0, 14.0, 46.0
_FONT_PX, _CHARACTER_PX = 11.5, 6.8
_NAME_CHARACTERS = 34


@dataclass(frozen=True)
class Plot:
    what: str
    chart: Markup


@dataclass(frozen=True)
class Row:
    label: str
    networks: int
    macs: tuple[str, str]
    params: tuple[str, str]


def plots(found: Sequence[Ranks], shapes: Sequence[str]) -> list[Plot]:
    """Args: shapes: the labels of all runtimes of the page, whose place picks a marker."""
    if not found:
        return []
    ways: list[tuple[str, Callable[[Point], float]]] = [
        ("MACs", lambda point: point.macs),
        ("parameters", lambda point: point.params),
    ]
    return [Plot(what, _plot(what, of, found, shapes)) for what, of in ways]


def rows(found: Sequence[Ranks]) -> list[Row]:
    def texts(spearman: float, kendall: float) -> tuple[str, str]:
        return f"{spearman:.2f}", f"{kendall:.2f}"

    return [
        Row(
            one.label,
            len(one.points),
            texts(one.macs.spearman, one.macs.kendall),
            texts(one.params.spearman, one.params.kendall),
        )
        for one in found
    ]


def sentence(one: Ranks) -> str:
    """ "in litert MACs tell the order of 9 networks with Spearman's 0.94 and Kendall's 0.81, parameters with 0.48 and 0.3"."""
    macs, params = one.macs, one.params
    text = f"in {one.label} MACs tell the order of {len(one.points)} networks with Spearman's {macs.spearman:.2f} and "
    return f"{text}Kendall's {macs.kendall:.2f}, parameters with {params.spearman:.2f} and {params.kendall:.2f}"


def pair_text(slow: Point, fast: Point, limit: int = 60) -> str:
    """ "a has 30 % of the MACs of b, and takes 1.8x as long (2.1 ms against 1.2 ms)"."""
    share, times = percent(slow.macs / fast.macs), f"{slow.latency.median / fast.latency.median:.2f}x"
    text = (
        f"{shorten(slow.network, limit)} has {share} of the MACs of {shorten(fast.network, limit)}, and takes {times}"
    )
    return f"{text} as long ({duration(slow.latency.median)} against {duration(fast.latency.median)})"


def _plot(what: str, of: Callable[[Point], float], found: Sequence[Ranks], shapes: Sequence[str]) -> Markup:
    points = [point for one in found for point in one.points]
    across, up = _scale([of(point) for point in points]), _scale([point.latency.median for point in points])
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BELOW

    def x(value: float) -> float:
        return _LEFT + (right - _LEFT) * across.percent(value) / 100

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * up.percent(value) / 100

    parts = [*_axes(what, across, up, x, y)]
    parts += [_proportional(one, of, shapes.index(one.label), across, up, x, y) for one in found]
    places: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        for point in one.points:
            places.setdefault(point.network, []).append((x(of(point)), y(point.latency.median)))
    parts += [_stem(ends) for ends in places.values() if len(ends) > 1]
    parts += _names(places, Box(_LEFT, _TOP, right, bottom))
    for one in found:
        shape = shapes.index(one.label)
        for point in one.points:
            words = f"{point.network} in {one.label}: {count(of(point))} {what}, {duration(point.latency.median)}"
            parts.append(_marker(x(of(point)), y(point.latency.median), shape, words))
    title = f"Latency against {what} of {len(places)} networks, both logarithmic"
    return tag(
        "svg", tag("title", title), *parts, class_="chart counts", viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img",
        aria_label=title,
    )  # fmt: skip


def _scale(values: Sequence[float]) -> Scale:
    return Scale(min(values) / 1.25, max(values) * 1.25, log=True)


def _axes(
    what: str, across: Scale, up: Scale, x: Callable[[float], float], y: Callable[[float], float]
) -> list[Markup]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BELOW
    parts = []
    for value in ticks(across, 8):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=bottom, class_="grid"))
        parts.append(tag("text", count(value), x=x(value), y=bottom + 16, text_anchor="middle", class_="tick"))
    for value in ticks(up, 8):
        parts.append(tag("line", x1=_LEFT, x2=right, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", duration(value), x=_LEFT - 6, y=y(value) + 3.5, text_anchor="end", class_="tick"))
    parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="base"))
    parts.append(tag("line", x1=_LEFT, x2=_LEFT, y1=_TOP, y2=bottom, class_="base"))
    middle = (_LEFT + right) / 2
    parts.append(tag("text", what, x=middle, y=bottom + 36, text_anchor="middle", class_="tick strong"))
    return parts


def _proportional(
    one: Ranks, of: Callable[[Point], float], shape: int, across: Scale, up: Scale,
    x: Callable[[float], float], y: Callable[[float], float],
) -> Markup:  # fmt: skip
    """Where all networks would stand if the count alone made the time: the line of their median rate, cut at the edges."""
    rate = statistics.median(point.latency.median / of(point) for point in one.points)
    low, high = max(across.low, up.low / rate), min(across.high, up.high / rate)
    if low >= high:
        return Markup("")
    return tag("line", x1=x(low), y1=y(low * rate), x2=x(high), y2=y(high * rate), class_=f"proportional p{shape % 4}")


def _stem(ends: Sequence[tuple[float, float]]) -> Markup:
    """One network in several runtimes."""
    ys = [y for _, y in ends]
    return tag("line", x1=ends[0][0], x2=ends[0][0], y1=min(ys), y2=max(ys), class_="stem")


def _names(places: dict[str, list[tuple[float, float]]], frame: Box) -> list[Markup]:
    """Each beside its dots, where there is room; where there is none nearby, at the end of a line; else none at all."""
    taken = [Box.around(x, y, 6.0) for ends in places.values() for x, y in ends]
    taken += [
        Box(ends[0][0] - 1, min(y for _, y in ends), ends[0][0] + 1, max(y for _, y in ends))
        for ends in places.values()
    ]
    parts = []
    for network, ends in sorted(places.items(), key=lambda item: (-len(item[1]), item[1][0][1], item[0])):
        text = shorten(network, _NAME_CHARACTERS)
        box = placing.beside(ends, len(text) * _CHARACTER_PX, _FONT_PX, taken, frame)
        if box is None:
            continue
        taken.append(box)
        (x, y), near = box.middle, min(ends, key=lambda end: placing.distance(box, end))
        if placing.distance(box, near) > 12:
            edge = box.nearest(near)
            parts.append(tag("line", x1=near[0], y1=near[1], x2=edge[0], y2=edge[1], class_="leader"))
        parts.append(tag("text", text, x=x, y=y + 3.8, text_anchor="middle", class_="name halo"))
    return parts


def _marker(x: float, y: float, shape: int, words: str) -> Markup:
    class_ = f"r{shape % 4}"
    path = ("", "M-5.5 0L0-5.5L5.5 0L0 5.5Z", "M-4-4H4V4H-4Z", "M-5 4L0-5L5 4Z")[shape % 4]
    mark = (
        tag("path", d=path, transform=f"translate({x:.1f} {y:.1f})", class_=class_)
        if path
        else tag("circle", cx=x, cy=y, r=4.2, class_=class_)
    )
    return tag("g", tag("title", words), mark)
