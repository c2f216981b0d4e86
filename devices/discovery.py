"""Which devices are there, and which one a name means. A name that fits none or two is an error that lists them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devices.adb.errors import clean
from devices.adb.find import READY, REMEDIES, Phone, find_phones, parse_address, phone_at
from devices.errors import DeviceError, NoSuchDevice
from devices.host import HostTransport
from devices.profile_spec import DeviceProfile, load_profiles
from devices.transport import DeviceDescription, Transport

AT_ONCE = 8
CONNECT = "connect a phone, allow USB debugging on it and run adb start-server; or DEVICE=HOST:PORT of an adbd"


def cache_dir() -> Path:
    """Where built and deployed files are kept between runs: $XDG_CACHE_HOME/handset or ~/.cache/handset."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "handset"


def list_devices() -> list[DeviceDescription]:
    """This machine; then what a running adb server lists, or what USB shows where none runs. No server is started.

    `state` says which can be measured on now. Raises: DeviceError: ADB_SERVER_SOCKET is no address.
    """
    phones = find_phones()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return [_host().describe(), *pool.map(Phone.describe, phones)]


def open_device(name: str) -> Transport:
    """The device of that name: a profile's, a serial as `handset devices` lists it, or the HOST:PORT of an adbd.

    A serial that an adb server lists is reached through that server, be it a HOST:PORT or not: it may be one that only
    the server can speak to.

    Raises: NoSuchDevice: nothing here has that name, two phones have, or it does not let itself be used; the message
    lists what is here and says what to do. DeviceError: the phone is there and does not answer.
    """
    profile = load_profiles().get(name)
    if profile is not None and profile.transport == "host":
        return _host()
    phones = find_phones()
    if profile is not None:
        return _open_kind(profile, phones)
    for phone in phones:
        if phone.serial == name:
            return phone.open()
    return _open_address(name, phones)


def _host() -> HostTransport:
    return HostTransport(cache_dir() / "work")


def _open_kind(profile: DeviceProfile, phones: Sequence[Phone]) -> Transport:
    """The one phone that fits a profile."""
    ready = [phone for phone in phones if phone.state == READY]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        properties = list(pool.map(Phone.properties, ready))
    fitting = [phone for phone, its in zip(ready, properties, strict=True) if profile.fits(its)]
    if len(fitting) == 1:
        return fitting[0].open()
    wanted = f"{profile.name!r} ({profile.description})"
    if fitting:
        serials = ", ".join(clean(phone.serial, 80) for phone in fitting)
        raise NoSuchDevice(f"{len(fitting)} phones are {wanted}: {serials}", try_=f"DEVICE={fitting[0].serial}")
    raise NoSuchDevice(f"no phone is {wanted}; here are: {_listing(phones)}", try_=_advice(phones))


def _open_address(name: str, phones: Sequence[Phone]) -> Transport:
    """The phone whose adbd listens at the name, which is a HOST:PORT. It is connected to, so that a wrong one fails here."""
    try:
        host, port = parse_address(name if ":" in name else "")
    except DeviceError:
        raise NoSuchDevice(f"no device named {name!r}; here are: {_listing(phones)}", try_=_advice(phones)) from None
    transport = phone_at(host, port, name).open()
    try:
        transport.check()
    except NoSuchDevice:
        transport.close()
        raise
    except DeviceError as error:
        transport.close()
        raise NoSuchDevice(
            f"no device named {name!r} ({error}); here are: {_listing(phones)}",
            try_="adb tcpip 5555 on that phone, its Wi-Fi",
        ) from error
    return transport


def _listing(phones: Sequence[Phone]) -> str:
    host = _host().describe()
    found = [f"{host.name} ({host.model})", *(f"{clean(one.serial, 80)} ({clean(one.state, 40)})" for one in phones)]
    return ", ".join(found)


def _advice(phones: Sequence[Phone]) -> str:
    """What makes a phone that is there usable; how one comes to be there."""
    remedies = list(dict.fromkeys(REMEDIES[phone.state] for phone in phones if phone.state in REMEDIES))
    if remedies:
        return "; or ".join(remedies)
    return f"--device {phones[0].serial}" if phones else f"--device host; {CONNECT}"
