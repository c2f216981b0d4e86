"""The short form on stdout: the tables with the paper's speeds beside those here, what is ordered otherwise, the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.console import printable
from pipeline.guidelines.experiment.document import reversal_text
from pipeline.report.text import clean, number, plural, plus_minus, shorten

SHOWN = 6
"""Pairs of a table that are ordered otherwise; the page has all."""
SIMULATED = "SIMULATED: this is no real phone, and its times say nothing about one."


def summarise(document: Mapping[str, Any], page: Path) -> None:
    for line in lines(document, page):
        print(printable(line))


def lines(document: Mapping[str, Any], page: Path) -> list[str]:
    said = [SIMULATED] if document["device"]["simulated"] else []
    for table in document["tables"]:
        said += [one["text"] for one in table["sentences"]]
    for table in document["tables"]:
        said += ["", *_table(table, document["runtimes"]), *_troubles(table), *_reversals(table)]
        said += [f"absent    {one['network']}: {one['why']}" for one in table["absent"]]
    return [*said, f"run       {clean(str(page.parent))}", f"page      {clean(str(page))}"]


def _table(table: Mapping[str, Any], runtimes: list[Mapping[str, Any]]) -> list[str]:
    measured = [title for one in runtimes for title in (one["name"], "±")]
    several = len(table["columns"]) > 1
    rows = [(f"{table['title']}, images/s", "", "MMACs", "paper", *measured)]
    for column in table["columns"]:
        for row in column["rows"]:
            cells = [text for cell in row["measured"] for text in _cell(cell)]
            paper = f"{row['paper_images_per_s']:.1f}"
            rows.append((row["label"], column["label"] if several else "", number(row["macs"] / 1e6), paper, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    said = []
    for row in rows:
        (first, *rest), (width, *others) = row, widths
        cells = [first.ljust(width), *(text.rjust(wide) for text, wide in zip(rest, others, strict=True))]
        said.append(" ".join(cells).rstrip())
    return [said[0], "─" * (sum(widths) + len(widths) - 1), *said[1:]]


def _cell(cell: Mapping[str, Any]) -> tuple[str, str]:
    if cell["failed"]:
        return "failed", ""
    low, high = cell["interval"]
    sure = plus_minus((high - low) / 2 / cell["images_per_s"])[1:]
    return number(cell["images_per_s"]), sure if cell["stable"] else f"{sure} unstable"


def _troubles(table: Mapping[str, Any]) -> list[str]:
    cells = [
        (row["network"], cell) for column in table["columns"] for row in column["rows"] for cell in row["measured"]
    ]
    return [
        f"failed    {network} in {cell['runtime']}: {shorten(clean(cell['failed']), 400)}"
        for network, cell in cells
        if cell["failed"]
    ]


def _reversals(table: Mapping[str, Any]) -> list[str]:
    several = len(table["columns"]) > 1
    found = [
        (pair["here"], f"otherwise {column['label'] + ', ' if several else ''}{one['runtime']}: {reversal_text(pair)}")
        for column in table["columns"]
        for one in column["runtimes"]
        for pair in one["compared"]["reversals"]
    ]
    said = [text for _, text in sorted(found, key=lambda one: -one[0])[:SHOWN]]
    return [*said, f"otherwise {plural(len(found) - SHOWN, 'more pair')}, on the page"] if len(found) > SHOWN else said
