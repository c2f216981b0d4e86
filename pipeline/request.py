"""What a bench was asked for: from the command line, in the plan of its run folder, and as a command line again."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from devices.conditions import Gates
from devices.transport import DeviceDescription
from pipeline.errors import UsageError
from pipeline.settings import Settings
from pipeline.version import VERSION

KIND = "bench"

IDENTITY = ("kind", "model", "os", "abi")
"""What a device says of itself that stays as it is for as long as a run may go on."""

ZOO: Mapping[str, Any] = {"budget_s": 2.0, "launch_s": 0.5, "kernels_s": 0.2}
"""Settings of a bench of the whole zoo where nothing else is asked: some hundred cases in minutes, not in half an hour."""

Limits = TypeVar("Limits", Settings, Gates)


@dataclass(frozen=True)
class Request:
    """What was asked.

    Args:
        models: empty is the default set.
        runtimes: empty is all that the bundles have.
        bundles: kinds; empty is the usual one of the device: "host", or "linux" for a phone.
        aars: paths or Maven coordinates of the Android libraries for the android bundle; empty is the usual one.
        delegate: what runs the kernels of the runtimes that have a choice; empty is the usual one.
        gates: what the device must be like before a launch; None measures whatever it is like.
        settle_s: how long to wait for that.
        keep_settings: the phone's settings are not touched.
        allow_mismatch: a model whose outputs on the device are not torch's is timed all the same.
        wait_s: how long to wait for another bench on the device.
        weights: FILE for a single model, or MODEL=FILE.
        zoo: all networks of the zoo instead of `models`; one that cannot be exported is left out.
        resume: the run folder to go on with.
    """

    models: tuple[str, ...]
    device: str
    runtimes: tuple[str, ...]
    settings: Settings
    reports: Path
    bundles: tuple[str, ...] = ()
    aars: tuple[str, ...] = ()
    delegate: str = ""
    gates: Gates | None = dataclasses.field(default_factory=Gates)
    settle_s: float = 600.0
    keep_settings: bool = False
    allow_mismatch: bool = False
    wait_s: float = 600.0
    weights: tuple[str, ...] = ()
    zoo: bool = False
    resume: Path | None = None


def plan_of(request: Request, device: DeviceDescription) -> dict[str, Any]:
    """What a resumed run needs to know, and on what it was begun."""
    return {
        "kind": KIND,
        "handset": VERSION,
        "models": list(request.models),
        "weights": list(request.weights),
        "zoo": request.zoo,
        "device": request.device,
        "runtimes": list(request.runtimes),
        "bundles": list(request.bundles),
        "aars": list(request.aars),
        "delegate": request.delegate,
        "keep_settings": request.keep_settings,
        "allow_mismatch": request.allow_mismatch,
        "gates": None if request.gates is None else dataclasses.asdict(request.gates),
        "settings": dataclasses.asdict(request.settings),
        "begun_on": {key: getattr(device, key) for key in IDENTITY},
    }


def planned(plan: Mapping[str, Any], folder: Path) -> Request:
    """The request of a run that is to go on. What plans of earlier versions did not say yet has its default.

    Raises: UsageError: the plan is damaged, or that of another command.
    """
    check_kind(plan, KIND, folder)
    try:
        gates = plan.get("gates", {})
        return Request(
            models=read_texts(plan, "models"),
            weights=read_texts(plan, "weights"),
            zoo=plan.get("zoo") is True,
            device=read_text(plan["device"]),
            runtimes=read_texts(plan, "runtimes"),
            bundles=read_texts(plan, "bundles"),
            aars=read_texts(plan, "aars"),
            delegate=read_text(plan.get("delegate", "")),
            gates=None if gates is None else read_numbers(Gates(), gates),
            keep_settings=plan.get("keep_settings") is True,
            allow_mismatch=plan.get("allow_mismatch") is True,
            settings=read_numbers(Settings(), plan["settings"]),
            reports=folder.parent,
            resume=folder,
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"the plan of {folder} is damaged: {error}", try_="a new run") from error


def check_kind(plan: Mapping[str, Any], kind: str, folder: Path) -> None:
    """Raises: UsageError: the plan is that of another command."""
    if plan.get("kind") != kind:
        raise UsageError(f"{folder} is a run of handset {str(plan.get('kind'))[:20]}, not of handset {kind}")


def check_same_device(plan: Mapping[str, Any], device: DeviceDescription, folder: Path) -> None:
    """Raises: UsageError: the run was begun on another device, whose times cannot be mixed with this one's."""
    begun_on = plan.get("begun_on")
    if not isinstance(begun_on, dict):
        return  # a plan of an earlier version
    for key in IDENTITY:
        if begun_on.get(key) != (found := getattr(device, key)):
            what = f"{device.name} is not the device that {folder} was begun on: its {key} is {found}, was {begun_on.get(key)}"
            raise UsageError(what, try_="that device, or a new run")


def command_of(request: Request) -> str:
    """The command line that asks for the same again."""
    words = ["handset", "bench", *request.models, *(["--zoo"] if request.zoo else []), "--device", request.device]
    settings, default = request.settings, Settings(**ZOO if request.zoo else {})
    options = (
        ("--runtime", ",".join(request.runtimes), ""),
        ("--bundle", ",".join(request.bundles), ""),
        ("--delegate", request.delegate, ""),
        ("--threads", settings.threads, default.threads),
        ("--cpu-mask", hex(settings.cpu_mask), hex(default.cpu_mask)),
        ("--interval", f"{100 * settings.interval:g}", f"{100 * default.interval:g}"),
        ("--budget", f"{settings.budget_s:g}", f"{default.budget_s:g}"),
        ("--launches", settings.launches, default.launches),
        ("--limit", f"{settings.limit_s:g}", f"{default.limit_s:g}"),
    )
    words += [word for text in request.weights for word in ("--weights", text)]
    words += [word for aar in request.aars for word in ("--aar", aar)]
    words += [word for name, value, usual in options if value != usual for word in (name, str(value))]
    switches = {
        "--keep-settings": request.keep_settings,
        "--allow-mismatch": request.allow_mismatch,
        "--ignore-conditions": request.gates is None,
    }
    return shlex.join([*words, *(name for name, on in switches.items() if on)])


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def read_texts(plan: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = plan.get(key, [])
    if not isinstance(values, list):
        raise TypeError(f"{key} is no list")
    return tuple(map(read_text, values))


def read_numbers(default: Limits, given: Any) -> Limits:
    """`default` with what was written down. Raises: TypeError: another kind of value, or a name that is not known."""
    if not isinstance(given, dict):
        raise TypeError(f"{given!r:.80} is no table of numbers")
    for name, value in given.items():
        kind = type(getattr(default, name, None))
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise TypeError(f"{name} cannot be {value!r:.80}")
        if isinstance(value, float) and not math.isfinite(value):
            raise TypeError(f"{name} cannot be {value}")
    return dataclasses.replace(default, **given)
