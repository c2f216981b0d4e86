"""Which cores to run on, computed from what the device says and never from another device's layout.

Linux tells relative speed as `cpu_capacity` (arm64) or `cpuinfo_max_freq`; a cluster is the cores that share a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_CORES = 64


def parse_cpu_list(text: str) -> list[int]:
    """The kernel's list form, `0-3,6`, as numbers. Cores beyond 63 are left out: a mask has 64 bits.

    Raises: ValueError: it is not such a list.
    """
    if not re.fullmatch(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", text.strip(), re.ASCII):
        raise ValueError(f"not a list of cores: {text.strip()[:80]!r}")
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"not a list of cores: {text.strip()[:80]!r}")
        cores.update(range(low, min(high + 1, MAX_CORES)))
    return sorted(cores)


def biggest_cluster(speeds: Mapping[int, int]) -> list[int]:
    """The cores with the highest speed, ascending. `speeds` may not be empty; the unit does not matter."""
    fastest = max(speeds.values())
    return sorted(core for core, speed in speeds.items() if speed == fastest)


def choose_mask(speeds: Mapping[int, int], threads: int) -> int:
    """A mask of `threads` cores: the last ones of the biggest cluster, and of the next ones where it is too small.

    The last core of a cluster, because interrupts and start-up work prefer the first. At most all cores.
    """
    ranked = sorted(speeds, key=lambda core: (speeds[core], core), reverse=True)
    return sum(1 << core for core in ranked[: max(1, threads)])


def cores_of(mask: int) -> list[int]:
    """The core numbers of a mask."""
    return [core for core in range(MAX_CORES) if mask >> core & 1]
