"""Which cores are there, how fast they are, and so the mask to run on: one command, whatever the device."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from devices.conditions.ask import read_files
from devices.cores import MAX_CORES, choose_mask, parse_cpu_list
from devices.transport import Transport

CPU = "/sys/devices/system/cpu"
STATUS = "/proc/self/status"
ONLINE = f"{CPU}/online"
SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")
"""Relative speeds of cores, the better one first."""


def online_cores(transport: Transport) -> list[int]:
    """The cores below 64 that are online and that a command may run on (a container's are fewer). [0]: unknown."""
    return usable_cores(read_files(transport, (ONLINE, STATUS)))


def cpu_mask(transport: Transport, threads: int) -> int:
    """The mask to run `threads` threads on: see `cores.choose_mask`. Cores of unknown speed count as equal.

    0, which is no mask, where nothing may run on any core below 64.
    """
    speeds = [f"{CPU}/cpu[0-9]*/{speed}" for speed in SPEEDS]
    return mask_of(read_files(transport, (ONLINE, STATUS, *speeds)), threads)


def usable_cores(texts: Mapping[str, str]) -> list[int]:
    allowed = re.search(r"^Cpus_allowed_list:(.*)", texts.get(STATUS, ""), re.MULTILINE)
    lists = []
    for text in (texts.get(ONLINE), allowed and allowed[1]):
        with contextlib.suppress(ValueError):
            lists.append(set(parse_cpu_list(text or "")))
    return sorted(set.intersection(*lists)) if lists else [0]


def mask_of(texts: Mapping[str, str], threads: int) -> int:
    """The mask, from the texts of the device's files."""
    cores = usable_cores(texts)
    for source in SPEEDS:
        speeds = {core: whole(texts.get(f"{CPU}/cpu{core}/{source}")) for core in cores}
        known = {core: speed for core, speed in speeds.items() if speed is not None}
        if len(known) == len(cores):
            return choose_mask(known, threads)
    return choose_mask(dict.fromkeys(cores, 1), threads)


def clocks_of(texts: Mapping[str, str]) -> tuple[int | None, ...]:
    """The clock of each core in kHz, from core 0 to the last one that is online."""
    last = 0
    with contextlib.suppress(ValueError):
        last = max(parse_cpu_list(texts.get(ONLINE, "")), default=0)
    clocks = [whole(texts.get(f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq")) for core in range(MAX_CORES)]
    said = [core for core, khz in enumerate(clocks) if khz is not None]
    return tuple(clocks[: max(last, *said, 0) + 1])


def whole(text: str | None) -> int | None:
    """A device's number, or None where it wrote something else."""
    return int(text.strip()) if text is not None and re.fullmatch(r"\s*[0-9]{1,12}\s*", text, re.ASCII) else None
