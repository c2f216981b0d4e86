"""A part of a table build: some bundles that are written, measured, read and removed together, in a folder of its own.

What was read is what stays, with all raw samples: models, graphs and profiles of a build would be gigabytes. A part whose
readings are there is done; one that has only its plan is measured when the build goes on.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.conditions import Gates
from devices.transport import Transport
from latency_luts import OpKey
from latency_luts.key import InvalidKey
from pipeline.console import Console
from pipeline.deploy import Target
from pipeline.errors import UsageError
from pipeline.launch import OnProgress
from pipeline.runfolder import write_json
from pipeline.settings import Settings
from pipeline.sweep.fold import Seen, Walk
from pipeline.sweep.measure import Sweep, run, write_bundles, write_chains, write_walks
from pipeline.sweep.plan import COLD, WARM, Limits, bundles
from pipeline.sweep.reading import Readings, read
from pipeline.sweep.sampling import Round
from pipeline.watching import Watching

BUNDLES_A_PART, WARM_BUNDLES_A_PART = 12, 48
CHAINS_A_PART = 2
PLAN, READINGS = "plan.json", "readings.json"
WALKS = "walks"
"""The purpose of parts whose kernels follow each other, see `walk.py`, instead of standing side by side."""
WALK_S, WALK_KERNELS_S = 0.4, 0.1
"""Of timed inference, without and with the profiler: a walk is asked for its latency, and for its kernels' names."""

@dataclass(frozen=True)
class Part:
    """`groups`: the kernels of each bundle or walk; `seed`: of the order in bundles; `purpose`, `limits`: of its `Round`."""

    folder: Path
    purpose: str
    seed: int
    groups: tuple[tuple[OpKey, ...], ...]
    limits: Limits = COLD

    @property
    def is_done(self) -> bool:
        return (self.folder / READINGS).is_file()


def plan_parts(rounds: Sequence[Round], folder: Path) -> list[Part]:
    """Writes down what is to be measured next, behind the parts that are there. Raises: StorageError."""
    made: list[Part] = []
    for one in rounds:
        seed = 1000 * _next_number(folder)
        groups = bundles(one.keys, copies=one.copies, limits=one.limits, seed=seed)
        made += plan_groups(one.purpose, groups, one.limits, folder)
    return made


def plan_walks(walks: Sequence[Sequence[OpKey]], folder: Path) -> list[Part]:
    """As `plan_parts`."""
    return plan_groups(WALKS, walks, COLD, folder)


def plan_groups(purpose: str, groups: Sequence[Sequence[OpKey]], limits: Limits, folder: Path) -> list[Part]:
    """As `plan_parts`, for kernels that were put together already."""
    made, number = [], _next_number(folder)
    size = WARM_BUNDLES_A_PART if limits == WARM else BUNDLES_A_PART
    for start in range(0, len(groups), size):
        some = tuple(tuple(group) for group in groups[start : start + size])
        part = Part(folder / f"{number:04d}", purpose, 1000 * number, some, limits)
        part.folder.mkdir(parents=True)
        texts = [[str(key) for key in group] for group in some]
        plan = {"purpose": purpose, "seed": part.seed, "limits": dataclasses.asdict(limits), "groups": texts}
        write_json(part.folder / PLAN, plan)
        made.append(part)
        number += 1
    return made


def _next_number(folder: Path) -> int:
    return len(list(folder.glob("[0-9]*")))


def parts_in(folder: Path) -> list[Part]:
    """In the order in which they were planned. Raises: UsageError: one is damaged."""
    return [_planned(path) for path in sorted(folder.glob("[0-9]*")) if (path / PLAN).is_file()]


