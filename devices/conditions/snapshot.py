"""What a device is like at one moment: load, clocks, temperatures; on Android also what its services say. One command."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from devices.conditions.affinity import CPU, ONLINE, clocks_of
from devices.conditions.ask import FILES, ask
from devices.conditions.services import parse_battery, parse_low_power, parse_thermalservice
from devices.conditions.zones import BATTERY, ZONE_PATTERNS, battery_celsius, zone_temperatures
from devices.transport import Transport

BOOT_ID = "/proc/sys/kernel/random/boot_id"
PATTERNS = ("/proc/loadavg", "/proc/uptime", BOOT_ID, ONLINE, f"{CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq", BATTERY)
LIMIT_S = 30.0
"""More than all time limits in the script together."""

# The services are asked where Android's program for it is, which no host has.
# Running threads come first, because the services run some themselves.
SERVICES = """[ -x /system/bin/dumpsys ] || exit 0
say running
for n in 1 2 3 4 5; do
  read -r l </proc/loadavg && echo "$l"
  [ $n = 5 ] || sleep 0.1
done 2>/dev/null
for s in battery thermalservice; do
  say $s
  timeout -s KILL 6 /system/bin/dumpsys -t 5 $s 2>/dev/null </dev/null | head -c 65536
done
say low_power
timeout -s KILL 6 /system/bin/settings get global low_power 2>/dev/null </dev/null | head -c 64
"""


@dataclass(frozen=True)
class Conditions:
    """None where the device does not say; all from `thermal_status` to `low_power` on what is not Android.

    Args:
        load1: of the last minute, as the kernel counts it: on phones with threads that only sleep.
        temperature_c: of the hottest zone that reports a sane value, else the hottest CPU or GPU sensor of the services.
        clocks_khz: of each core, from 0.
        thermal_status: Android's word on throttling, 0 (none) to 6 (shutdown).
        battery_level: percent.
        low_power: the battery saver is on, which lowers clocks.
        runnable: threads that ran or wanted a core, our own reader apart; the median of five looks in 0.4 s.
        boot_id: another one means that the device was started anew.
    """

    load1: float | None
    temperature_c: float | None
    clocks_khz: tuple[int | None, ...]
    thermal_status: int | None = None
    skin_c: float | None = None
    battery_c: float | None = None
    battery_level: int | None = None
    charging: bool | None = None
    low_power: bool | None = None
    runnable: float | None = None
    boot_id: str | None = None
    uptime_s: float | None = None


def read_conditions(transport: Transport) -> Conditions:
    """Raises: DeviceLost. A service that is missing or hangs leaves its fields None."""
    return conditions_of(ask(transport, FILES + SERVICES, [*PATTERNS, *ZONE_PATTERNS], limit_s=LIMIT_S))


def conditions_of(answers: Mapping[str, str]) -> Conditions:
    """From a path's or a service's name -> its text."""
    thermal = parse_thermalservice(answers.get("thermalservice", ""))
    battery = parse_battery(answers.get("battery", ""))
    zones = zone_temperatures(answers)
    battery_c = (battery.temperature_c, thermal.battery_c, battery_celsius(answers.get(BATTERY)))
    return Conditions(
        load1=load_of(answers.get("/proc/loadavg", "")),
        temperature_c=max(zones.values(), default=thermal.chip_c),
        clocks_khz=clocks_of(answers),
        thermal_status=thermal.status,
        skin_c=thermal.skin_c,
        battery_c=next((degrees for degrees in battery_c if degrees is not None), None),
        battery_level=battery.level,
        charging=battery.charging,
        low_power=parse_low_power(answers.get("low_power", "")),
        runnable=_runnable(answers.get("running", "")),
        boot_id=boot_id_of(answers.get(BOOT_ID, "")),
        uptime_s=_seconds(answers.get("/proc/uptime", "")),
    )


def load_of(text: str) -> float | None:
    """The first number of /proc/loadavg."""
    found = re.match(r"[0-9]{1,6}\.[0-9]{1,6}(?=\s|$)", text, re.ASCII)
    return float(found[0]) if found else None


def boot_id_of(text: str) -> str | None:
    return text.strip() if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text.strip(), re.ASCII) else None


def _runnable(text: str) -> float | None:
    """The fourth field of /proc/loadavg is RUNNING/ALL: threads that sleep uninterruptibly are not in it, the reader is."""
    found = re.findall(r"^[0-9. ]{1,60} ([0-9]{1,6})/[0-9]{1,7} ", text[:4096], re.MULTILINE | re.ASCII)
    return max(0.0, float(statistics.median(map(int, found)) - 1)) if found else None


def _seconds(text: str) -> float | None:
    found = re.match(r"[0-9]{1,12}\.[0-9]{1,3}(?=\s|$)", text, re.ASCII)
    return float(found[0]) if found else None
