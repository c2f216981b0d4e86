"""Which phones are there: those of an adb server, those on USB, one at an address. None is spoken to but to describe it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from devices.adb.describe import UNKNOWN
from devices.adb.errors import KEY_DIALOG, UDEV, clean
from devices.adb.phone import AdbTransport
from devices.adb.stream import PATIENCE_S, Link
from devices.errors import DeviceError, NoSuchDevice
from devices.transport import DeviceDescription

SERVER_PORT = 5037
LOOK_S = 0.5
"""How long an adb server that may not be there is waited for."""
DESCRIBE_S = 5.0
"""How long a phone may be silent while it is only looked at."""
READY = "device"
REMEDIES = {
    "unauthorized": KEY_DIALOG,
    "authorizing": KEY_DIALOG,
    "no permissions": UDEV,
    "offline": "unplug it and plug it in again, or adb reconnect; a phone that restarts needs a minute",
    "recovery": "restart it into Android (adb reboot)",
    "sideload": "restart it into Android (adb reboot)",
    "bootloader": "restart it into Android (fastboot reboot)",
}

Connect = Callable[[float], Link]
"""Makes a link with that patience in seconds."""


@dataclass(frozen=True)
class Phone:
    """A phone that was seen. state: adb's word; "device" is one that can be used."""

    serial: str
    state: str
    connect: Connect

    def open(self, patience_s: float = PATIENCE_S) -> AdbTransport:
        """Raises: NoSuchDevice: what stands in the way, and what to do."""
        if self.state != READY:
            remedy = REMEDIES.get(self.state, "adb devices, adb reconnect")
            raise NoSuchDevice(f"{clean(self.serial, 80)} is there but {clean(self.state, 40)}", try_=remedy)
        return AdbTransport(self.serial, lambda: self.connect(patience_s), patience_s=patience_s)

    def properties(self) -> dict[str, str]:
        """Empty where it cannot be asked."""
        with contextlib.suppress(DeviceError):
            with self.open(DESCRIBE_S) as phone:
                assert isinstance(phone, AdbTransport)
                return phone.properties()
        return {}

    def describe(self) -> DeviceDescription:
        """Of a phone that cannot be asked, only its name and its state."""
        state = self.state
        if state == READY:
            try:
                with self.open(DESCRIBE_S) as phone:
                    return phone.describe()
            except DeviceError:
                state = "offline"
        return DeviceDescription(
            name=clean(self.serial, 80),
            kind="adb",
            model=UNKNOWN,
            os=UNKNOWN,
            kernel=UNKNOWN,
            abi=UNKNOWN,
            cores=0,
            memory_bytes=None,
            state=clean(state, 40),
        )


def find_phones() -> list[Phone]:
    """Those of the adb server; those on USB only where no server runs, which would hold them.

    Raises: DeviceError: ADB_SERVER_SOCKET is no address.
    """
    address = server_address()
    return server_phones(address) if _listens(address) else usb_phones()


def server_phones(address: tuple[str, int]) -> list[Phone]:
    """What an adb server lists, which may run on another machine. Empty where it does not answer."""
    from devices.adb.server import ServerLink, list_phones

    def connect(serial: str) -> Connect:
        return lambda patience_s: ServerLink(serial, address, patience_s)

    return [Phone(one.serial, one.state, connect(one.serial)) for one in list_phones(address)]


def usb_phones() -> list[Phone]:
    """What is on USB; empty without libusb1."""
    from devices.adb.usb import connect_usb, usb_serials

    def connect(serial: str) -> Connect:
        return lambda patience_s: connect_usb(serial, patience_s=patience_s)

    return [Phone(serial, READY, connect(serial)) for serial in usb_serials()]


def phone_at(host: str, port: int, name: str) -> Phone:
    """The phone whose adbd listens there."""

    def connect(patience_s: float) -> Link:
        from devices.adb.direct import connect_tcp

        return connect_tcp(host, port, patience_s=patience_s)

    return Phone(name, READY, connect)


def server_address() -> tuple[str, int]:
    """Where the adb server is, by the variables that adb itself reads.

    Raises: DeviceError: one is set to something that is no host and port.
    """
    named = os.environ.get("ADB_SERVER_SOCKET")
    if named:
        return parse_address(named.removeprefix("tcp:"))
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    return parse_address(f"{host}:{os.environ.get('ANDROID_ADB_SERVER_PORT') or SERVER_PORT}")


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT, or PORT alone for this machine. Raises: DeviceError."""
    found = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):)?([0-9]{1,5})", text)
    if found is None or not 0 < int(found[2]) < 65536:
        raise DeviceError(
            f"{clean(text, 80)!r} is no HOST:PORT", try_="ADB_SERVER_SOCKET=tcp:HOST:5037, DEVICE=HOST:5555"
        )
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


def _listens(address: tuple[str, int]) -> bool:
    """Asked before anything of adbutils is loaded, which by itself would start a server."""
    try:
        socket.create_connection(address, timeout=LOOK_S).close()
    except OSError:
        return False
    return True
