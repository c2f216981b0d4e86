"""One plot as SVG: axes, the marks of methods told apart by shape and colour, their names where nothing is covered."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from pipeline.report import placing
from pipeline.report.placing import Box, Place
from pipeline.report.scales import Scale, labels, ticks
from pipeline.report.svg import tag

WIDTH, HEIGHT = 480.0, 360.0
"""Of one drawing. It is scaled as a whole: where names stand depends on how wide they are."""
_LEFT, _RIGHT, _TOP, _BELOW = 50.0, 14.0, 12.0, 44.0
_FONT_PX, _CHARACTER_PX = 11.5, 6.8
SHAPES = (
    "M-5 0A5 5 0 1 0 5 0A5 5 0 1 0-5 0Z", "M-6.5 0L0-6.5L6.5 0L0 6.5Z", "M-5-5H5V5H-5Z", "M-6 5L0-6L6 5Z",
    "M-6-5L0 6L6-5Z", "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
)  # fmt: skip
_STAR = "M0-8L2-2.7L7.6-2.5L3.2 1L4.7 6.5L0 3.4L-4.7 6.5L-3.2 1L-7.6-2.5L-2-2.7Z"
_SEED_SCALE = 0.55


@dataclass(frozen=True)
class Mark:
    """At a value and an accuracy in percent. shape: of the method; None is the uncompressed network."""

    x: float
    y: float
    shape: int | None
    class_: str
    words: str
    name: str = ""
    interval: tuple[float, float] | None = None


def key(shape: int | None, *, hollow: bool = False) -> Markup:
    """The mark of a method, of the uncompressed network (None), or of what was published, for a legend or a table."""
    class_ = class_of(shape) if not hollow else "hollow"
    return tag(
        "svg", tag("path", d=_path(shape), class_=class_), class_="mark", viewBox="-9 -8 18 16", aria_hidden="true",
        focusable="false",
    )  # fmt: skip


def _path(shape: int | None) -> str:
    return _STAR if shape is None else SHAPES[shape % len(SHAPES)]


def class_of(shape: int | None) -> str:
    return "own" if shape is None else f"r{shape % len(SHAPES)}"


@dataclass(frozen=True)
class Drawing:
    """Args: across, what, text: of the values to the right, their name and their words; up: of accuracies in percent."""

    across: Scale
    up: Scale
    what: str
    text: Callable[[float], str]

    def chart(
        self, own: Mark, medians: Sequence[Mark], seeds: Sequence[Mark], published: Sequence[Mark], title: str
    ) -> Markup:
        lines: dict[int | None, list[Place]] = {}
        for mark in medians:
            lines.setdefault(mark.shape, []).append(self._place(mark))
        y = self._place(own)[1]
        parts = [*self._axes(), tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="own-level")]
        parts += [_joined(places, f"p{(shape or 0) % len(SHAPES)}") for shape, places in lines.items()]
        ordered = [*seeds, *medians, *published, own]
        parts += self._names([*medians, *published, own], [self._place(mark) for mark in ordered], lines.values())
        parts += [self._drawn(mark) for mark in ordered]
        return tag(
            "svg", tag("title", title), *parts, class_="chart compared", viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            role="img", aria_label=title,
        )  # fmt: skip

    def _x(self, value: float) -> float:
        return _LEFT + (WIDTH - _RIGHT - _LEFT) * self.across.percent(value) / 100

    def _y(self, value: float) -> float:
        return HEIGHT - _BELOW - (HEIGHT - _BELOW - _TOP) * self.up.percent(value) / 100

    def _place(self, mark: Mark) -> Place:
        return self._x(mark.x), self._y(mark.y)

    def _axes(self) -> list[Markup]:
        right, bottom = WIDTH - _RIGHT, HEIGHT - _BELOW
        parts = []
        for value in ticks(self.across, 5):
            x = self._x(value)
            parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="grid"))
            parts.append(tag("text", self.text(value), x=x, y=bottom + 15, text_anchor="middle", class_="tick"))
        heights = ticks(self.up, 6)
        for value, text in zip(heights, labels(heights), strict=True):
            y = self._y(value)
            parts.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", f"{text} %", x=_LEFT - 6, y=y + 3.5, text_anchor="end", class_="tick"))
        parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="base"))
        parts.append(tag("line", x1=_LEFT, x2=_LEFT, y1=_TOP, y2=bottom, class_="base"))
        middle = (_LEFT + right) / 2
        return [*parts, tag("text", self.what, x=middle, y=bottom + 34, text_anchor="middle", class_="tick strong")]

    def _drawn(self, mark: Mark) -> Markup:
        x, y = self._place(mark)
        scale = f" scale({_SEED_SCALE})" if mark.class_.endswith(" seed") else ""
        parts = [tag("title", mark.words)]
        if mark.interval:
            low, high = map(self._x, mark.interval)
            parts.append(tag("line", x1=low, x2=high, y1=y, y2=y, class_=f"reach {mark.class_}"))
        path = tag("path", d=_path(mark.shape), transform=f"translate({x:.1f} {y:.1f}){scale}", class_=mark.class_)
        return tag("g", *parts, path)

    def _names(
        self, marks: Sequence[Mark], places: Sequence[Place], lines: Collection[Sequence[Place]]
    ) -> list[Markup]:
        """One for each method beside one of its marks, and one for each published network; none where there is no room."""
        taken = [Box.around(x, y, 7.0) for x, y in places]
        taken += [Box.around(x, y, 2.0) for line in lines for x, y in _along(line)]
        ends: dict[tuple[str, str], list[Place]] = {}
        for mark in marks:
            ends.setdefault((mark.name, mark.class_), []).append(self._place(mark))
        parts = []
        for (name, class_), near in ends.items():
            frame = Box(_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BELOW)
            box = placing.beside(near, len(name) * _CHARACTER_PX, _FONT_PX, taken, frame)
            if box is None:
                continue
            taken.append(box)
            place = min(near, key=lambda end: placing.distance(box, end))
            if placing.distance(box, place) > 12:
                x, y = box.nearest(place)
                parts.append(tag("line", x1=place[0], y1=place[1], x2=x, y2=y, class_="leader"))
            x, y = box.middle
            parts.append(tag("text", name, x=x, y=y + 3.8, text_anchor="middle", class_=f"halo name-{class_}"))
        return parts


def _joined(places: Sequence[Place], class_: str) -> Markup:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return tag("path", d=f"M{path}", class_=f"joined {class_}")


def _along(line: Sequence[Place]) -> list[Place]:
    """Places on a line of straight pieces, some 6 px apart."""
    found = []
    for (x, y), (to_x, to_y) in pairwise(line):
        steps = max(1, round(math.dist((x, y), (to_x, to_y)) / 6))
        found += [(x + (to_x - x) * i / steps, y + (to_y - y) * i / steps) for i in range(1, steps)]
    return found
