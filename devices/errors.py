"""What a device can do wrong, sorted by who must act.

DeviceError              (3)  base
├── NoSuchDevice         (3)  the caller: no device of that name; the message lists those that are there
├── DeviceBusy           (3)  another bench holds the device
├── DeviceLost           (3)  the link or the machine went away
│   └── CommandTimeout   (3)  a command did not end within its limit and was killed
├── TransferError        (3)  a file did not arrive whole
├── NotQuiet             (4)  the device is there but too hot, too busy or too empty to be measured on, and stayed so
└── BundleError          (3)  the runner or a runtime library is missing, was tampered with or cannot be built
"""

from __future__ import annotations


class DeviceError(Exception):
    """Args: message: what was asked and what was found; try_: the next thing to do."""

    exit_status = 3

    def __init__(self, message: str, *, try_: str = "") -> None:
        super().__init__(f"{message}; try: {try_}" if try_ else message)
        self.try_ = try_


class NoSuchDevice(DeviceError):
    pass


class DeviceBusy(DeviceError):
    pass


class DeviceLost(DeviceError):
    pass


class CommandTimeout(DeviceLost):
    pass


class TransferError(DeviceError):
    pass


class NotQuiet(DeviceError):
    exit_status = 4


class BundleError(DeviceError):
    pass
