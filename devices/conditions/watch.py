"""Which files to read again and again during a run, and what their texts say: clocks, temperatures, load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

from devices.conditions.affinity import CPU, whole
from devices.conditions.ask import read_files
from devices.conditions.snapshot import load_of
from devices.conditions.zones import BATTERY, ZONE_PATTERNS, battery_celsius, celsius, zone_temperatures
from devices.transport import Transport

MAX_PATHS = 32
MAX_ZONES = 8
LOAD = "/proc/loadavg"
_POLICY = re.compile(rf"{CPU}/cpufreq/policy([0-9]{{1,3}})/scaling_cur_freq", re.ASCII)
_CORE = re.compile(rf"{CPU}/cpu([0-9]{{1,3}})/cpufreq/scaling_cur_freq", re.ASCII)
_ZONE = re.compile(r"/sys/class/thermal/thermal_zone[0-9]{1,3}/temp", re.ASCII)


class Watched(TypedDict):
    """One look. clock_khz: the number of a cluster's first core -> its clock; what could not be read is not in it.

    temperature_c: the hottest of the zones watched.
    """

    load1: float | None
    temperature_c: float | None
    battery_c: float | None
    clock_khz: dict[str, int]


def watch_paths(transport: Transport) -> list[str]:
    """The paths worth reading during a run on this device, at most 32, each of which could be read just now.

    The clock of each cluster (where the kernel has no policies, of each core), the 8 thermal zones that are hottest now,
    the load, the battery's temperature. One command.
    """
    clocks = (f"{CPU}/cpufreq/policy[0-9]*/scaling_cur_freq", f"{CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq")
    texts = read_files(transport, (LOAD, BATTERY, *clocks, *ZONE_PATTERNS))
    single = [path for path in (LOAD, BATTERY) if path in texts]
    zones = [path for path in zone_temperatures(texts) if _ZONE.fullmatch(path)][:MAX_ZONES]
    room = MAX_PATHS - len(single) - len(zones)
    return single + (_clocks(texts, _POLICY) or _clocks(texts, _CORE))[:room] + zones


def _clocks(texts: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    found = {
        path: int(match[1]) for path in texts if (match := pattern.fullmatch(path)) and whole(texts[path]) is not None
    }
    return sorted(found, key=lambda path: found[path])


def parse_watched(paths: Sequence[str], values: Sequence[str | None]) -> Watched:
    """The texts of `paths`, in their order, as numbers; None, anything odd and a path not of `watch_paths` are left out."""
    seen: Watched = {"load1": None, "temperature_c": None, "battery_c": None, "clock_khz": {}}
    temperatures = []
    for path, value in zip(paths, values, strict=False):
        text = value[:200].strip() if isinstance(value, str) else ""
        clock = _POLICY.fullmatch(path) or _CORE.fullmatch(path)
        if clock and (khz := whole(text)) is not None:
            seen["clock_khz"][clock[1]] = khz
        elif path == LOAD:
            seen["load1"] = load_of(text)
        elif path == BATTERY:
            seen["battery_c"] = battery_celsius(text)
        elif _ZONE.fullmatch(path) and (degrees := celsius(text)) is not None:
            temperatures.append(degrees)
    seen["temperature_c"] = max(temperatures, default=None)
    return seen
