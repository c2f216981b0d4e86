"""Files and commands on a machine that runs models, and the on-device runner. A leaf: no torch, no tables."""

from devices.discovery import list_devices, open_device
from devices.errors import DeviceError
from devices.transport import CommandResult, DeviceDescription, Transport

__all__ = ["CommandResult", "DeviceDescription", "DeviceError", "Transport", "list_devices", "open_device"]