def _planned(folder: Path) -> Part:
    try:
        plan = json.loads((folder / PLAN).read_text("utf-8"))
        groups = tuple(tuple(OpKey.parse(text) for text in group) for group in plan["groups"])
        limits = Limits(**{name: int(value) for name, value in plan.get("limits", {}).items()})  # older plans have none
        return Part(folder, str(plan["purpose"]), int(plan["seed"]), groups, limits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidKey) as error:
        raise UsageError(f"{folder} is no part of a build: {str(error)[:200]}", try_="a new build") from error


@dataclass(frozen=True)
class Bench:
    """Where parts are measured: a target on a device, and how.

    Args:
        run: what the build is called on the device.
        gates, settle_s: see `Watching`.
    """

    device: Transport
    target: Target
    settings: Settings
    run: str
    gates: Gates | None
    settle_s: float
    console: Console


def measure(part: Part, bench: Bench, on_progress: OnProgress) -> tuple[Readings, float]:
    """Measures one part and keeps what was read; (readings, seconds that it took).

    Raises: DeviceError, StorageError. What a cut-off part had measured by then is used when it goes on.
    """
    begun = time.monotonic()
    models = part.folder / "models"
    models.mkdir(exist_ok=True)
    walking = part.purpose == WALKS
    write = (bench.target, bench.device, models)
    sweep = Sweep(
        () if walking else write_bundles(part.groups, *write, seed=part.seed),
        write_chains(*write, CHAINS_A_PART),
        write_walks(part.groups, *write) if walking else (),
    )
    settings = bench.settings
    if walking:
        settings = dataclasses.replace(settings, launch_s=WALK_S, kernels_s=WALK_KERNELS_S)
    watching = Watching(bench.device, part.folder, bench.gates, bench.settle_s, bench.console)
    results = run(
        sweep, bench.device, bench.target.installed, settings, part.folder, on_progress,
        run=f"{bench.run}-{part.folder.name}", watch=watching.paths, before=watching.before_launch,
    )  # fmt: skip
    readings = read(sweep, results, part.folder, bench.settings.confidence)
    seconds = time.monotonic() - begun
    write_json(part.folder / READINGS, _document(readings, seconds))
    shutil.rmtree(models)
    for left in (*part.folder.glob("*.optimized.onnx*"), *part.folder.glob("launch-*.jsonl")):
        left.unlink()
    return readings, seconds


def _document(readings: Readings, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "added_us": list(readings.added_us),
        "walks": [[one.us, [[str(key) if key else None, us] for key, us in one.kernels]] for one in readings.walks],
        "missing": {str(key): why for key, why in readings.missing.items()},
        "failed": list(readings.failed),
        "seen": [dataclasses.asdict(one) | {"key": str(one.key)} for one in readings.seen],
    }


def readings_of(part: Part) -> tuple[Readings, float]:
    """What `measure` kept. Raises: UsageError: it is damaged."""
    try:
        kept = json.loads((part.folder / READINGS).read_text("utf-8"))
        missing = {OpKey.parse(text): str(why) for text, why in kept["missing"].items()}
        # those of older builds have neither
        walks = tuple(_walk(*row) for row in kept.get("walks", ()))
        failed = tuple(number for number in kept.get("failed", ()) if part.groups[number])
        told = tuple(map(float, kept["added_us"]))
        return Readings(tuple(_seen(kept["seen"])), told, missing, walks, failed), float(kept["seconds"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, InvalidKey) as error:
        raise UsageError(f"{part.folder / READINGS} is damaged: {str(error)[:200]}", try_="a new build") from error


def _seen(rows: Sequence[Mapping[str, Any]]) -> Iterator[Seen]:
    for row in rows:
        yield Seen(
            OpKey.parse(row["key"]), str(row["bundle"]), float(row["us"]), float(row["half_us"]),
            tuple(map(int, row["samples_us"])), str(row["runtime_kernel"]),
        )  # fmt: skip


def _walk(us: float, kernels: Sequence[tuple[str | None, float]]) -> Walk:
    return Walk(float(us), tuple((OpKey.parse(text) if text else None, float(own)) for text, own in kernels))
