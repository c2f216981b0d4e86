"""The tables' networks through `handset bench`, all in one run and so in interleaved launches."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import runfolder
from pipeline.bench import bench
from pipeline.console import Console
from pipeline.errors import UsageError
from pipeline.guidelines.experiment.document import experiment_document
from pipeline.guidelines.experiment.paper import TABLES, variants
from pipeline.request import Request, planned
from pipeline.resume import instead_of_bench
from pipeline.settings import Settings

RESULT = "experiment.json"
PAGE = "experiment.html"
KERNELS_S = 0.1
"""With the profiler: what a network's kernels take is no part of the tables, and one reading of them is enough."""


@dataclass(frozen=True)
class Asked:
    """Which tables, and how they are measured: the models of `request` are those of the tables."""

    tables: tuple[str, ...]
    request: Request


def settings_of(budget_s: float | None, launches: int | None) -> Settings:
    """Settings of a run: a budget that is small shortens its launches."""
    usual = Settings()
    budget_s = usual.budget_s if budget_s is None else budget_s
    launches = usual.launches if launches is None else launches
    launch_s = min(usual.launch_s, budget_s / launches)
    return dataclasses.replace(
        usual, budget_s=budget_s, launches=launches, launch_s=launch_s, kernels_s=min(KERNELS_S, launch_s)
    )


def models_of(tables: Sequence[str]) -> tuple[str, ...]:
    """The networks as `handset bench` takes them."""
    file = Path(__file__).with_name("networks.py")
    return tuple(f"{file}:{one.name}" for name in tables for one in variants(TABLES[name]))


def resumed(folder: Path) -> Asked:
    """What the run in `folder` was asked for.

    Raises: UsageError: it is no run, or not of this command.
    """
    request = planned(runfolder.reopen(folder).plan, folder)
    begun = [text.rpartition(":")[2] for text in request.models]
    tables = tuple(name for name, table in TABLES.items() if {one.name for one in variants(table)} & set(begun))
    models = models_of(tables)
    if not tables or sorted(text.rpartition(":")[2] for text in models) != sorted(begun):
        raise UsageError(
            f"{folder} is no run of handset guidelines --experiment", try_=f"handset bench --resume {folder}"
        )
    return Asked(tables, dataclasses.replace(request, models=models))


def experiment(asked: Asked, console: Console) -> dict[str, Any]:
    """All stages; gives the document, which lies in `console.run_folder` with its page.

    Raises: as `bench`. KeyboardInterrupt: what was measured is in the run folder.
    """
    with instead_of_bench(console, resume_words):
        result = bench(asked.request, console)
    assert console.run_folder is not None
    document = experiment_document(asked.tables, result, command_of(asked))
    _write(document, console.run_folder)
    return document


def _write(document: dict[str, Any], folder: Path) -> None:
    from pipeline.guidelines.experiment.page import render

    runfolder.write_json(folder / RESULT, document)
    render(document, folder / PAGE)


def resume_words(folder: Path) -> str:
    return shlex.join(["handset", "guidelines", "--resume", str(folder)])


def command_of(asked: Asked) -> str:
    """The command line that asks for the same again."""
    request, settings, usual = asked.request, asked.request.settings, Settings()
    words = ["handset", "guidelines", "--experiment", ",".join(asked.tables), "--device", request.device]
    options = (
        ("--runtime", ",".join(request.runtimes), ""),
        ("--budget", f"{settings.budget_s:g}", f"{usual.budget_s:g}"),
        ("--launches", str(settings.launches), str(usual.launches)),
    )
    return shlex.join(
        [*words, *(word for name, value, default in options if value != default for word in (name, value))]
    )
