"""The same link over USB. It needs the system's libusb, and no adb server that holds the phone."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.adb.errors import UDEV
from devices.adb.keys import Keys
from devices.adb.stream import PATIENCE_S
from devices.errors import NoSuchDevice

if TYPE_CHECKING:
    from devices.adb.direct import DirectLink

DIALOG_S = 10.0
BUS = Path("/sys/bus/usb/devices")
INTERFACE = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
ADB_INTERFACE = ("ff", "42", "01")


def usb_serials() -> list[str]:
    """The serials of the phones on USB that can be asked for it; empty without libusb."""
    if not adb_on_usb():
        return []
    try:
        transport = _usb_transport()
    except NoSuchDevice:
        return []
    import usb1

    serials = []
    try:
        found = list(transport.find_all_adb_devices())
    except (OSError, usb1.USBError):  # the libusb below it is not there, or may not look
        return []
    for one in found:
        try:
            serials.append(str(one.serial_number))
        except usb1.USBError:  # seen, but not ours to open: the udev rule is missing
            continue
    return serials


def adb_on_usb() -> bool:
    """Whether anything on USB speaks adb, as Linux tells in files without a library; True on other systems."""
    if not sys.platform.startswith("linux"):
        return True
    for interface in BUS.glob("*:*"):
        with contextlib.suppress(OSError):
            if tuple((interface / name).read_text().strip() for name in INTERFACE) == ADB_INTERFACE:
                return True
    return False


def connect_usb(
    serial: str, *, keys: Keys | None = None, patience_s: float = PATIENCE_S, dialog_s: float = DIALOG_S
) -> DirectLink:
    """A link to the phone with that serial.

    Raises: NoSuchDevice: libusb1 is missing; those of the library: not there, not ours to open, held by a server.
    """
    from adb_shell.exceptions import (
        TcpTimeoutException,
        UsbReadFailedError,
        UsbWriteFailedError,
    )

    from devices.adb.direct import DirectLink

    base = _usb_transport()
    import usb1

    class WholeUsb(base):  # type: ignore[misc,valid-type]
        """The library's USB transport that sends all and tells a time-out from a lost link."""

        def connect(self, transport_timeout_s: float | None = None) -> None:
            try:
                super().connect(transport_timeout_s)
            except usb1.USBError as error:
                raise UsbReadFailedError(f"cannot open it ({error})", error) from error

        def bulk_read(self, numbytes: int, transport_timeout_s: float | None = None) -> bytes:
            try:
                # libusb takes 0 as for ever
                data: bytes = super().bulk_read(numbytes, max(0.001, transport_timeout_s or 0.0))
            except UsbReadFailedError as error:
                if isinstance(error.usb_error, usb1.USBErrorTimeout):
                    raise TcpTimeoutException(str(error)) from error
                raise
            return data

        def read_into(self, buffer: memoryview, timeout_s: float) -> int:
            data = self.bulk_read(len(buffer), timeout_s)
            buffer[: len(data)] = data
            return len(data)

        def write_packet(self, header: bytes, payload: Any, timeout_s: float) -> None:
            """In two: adbd takes a header and a payload as transfers of their own."""
            for part in (header, payload):
                left = memoryview(part)
                while left:
                    sent = self.bulk_write(bytes(left), timeout_s)
                    if sent <= 0:
                        raise UsbWriteFailedError("nothing was sent")
                    left = left[sent:]

        def cut(self) -> bool:
            return self._transport is None

        def unsent_bytes(self) -> int:
            return 0

    class UsbLink(DirectLink):
        shared = False

    return UsbLink(WholeUsb.find_adb(serial), keys=keys, patience_s=patience_s, dialog_s=dialog_s)


def _usb_transport() -> Any:
    """The library's class. Raises: NoSuchDevice: libusb1, or the libusb below it, is not there."""
    try:
        import usb1  # noqa: F401
        from adb_shell.transport.usb_transport import UsbTransport
    except (ImportError, OSError) as error:
        raise NoSuchDevice(
            f"USB cannot be used without an adb server: {error}",
            try_=f"adb start-server, or pip install libusb1 and {UDEV}",
        ) from error
    return UsbTransport
