"""One bench at a time on a device: two at once would time each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from devices.conditions.snapshot import BOOT_ID, boot_id_of
from devices.errors import DeviceBusy, DeviceError
from devices.host import HostTransport
from devices.transport import Transport

POLL_S = 0.2


def lock_key(device: Transport) -> str:
    """What a device is by whatever name it is reached, HOST:PORT or the serial that an adb server gives it: its boot id.

    Its name where it does not say; "host" for this machine. Raises: DeviceLost.
    """
    if isinstance(device, HostTransport):
        return device.name
    boot_id = boot_id_of(device.read_texts([BOOT_ID]).get(BOOT_ID, ""))
    return device.name if boot_id is None else f"boot-{boot_id}"


@contextlib.contextmanager
def device_lock(
    device: str, folder: Path, *, wait_s: float, on_wait: Callable[[str], None], key: str = ""
) -> Iterator[None]:
    """Holds a device for this process; the kernel lets go of it however the process ends.

    Args:
        device: its name, for messages.
        key: what it is locked by, see `lock_key`; the name where there is none.
        wait_s: how long to wait for another bench to end; 0 does not wait.
        on_wait: called once, with a line about who holds the device, before the wait.

    Raises: DeviceBusy: it is still held after `wait_s`. DeviceError: the lock file cannot be made.
    """
    path = folder / (re.sub(r"[^A-Za-z0-9._-]", "_", key or device) + ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(f"cannot make the lock file {path}: {error.strerror}") from error
    try:
        _acquire(handle, device, wait_s, on_wait)
        with contextlib.suppress(OSError):  # who holds it is for the waiting one's message only
            os.truncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, device: str, wait_s: float, on_wait: Callable[[str], None]) -> None:
    deadline, told = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace") or "?"
            line = f"device {device} is held by another bench (process {holder})"
            if time.monotonic() >= deadline:
                raise DeviceBusy(line, try_="wait for it to end, or --wait SECONDS") from None
            if not told:
                on_wait(f"{line}; waiting up to {wait_s:.0f} s")
                told = True
            time.sleep(POLL_S)
