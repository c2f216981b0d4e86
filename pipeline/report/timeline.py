"""Samples over time: dots, launches side by side, warm-ups apart on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from pipeline.report.charts import trimmed
from pipeline.report.scales import Scale, around, labels, ticks
from pipeline.report.svg import dots, pc, picture, stretched, tag

WARMUP_WIDTH = 14.0
"""Percent of a time-line that the warm-up gets, with a time scale of its own."""
GUTTER = 10.0
"""Percent to the right of a time-line for the numbers of its vertical axis."""
MOST_DOTS = 1500
MOST_WARM_DOTS = 200
GAP = 0.1
"""Between two blocks of samples there is this share of a block's mean width, between two launches twice as much."""


@dataclass(frozen=True)
class Timeline:
    """Values over time in the order in which they were taken; one entry a sample, but for `warmup`.

    Args:
        used: which samples count; the others are drawn lighter.
    """

    values: Sequence[float]
    start_ns: Sequence[float]
    launch: Sequence[float]
    block: Sequence[float]
    used: Sequence[bool]
    warmup: Sequence[float] = ()


def stride(samples: int) -> int:
    """One sample in so many is drawn."""
    return -(-samples // MOST_DOTS) or 1


def timeline(line: Timeline, unit: str, title: str, level: float | None = None, height: float = 76) -> Markup:
    """Dots: value against time, with a dashed line at `level`. Values above the axis stand at its top."""
    offset, end = WARMUP_WIDTH if line.warmup else 0.0, 100 - GUTTER
    scale = around([*trimmed(line.values), *([level] if level else [])], margin=0.12)
    parts = [tag("rect", x=0, y=0, width=pc(offset), height=height, class_="apart")] if offset else []
    parts += levels(scale, unit, end, height)
    if level is not None:
        y = height * (1 - scale.percent(level) / 100)
        parts.append(tag("line", x1=pc(offset), x2=pc(end), y1=y, y2=y, class_="level"))
    if line.warmup:
        shown = line.warmup[:: -(-len(line.warmup) // MOST_WARM_DOTS)]
        warm = [((i + 0.5) * 1000 / len(shown), _height(scale, value)) for i, value in enumerate(shown)]
        parts.append(stretched(dots(warm, "warm"), x=0, width=offset, y=0, height=height))
        parts.append(tag("text", "warm-up", x=pc(offset), dx=-3, y=11, text_anchor="end", class_="tick halo"))
    xs, borders = places(line)
    chosen = range(0, len(xs), stride(len(xs)))
    drawn = [
        dots([(xs[i], _height(scale, line.values[i])) for i in chosen if bool(line.used[i]) is use], name)
        for name, use in (("dropped", False), ("sample", True))
    ]
    parts.append(stretched(*drawn, x=offset, width=end - offset, y=0, height=height))
    parts += [
        tag("line", x1=pc(x), x2=pc(x), y1=0, y2=height, class_="border")
        for x in (offset + b * (end - offset) / 1000 for b in borders)
    ]
    thinned = f"one sample in {stride(len(xs))} is drawn" if stride(len(xs)) > 1 else ""
    return picture(*parts, height=height, title=title, desc=thinned, class_="timeline")


def levels(scale: Scale, unit: str, end: float, height: float) -> list[Markup]:
    """The hair lines of the vertical axis with their numbers in the gutter; none where a number would be cut."""
    marks, parts = ticks(scale, 3), []
    for value, text in zip(marks, labels(marks), strict=True):
        y = height * (1 - scale.percent(value) / 100)
        parts.append(tag("line", x1=0, x2=pc(end), y1=y, y2=y, class_="grid"))
        if 4 < y < height - 3:
            parts.append(tag("text", f"{text} {unit}".strip(), x="100%", y=y + 4, text_anchor="end", class_="tick"))
    return parts


def _height(scale: Scale, value: float) -> float:
    return 1000 - 10 * min(max(scale.percent(value), 2), 98)


def places(line: Timeline) -> tuple[list[float], list[float]]:
    """Where each sample stands, 0 ... 1000, and where the second and later launches begin.

    Blocks are as wide as they were long. The pauses between them, in which other networks ran, are left out.
    """
    cuts = [0]
    for i, (before, after) in enumerate(pairwise(zip(line.launch, line.block, strict=True)), start=1):
        if before != after:
            cuts.append(i)
    cuts.append(len(line.values))
    runs = [(first, last) for first, last in pairwise(cuts) if last > first]
    lengths = [max(0.0, line.start_ns[last - 1] - line.start_ns[first]) for first, last in runs]
    gap = sum(lengths) / max(1, len(runs)) * GAP or 1.0
    xs, borders, now = [0.0] * len(line.values), [], gap / 2
    for number, ((first, last), length) in enumerate(zip(runs, lengths, strict=True)):
        if number and line.launch[first] != line.launch[first - 1]:
            borders.append(now)
            now += gap
        for i in range(first, last):
            xs[i] = now + min(max(0.0, line.start_ns[i] - line.start_ns[first]), length)
        now += length + gap
    whole = now - gap / 2 if runs else 1.0
    return [1000 * x / whole for x in xs], [1000 * border / whole for border in borders]
