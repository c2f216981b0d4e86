"""Drawings of a latency table: latency against channels with its steps, distributions, errors against times."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.report.charts import axis, grid, unit_of
from pipeline.report.scales import Scale, around, from_zero, positions, ticks
from pipeline.report.svg import dots, line, pc, picture, stretched, tag
from pipeline.report.text import percent, plural
from pipeline.report.timeline import GUTTER, levels

STAIRS_PX = 150.0
COLUMNS_PX = 110.0
ERRORS_PX = 170.0
BINS = 50
MOST_BANDS = 48
"""More steps than that on one drawing are too narrow to be told apart."""
MOST_DOTS = 3000


def stairs(counts: Sequence[int], ms: Sequence[float], step: int, title: str) -> Markup:
    """Latency against channels, every other step shaded, so that a step should be level within a stripe.

    Args: counts: rising.
    """
    unit, per_ms = unit_of(max(ms))
    x_scale, y_scale = around(counts, margin=0.02), from_zero([value * per_ms for value in ms], margin=0.08)
    end = 100 - GUTTER
    parts = _bands(x_scale, step, end)
    parts += [
        tag("line", x1=pc(x), x2=pc(x), y1=0, y2=STAIRS_PX, class_="grid")
        for x in (x_scale.percent(value) * end / 100 for value in ticks(x_scale))
    ]
    parts += levels(y_scale, unit, end, STAIRS_PX)
    points = [
        (10 * x_scale.percent(count), 1000 - 10 * y_scale.percent(value * per_ms))
        for count, value in zip(counts, ms, strict=True)
    ]
    drawn = (line(points, "stairs"), dots(points, "sample"))
    parts.append(stretched(*drawn, x=0, width=end, y=0, height=STAIRS_PX))
    picture_ = picture(*parts, height=STAIRS_PX, title=title)
    return Markup('{}<div class="under">{}</div>').format(picture_, axis(x_scale, ""))


def _bands(scale: Scale, step: int, end: float) -> list[Markup]:
    """n channels of 1 ... step are the first step, step + 1 ... 2 step the second: stripes end half a channel beyond."""
    first, last = int(scale.low) // step, int(scale.high) // step
    if last - first >= MOST_BANDS:
        return []
    edges = [
        (scale.percent(block * step + 0.5), scale.percent((block + 1) * step + 0.5))
        for block in range(first, last + 1)
        if block % 2
    ]
    return [
        tag("rect", x=pc(low * end / 100), width=pc((high - low) * end / 100), y=0, height=STAIRS_PX, class_="apart")
        for low, high in edges
        if high > low
    ]


def columns(shares: Sequence[float], longest: float, marks: Sequence[tuple[float, str]], title: str) -> Markup:
    """How many values there are of each size, as columns, values in percent on the axis.

    Args: shares: at least 0; what is above `longest` is told as a number. marks: (value, text), drawn as lines.
    """
    scale = Scale(0.0, 100 * longest)
    counts = [0] * BINS
    for value in shares:
        if value <= longest:
            counts[min(BINS - 1, int(value / longest * BINS))] += 1
    base, tallest = COLUMNS_PX - 2, max(counts) or 1
    parts = grid(scale, base)
    for index, found in enumerate(counts):
        if found:
            size = found / tallest * (base - 34)
            whole = tag("title", plural(found, "kernel"))
            width = 100 / BINS
            parts.append(
                tag("rect", whole, x=pc(index * width), width=pc(width), y=base - size, height=size, class_="corrected")
            )
    for number, (value, text) in enumerate(marks):
        x = scale.percent(100 * value)
        anchor = "start" if x < 60 else "end"
        parts.append(tag("line", x1=pc(x), x2=pc(x), y1=4, y2=base, class_="median-corrected"))
        shift = 5 if anchor == "start" else -5
        parts.append(
            tag("text", text, x=pc(x), dx=shift, y=13 + 14 * number, text_anchor=anchor, class_="tick strong halo")
        )
    beyond = sum(value > longest for value in shares)
    if beyond:
        parts.append(tag("text", f"{beyond:,} beyond", x="100%", y=base - 6, text_anchor="end", class_="tick halo"))
    parts.append(tag("line", x1=0, x2="100%", y1=base, y2=base, class_="base"))
    return Markup("{}{}").format(picture(*parts, height=COLUMNS_PX, title=title), axis(scale, "%"))


def errors(ms: Sequence[float], shares: Sequence[float], rms: float, title: str) -> Markup:
    """How far off each kernel was told from the others, against how long it takes; those above the axis stand at its top."""
    unit, per_ms = unit_of(max(ms))
    x_scale = positions([value * per_ms for value in ms])
    ordered = sorted(shares)
    y_scale = from_zero([100 * max(ordered[int(0.98 * (len(ordered) - 1))], 2 * rms)], margin=0.1)
    end = 100 - GUTTER
    parts = [
        tag("line", x1=pc(x), x2=pc(x), y1=0, y2=ERRORS_PX, class_="grid")
        for x in (x_scale.percent(value) * end / 100 for value in ticks(x_scale))
    ]
    parts += levels(y_scale, "%", end, ERRORS_PX)
    y = ERRORS_PX * (1 - y_scale.percent(100 * rms) / 100)
    parts.append(tag("line", x1=0, x2=pc(end), y1=y, y2=y, class_="level"))
    parts.append(tag("text", f"root mean square {percent(rms)}", x=4, y=y - 4, class_="tick strong halo"))
    stride = -(-len(ms) // MOST_DOTS)
    points = [
        (10 * x_scale.percent(value * per_ms), 1000 - 10 * min(y_scale.percent(100 * share), 98.5))
        for value, share in zip(ms[::stride], shares[::stride], strict=True)
    ]
    parts.append(stretched(dots(points, "sample"), x=0, width=end, y=0, height=ERRORS_PX))
    parts.append(tag("line", x1=0, x2=pc(end), y1=ERRORS_PX, y2=ERRORS_PX, class_="base"))
    drawn = picture(*parts, height=ERRORS_PX, title=title)
    return Markup('{}<div class="under">{}</div>').format(drawn, axis(x_scale, unit))
