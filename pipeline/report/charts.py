"""Dots with whiskers, pairs of bars and histograms: small functions from numbers to SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.scales import Scale, labels, ticks
from pipeline.report.svg import pc, picture, tag
from pipeline.report.views import Estimate

ROW_PX = 30
_MIDDLE = ROW_PX / 2


def grid(scale: Scale, height: float, target: int = 6) -> list[Markup]:
    """Hair lines at the ticks; they meet from row to row."""
    return [
        tag("line", x1=pc(x), x2=pc(x), y1=0, y2=height, class_="grid")
        for x in (scale.percent(value) for value in ticks(scale, target))
    ]


def axis(scale: Scale, unit: str, target: int = 6) -> Markup:
    """The row of numbers below rows of charts. Numbers near the ends lean inwards, so that none is cut."""
    values = ticks(scale, target)
    texts = labels(values)
    written = []
    for index, (value, text) in enumerate(zip(values, texts, strict=True)):
        x = scale.percent(value)
        anchor = "start" if x < 3 else "end" if x > 95 else "middle"
        last = index == len(values) - 1
        written.append(
            tag("text", f"{text} {unit}" if last else text, x=pc(x), y=13, text_anchor=anchor, class_="tick")
        )
    return picture(*written, height=18, title=f"axis in {unit}, from {texts[0]} to {texts[-1]}")


def marker(x: float, y: float, shape: int, class_: str) -> Markup:
    """A circle, diamond, square or triangle at a percent and a pixel: the shape says again what the colour says."""
    if shape % 4 == 0:
        return tag("circle", cx=pc(x), cy=y, r=5, class_=class_)
    path = ("M-6.5 0L0-6.5L6.5 0L0 6.5Z", "M-5-5H5V5H-5Z", "M-6 5L0-6L6 5Z")[shape % 4 - 1]
    return tag("svg", tag("path", d=path), x=pc(x), y=y, overflow="visible", width=1, height=1, class_=class_)


def whisker(scale: Scale, best: Estimate, plain: Estimate | None, shape: int, title: str) -> Markup:
    """One row: the interval as a line, the median on it, and (hollow) the plain median where it is another."""
    low, high = scale.percent(best.low), scale.percent(best.high)
    parts = [*grid(scale, ROW_PX)]
    if plain is not None:
        parts.append(marker(scale.percent(plain.median), _MIDDLE, shape, "hollow"))
    parts.append(tag("line", x1=pc(low), x2=pc(high), y1=_MIDDLE, y2=_MIDDLE, class_=f"whisker r{shape % 4}"))
    parts += [
        tag("line", x1=pc(x), x2=pc(x), y1=_MIDDLE - 6, y2=_MIDDLE + 6, class_=f"whisker r{shape % 4}")
        for x in (low, high)
    ]
    parts.append(marker(scale.percent(best.median), _MIDDLE, shape, f"r{shape % 4}"))
    return picture(*parts, height=ROW_PX, title=title)


def unit_of(longest_ms: float) -> tuple[str, float]:
    """The unit of an axis up to `longest_ms`, and what a value in ms is multiplied by to be in it."""
    return ("ms", 1.0) if longest_ms >= 1 else ("µs", 1e3)


@dataclass(frozen=True)
class Bar:
    """A length on a scale, with its interval where it has one; `class_` colours it."""

    value: float
    class_: str
    title: str
    interval: tuple[float, float] | None = None


def bars(scale: Scale, rows: Sequence[Bar], title: str, thickness: float = 9) -> Markup:
    """Bars below one another in one row of a table, from zero."""
    gap = 3
    height = len(rows) * (thickness + gap) + 9
    parts = grid(scale, height)
    for index, bar in enumerate(rows):
        y = 5 + index * (thickness + gap)
        rect = tag(
            "rect",
            tag("title", bar.title),
            x=0,
            y=y,
            width=pc(scale.percent(bar.value)),
            height=thickness,
            class_=bar.class_,
        )
        parts.append(rect)
        if bar.interval:
            low, high = (pc(scale.percent(end)) for end in bar.interval)
            parts.append(tag("line", x1=low, x2=high, y1=y + thickness / 2, y2=y + thickness / 2, class_="error"))
    return picture(*parts, height=height, title=title)


HISTOGRAM_BINS = 60
_HALF_PX = 56
_TOP_PX = 16


def trimmed(values: Sequence[float], share: float = 0.98) -> list[float]:
    """All but the largest values, sorted: a few samples of an interrupted process would flatten the rest."""
    return sorted(values)[: max(1, round(len(values) * share))]


def body(values: Sequence[float], reach: float = 8.0) -> list[float]:
    """The values that a distribution is drawn for, sorted: at least three quarters of them, without long tails.

    What is further above the median than `reach` times the median's distance to the 5th percentile is left out, and so
    is the lowest in 200.
    """
    ordered = trimmed(values)[len(values) // 200 :]
    middle, low, quarter = (ordered[int(len(ordered) * share)] for share in (0.5, 0.05, 0.75))
    end = max(middle + reach * (middle - low), quarter)
    return [value for value in ordered if value <= end]


def histogram(
    scale: Scale, plain: Sequence[float], corrected: Sequence[float], medians: tuple[float, float | None], title: str
) -> Markup:
    """Plain samples upwards, noise-corrected ones downwards, both on one height; the medians as lines through both."""
    counts = [_binned(values, scale) for values in (plain, corrected)]
    tallest = max(max(column) for column in counts) or 1
    base = _TOP_PX + _HALF_PX
    height = base + (_HALF_PX + 14 if corrected else 2)
    parts = grid(scale, height, target=5)
    for column, class_, upwards in ((counts[0], "plain", True), (counts[1], "corrected", False)):
        for index, n in enumerate(column):
            if n:
                size = n / tallest * _HALF_PX
                x, width = 100 * index / HISTOGRAM_BINS, 100 / HISTOGRAM_BINS
                parts.append(
                    tag(
                        "rect", x=pc(x), y=base - size if upwards else base, width=pc(width), height=size, class_=class_
                    )
                )
    parts.append(tag("line", x1=0, x2="100%", y1=base, y2=base, class_="base"))
    beyond = sum(not scale.low <= value <= scale.high for value in plain)
    if beyond:
        parts.append(tag("text", f"{beyond:,} beyond", x="100%", y=24, text_anchor="end", class_="tick"))
    plain_x = scale.percent(medians[0])
    parts.append(tag("line", x1=pc(plain_x), x2=pc(plain_x), y1=_TOP_PX - 2, y2=base, class_="median-plain"))
    parts.append(_beside("plain median", plain_x, 10))
    if medians[1] is not None:
        x = scale.percent(medians[1])
        parts.append(tag("line", x1=pc(x), x2=pc(x), y1=base, y2=height - 12, class_="median-corrected"))
        parts.append(_beside("noise-corrected median", x, height - 2))
    return picture(*parts, height=height, title=title)


def _beside(text: str, x: float, y: float) -> Markup:
    anchor = "start" if x < 50 else "end"
    return tag("text", text, x=pc(x), y=y, text_anchor=anchor, class_="tick strong")


def _binned(values: Sequence[float], scale: Scale) -> list[int]:
    counts = [0] * HISTOGRAM_BINS
    for value in values:
        if scale.low <= value <= scale.high:
            counts[min(HISTOGRAM_BINS - 1, int(scale.percent(value) / 100 * HISTOGRAM_BINS))] += 1
    return counts
