"""The tables of the page: methods, published numbers, the layers of a point. A column without any value is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from markupsafe import Markup

from pipeline.compression.drawing import key
from pipeline.compression.finding import points_text
from pipeline.compression.views import MOST_RUNTIMES, Comparison, Group, Latency, Point, Published, middle
from pipeline.report.reader import Node
from pipeline.report.text import count, duration, percent, plural, plus_minus, shorten, signed_percent

MOST_LAYERS = 400
"""Of one point; the document has the others."""

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """`soft` stands behind the text, `title` is what a pointer over it shows."""

    text: str
    soft: str = ""
    title: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Table:
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Layers:
    """One point. about: plain words on its file and its training."""

    label: str
    about: tuple[str, ...]
    sha256: str
    table: Table
    more: int
    left_alone: tuple[tuple[str, str], ...]


def table(columns: Sequence[tuple[str, Callable[[T], Cell | None]]], items: Sequence[T]) -> Table:
    cells = [(header, [of(item) for item in items]) for header, of in columns]
    kept = [(header, found) for header, found in cells if any(found)]
    rows = zip(*([cell or Cell("") for cell in found] for _, found in kept), strict=True)
    return Table(tuple(header for header, _ in kept), tuple(rows))


def methods(run: Comparison) -> tuple[Table, list[tuple[Markup, str, str, bool]]]:
    """A row for each group, the uncompressed network first; beside it (mark, method, setting, whether the method begins)."""
    tuned = any(point.after is not None for group in run.groups for point in group.points)
    columns: list[tuple[str, Callable[[Group], Cell | None]]] = [
        ("Seeds", partial(_seeds, run)),
        ("Parameters", partial(_count, run, lambda point: point.params)),
        ("MACs", partial(_count, run, lambda point: point.macs)),
    ]
    if tuned:
        columns.append(("Top-1 before", partial(_accuracy, _before)))
        columns.append(("after fine-tuning", partial(_accuracy, _after)))
    else:
        columns.append(("Top-1", partial(_accuracy, lambda point: point.top1)))
    columns.append(("Change", partial(_change, run)))
    columns += [(shorten(runtime, 24), partial(_latency, run, runtime)) for runtime in run.runtimes]
    columns.append((f"Predicted, {shorten(run.predicted_in, 24)}" if run.predicted_in else "Predicted", _predicted))
    groups = [run.own, *run.groups]
    first = {id(next(group for group in run.groups if group.method == method)) for method in run.methods}
    heads = [
        (key(run.methods.index(group.method)), group.method, group.setting, id(group) in first) for group in run.groups
    ]
    return table(columns, groups), [(key(None), run.network, "uncompressed", True), *heads]


def _before(point: Point) -> float | None:
    """The uncompressed network's own accuracy stands in the column that the others are compared in."""
    return None if not point.method and point.after is None else point.before


def _after(point: Point) -> float | None:
    return point.top1 if not point.method else point.after


def _seeds(run: Comparison, group: Group) -> Cell | None:
    several = any(len(one.points) > 1 for one in run.groups)
    return Cell(str(len(group.points))) if several else None


def _count(run: Comparison, of: Callable[[Point], float | None], group: Group) -> Cell | None:
    value = group.median(of)
    if value is None:
        return None
    removed = run.removed(group, of) if group.method else None
    return Cell(count(value), "" if removed is None else signed_percent(-removed), f"{value:,.0f}")


def _accuracy(of: Callable[[Point], float | None], group: Group) -> Cell | None:
    known = [value for point in group.points if (value := of(point)) is not None]
    if not known:
        return None
    low, high = (f"{100 * value:.1f}" for value in (min(known), max(known)))
    return Cell(f"{100 * (middle(known) or 0.0):.1f} %", "" if low == high else f"{low} – {high}")


def _change(run: Comparison, group: Group) -> Cell | None:
    change = run.change(group) if group.method else None
    return None if change is None else Cell(points_text(change), title="points of top-1")


def _latency(run: Comparison, runtime: str, group: Group) -> Cell | None:
    """The time of those that did not fail, and the speed-up."""
    seen = [one for point in group.points if (one := point.measured.get(runtime)) is not None]
    if not seen:
        return None
    found, speed = group.latency(runtime), run.speed(group, runtime)
    if found is None:
        return Cell("failed", bad=True)
    ms, low, high = found
    soft = ""
    if group.method and speed is not None:
        soft = f"{speed.ratio:.2f}x" if speed.sure else f"≈ {speed.ratio:.2f}x"
    title = f"{plus_minus((high - low) / 2 / ms)}, {duration(low)} to {duration(high)}"
    return Cell(duration(ms), soft, title, bad=not all(one.stable for one in seen))


