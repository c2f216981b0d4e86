"""Predicted against measured: a square of dots with the band of 5 % around its diagonal, and rows of errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.charts import ROW_PX, grid, marker
from pipeline.report.scales import Scale, labels, ticks
from pipeline.report.svg import pc, picture, stretched, tag

CLOSE = 0.05
PLOT_PX = 250.0
_TOP_PX, _BELOW_PX = 8.0, 34.0
_LEFT, _WIDTH = 11.0, 87.0  # percents of the picture


@dataclass(frozen=True)
class Dot:
    """One network; `title` is what a pointer over it shows. hollow: drawn as an outline below the others.

    interval: of what was measured.
    """

    measured: float
    predicted: float
    interval: tuple[float, float]
    title: str
    hollow: bool = False


def scatter(scale: Scale, dots: Sequence[Dot], shape: int, unit: str, title: str) -> Markup:
    """Measured to the right, predicted upwards, both on one scale: on the diagonal the two are the same."""
    values = ticks(scale, 5)
    parts = [*_grid(scale, values), *_diagonal(scale)]
    for dot in sorted(dots, key=lambda one: not one.hollow):
        y, (low, high) = _y(scale, dot.predicted), (pc(scale.percent(end)) for end in dot.interval)
        class_ = "hollow" if dot.hollow else f"r{shape}"
        whisker = "" if dot.hollow else tag("line", x1=low, x2=high, y1=y, y2=y, class_=f"whisker {class_}")
        parts.append(tag("g", tag("title", dot.title), whisker, marker(scale.percent(dot.measured), y, shape, class_)))
    plot = tag("svg", *parts, x=pc(_LEFT), width=pc(_WIDTH), y=_TOP_PX, height=PLOT_PX, overflow="visible")
    return picture(plot, *_numbers(scale, values, unit), height=_TOP_PX + PLOT_PX + _BELOW_PX, title=title)


def _y(scale: Scale, value: float) -> float:
    return PLOT_PX * (1 - scale.percent(value) / 100)


def _grid(scale: Scale, values: Sequence[float]) -> list[Markup]:
    across = [tag("line", x1=0, x2="100%", y1=_y(scale, v), y2=_y(scale, v), class_="grid") for v in values]
    upright = [
        tag("line", x1=pc(scale.percent(v)), x2=pc(scale.percent(v)), y1=0, y2=PLOT_PX, class_="grid") for v in values
    ]
    ends = (("0", "100%", PLOT_PX, PLOT_PX), ("0", "0", 0.0, PLOT_PX))
    return [*across, *upright, *(tag("line", x1=a, x2=b, y1=c, y2=d, class_="base") for a, b, c, d in ends)]


def _diagonal(scale: Scale) -> list[Markup]:
    """The band within which a prediction is close, and the line on which it is exact."""
    low, high, less, more = scale.low, scale.high, 1 - CLOSE, 1 + CLOSE
    corners = (
        (low, low), (low / less, low), (high, high * less), (high, high), (high / more, high), (low, low * more),
    )  # fmt: skip
    path = "L".join(f"{10 * scale.percent(x):.1f} {1000 - 10 * scale.percent(y):.1f}" for x, y in corners)
    band = tag("path", d=f"M{path}Z", class_="band")
    line = tag("path", d="M0 1000L1000 0", class_="line exact")
    return [stretched(band, line, x=0, width=100, y=0, height=PLOT_PX)]


def _numbers(scale: Scale, values: Sequence[float], unit: str) -> list[Markup]:
    """The ticks of both axes, and what the axes are."""
    bottom = _TOP_PX + PLOT_PX
    found = []
    for value, text in zip(values, labels(values), strict=True):
        x = _LEFT + _WIDTH * scale.percent(value) / 100
        found.append(tag("text", text, x=pc(x), y=bottom + 14, text_anchor="middle", class_="tick"))
        y = _TOP_PX + _y(scale, value) + 3.5
        found.append(tag("text", text, x=pc(_LEFT - 1.2), y=y, text_anchor="end", class_="tick"))
    middle = _LEFT + _WIDTH / 2
    found.append(
        tag(
            "text",
            f"measured end to end, {unit}",
            x=pc(middle),
            y=bottom + 30,
            text_anchor="middle",
            class_="tick strong",
        )
    )
    inside = tag("text", f"predicted, {unit}", x=pc(_LEFT + 1.2), y=_TOP_PX + 12, class_="tick strong halo")
    return [*found, inside]


def errors(scale: Scale, found: Sequence[tuple[int, float, str]], title: str) -> Markup:
    """One row: a mark for each way of predicting at its error, (shape, error, words); the band is CLOSE on either side."""
    left, right = scale.percent(-CLOSE), scale.percent(CLOSE)
    parts = [tag("rect", x=pc(left), y=0, width=pc(right - left), height=ROW_PX, class_="band"), *grid(scale, ROW_PX)]
    zero = pc(scale.percent(0.0))
    parts.append(tag("line", x1=zero, x2=zero, y1=0, y2=ROW_PX, class_="base"))
    for shape, error, words in sorted(found, reverse=True):
        parts.append(tag("g", tag("title", words), marker(scale.percent(error), ROW_PX / 2, shape, f"r{shape}")))
    return picture(*parts, height=ROW_PX, title=title)


def errors_scale(values: Sequence[float]) -> Scale:
    """From as far below 0 as above it: half more than the errors need, at least 10 % and at most 100 %."""
    end = min(1.0, max([2 * CLOSE, *(1.5 * abs(value) for value in values)]))
    return Scale(-end, end)
