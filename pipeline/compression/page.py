"""The page of a compression: methods against each other on one network, in accuracy, size and measured latency."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.compression import plots, tables
from pipeline.compression.document import SCHEMA_VERSION
from pipeline.compression.drawing import key
from pipeline.compression.finding import LITTLE_POINTS, sentences
from pipeline.compression.request import KIND
from pipeline.compression.views import Comparison, read
from pipeline.report.kinds import KINDS
from pipeline.report.page import environment
from pipeline.report.reader import Node, document_of
from pipeline.report.text import count
from pipeline.runfolder import write_text

MOST_NOTES = 200


def render(document: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Writes the page of a compression's document to `path` and gives that path back.

    Raises:
        UsageError: the document is no compression of a schema that is known here, or a field in it is wrong.
        StorageError: the page cannot be written; an older one stays as it was.
    """
    target = Path(path)
    write_text(target, page(document))
    return target


def page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    node = document_of(document, KIND, SCHEMA_VERSION)
    run, device = read(node), node.maybe_child("device")
    headline, *also = sentences(run)
    compared, heads = tables.methods(run)
    return environment().get_template("compression.html.j2").render(
        kinds=KINDS,
        headline=headline,
        also=also,
        run=node.text("run"),
        created=node.text("created"),
        handset=node.text("handset"),
        network=run.network,
        device=device.text("name") if device else "",
        simulated=device.flag("simulated") if device else False,
        legend=[(key(shape), method) for shape, method in enumerate(run.methods)],
        own_mark=key(None),
        published_mark=key(0, hollow=True),
        plots=plots.plots(run),
        tuned=any(point.after is not None for group in run.groups for point in group.points),
        seeds=max((len(group.points) for group in run.groups), default=1),
        compared=compared,
        heads=heads,
        troubles=tables.troubles(run),
        published=tables.published(run.published),
        references=run.published,
        layers=[tables.layers(run, group, point) for group in run.groups for point in group.points],
        runtimes=run.runtimes,
        little=LITTLE_POINTS,
        error=_error(node, run),
        facts=_facts(node),
        notes=node.texts("notes")[:MOST_NOTES],
        command=node.text("command"),
    )  # fmt: skip


def _error(node: Node, run: Comparison) -> tuple[str, str] | None:
    """(test images, the standard error in points of an accuracy that is counted on them); None where nothing was counted."""
    data, top1 = node.maybe_child("data"), run.own.median(lambda point: point.top1)
    if data is None or top1 is None or (images := data.number("test")) < 1:
        return None
    return f"{images:,.0f}", f"{100 * (top1 * (1 - top1) / images) ** 0.5:.2f}"


def _facts(node: Node) -> list[tuple[str, dict[str, str]]]:
    """What the page is about, as it stands in the document: (what, its fields)."""
    network = node.child("network")
    about = {
        "name": network.text("name"),
        "source": network.text("source"),
        "input_shape": "×".join(f"{size:.0f}" for size in network.numbers("input_shape")),
        "parameters": count(network.number("params")),
        "MACs": count(network.number("macs")) if network.has("macs") else "not counted",
    }
    found = [("network", about)]
    for name in ("data", "training", "table", "device"):
        if (child := node.maybe_child(name)) is not None:
            found.append((name, child.flat()))
    versions = {one.text("name"): one.text("version", "") for one in node.children("runtimes")}
    return [*found, ("runtimes", versions)] if versions else found
