"""The state of a device around measuring: its cores, what it is like, what is set on it for a run and undone, when to wait."""

from devices.conditions.affinity import cpu_mask, online_cores
from devices.conditions.gates import Gates, wait_until_quiet
from devices.conditions.prepare import prepared
from devices.conditions.snapshot import Conditions, read_conditions
from devices.conditions.watch import Watched, parse_watched, watch_paths

__all__ = [
    "Conditions",
    "Gates",
    "Watched",
    "cpu_mask",
    "online_cores",
    "parse_watched",
    "prepared",
    "read_conditions",
    "wait_until_quiet",
    "watch_paths",
]
