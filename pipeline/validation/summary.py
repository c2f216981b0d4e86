"""The short form on stdout: a row for each way of predicting, what was left out, and where the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.console import printable
from pipeline.report.text import clean, percent, shorten, signed_percent

SIMULATED = "SIMULATED: this is no real phone, and its times say nothing about one."
COLUMNS = ("", "networks", "±5 %", "±10 %", "RMSPE", "bias", "rank", "factor")


def summarise(document: Mapping[str, Any], page: Path) -> None:
    for line in lines(document, page):
        print(printable(line))


def lines(document: Mapping[str, Any], page: Path) -> list[str]:
    """The lines to print, at most 80 characters wide but for names, reasons and paths."""
    rows = [COLUMNS, *(_row(one) for one in document["predictors"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    said = [f"{document['headline']}"]
    if document["context"]["differences"]:
        fields = ", ".join(one["field"] for one in document["context"]["differences"])
        said.insert(0, f"OTHER CONTEXT: the table was made with another {fields}")
    if document["context"]["measured"]["simulated"]:
        said.insert(0, SIMULATED)
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        said.append("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]).rstrip())
    said += [f"left out  {_name(one)}: {shorten(clean(one['reason']), 400)}" for one in document["left_out"]]
    said += [
        f"unstable  {_name(one)}: {shorten(clean('; '.join(one['reasons'])), 400)}"
        for one in document["networks"]
        if not one["stable"]
    ]
    required = document["requirement"]
    if required is not None:
        verdict = "good" if required["met"] else "not good enough"
        found, asked = percent(required["within5_found"]), percent(required["within5_asked"])
        said.append(f"verdict   {verdict}: {found} within 5 % ({required['judged']}), {asked} asked")
    return [*said, f"run       {clean(str(page.parent))}", f"page      {clean(str(page))}"]


def _name(one: Mapping[str, Any]) -> str:
    return shorten(clean(one["name"]), 40)


def _row(predictor: Mapping[str, Any]) -> tuple[str, ...]:
    how = "scaled" if predictor["scaled"] else "plain"
    found = predictor[how]
    if found is None:
        return (predictor["label"], str(predictor["count"]), *("-",) * 6)
    rank, factor = found["spearman"], predictor["factor"] if how == "scaled" else None
    return (
        predictor["label"],
        str(predictor["count"]),
        percent(found["within_5"]),
        percent(found["within_10"]),
        percent(found["rmspe"]),
        signed_percent(round(found["bias"], 4)),
        "-" if rank is None else f"{rank:.2f}",
        "-" if factor is None else f"{factor:.3f}",
    )
