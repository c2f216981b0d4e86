"""Kernels one after another along the time of one inference, and what share of it each kind of kernel has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.report.charts import axis, grid
from pipeline.report.kinds import KINDS, Kind, detail, kind_of, shapes
from pipeline.report.scales import Scale
from pipeline.report.svg import pc, picture, tag
from pipeline.report.text import ELLIPSIS, duration, percent, plural, shorten
from pipeline.report.views import Kernel

FOLD_BELOW = 0.004
"""Neighbouring kernels below this share of the sum are drawn as one row."""
ROW_PX = 15.0
TEXT_INSIDE_FROM = 7.0
GAP = "\N{NO-BREAK SPACE} "


@dataclass(frozen=True)
class Piece:
    """A bar from `start_ms` to `start_ms + ms`; `whole` is what a pointer over it shows."""

    kind: Kind
    start_ms: float
    ms: float
    whole: str


@dataclass(frozen=True)
class Row:
    """A line of the drawing: one kernel, or small ones together, or a kernel and the small one that follows it."""

    name: str
    detail: str
    pieces: tuple[Piece, ...]

    @property
    def ms(self) -> float:
        return sum(piece.ms for piece in self.pieces)


def rows(kernels: Sequence[Kernel], times_ms: Sequence[float], fold_below: float = FOLD_BELOW) -> list[Row]:
    """The lines of a waterfall in the order of execution.

    Small kernels do not get lines of their own: two and more in a run become one line "other", a single one is drawn
    at the end of the line before. All pieces' times add up to the kernels', each begins where the one before ends.
    """
    total = sum(times_ms)
    small = [ms < fold_below * total for ms in times_ms]
    groups: list[list[int]] = []
    for index in range(len(times_ms)):
        if small[index] and groups and all(small[i] for i in groups[-1]):
            groups[-1].append(index)
        else:
            groups.append([index])
    found: list[Row] = []
    start = 0.0
    for group in groups:
        ms = sum(times_ms[i] for i in group)
        row = _row([kernels[i] for i in group], start, ms, total)
        if len(group) == 1 and small[group[0]] and found:
            before = found.pop()
            row = Row(before.name, f"{before.detail} + {row.detail}", (*before.pieces, *row.pieces))
        found.append(row)
        start += ms
    return found


def _row(group: list[Kernel], start_ms: float, ms: float, total_ms: float) -> Row:
    size = f"{duration(ms)}, {percent(ms / total_ms)} of all kernels" if total_ms else duration(ms)
    if len(group) > 1:
        names = ", ".join(kernel.name for kernel in group)
        return Row(
            f"other: {plural(len(group), 'small kernel')}",
            "",
            (Piece(KINDS["other"], start_ms, ms, f"{names}\n{size}"),),
        )
    kernel = group[0]
    kind, words = kind_of(kernel.op, kernel.key), detail(kernel.op, kernel.key)
    whole = "\n".join(filter(None, (kernel.name, f"{words} ({kernel.runtime_kernel})", kernel.key, size)))
    return Row(told_apart(kernel), words, (Piece(kind, start_ms, ms, whole),))


def told_apart(kernel: Kernel) -> str:
    """The kernel's name, or its shapes where the runtime keeps no names and calls all convolutions the same."""
    return (shapes(kernel.key) if kernel.name == kernel.runtime_kernel else "") or kernel.name


def waterfall(found: Sequence[Row], title: str) -> Markup:
    """The rows as bars on one axis that ends where the last bar ends; the words stand where there is room."""
    total = sum(row.ms for row in found) or 1.0
    unit, scale = ("ms", Scale(0.0, total)) if total >= 1 else ("µs", Scale(0.0, total * 1000))
    height = len(found) * ROW_PX + 4
    parts = grid(scale, height, target=8)
    for index, row in enumerate(found):
        y = index * ROW_PX + 2
        begin = 100 * row.pieces[0].start_ms / total
        bars = [_bar(piece, y, total) for piece in row.pieces]
        parts.append(tag("g", *bars, _words(row, begin, begin + 100 * row.ms / total, y + ROW_PX / 2 + 4)))
    drawn = picture(*parts, height=height, title=title, class_="waterfall")
    return Markup("{}{}").format(drawn, axis(scale, unit, target=8))


def _bar(piece: Piece, y: float, total_ms: float) -> Markup:
    x, width = 100 * piece.start_ms / total_ms, 100 * piece.ms / total_ms
    class_ = f"bar k-{piece.kind.slug}"
    return tag("rect", tag("title", piece.whole), x=pc(x), y=y + 1.5, width=pc(width), height=ROW_PX - 3, class_=class_)


def _words(row: Row, begin: float, end: float, y: float) -> Markup:
    """Time, name and kind to the right of a bar, or mirrored to its left where the bar is in the right half."""
    whole = tag("title", row.pieces[0].whole)
    ms, wide, narrow = duration(row.ms), shorten(row.name, 52), _end(row.name, 17)
    name = [tag("tspan", wide, class_="wide"), tag("tspan", narrow, class_="narrow")]
    kind = [tag("tspan", row.detail, class_="soft wide")] if row.detail else []
    if begin + end < 100:
        return tag("text", whole, ms, GAP, *name, GAP, *kind, x=pc(end), y=y, dx=5, class_="words")
    return tag("text", whole, *kind, GAP, *name, GAP, ms, x=pc(begin), y=y, dx=-5, text_anchor="end", class_="words")


def _end(text: str, limit: int) -> str:
    """The last characters: on a phone the names of neighbours differ in these."""
    return text if len(text) <= limit else ELLIPSIS + text[1 - limit :]


def stacked(parts_ms: Sequence[tuple[Kind, float]], title: str) -> Markup:
    """One bar of full width, cut into the kinds' shares, each with its percent where that fits."""
    total = sum(ms for _, ms in parts_ms) or 1.0
    drawn, x = [], 0.0
    for kind, ms in (part for part in parts_ms if part[1] > 0):
        share = ms / total
        whole = f"{kind.label}: {duration(ms)}, {percent(share)}"
        drawn.append(
            tag(
                "rect", tag("title", whole), x=pc(x), y=0, width=pc(100 * share), height=26, class_=f"bar k-{kind.slug}"
            )
        )
        if 100 * share >= TEXT_INSIDE_FROM:
            text = tag(
                "text",
                percent(share),
                x=pc(x + 50 * share),
                y=17,
                text_anchor="middle",
                class_=f"inside on-{kind.slug}",
            )
            drawn.append(text)
        x += 100 * share
    return picture(*drawn, height=26, title=title, class_="stacked")
