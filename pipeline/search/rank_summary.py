"""What a rank search says at its end: the front on stdout, and a document with all trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import sha256_file
from pipeline.console import printable
from pipeline.report.text import number, percent, plural
from pipeline.search.rank_search import Ranked, RankSearch
from pipeline.search.rank_trials import Trial

if TYPE_CHECKING:
    from latency_luts import LatencyTable
    from pipeline.subjects import Subject

SCHEMA_VERSION = 1


def print_front(name: str, search: RankSearch, found: Ranked, table: LatencyTable | None) -> None:
    trials, front = found.trials, found.front
    rated = sum(trial.feasible for trial in trials)
    told = f"{plural(len(trials), 'trial')}, {rated:,} of them judged, {len(front):,} on the front"
    print(printable(f"{name} by {search.method}: {told}"))
    if front:
        header = ("trial", *(("ms", "measured") if table is not None else ()), "MACs", "parameters", "layers", "accuracy")
        rows = [header, *(_row(trial, table is not None) for trial in front)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
    if search.budget is not None and (over := sum(not one.feasible and one.cost is not None for one in trials)):
        unit = f"{number(search.budget)} ms" if table is not None else f"{search.budget:,.0f} MACs"
        print(f"{plural(over, 'trial')} over the budget of {unit}")
    if unpriced := [trial for trial in trials if trial.cost is None]:
        print(printable(f"{plural(len(unpriced), 'trial')} without a price; of the first: {unpriced[0].why}"))
    if table is not None and table.context.simulated:
        from pipeline.lut.terminal import print_simulated

        print_simulated()


def _row(trial: Trial, priced: bool) -> tuple[str, ...]:
    """Of the front. Layers are those that are decomposed."""
    assert trial.cost is not None and trial.accuracy is not None
    cost = (number(trial.cost), "" if trial.coverage is None else percent(trial.coverage)) if priced else ()
    counts = (f"{trial.macs:,}", f"{trial.params:,}", str(len(trial.ranks)))
    return (str(trial.number), *cost, *counts, percent(trial.accuracy, 4))


def document(
    subject: Subject, search: RankSearch, found: Ranked, *, data: Mapping[str, Any], table: Mapping[str, Any] | None,
    files: Mapping[int, Path],
) -> dict[str, Any]:  # fmt: skip
    """Args: files: of the networks of the front that were written, by their trials."""
    network = subject.network
    front = []
    for trial in found.front:
        path = files.get(trial.number)
        file = {"file": str(path), "sha256": sha256_file(path)} if path is not None else {}
        front.append({**_trial(trial), **file})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "search ranks",
        "network": {
            "name": network.name, "source": network.source, "input_shape": list(network.input_shape),
            "params": network.params, "macs": subject.macs, "weights": subject.weights,
        },
        "data": dict(data),
        "method": search.method,
        "unit": "MACs" if table is None else "ms",
        "budget": search.budget,
        "table": table,
        "seed": search.seed,
        "study": search.study,
        "stopped": found.stopped,
        "trials": [_trial(trial) for trial in found.trials],
        "front": front,
    }  # fmt: skip


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number, "ranks": {layer: list(ranks) for layer, ranks in trial.ranks.items()},
        "params": trial.params, "macs": trial.macs, "cost": trial.cost, "coverage": trial.coverage,
        "accuracy": trial.accuracy, "feasible": trial.feasible, "why": trial.why,
    }  # fmt: skip
