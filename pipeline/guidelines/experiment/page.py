"""The page of an experiment: the paper's tables beside what was measured, and what is ordered otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.guidelines.experiment.document import KIND, SCHEMA_VERSION, reversal_text
from pipeline.guidelines.experiment.orderings import FAILS, HOLDS
from pipeline.report.charts import ROW_PX, axis, grid, marker
from pipeline.report.kinds import KINDS
from pipeline.report.page import environment
from pipeline.report.reader import Node, document_of
from pipeline.report.scales import Scale, around
from pipeline.report.svg import pc, picture, tag
from pipeline.report.text import duration, number, plus_minus
from pipeline.runfolder import write_text

WIDE_FROM = 4.0
"""Speeds that differ by more than this factor have a logarithmic axis."""


def render(document: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes the page of an experiment's document to `path` and gives that path back.

    Raises:
        UsageError: the document is no experiment of a schema that is known here, or a field in it is wrong.
        StorageError: the page cannot be written; an older one stays as it was.
    """
    target = Path(path)
    write_text(target, page(document))
    return target


def page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    node = document_of(document, KIND, SCHEMA_VERSION)
    device, runtimes, tables = node.child("device"), node.children("runtimes"), node.children("tables")
    return environment().get_template("experiment.html.j2").render(
        kinds=KINDS,
        run=node.text("run"),
        created=node.text("created"),
        handset=node.text("handset"),
        device=device.text("name"),
        simulated=device.flag("simulated"),
        about=device.flat(),
        runtimes=[(shape, one.text("name"), one.text("version", "")) for shape, one in enumerate(runtimes)],
        tables=[_table(one) for one in tables],
        verdicts=[_verdict_row(one) for one in tables if one.text("claim")],
        settings=node.child("settings").flat(),
        notes=node.texts("notes"),
        command=node.text("command"),
    )  # fmt: skip


def _verdict_row(table: Node) -> dict[str, Any]:
    """A claim with its verdict for each runtime and column."""
    columns = table.children("columns")
    names = [one.text("runtime") for one in columns[0].children("runtimes")]
    marks: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    for column in columns:
        for one in column.children("runtimes"):
            judged = one.child("guideline")
            pairs = {kind: len(judged.children(kind)) for kind in ("confirmed", "against", "open")}
            marks[one.text("runtime")].append(
                {
                    "column": column.text("label"),
                    "verdict": judged.text("verdict"),
                    "class": {HOLDS: "good", FAILS: "bad"}.get(judged.text("verdict"), "soft"),
                    "sign": {HOLDS: "✓", FAILS: "✗"}.get(judged.text("verdict"), "?"),
                    "told": f"{pairs['confirmed']} of {sum(pairs.values())} pairs",
                }
            )
    return {"name": table.text("name"), "claim": table.text("claim"), "runtimes": list(marks.items())}


def _table(table: Node) -> dict[str, Any]:
    columns = table.children("columns")
    if not columns or not all(one.children("rows") for one in columns):
        table.refuse("columns", "columns with rows")
    scale = _scale(columns)
    sentences = [one.text("text") for one in table.children("sentences")]
    return {
        "name": table.text("name"),
        "title": table.text("title"),
        "claim": table.text("claim"),
        "setting": table.text("setting"),
        "sentences": sentences,
        "columns": [_column(one, scale, alone=len(columns) == 1) for one in columns],
        "axis": axis(scale, "×"),
        "log": scale.log,
        "first": columns[0].children("rows")[0].text("label"),
        "reversals": [text for one in columns for text in _reversals(one, alone=len(columns) == 1)],
        "absent": [(one.text("network"), one.text("why")) for one in table.children("absent")],
    }


def _reversals(column: Node, *, alone: bool) -> list[dict[str, str]]:
    found = []
    for one in column.children("runtimes"):
        where = one.text("runtime") if alone else f"{column.text('label')}, {one.text('runtime')}"
        found += [
            {"where": where, "text": reversal_text(_plain(pair))}
            for pair in one.child("compared").children("reversals")
        ]
    return found


