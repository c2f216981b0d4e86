"""The page of a validation: predicted beside measured, who predicts best, and what the errors are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.report import validation_tables as tables
from pipeline.report.charts import axis, unit_of
from pipeline.report.kinds import KINDS
from pipeline.report.page import environment
from pipeline.report.reader import Node, document_of
from pipeline.report.scales import Scale, positions
from pipeline.report.scatter import Dot, errors, errors_scale, scatter
from pipeline.report.text import duration, percent, plural, plus_minus, signed_percent
from pipeline.report.validation_tables import shape_of
from pipeline.runfolder import write_text

SCHEMA_VERSION = 1


def render(document: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes the page of a validation's document to `path` and gives that path back.

    Raises:
        UsageError: the document is no validation of a schema that is known here, or a field in it is wrong.
        StorageError: the page cannot be written; an older one stays as it was.
    """
    target = Path(path)
    write_text(target, page(document))
    return target


def page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    node = document_of(document, "validation", SCHEMA_VERSION)
    predictors, networks = node.children("predictors"), node.children("networks")
    names = [one.text("name") for one in predictors]
    plots, log = _plots(predictors, networks)
    rows, rows_axis, beyond = _errors(names, networks)
    families, families_axis, unit = tables.families(node.children("families"))
    lut, context = node.child("lut"), node.child("context")
    measured = context.child("measured")
    return environment().get_template("validation.html.j2").render(
        kinds=KINDS,
        headline=node.text("headline"),
        run=node.text("run"),
        created=node.text("created"),
        handset=node.text("handset"),
        device=measured.text("device"),
        simulated=measured.flag("simulated"),
        differences=[(one.text("field"), _plain(one, "table"), _plain(one, "measured"))
                     for one in context.children("differences")],
        not_held_out=[one.text("name") for one in networks if one.flag("in_table")],
        requirement=tables.requirement(node),
        plots=plots, log=log,
        predictors=[tables.predictor(one) for one in predictors],
        not_judged=[(one.text("label"), name, why) for one in predictors
                    for name, why in one.child("not_judged").flat().items()],
        marks=[(shape_of(one.text("name")), one.text("label")) for one in predictors],
        rows=rows, rows_axis=rows_axis, beyond=beyond,
        families=families, families_axis=families_axis, unit=unit,
        worst=[tables.worst(one) for one in node.children("worst")],
        left_out=[tables.left_out(one) for one in node.children("left_out")],
        lists=[row for one in [*networks, *node.children("left_out")] if (row := tables.listed(one)) is not None],
        table_context=lut.child("context").flat(),
        measured_context=measured.flat(),
        lut=[("table", lut.text("path")), ("entries", f"{lut.number('entries'):,.0f}"), ],
        lut_sha256=lut.text("sha256"),
        settings=node.child("settings").flat(),
        notes=node.texts("notes"),
        command=node.text("command"),
    )  # fmt: skip


def _plain(node: Node, name: str) -> str:
    return node.flat().get(name, "")


def _shown(network: Node, name: str) -> tuple[float | None, float | None]:
    """(what a way of predicting is judged by, the plain value beside it where that is another)."""
    both = network.child("predicted_ms").maybe_child(name)
    plain, scaled = (both.maybe_number("plain"), both.maybe_number("scaled")) if both else (None, None)
    return (plain, None) if scaled is None else (scaled, plain)


def _plots(predictors: Sequence[Node], networks: Sequence[Node]) -> tuple[list[dict[str, Any]], bool]:
    """For each way of predicting its square, all on one scale; whether that is logarithmic."""
    values = [one.number("measured_ms") for one in networks]
    values += [
        ms
        for one in networks
        for way in predictors
        for ms in _shown(one, way.text("name"))
        if ms is not None and ms > 0
    ]
    unit, factor = unit_of(max(values, default=1.0))
    scale = _square([factor * value for value in values])
    plots = []
    for way in predictors:
        label, name = way.text("label"), way.text("name")
        dots = [dot for one in networks for dot in _dots(one, name, factor)]
        if dots:
            found = way.maybe_child("scaled") or way.child("plain")
            note = f"{percent(found.number('within_5'))} within 5 %, RMSPE {percent(found.number('rmspe'))}"
            title = f"{label}: predicted against measured latency of {plural(len(networks), 'network')}; {note}"
            chart: Markup | None = scatter(scale, dots, shape_of(name), unit, title)
        else:
            note, chart = "nothing to show: it says nothing of these networks, or they are too few", None
        plots.append({"label": label, "shape": shape_of(name), "note": note, "chart": chart})
    return plots, scale.log


def _square(values: Sequence[float]) -> Scale:
    """As `positions`, but closer to the values where these are within a factor of LOG_OVER of each other."""
    found = positions(values)
    low = min(values, default=0.0)
    return found if found.log or low < found.high / 4 else Scale(0.9 * low, 1.05 * max(values))


def _dots(network: Node, name: str, factor: float) -> list[Dot]:
    judged, plain = _shown(network, name)
    measured, text = network.number("measured_ms"), network.text("name")
    low, high = network.pair("interval_ms")

    def dot(ms: float, word: str, hollow: bool) -> Dot:
        words = f"{text}: {word}{duration(ms)}, measured {duration(measured)}, {signed_percent(ms / measured - 1)}"
        return Dot(factor * measured, factor * ms, (factor * low, factor * high), words, hollow)

    found = [] if judged is None else [dot(judged, "" if plain is None else "scaled ", False)]
    return found + ([] if plain is None else [dot(plain, "plain ", True)])


def _errors(names: Sequence[str], networks: Sequence[Node]) -> tuple[list[dict[str, Any]], Markup, bool]:
    """A row of marks for each network, the axis below them, and whether some mark stands beyond its end."""
    found: list[list[tuple[int, float, str]]] = []
    for one in networks:
        measured, marks = one.number("measured_ms"), []
        for name in names:
            ms, _ = _shown(one, name)
            if ms is not None:
                marks.append(
                    (shape_of(name), ms / measured - 1, f"{name}: {duration(ms)}, {signed_percent(ms / measured - 1)}")
                )
        found.append(marks)
    scale = errors_scale([error for row in found for shape, error, _ in row if shape < shape_of("forest")])
    rows = [_error_row(one, row, scale) for one, row in zip(networks, found, strict=True)]
    in_percent = Scale(100 * scale.low, 100 * scale.high)
    beyond = any(abs(error) > scale.high for row in found for _, error, _ in row)
    return rows, axis(in_percent, "%"), beyond


def _error_row(one: Node, marks: Sequence[tuple[int, float, str]], scale: Scale) -> dict[str, Any]:
    measured, (low, high) = one.number("measured_ms"), one.pair("interval_ms")
    judged, plain = _shown(one, "table")
    as_it_is = judged if plain is None else plain
    return {
        "name": one.text("name"),
        "stable": one.flag("stable"),
        "reasons": "; ".join(one.texts("reasons")),
        "chart": errors(scale, marks, f"{one.text('name')}: {'; '.join(words for _, _, words in marks)}"),
        "measured": duration(measured),
        "sure": plus_minus((high - low) / 2 / measured),
        "table": duration(as_it_is) if as_it_is is not None else "",
        "plain": signed_percent(as_it_is / measured - 1) if as_it_is is not None else "",
        "scaled": signed_percent(judged / measured - 1) if judged is not None and plain is not None else "",
        "between": percent(one.number("interpolated_share")) if one.number("interpolated_share") > 0 else "",
        "kernels": f"{one.number('kernels'):.0f}",
    }
