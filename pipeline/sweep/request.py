"""What a table build was asked for: from the command line, in the plan of its run folder, and as a command line again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.conditions import Gates
from devices.transport import DeviceDescription
from latency_luts import OpKey
from latency_luts.key import InvalidKey
from pipeline.errors import UsageError
from pipeline.request import IDENTITY, check_kind, read_numbers, read_text, read_texts
from pipeline.settings import Settings
from pipeline.sweep.grid import Grid
from pipeline.version import VERSION

KIND = "lut build"

USUAL_GRID = Grid(
    width_points=4, kernel_sizes=(3, 5), resolutions=(128, 160, 192, 224, 256), multipliers=(0.5, 0.75, 1.5), max_points=100_000
)
USUAL = Settings(
    launches=1, launch_s=0.03, kernels_s=0.6, kernel_runs=12, kernel_runs_most=60, warmup_s=0.1, budget_s=0.0, interval=0.02
)
"""`launch_s`: of each chain without the profiler; bundles are not asked for their latency."""


@dataclass(frozen=True)
class BuildRequest:
    """What was asked.

    Args:
        models: whose kernels the table is for; zoo names, .pt2 files or file.py:function.
        kernels: further ones.
        pieces: methods (`pipeline.sweep.pieces.METHODS`) whose decompositions of the models have kernels that are wanted too,
            but not varied.
        grid: how these are varied; None measures them and nothing else.
        runtime: one; a table is of one.
        bundle: its kind; empty is the usual one of the device.
        budget_s: seconds of measuring after which no new round begins; what the networks themselves have is measured anyway.
        error: the leave-one-out error that is good enough, a share.
        settings: `interval` is the half-width of an entry's interval that is good enough.
        out: where the table goes besides the run folder; None: only there.
        gates, settle_s, keep_settings, wait_s, aars, delegate, resume: as of `pipeline.request.Request`.
    """

    models: tuple[str, ...]
    device: str
    runtime: str
    reports: Path
    kernels: tuple[OpKey, ...] = ()
    pieces: tuple[str, ...] = ()
    grid: Grid | None = USUAL_GRID
    bundle: str = ""
    aars: tuple[str, ...] = ()
    delegate: str = ""
    settings: Settings = USUAL
    budget_s: float = 900.0
    error: float = 0.01
    out: Path | None = None
    gates: Gates | None = dataclasses.field(default_factory=Gates)
    settle_s: float = 600.0
    keep_settings: bool = False
    wait_s: float = 600.0
    resume: Path | None = None


def plan_of(request: BuildRequest, device: DeviceDescription) -> dict[str, Any]:
    """What a resumed build needs to know, and on what it was begun."""
    return {
        "kind": KIND,
        "handset": VERSION,
        "models": list(request.models),
        "kernels": [str(key) for key in request.kernels],
        "pieces": list(request.pieces),
        "grid": None if request.grid is None else dataclasses.asdict(request.grid),
        "device": request.device,
        "runtime": request.runtime,
        "bundle": request.bundle,
        "aars": list(request.aars),
        "delegate": request.delegate,
        "budget_s": request.budget_s,
        "error": request.error,
        "keep_settings": request.keep_settings,
        "gates": None if request.gates is None else dataclasses.asdict(request.gates),
        "settings": dataclasses.asdict(request.settings),
        "begun_on": {key: getattr(device, key) for key in IDENTITY},
    }


def planned(plan: Mapping[str, Any], folder: Path) -> BuildRequest:
    """The request of a build that is to go on.

    Raises: UsageError: the plan is damaged, or that of another command.
    """
    check_kind(plan, KIND, folder)
    try:
        gates, grid = plan["gates"], plan["grid"]
        return BuildRequest(
            models=read_texts(plan, "models"),
            kernels=tuple(OpKey.parse(text) for text in read_texts(plan, "kernels")),
            pieces=read_texts(plan, "pieces") if "pieces" in plan else (),  # older plans have none
            grid=None if grid is None else _grid(grid),
            device=read_text(plan["device"]),
            runtime=read_text(plan["runtime"]),
            bundle=read_text(plan["bundle"]),
            aars=read_texts(plan, "aars"),
            delegate=read_text(plan["delegate"]),
            budget_s=float(plan["budget_s"]),
            error=float(plan["error"]),
            keep_settings=plan["keep_settings"] is True,
            gates=None if gates is None else read_numbers(Gates(), gates),
            settings=read_numbers(Settings(), plan["settings"]),
            reports=folder.parent,
            resume=folder,
        )
    except (KeyError, TypeError, ValueError, InvalidKey) as error:
        raise UsageError(f"the plan of {folder} is damaged: {error}", try_="a new build") from error


def command_of(request: BuildRequest) -> str:
    """The command line that asks for the same again; a grid file stands for what it held."""
    words = ["handset", "lut", "build", "--device", request.device, "--runtime", request.runtime]
    if request.models:
        words += ["--for", ",".join(request.models)]
    if request.pieces:
        words += ["--pieces", ",".join(request.pieces)]
    settings = request.settings
    options = (
        ("--bundle", request.bundle, ""),
        ("--delegate", request.delegate, ""),
        ("--threads", settings.threads, USUAL.threads),
        ("--cpu-mask", hex(settings.cpu_mask), hex(USUAL.cpu_mask)),
        ("--minutes", f"{request.budget_s / 60:g}", "15"),
        ("--error", f"{100 * request.error:g}", "1"),
        ("--interval", f"{100 * settings.interval:g}", f"{100 * USUAL.interval:g}"),
    )
    words += [word for aar in request.aars for word in ("--aar", aar)]
    words += [word for name, value, usual in options if value != usual for word in (name, str(value))]
    if request.grid is None:
        words.append("--exact")
    elif request.grid != USUAL_GRID or request.kernels:
        words += ["--grid", "FILE"]
    return shlex.join(words)


def _grid(table: Any) -> Grid:
    if not isinstance(table, dict):
        raise TypeError(f"{table!r:.80} is no grid")
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return Grid(**fields)
