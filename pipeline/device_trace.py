"""What the device said of itself before, between and during the launches of a run: clocks, temperatures, load, boot.

Between launches everything is asked (`conditions.jsonl` in the run folder); during a launch the runner itself reads a few
files between blocks. Both are put on one axis: seconds since the run's first launch, by the device's own clock.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devices.conditions import Conditions, parse_watched
from devices.runner import RunnerResult
from pipeline.errors import StorageError

CONDITIONS = "conditions.jsonl"
MAX_POINTS = 2000


def note_conditions(folder: Path, launch: int, conditions: Conditions, watch: Sequence[str]) -> None:
    """Adds one line.

    Args:
        launch: the number of the launch that follows.
        watch: the paths that its runner will read.

    Raises: StorageError.
    """
    row = {"launch": launch, **dataclasses.asdict(conditions), "watch": list(watch)}
    try:
        with (folder / CONDITIONS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise StorageError(
            f"cannot write {folder / CONDITIONS}: {error.strerror}", try_="free some space, or --reports DIR"
        ) from error


def noted_conditions(folder: Path) -> list[dict[str, Any]]:
    """The lines so far; one that was cut short is left out."""
    rows = []
    with contextlib.suppress(OSError):
        for line in (folder / CONDITIONS).read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def trace_document(
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    results: Sequence[RunnerResult],
    knobs: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """`device_conditions` of the result document.

    Args:
        rows: of `noted_conditions`.
        numbers, results: the launches with their numbers.
        knobs: what was set on the device for the run.
    """
    begins = {
        number: one.begin_realtime_ns
        for number, one in zip(numbers, results, strict=True)
        if one.begin_realtime_ns is not None
    }
    first = min(begins.values(), default=0)
    points = [_point(row, _second(row.get("launch"), begins, results, numbers, first)) for row in rows]
    watched = {row.get("launch"): row.get("watch") for row in rows}
    for number, one in zip(numbers, results, strict=True):
        paths = watched.get(number)
        if number not in begins or not isinstance(paths, list):
            continue
        for seen in one.watched:
            values = parse_watched(paths, seen.values)
            clocks = {str(core): khz for core, khz in values["clock_khz"].items()}
            at_s = (begins[number] - first + seen.at_ns) / 1e9
            points.append({"at_s": at_s, "launch": number, **values, "clock_khz": clocks})
    points.sort(key=lambda point: point["at_s"])
    boots = list(dict.fromkeys(row["boot_id"] for row in rows if isinstance(row.get("boot_id"), str)))
    step = len(points) // MAX_POINTS + 1
    return {"set": list(knobs), "trace": points[::step], "boot_ids": boots}


def _second(
    launch: Any, begins: Mapping[int, int], results: Sequence[RunnerResult], numbers: Sequence[int], first: int
) -> float:
    """When a launch began; for what was noted after the last one: when that ended."""
    if launch in begins:
        return (begins[launch] - first) / 1e9
    ends = [
        begins[number] - first + max((seen.at_ns for seen in one.watched), default=0)
        for number, one in zip(numbers, results, strict=True)
        if number in begins
    ]
    return max(ends, default=0) / 1e9


def _point(row: Mapping[str, Any], at_s: float) -> dict[str, Any]:
    clocks = row.get("clocks_khz") or ()
    kept = {key: value for key, value in row.items() if key not in ("clocks_khz", "boot_id", "watch")}
    return {"at_s": at_s, **kept, "clock_khz": {str(core): khz for core, khz in enumerate(clocks) if khz is not None}}