def _predicted(group: Group) -> Cell | None:
    value, coverage = group.median(lambda point: point.predicted_ms), group.median(lambda point: point.coverage)
    if value is None:
        return None
    title = "" if coverage is None else f"{percent(coverage)} of it from measured kernels"
    return Cell(duration(value), title=title, bad=coverage is not None and coverage < 0.5)


def troubles(run: Comparison) -> list[tuple[str, str]]:
    """(which network in which runtime, why it has no time, or none that can be trusted)."""
    return [
        (
            f"{_seeded(group, point)} in {shorten(runtime, 24)}",
            f"failed: {one.failed}" if one.failed else _unstable(one),
        )
        for group in (run.own, *run.groups)
        for point in group.points
        for runtime, one in point.measured.items()
        if not one.stable
    ]


def _unstable(latency: Latency) -> str:
    return "not stable: " + "; ".join(latency.reasons)


def _seeded(group: Group, point: Point) -> str:
    return f"{group.label}, seed {point.seed}"


def published(found: Sequence[Published]) -> Table:
    def share(of: Callable[[Published], float | None], one: Published) -> Cell | None:
        value = of(one)
        return None if value is None else Cell(percent(value, 3))

    columns: list[tuple[str, Callable[[Published], Cell | None]]] = [
        ("Top-1, points", lambda one: None if one.change is None else Cell(f"{one.change:+.2f}".replace("-", "−"))),
        ("Parameters removed", partial(share, lambda one: one.params_removed)),
        ("MACs removed", partial(share, lambda one: one.macs_removed)),
    ]
    return table(columns, found)


def layers(run: Comparison, group: Group, point: Point) -> Layers:
    node = point.node
    found = node.children("layers")
    columns: list[tuple[str, Callable[[Node], Cell | None]]] = [
        ("Ranks", lambda one: Cell(", ".join(f"{rank:.0f}" for rank in one.numbers("ranks")[:8]))),
        ("k", lambda one: Cell(f"{one.number('k'):.0f}") if one.has("k") and one.number("k") != 1 else None),
        ("Relative error", lambda one: Cell(percent(one.number("relative_error"))) if one.has("relative_error") else None),
        ("Parameters", partial(_pair, "params", count)),
        ("MACs", partial(_pair, "macs", count)),
        ("Predicted", partial(_pair, "predicted_ms", duration)),
        *((shorten(runtime, 24), partial(_layer_times, runtime)) for runtime in run.runtimes),
    ]  # fmt: skip
    alone = node.maybe_child("left_alone")
    left_alone = tuple(alone.flat().items()) if alone else ()
    shown = found[:MOST_LAYERS]
    names = table([("Layer", lambda one: Cell(one.text("layer")))], shown)
    rest = table(columns, shown)
    rows = tuple((*name, *row) for name, row in zip(names.rows, rest.rows, strict=True))
    return Layers(
        label=_seeded(group, point),
        about=(plural(len(found), "layer"), *_about(node)),
        sha256=node.text("sha256", ""),
        table=Table((*names.headers, *rest.headers), rows),
        more=len(found) - len(shown) + max(0, len(left_alone) - MOST_LAYERS),
        left_alone=left_alone[:MOST_LAYERS],
    )


def _about(node: Node) -> list[str]:
    words, loss = [], node.known_numbers("loss")
    if loss:
        words.append(f"loss {loss[0]:.3g} to {loss[-1]:.3g} in {plural(len(loss), 'epoch')}")
    seconds = node.maybe_number("seconds")
    words += [] if seconds is None else [f"made in {duration(1000 * seconds)}"]
    return [*words, *([file] if (file := node.text("file", "")) else [])]


def _layer_times(runtime: str, node: Node) -> Cell | None:
    own = next((one for one in node.children("measured")[:MOST_RUNTIMES] if one.text("runtime") == runtime), None)
    return None if own is None else _pair("ms", duration, own)


def _pair(name: str, text: Callable[[float], str], node: Node) -> Cell | None:
    """Before and after, and what is gone."""
    before, after = node.maybe_number(f"{name}_before"), node.maybe_number(f"{name}_after")
    if before is None or after is None:
        return None
    return Cell(f"{text(before)} → {text(after)}", signed_percent(after / before - 1) if before else "")