def _plain(pair: Node) -> dict[str, Any]:
    return {
        "faster": pair.text("faster"),
        "slower": pair.text("slower"),
        "here": pair.number("here"),
        "paper": pair.number("paper"),
        "by_macs": pair.has("by_macs") and pair.flag("by_macs"),
        "fewer_macs": pair.maybe_number("fewer_macs"),
    }


def _relative(column: Node) -> list[dict[str, Any]]:
    """For each row its speeds as multiples of the column's first row: the paper's, and (runtime's place, speed, interval)."""
    rows = column.children("rows")
    first = rows[0]
    bases = [cell.maybe_number("images_per_s") for cell in first.children("measured")]
    found = []
    for row in rows:
        marks = []
        for shape, (cell, base) in enumerate(zip(row.children("measured"), bases, strict=True)):
            speed = cell.maybe_number("images_per_s")
            if speed is not None and base:
                low, high = cell.pair("interval")
                marks.append((shape, cell.text("runtime"), speed / base, (low / base, high / base)))
        found.append({"paper": row.number("paper_images_per_s") / first.number("paper_images_per_s"), "marks": marks})
    return found


def _scale(columns: Sequence[Node]) -> Scale:
    """One for the whole table."""
    rows = [row for column in columns for row in _relative(column)]
    values = [row["paper"] for row in rows]
    values += [value for row in rows for _, _, speed, interval in row["marks"] for value in (speed, *interval)]
    low, high = min(values), max(values)
    return around(values, margin=0.06) if high < WIDE_FROM * low else Scale(low / 1.1, high * 1.1, log=True)


def _column(column: Node, scale: Scale, *, alone: bool) -> dict[str, Any]:
    rows = [
        {
            "label": row.text("label"),
            "shape": "×".join(f"{size:.0f}" for size in row.numbers("input_shape")[1:]),
            "macs": number(row.number("macs") / 1e6),
            "paper": f"{row.number('paper_images_per_s'):.1f}",
            "cells": [_cell(cell) for cell in row.children("measured")],
            "chart": _chart(scale, relative, row.text("label")),
        }
        for row, relative in zip(column.children("rows"), _relative(column), strict=True)
    ]
    return {"label": "" if alone else column.text("label"), "rows": rows}


def _cell(cell: Node) -> dict[str, Any]:
    if failed := cell.text("failed"):
        return {"speed": "failed", "sure": "", "title": failed, "bad": True}
    speed, (low, high) = cell.number("images_per_s"), cell.pair("interval")
    title = f"{duration(cell.number('latency_ms'))} an image"
    if not cell.flag("stable"):
        title += "; not stable: " + "; ".join(cell.texts("reasons"))
    return {
        "speed": number(speed),
        "sure": plus_minus((high - low) / 2 / speed),
        "title": title,
        "bad": not cell.flag("stable"),
    }


def _chart(scale: Scale, row: Mapping[str, Any], label: str) -> Markup:
    """One row: the paper's speed as an upright line, a mark with its interval for each runtime below each other."""
    paper, marks = row["paper"], row["marks"]
    parts, one = grid(scale, ROW_PX), pc(scale.percent(1.0))
    parts.append(tag("line", x1=one, x2=one, y1=0, y2=ROW_PX, class_="base"))
    x = pc(scale.percent(paper))
    line = tag("line", x1=x, x2=x, y1=2, y2=ROW_PX - 2, class_="paper")
    parts.append(tag("g", tag("title", f"paper: {number(paper)}"), line))
    words = [f"paper {number(paper)}"]
    count = max((shape for shape, *_ in marks), default=0) + 1
    for shape, runtime, speed, (low, high) in marks:
        y = ROW_PX * (shape + 1) / (count + 1)
        left, right = (pc(scale.percent(end)) for end in (low, high))
        line = tag("line", x1=left, x2=right, y1=y, y2=y, class_=f"whisker r{shape % 4}")
        text = f"{runtime}: {number(speed)}"
        words.append(f"{runtime} {number(speed)}")
        parts.append(tag("g", tag("title", text), line, marker(scale.percent(speed), y, shape, f"r{shape % 4}")))
    return picture(*parts, height=ROW_PX, title=f"{label}: {', '.join(words)} times the speed of the first row")
