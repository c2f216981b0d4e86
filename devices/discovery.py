"""Which devices are there, and which one a name means. A name that fits none or two is an error that lists them."""

from __future__ import annotations

import os
from pathlib import Path

from devices.errors import NoSuchDevice
from devices.host import HostTransport
from devices.profile_spec import load_profiles
from devices.transport import DeviceDescription, Transport


def cache_dir() -> Path:
    """Where built and deployed files are kept between runs: $XDG_CACHE_HOME/handset or ~/.cache/handset."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "handset"


def list_devices() -> list[DeviceDescription]:
    """Every device that can be measured on now."""
    return [HostTransport(cache_dir() / "work").describe()]


def open_device(name: str) -> Transport:
    """The device of that name.

    Raises: NoSuchDevice: nothing here has that name; the message lists what is here.
    """
    profile = load_profiles().get(name)
    if profile is None or profile.transport != "host":
        found = ", ".join(f"{device.name} ({device.model})" for device in list_devices())
        raise NoSuchDevice(f"no device named {name!r}; here are: {found}", try_="--device host")
    return HostTransport(cache_dir() / "work")
