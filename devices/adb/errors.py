"""The one place where exceptions of adb-shell, adbutils and the sockets below them become ours.

They are named by text, so that nothing is imported to build the table; a test holds it against the libraries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from devices.errors import DeviceError, DeviceLost, NoSuchDevice

CABLE = "look at the cable or the Wi-Fi, then again"
KEY_DIALOG = "unlock the phone, answer its dialog 'Allow USB debugging?' with 'Always allow', then again"
UDEV = "the udev rules of your distribution (package android-sdk-platform-tools-common) and the group plugdev"
PAIRING = "adb pair and adb connect: an adb server speaks its encryption, then DEVICE= what `adb devices` lists"

_ADB, _UTILS, _OURS = "adb_shell.exceptions.", "adbutils.errors.", "devices.adb.stream."

TABLE: dict[str, tuple[type[DeviceError], str, str]] = {
    _ADB + "AdbCommandFailureException": (DeviceError, "refused it", ""),
    _ADB + "AdbConnectionError": (DeviceLost, "is not connected", CABLE),
    _ADB + "AdbTimeoutError": (DeviceLost, "does not answer", CABLE),
    _ADB + "DeviceAuthError": (NoSuchDevice, "is unauthorized: it does not know this computer's key", KEY_DIALOG),
    _ADB + "InvalidChecksumError": (DeviceLost, "sent a damaged packet", CABLE),
    _ADB + "InvalidCommandError": (DeviceLost, "does not speak adb's protocol", "the port of adbd, most often 5555"),
    _ADB + "InvalidTransportError": (DeviceError, "cannot be reached this way", ""),
    _ADB + "InvalidResponseError": (DeviceLost, "does not speak adb's protocol", "the port of adbd, most often 5555"),
    _ADB + "DevicePathInvalidError": (DeviceError, "refused the path", ""),
    _ADB + "PushFailedError": (DeviceError, "refused the file", ""),
    _ADB + "TcpTimeoutException": (DeviceLost, "does not answer", CABLE),
    _ADB + "UsbDeviceNotFoundError": (NoSuchDevice, "is not on USB", UDEV),
    _ADB + "UsbReadFailedError": (DeviceLost, "cannot be read from over USB", "end a running adb server; " + UDEV),
    _ADB + "UsbWriteFailedError": (DeviceLost, "cannot be written to over USB", "end a running adb server; " + UDEV),
    _UTILS + "AdbError": (DeviceLost, "was lost by its adb server", "adb devices"),
    _UTILS + "AdbTimeout": (DeviceLost, "is behind an adb server that does not answer", "adb kill-server"),
    _UTILS + "AdbConnectionError": (DeviceLost, "is behind an adb server that cannot be reached", "adb start-server"),
    _UTILS + "AdbInstallError": (DeviceError, "refused an app", ""),
    _UTILS + "AdbSyncError": (DeviceLost, "refused the file", ""),
    _OURS + "Silence": (DeviceLost, "does not answer", CABLE),
    _OURS + "Refused": (DeviceLost, "refused it", "adb devices"),
    _OURS + "ProtocolError": (DeviceLost, "does not speak adb's protocol", "the port of adbd, most often 5555"),
    "devices.adb.direct.TlsWanted": (
        NoSuchDevice,
        "wants an encrypted link (Android 11's wireless debugging)",
        PAIRING,
    ),
    "builtins.OSError": (DeviceLost, "was lost", CABLE),
    "builtins.EOFError": (DeviceLost, "was lost", CABLE),
}


def translate(error: BaseException, device: str, doing: str) -> DeviceError | None:
    """Ours for a foreign error: "DEVICE was lost while DOING: details"; None for one that is not in the table."""
    for kind in type(error).__mro__:
        found = TABLE.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            ours, what, try_ = found
            details = clean(str(error), 200)
            return ours(f"{device} {what} while {doing}" + (f": {details}" if details else ""), try_=try_)
    return None


@contextlib.contextmanager
def mapped(device: str, doing: str) -> Iterator[None]:
    """Raises ours in place of what the libraries raise in the block; anything else passes as it is."""
    try:
        yield
    except Exception as error:
        ours = translate(error, device, doing)
        if ours is None:
            raise
        raise ours from error


def clean(text: str, limit: int) -> str:
    """One line that is safe to print, at most `limit` characters. A phone's text may hold anything."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
