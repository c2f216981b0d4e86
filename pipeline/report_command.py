"""`handset report`: the pages again from a run's documents, the run for other tools, and the page of a latency table."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.arguments import words
from pipeline.console import printable

LUT_BUILD, VALIDATION, COMPRESS, EXPERIMENT = "lut build", "validation", "compress", "guidelines experiment"
NO_NETWORKS = {
    EXPERIMENT: "an experiment, whose networks are in the result.json beside it",
    LUT_BUILD: "a table build, which has no networks",
    VALIDATION: "a validation of a table",
    COMPRESS: "a compression, whose networks are measured in a run of their own below it",
}
TOOLS = ("perfetto", "model-explorer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the HTML page of a run again from its JSON (two of `lut validate` and `guidelines --experiment`), and the run "
        "for tools that people know: a trace for Perfetto and chrome://tracing, and node data for Google's Model Explorer. Of "
        "a latency table it writes the table's page."
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder, its result.json or validation.json, or a .parquet table"
    )
    parser.add_argument(
        "--to", default=None, metavar="TOOLS", help=f"for which other tools, into the run folder: {', '.join(TOOLS)}"
    )
    parser.add_argument(
        "--json", type=Path, default=None, metavar="PATH", help="the result document as a file of its own"
    )
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    from pipeline.errors import UsageError
    from pipeline.runfolder import write_json

    tools = words(arguments.to)
    unknown = [tool for tool in tools if tool not in TOOLS]
    if unknown or (arguments.to is not None and not tools):
        raise UsageError(f"--to {arguments.to!r} names no such tool", try_=f"--to {','.join(TOOLS)}")
    path = arguments.run
    if path.suffix == ".parquet":
        if tools or arguments.json is not None:
            raise UsageError(f"{path} is a latency table: --to and --json are of a run", try_=f"handset report {path}")
        _table(path, page := path.with_suffix(".html"))
        print(printable(str(page)))
        return 0
    path, document = _document(path)
    if tools and (what := NO_NETWORKS.get(str(document.get("kind")))):
        raise UsageError(f"{path} is of {what}: --to is of a run of handset bench")
    pages = _pages(document, path.parent)
    if arguments.json is not None:
        write_json(arguments.json, document)
    for page in pages:
        print(printable(str(page)))
    if "perfetto" in tools:
        _perfetto(document, path.parent)
    if "model-explorer" in tools:
        _model_explorer(document, path.parent)
    return 0


def _pages(document: dict[str, Any], folder: Path) -> list[Path]:
    """Those of a run's document, and of the validation or the experiment that lies beside it."""
    from pipeline import validation
    from pipeline.compression import page as compression_page
    from pipeline.guidelines.experiment import measure as experiment
    from pipeline.guidelines.experiment import page as experiment_page
    from pipeline.report import render, validation_page
    from pipeline.runfolder import PAGE

    page = folder / PAGE
    if document.get("kind") == VALIDATION:
        return [validation_page.render(document, folder / validation.PAGE)]
    if document.get("kind") == COMPRESS:
        return [compression_page.render(document, page)]
    if document.get("kind") == LUT_BUILD:
        _table(folder / Path(str(document.get("table", ""))).name, page, document)
        return [page]
    if document.get("kind") == EXPERIMENT:
        return [experiment_page.render(document, folder / experiment.PAGE)]
    beside = [
        (_document(folder / result)[1], folder / name, draw)
        for result, name, draw in (
            (validation.RESULT, validation.PAGE, validation_page.render),
            (experiment.RESULT, experiment.PAGE, experiment_page.render),
        )
        if (folder / result).is_file()
    ]
    render(document, page)
    return [page, *(draw(found, path) for found, path, draw in beside)]


def _document(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file and what it holds. Args: path: of it, or of its folder."""
    import json

    from pipeline.errors import UsageError
    from pipeline.runfolder import RESULT

    try:
        path = path / RESULT if path.is_dir() else path
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is no result of a run: {error}", try_="a folder in reports/ that has a result.json"
        ) from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no result of a run: it holds no object", try_="a folder in reports/")
    return path, document


def _table(path: Path, page: Path, about: dict[str, Any] | None = None) -> None:
    import latency_luts
    from pipeline.report.table_page import render_table

    render_table(latency_luts.load(path), page, about=about)


def _perfetto(document: dict[str, Any], run: Path) -> None:
    from pipeline.report.perfetto import TRACE, write

    for path in write(document, run / TRACE):
        print(printable(f"{path}: open it in https://ui.perfetto.dev or chrome://tracing"))


def _model_explorer(document: dict[str, Any], run: Path) -> None:
    from pipeline.report.model_explorer import write
    from pipeline.report.text import duration, plural, shorten

    for one in write(document, run):
        case = f"{shorten(one.network, 80)} in {shorten(one.runtime, 80)}"
        if one.model is None:
            print(printable(f"{case}: no node data: {shorten(one.why, 300)}"))
            continue
        data = ",".join(map(str, one.files))
        command = ["model-explorer", str(one.model), "--node_data_paths", data]
        command += ["--extensions", "model_explorer_onnx"] if one.model.suffix == ".onnx" else []
        print(printable(shlex.join(command)))
        without = sum(one.without_node_ms.values())
        told = f"{case}: {duration(one.nodes_ms)} on {plural(one.nodes, 'node')}"
        if one.without_node_ms:
            told += f"; {duration(without)} in kernels that are no node of the file, {_first(one.without_node_ms)}"
        print(printable(f"  {told}"))
    print("model-explorer comes with: pip install ai-edge-model-explorer model-explorer-onnx")


def _first(names: Iterable[str]) -> str:
    """As in "ReorderInput, ReorderOutput and 3 more"."""
    found = list(names)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
