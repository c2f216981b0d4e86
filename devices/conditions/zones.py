"""Temperatures from the kernel's thermal zones, which phones write in three units, and not only of temperatures."""

from __future__ import annotations

import re
from collections.abc import Mapping

ZONES = "/sys/class/thermal/thermal_zone"
ZONE_PATTERNS = (f"{ZONES}[0-9]*/type", f"{ZONES}[0-9]*/temp")
BATTERY = "/sys/class/power_supply/battery/temp"
MAX_C = 130.0

# what Qualcomm and others report as if it were a temperature: the battery's charge (`soc`), currents, voltages, levels, limits
NOT_HEAT = re.compile(r"soc|.*(bcl|ibat|vbat|vph|vdroop|voltage|current|-lvl|lmh).*", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)


def celsius(text: str | None) -> float | None:
    """A zone's number in °C, above 0 and below 130: None for anything else.

    The unit is told by the size: below 100 whole degrees, below 1300 tenths, else thousandths. No chip that answers has
    100 °C or 1.3 °C, so that nothing is taken for another unit.
    """
    if text is None or not _NUMBER.fullmatch(text.strip()):
        return None
    number = int(text.strip())  # int alone does not strip all that strip does
    degrees = number / (1 if number < 100 else 10 if number < 1300 else 1000)
    return degrees if 0 < degrees < MAX_C else None


def battery_celsius(text: str | None) -> float | None:
    """BATTERY in °C: always tenths, as the kernel's power supplies are."""
    found = re.fullmatch(r"\s*(-?[0-9]{1,4})\s*", text or "", re.ASCII)
    return int(found[1]) / 10 if found and -300 < int(found[1]) < 1000 else None


def zone_temperatures(texts: Mapping[str, str]) -> dict[str, float]:
    """The `temp` path of each zone that reports a sane temperature -> °C, the hottest first."""
    found = {}
    for path, text in texts.items():
        zone = re.fullmatch(r"(/sys/class/thermal/thermal_zone[0-9]{1,3})/temp", path, re.ASCII)
        degrees = celsius(text)
        if zone and degrees is not None and not NOT_HEAT.fullmatch(texts.get(f"{zone[1]}/type", "")[:80].strip()):
            found[path] = degrees
    return dict(sorted(found.items(), key=lambda one: -one[1]))
