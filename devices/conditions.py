"""The state of a device before and after measuring: load, temperature, clocks, which cores are there and how fast.

Everything is read from the kernel's own text files through the transport, so that a phone and a host are read alike.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from devices.cores import choose_mask, parse_cpu_list
from devices.transport import Transport

CPU = "/sys/devices/system/cpu"
STATUS = "/proc/self/status"


@dataclass(frozen=True)
class Conditions:
    """None where the device does not say. Temperature: the hottest zone that reports a sane value."""

    load1: float | None
    temperature_c: float | None
    clocks_khz: tuple[int | None, ...]


def online_cores(transport: Transport) -> list[int]:
    """The cores below 64 that are online and that a command may run on (a container's are fewer). [0]: unknown."""
    texts = transport.read_texts([f"{CPU}/online", STATUS])
    allowed = re.search(r"^Cpus_allowed_list:(.*)", texts.get(STATUS, ""), re.MULTILINE)
    lists = []
    for text in (texts.get(f"{CPU}/online"), allowed and allowed[1]):
        with contextlib.suppress(ValueError):
            lists.append(set(parse_cpu_list(text or "")))
    return sorted(set.intersection(*lists)) if lists else [0]


def cpu_mask(transport: Transport, threads: int) -> int:
    """The mask to run `threads` threads on: see `cores.choose_mask`. Cores of unknown speed count as equal.

    0, which is no mask, where nothing may run on any core below 64.
    """
    cores = online_cores(transport)
    for source in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        paths = {core: f"{CPU}/cpu{core}/{source}" for core in cores}
        texts = transport.read_texts(list(paths.values()))
        speeds = {core: _whole(texts.get(path)) for core, path in paths.items()}
        known = {core: speed for core, speed in speeds.items() if speed is not None}
        if len(known) == len(cores):
            return choose_mask(known, threads)
    return choose_mask(dict.fromkeys(cores, 1), threads)


def read_conditions(transport: Transport) -> Conditions:
    cores = range(max(online_cores(transport), default=0) + 1)
    clocks = [f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
    zones = [f"/sys/class/thermal/thermal_zone{zone}/temp" for zone in range(4)]
    texts = transport.read_texts(["/proc/loadavg", *clocks, *zones])
    load = re.match(r"\d+\.\d+", texts.get("/proc/loadavg", ""))
    temperatures = [int(texts[zone]) / 1000 for zone in zones if re.fullmatch(r"-?\d{1,6}\s*", texts.get(zone, ""))]
    sane = [celsius for celsius in temperatures if 0 < celsius < 130]
    return Conditions(
        load1=float(load[0]) if load else None,
        temperature_c=max(sane) if sane else None,
        clocks_khz=tuple(_whole(texts.get(path)) for path in clocks),
    )


def _whole(text: str | None) -> int | None:
    """A device's number, or None where it wrote something else."""
    return int(text) if text is not None and re.fullmatch(r"\s*[0-9]{1,12}\s*", text) else None
