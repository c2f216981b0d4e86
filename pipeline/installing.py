"""The runtimes that a run needs, on its device."""

from __future__ import annotations

from collections.abc import Sequence

from devices.bundle_store import KINDS, bundle_for
from devices.discovery import cache_dir
from devices.install import Installed, OnPush, install
from devices.transport import Transport
from pipeline.console import Console, Step
from pipeline.errors import UsageError


def install_bundles(
    kinds: Sequence[str], runtimes: Sequence[str], aars: Sequence[str], device: Transport, console: Console
) -> tuple[dict[str, Installed], list[str]]:
    """The bundles on the device, by kind, and what the user should know of them.

    Args: kinds: empty is the usual one of the device. runtimes: empty is all that a bundle has. aars: see `Request`.

    Raises: UsageError: a kind that there is not, or that is not for this device. DeviceError.
    """
    about = device.describe()
    kinds = tuple(dict.fromkeys(kinds)) or (("host",) if about.kind == "host" else ("linux",))
    if unknown := [one for one in kinds if one not in KINDS]:
        raise UsageError(f"there is no bundle {unknown[0]!r}", try_=", ".join(KINDS))
    if wrong := [one for one in kinds if (one == "host") != (about.kind == "host")]:
        fitting_kind = "host" if about.kind == "host" else "linux or android"
        raise UsageError(f"the bundle {wrong[0]!r} is not for {device.name}", try_=f"--bundle {fitting_kind}")
    if aars and "android" not in kinds:
        raise UsageError("--aar is for the android bundle only", try_="--bundle android")
    installed, notes = {}, []
    for one in kinds:
        with console.stage(f"building the {one} bundle for {about.abi}" if one != "host" else "building the runner") as step:
            bundle, said = bundle_for(one, about.abi, runtimes or None, aars, cache_dir(), step)
        notes += said
        with console.stage(f"the {one} bundle on {device.name}") as step:
            installed[one] = install(bundle, device, _told(step))
    return installed, notes


def _told(step: Step) -> OnPush:
    return lambda name, size: step(f"{name}, {size / 2**20:.1f} MiB")
