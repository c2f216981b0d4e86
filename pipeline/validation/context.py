"""Is what is about to be measured what the table was made of? Latencies of two contexts are never compared unawares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devices.bundle_store import bundle_for
from devices.discovery import cache_dir, open_device
from latency_luts import Context
from pipeline.console import Console
from pipeline.deploy import DELEGATES, RUNTIME_FORMATS
from pipeline.errors import UsageError
from pipeline.request import Request

FIELDS = ("device", "soc", "abi", "runtime", "runtime_sha256", "delegate", "threads", "simulated")


@dataclass(frozen=True)
class Difference:
    """A field of the context in which table and measurement differ."""

    field: str
    table: Any
    measured: Any


@dataclass(frozen=True)
class Place:
    """Where the networks will be measured.

    Args: bundle: the kind of the bundle that has the table's runtime. measured: the context's fields as they are there.
    """

    kind: str
    abi: str
    bundle: str
    measured: Mapping[str, Any]


def place_of(context: Context, request: Request, console: Console, *, allowed: bool) -> Place:
    """Looks at a device, which is not measured on yet, and at the runtime library that it will be given.

    Args: allowed: whether the device may be one that no table is made on, because it is emulated.

    Raises: UsageError: nothing runs the table's runtime; an emulated device that is not allowed. DeviceError: no such device,
    no bundle with that runtime.
    """
    if context.runtime not in RUNTIME_FORMATS:
        raise UsageError(
            f"the table is of the runtime {context.runtime!r}", try_=f"a table of {', '.join(RUNTIME_FORMATS)}"
        )
    with console.stage(f"looking at {request.device}"), open_device(request.device) as transport:
        about = transport.describe()
    if about.simulated and not allowed:
        raise UsageError(
            f"{about.name} is emulated: its times are not a phone's, and no table is judged by them",
            try_="the device that the table is of, or --allow-other-context, to see what the command does",
        )
    usual = "host" if about.kind == "host" else "android" if context.runtime == "tflite" else "linux"
    kind = next(iter(request.bundles), usual)
    with console.stage(f"building the {kind} bundle for {about.abi}") as step:
        bundle, _ = bundle_for(kind, about.abi, [context.runtime], request.aars, cache_dir(), step)
    delegates = DELEGATES[context.runtime]
    measured = {
        "device": about.name,
        "soc": about.model,
        "os_build": f"{about.os}, {about.kernel}",
        "abi": about.abi,
        "runtime": context.runtime,
        "runtime_version": bundle.versions[context.runtime],
        "runtime_sha256": bundle.libraries[context.runtime].sha256,
        "delegate": context.delegate if context.delegate in delegates else delegates[0],
        "threads": context.threads,
        "simulated": about.simulated,
    }
    return Place(about.kind, about.abi, kind, measured)


def differences(context: Context, place: Place) -> list[Difference]:
    return [
        Difference(name, getattr(context, name), place.measured[name])
        for name in FIELDS
        if getattr(context, name) != place.measured[name]
    ]


def check_context(context: Context, found: list[Difference], *, allowed: bool) -> None:
    """Raises: UsageError: the table's numbers were not measured at all; or fields differ and that is not allowed."""
    if context.simulated:
        raise UsageError(
            f"the table of {context.device} comes from a simulated device: its numbers are not measurements",
            try_="a table that was measured",
        )
    if found and not allowed:
        words = "; ".join(f"{one.field}: {_short(one.table)} and {_short(one.measured)}" for one in found)
        raise UsageError(
            f"the table and what would be measured differ in {words}",
            try_="a table of this device and runtime, or --allow-other-context",
        )


def _short(value: Any) -> str:
    return repr(value[:16] if isinstance(value, str) and len(value) == 64 else value)[:80]
