"""What a phone must be like, and the wait until it is: with a clock of our own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.conditions import Conditions, Gates, wait_until_quiet
from devices.conditions import gates as gates_module
from devices.conditions.gates import POLL_S, TELL_S, unmet, unsaid
from devices.errors import DeviceError, DeviceLost, NotQuiet

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fake_device import FakeDevice

GOOD = Conditions(
    9.1, 60.0, (1,), thermal_status=0, skin_c=32.0, battery_c=30.0, battery_level=88, low_power=False, runnable=1.0
)
SAID = {
    "running": "9.12 9.40 9.31 2/2034 8121",
    "thermalservice": "Thermal Status: 0\nCurrent temperatures from HAL:\nTemperature{mValue=32.0, mType=3, mName=s}",
    "battery": "level: 88\nscale: 100\ntemperature: 300\nstatus: 2",
    "low_power": "0",
}


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.events: dict[float, object] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= TELL_S
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gates_module, "time", clock)
    return clock


def test_a_quiet_phone_passes_whatever_its_load_average_and_its_chip() -> None:
    assert unmet(GOOD, Gates()) == {} and unsaid(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "message", "remedy"),
    [
        ({"skin_c": 40.1}, "skin 40.1 °C (at most 40)", "let it cool"),
        ({"skin_c": None, "battery_c": 41.0}, "battery 41.0 °C (at most 40)", "let it cool"),
        ({"thermal_status": 1}, "thermal status 1, light (at most 0)", "let it cool"),
        ({"thermal_status": 6}, "thermal status 6, shutdown (at most 0)", "let it cool"),
        ({"battery_level": 19}, "battery 19 % (at least 20)", "charge it"),
        ({"low_power": True}, "battery saver on (must be off)", "turn the battery saver off"),
        ({"runnable": 2.5}, "2.5 other threads at work (at most 2)", "close its apps"),
    ],
)
def test_each_gate(changed: dict[str, object], message: str, remedy: str) -> None:
    assert unmet(replace(GOOD, **changed), Gates()) == {message: remedy}


@pytest.mark.parametrize(
    "changed",
    [
        {"skin_c": 40.0},
        {"battery_c": 55.0},
        {"battery_level": 20},
        {"runnable": 2.0},
        {"load1": 50.0, "temperature_c": 99.0},
    ],
)
def test_at_the_limit_and_beside_it_is_passed(changed: dict[str, object]) -> None:
    assert unmet(replace(GOOD, **changed), Gates()) == {}


def test_what_a_phone_does_not_say_passes() -> None:
    silent = Conditions(None, None, (None,))
    assert unmet(silent, Gates()) == {}
    assert unsaid(silent) == ["temperature", "thermal status", "battery level", "battery saver", "load"]
    assert unsaid(replace(GOOD, skin_c=None)) == []


@given(st.floats(20, 60), st.integers(0, 6), st.integers(0, 100), st.floats(0, 9), st.booleans())
def test_a_gate_is_passed_exactly_within_its_limit(
    skin_c: float, status: int, level: int, runnable: float, low_power: bool
) -> None:
    gates = Gates(max_temperature_c=35.5, max_thermal_status=2, min_battery_level=50, max_load=3.5)
    seen = replace(
        GOOD, skin_c=skin_c, thermal_status=status, battery_level=level, runnable=runnable, low_power=low_power
    )
    assert len(unmet(seen, gates)) == sum([skin_c > 35.5, status > 2, level < 50, runnable > 3.5, low_power])


def test_a_phone_that_is_quiet_is_looked_at_once(clock: Clock) -> None:
    device, told, notes = FakeDevice({}, SAID), [], []
    seen = wait_until_quiet(device, Gates(), 600, lambda *what: told.append(what), notes.append)
    assert [one.skin_c for one in seen] == [32.0]
    assert (device.commands, told, notes, clock.now) == (1, [], [], 1000.0)


def test_the_wait_ends_when_the_phone_has_cooled(clock: Clock) -> None:
    device, told = FakeDevice({}, {**SAID, "thermalservice": "Thermal Status: 3"}), []

    def on_wait(reason: str, left_s: float) -> None:
        told.append((reason, left_s))
        if clock.now >= 1012:
            device.services = SAID

    seen = wait_until_quiet(device, Gates(), 60, on_wait)
    assert [one.thermal_status for one in seen] == [3, 3, 3, 0]
    assert clock.now == 1000 + 3 * POLL_S
    assert {reason for reason, _ in told} == {"thermal status 3, severe (at most 0)"}
    assert [left for _, left in told] == [60.0 - second for second in range(15)], "a countdown by the second"


def test_a_phone_that_stays_hot_is_an_error_that_names_each_gate(clock: Clock) -> None:
    device = FakeDevice({}, {**SAID, "battery": "level: 12\ntemperature: 412", "thermalservice": ""})
    device.name = "phone 1"
    notes: list[str] = []
    with pytest.raises(NotQuiet) as told:
        wait_until_quiet(device, Gates(), 12, lambda reason, left_s: None, notes.append)
    assert str(told.value) == (
        "phone 1 is not fit to be measured on after 12 s: battery 41.2 °C (at most 40); battery 12 % (at least 20); "
        "try: let it cool, charge it, --settle SECONDS, --ignore-conditions"
    )
    assert isinstance(told.value, DeviceError) and told.value.exit_status == 4
    assert clock.now == 1012.0 and device.commands == 4, "looked at 0, 5, 10 and 12 s"
    assert notes == ["phone 1 does not say its thermal status: taken as fine"]


def test_no_time_to_wait_is_one_look(clock: Clock) -> None:
    device = FakeDevice({}, {**SAID, "low_power": "1"})
    with pytest.raises(NotQuiet, match="battery saver on"):
        wait_until_quiet(device, Gates(), 0, lambda reason, left_s: pytest.fail("waited"))
    assert device.commands == 1


def test_a_phone_that_is_lost_meanwhile(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice({}, {**SAID, "low_power": "1"})

    def lose(reason: str, left_s: float) -> None:
        def lost(*arguments: object, **settings: object) -> None:
            raise DeviceLost("gone")

        monkeypatch.setattr(device, "run", lost)

    with pytest.raises(DeviceLost):
        wait_until_quiet(device, Gates(), 60, lose)
