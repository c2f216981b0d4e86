"""Gates: what a phone must be like before it is measured on, and the wait until it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devices.conditions.snapshot import Conditions, read_conditions
from devices.errors import NotQuiet
from devices.transport import Transport

POLL_S = 5.0
"""Between two looks: a phone cools by some tenths of a degree in a minute, and a look itself costs it some work."""
TELL_S = 1.0
THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

OnWait = Callable[[str, float], None]
"""Called about once a second with the reason and the seconds left."""


@dataclass(frozen=True)
class Gates:
    """Limits; a phone that does not say passes. Low-power mode never passes: it lowers clocks.

    Args:
        max_temperature_c: of the skin, else of the battery: what phones throttle by.
        max_thermal_status: 0 (none) to 6 (shutdown), by Android's own word.
        min_battery_level: percent; below some 15 phones save power by themselves.
        max_load: other threads that run or want a core. Not load1, which on phones counts kernel threads that only
            sleep (2 to 10 on an idle one) and remembers a minute in which we ourselves were at work; nor the busy share
            of /proc/stat, which needs two looks and counts a core at its lowest clock as busy. An idle phone with its
            screen on has 0 to 2; an app that updates or compiles has one for each core.
    """

    max_temperature_c: float = 40.0
    max_thermal_status: int = 0
    min_battery_level: int = 20
    max_load: float = 2.0


def unmet(conditions: Conditions, gates: Gates) -> dict[str, str]:
    """Each gate that is not passed, with its value -> what helps."""
    found: dict[str, str] = {}
    name, degrees = _temperature(conditions)
    if degrees is not None and degrees > gates.max_temperature_c:
        found[f"{name} {degrees:.1f} °C (at most {gates.max_temperature_c:g})"] = "let it cool"
    status = conditions.thermal_status
    if status is not None and status > gates.max_thermal_status:
        word = THERMAL[status] if status < len(THERMAL) else "?"
        found[f"thermal status {status}, {word} (at most {gates.max_thermal_status})"] = "let it cool"
    level = conditions.battery_level
    if level is not None and level < gates.min_battery_level:
        found[f"battery {level} % (at least {gates.min_battery_level})"] = "charge it"
    if conditions.low_power:
        found["battery saver on (must be off)"] = "turn the battery saver off"
    if conditions.runnable is not None and conditions.runnable > gates.max_load:
        found[f"{conditions.runnable:g} other threads at work (at most {gates.max_load:g})"] = "close its apps"
    return found


def unsaid(conditions: Conditions) -> list[str]:
    """The gates that pass only because the phone does not say."""
    said = {
        "temperature": _temperature(conditions)[1],
        "thermal status": conditions.thermal_status,
        "battery level": conditions.battery_level,
        "battery saver": conditions.low_power,
        "load": conditions.runnable,
    }
    return [name for name, value in said.items() if value is None]


def wait_until_quiet(
    transport: Transport,
    gates: Gates,
    limit_s: float,
    on_wait: OnWait,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Conditions]:
    """Looks at a phone until it passes all gates, at least once; gives all that was seen, the last of which passes.

    Args:
        limit_s: how long to wait; 0 looks once.
        on_note: told once what the phone does not say.

    Raises: NotQuiet: which gates it does not pass, and what to do; DeviceLost.
    """
    deadline = time.monotonic() + limit_s
    seen = [read_conditions(transport)]
    if silent := unsaid(seen[0]):
        on_note(f"{transport.name} does not say its {', '.join(silent)}: taken as fine")
    while missed := unmet(seen[-1], gates):
        if time.monotonic() >= deadline:
            remedies = dict.fromkeys([*missed.values(), "--settle SECONDS", "--ignore-conditions"])
            raise NotQuiet(
                f"{transport.name} is not fit to be measured on after {limit_s:g} s: {'; '.join(missed)}",
                try_=", ".join(remedies),
            )
        for left_s in _seconds(deadline):
            on_wait("; ".join(missed), left_s)
        seen.append(read_conditions(transport))
    return seen


def _seconds(deadline: float) -> Iterator[float]:
    """The seconds left until `deadline`, about one after the other, until it is time for the next look."""
    look = min(time.monotonic() + POLL_S, deadline)
    while (now := time.monotonic()) < look:
        yield deadline - now
        time.sleep(min(TELL_S, look - now))


def _temperature(conditions: Conditions) -> tuple[str, float | None]:
    return ("skin", conditions.skin_c) if conditions.skin_c is not None else ("battery", conditions.battery_c)
