"""What Android's services print, Android 9 to 15 and makers' additions: numbers out of text that is not trusted.

No parser raises; what is not there, or not a sane number, is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT = 1 << 16
CPU_TYPES, BATTERY_TYPE, SKIN_TYPE = (0, 1), 2, 3  # android.os.Temperature: CPU, GPU, BATTERY, SKIN
CHARGING, KNOWN_STATES = 2, (2, 3, 4, 5)  # android.os.BatteryManager: of charging, discharging, not charging, full

_TEMPERATURE = re.compile(
    r"\bTemperature\{mValue=(-?[0-9]{1,4}(?:\.[0-9]{1,12})?), mType=([0-9]{1,2}), mName=", re.ASCII
)


@dataclass(frozen=True)
class Thermal:
    """status: 0 (none) to 6 (shutdown). skin_c, battery_c, chip_c (CPU, GPU): the hottest sensor of the kind."""

    status: int | None = None
    skin_c: float | None = None
    battery_c: float | None = None
    chip_c: float | None = None


@dataclass(frozen=True)
class Battery:
    level: int | None = None
    """Percent."""
    temperature_c: float | None = None
    charging: bool | None = None


def parse_thermalservice(text: str) -> Thermal:
    """`dumpsys thermalservice`, Android 10 and later.

    Temperatures are those that the HAL has now; the cached ones, which change only when a threshold is crossed, where
    it gives none. Without a HAL the status says nothing: it stays 0.
    """
    text = text[:MAX_TEXT]
    status = re.search(r"^[ \t]*Thermal Status: ([0-6])[ \t\r]*$", text, re.MULTILINE)
    dead = re.search(r"^[ \t]*HAL Ready: false[ \t\r]*$", text, re.MULTILINE)
    before, _, now = text.partition("Current temperatures from HAL:")
    sensors = _sensors(now) or _sensors(before)
    return Thermal(
        status=int(status[1]) if status and not dead else None,
        skin_c=_hottest(sensors, SKIN_TYPE),
        battery_c=_hottest(sensors, BATTERY_TYPE),
        chip_c=_hottest(sensors, *CPU_TYPES),
    )


def _sensors(text: str) -> list[tuple[int, float]]:
    return [(int(found[2]), float(found[1])) for found in _TEMPERATURE.finditer(text)]


def _hottest(sensors: list[tuple[int, float]], *kinds: int) -> float | None:
    return max((degrees for kind, degrees in sensors if kind in kinds and 0 < degrees < 130), default=None)


def parse_battery(text: str) -> Battery:
    """`dumpsys battery`. The first line of each name counts: makers add lines of their own below."""
    text = text[:MAX_TEXT]

    def number(name: str) -> int | None:
        # not \s, which a line end is too: a text of line ends would take minutes
        found = re.search(rf"^[ \t]*{name}: (-?[0-9]{{1,5}})[ \t\r]*$", text, re.MULTILINE | re.ASCII)
        return int(found[1]) if found else None

    level, scale, tenths, state = number("level"), number("scale"), number("temperature"), number("status")
    scale = 100 if scale is None else scale
    percent = None if level is None or scale <= 0 else round(100 * level / scale)
    return Battery(
        level=percent if percent is not None and 0 <= percent <= 100 else None,
        temperature_c=tenths / 10 if tenths is not None and -300 < tenths < 1000 else None,
        charging=state == CHARGING if state in KNOWN_STATES else None,
    )


def parse_low_power(text: str) -> bool | None:
    """`settings get global low_power`. A phone on which it was never set (null) is not in that mode."""
    return {"0": False, "null": False, "1": True}.get(text.strip())
