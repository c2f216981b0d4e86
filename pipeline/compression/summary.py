"""The short form on stdout: a row a point, what was left out, and where the page is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.console import printable
from pipeline.report.text import clean, duration, percent, plus_minus

SIMULATED = "SIMULATED: this is no real phone, and its times say nothing about one."


def summarise(document: Mapping[str, Any], page: Path) -> None:
    for line in lines(document, page):
        print(printable(line))


def lines(document: Mapping[str, Any], page: Path) -> list[str]:
    device = document["device"]
    said = [SIMULATED] if device and device["simulated"] else []
    said += _table(document)
    for point in document["points"]:
        for cell in point["measured"]:
            why = cell["failed"] or ("" if cell["stable"] else "; ".join(cell["reasons"]))
            if why:
                said.append(
                    f"{'failed' if cell['failed'] else 'unstable':<9} {point['name']} in {cell['runtime']}: {why[:400]}"
                )
    said += [f"note      {clean(note)}" for note in document["notes"]]
    return [*said, f"run       {clean(str(page.parent))}", f"page      {clean(str(page))}"]


def _table(document: Mapping[str, Any]) -> list[str]:
    runtimes = [one["name"] for one in document["runtimes"]]
    judged = document["data"] is not None
    whole = document["points"][0]
    title = (
        "method", "budget", "params", "left", "MMACs", "left", *(("decomposed", "trained") if judged else ()),
        *(("predicted",) if document["table"] else ()), *(title for name in runtimes for title in (name, "±", "speed-up")),
    )  # fmt: skip
    rows = [
        title,
        *(_row(point, whole, runtimes, judged, document["table"] is not None) for point in document["points"]),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    said = []
    for row in rows:
        cells = [
            text.ljust(w) if place < 2 else text.rjust(w)
            for place, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        said.append("  ".join(cells).rstrip())
    return [said[0], "─" * (sum(widths) + 2 * len(widths) - 2), *said[1:]]


def _row(
    point: Mapping[str, Any], whole: Mapping[str, Any], runtimes: list[str], judged: bool, predicted: bool
) -> tuple[str, ...]:
    rounded = f", round {point['round']}" if point["round"] else ""
    seed = f", seed {point['seed']}" if point["seed"] else ""
    cells = [point["method"] or "(as it is)", f"{point['budget']}{rounded}{seed}"]
    for name, factor in (("params", 1), ("macs", 1e-6)):
        value, before = point[name], whole[name]
        cells += (
            ["", ""] if value is None else [f"{value * factor:,.{2 if factor < 1 else 0}f}", percent(value / before)]
        )
    if judged:
        cells += [_share(point["top1"][key]) for key in ("before", "after")]
    if predicted:
        cells.append("" if point["predicted_ms"] is None else duration(point["predicted_ms"]))
    for name in runtimes:
        cells += _times(_cell(point, name), _cell(whole, name))
    return tuple(cells)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _cell(point: Mapping[str, Any], runtime: str) -> Mapping[str, Any] | None:
    return next((one for one in point["measured"] if one["runtime"] == runtime and not one["failed"]), None)


def _times(cell: Mapping[str, Any] | None, whole: Mapping[str, Any] | None) -> list[str]:
    if cell is None:
        return ["", "", ""]
    low, high = cell["interval_ms"]
    ratio = "" if whole is None or whole is cell else f"{whole['latency_ms'] / cell['latency_ms']:.2f}x"
    return [duration(cell["latency_ms"]), plus_minus((high - low) / 2 / cell["latency_ms"])[1:], ratio]
