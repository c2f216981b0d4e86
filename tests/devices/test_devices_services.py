"""What Android's services and thermal zones print: the recorded forms, and anything else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.conditions.services import Battery, Thermal, parse_battery, parse_low_power, parse_thermalservice
from devices.conditions.zones import BATTERY, battery_celsius, celsius, zone_temperatures

RECORDED = Path(__file__).resolve().parents[1] / "phone" / "recorded"

# Android 10, a phone whose HAL is of the first kind and gives no list: only the cached temperatures are there.
ANDROID_10 = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 0
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=43.5, mType=3, mName=skin, mStatus=2}
\tTemperature{mValue=NaN, mType=0, mName=cpu0, mStatus=0}
\tTemperature{mValue=-3.5, mType=2, mName=battery, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 1.1 connected: yes
Current temperatures from HAL:
Current cooling devices from HAL:
"""
NO_HAL = "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\nHAL Ready: false\nHAL connection:\n"


def recorded(phone: str, service: str) -> str:
    return (RECORDED / phone / "dumpsys" / f"{service}.txt").read_text()


def test_recorded_thermal_services() -> None:
    assert parse_thermalservice(recorded("pixel", "thermalservice")) == Thermal(0, 31.112, 29.1, 38.0)
    assert parse_thermalservice(recorded("galaxy", "thermalservice")) == Thermal(0, 32.87, 31.2, 40.1)
    assert parse_thermalservice(ANDROID_10) == Thermal(2, 43.5, None, None)
    assert parse_thermalservice(NO_HAL) == Thermal()
    assert parse_thermalservice("Can't find service: thermalservice\n") == Thermal()


def test_a_threshold_is_no_temperature_and_the_hottest_sensor_of_a_kind_counts() -> None:
    text = "Current temperatures from HAL:\n" + "".join(
        f"\tTemperature{{mValue={degrees}, mType=3, mName={name}, mStatus=0}}\n"
        for degrees, name in ((33.5, "a"), (36.25, "b, mType=0, mName=x"), (999.0, "c"), (0.0, "d"))
    )
    threshold = "\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 40.0]}\n"
    assert parse_thermalservice(text + threshold) == Thermal(skin_c=36.25)


@pytest.mark.parametrize("status", ["-1", "7", "00", "9" * 99, "NaN", "", "٣", "0 1"])
def test_a_status_that_android_does_not_have(status: str) -> None:
    assert parse_thermalservice(f"Thermal Status: {status}\nHAL Ready: true\n").status is None


def test_recorded_batteries() -> None:
    assert parse_battery(recorded("pixel", "battery")) == Battery(88, 29.1, True)
    assert parse_battery(recorded("galaxy", "battery")) == Battery(61, 31.2, True)
    assert parse_battery(recorded("walleye", "battery")) == Battery(74, 27.7, True)


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        ("", Battery()),
        ("level: 5\nscale: 10", Battery(level=50)),
        ("level: 5\nscale: 0", Battery()),
        ("level: 50\nscale: -100", Battery()),
        ("level: 101", Battery()),
        ("level: -1\nstatus: 1\ntemperature: 2910", Battery()),
        ("level: 50\n  level: 3\r\n", Battery(level=50)),
        ("  LED level: 7\n", Battery()),
        ("temperature: -55\nstatus: 5", Battery(temperature_c=-5.5, charging=False)),
        ("temperature: 99999999999999\nstatus: 2 2", Battery()),
    ],
)
def test_odd_batteries(text: str, battery: Battery) -> None:
    assert parse_battery(text) == battery


def test_low_power() -> None:
    texts = ("0", "1", "null", "", "2", "cmd: Can't find service: settings", " 1\n")
    assert [parse_low_power(text) for text in texts] == [False, True, False, None, None, None, True]


WORDS = st.sampled_from(
    ["Thermal Status: ", "Temperature{mValue=", ", mType=3, mName=", "level: ", "temperature: ", "status: ", "scale: ",
     "Current temperatures from HAL:", "\n", "31.1", "9999", "-", ".", " "]
)  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=5), max_size=60).map("".join))
def test_any_text_is_numbers_in_their_range_or_none(text: str) -> None:
    thermal, battery = parse_thermalservice(text), parse_battery(text)
    assert thermal.status in (None, *range(7))
    assert battery.level is None or 0 <= battery.level <= 100
    assert battery.temperature_c is None or -30 < battery.temperature_c < 100
    for degrees in (thermal.skin_c, thermal.battery_c, thermal.chip_c, celsius(text)):
        assert degrees is None or 0 < degrees < 130
    parse_low_power(text)


def test_a_megabyte_is_read_in_no_time_at_all() -> None:
    """Each pattern is linear: a text that makes one backtrack would take minutes here."""
    start = time.monotonic()
    for piece in ("Temperature{mValue=", "1" * 50, " ", "\n", "Thermal Status: ", "level:  ", "mType=3, mName="):
        text = piece * (1_000_000 // len(piece))
        assert parse_thermalservice(text).skin_c is None
        assert parse_battery(text).level is None
    assert time.monotonic() - start < 5, "minutes else"


# Thermal zones.


@pytest.mark.parametrize(
    ("text", "degrees"),
    [("41200", 41.2), ("361", 36.1), ("29", 29.0), ("312\n", 31.2), ("100", 10.0), ("99", 99.0), ("1299", 129.9), ("1300", 1.3),
     ("129999", 129.999), ("130000", None), ("0", None), ("-5", None), ("", None), ("1e3", None), ("9" * 7, None),
     ("²", None), ("٣٣", None), ("41.2", None), (None, None)],
)  # fmt: skip
def test_three_units(text: str | None, degrees: float | None) -> None:
    assert celsius(text) == degrees


@given(st.integers(11, 99))
def test_a_temperature_is_the_same_in_each_unit(degrees: int) -> None:
    assert celsius(str(degrees)) == celsius(str(10 * degrees)) == celsius(str(1000 * degrees)) == degrees


def test_the_battery_has_but_one_unit() -> None:
    assert [battery_celsius(text) for text in ("291", "95\n", "-12", "0")] == [29.1, 9.5, -1.2, 0.0]
    assert [battery_celsius(text) for text in (None, "", "29100", "x", "-400")] == [None] * 5


def zones(phone: str) -> dict[str, str]:
    lines = (RECORDED / phone / "sys.txt").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if "/thermal/" in line or line.startswith(BATTERY))


def test_recorded_zones_are_ordered_by_heat() -> None:
    for phone, hottest in (("galaxy", 40.1), ("walleye", 38.4)):
        temperatures = list(zone_temperatures(zones(phone)).values())
        assert temperatures[0] == hottest and temperatures == sorted(temperatures, reverse=True)
        assert all(27 < degrees < 41 for degrees in temperatures) and len(temperatures) in (7, 9)
    assert zone_temperatures(zones("pixel")) == {}


@pytest.mark.parametrize(
    "kind", ["soc", "SOC", "pm8998-bcl-lvl0", "ibat-high", "vbat", "vph-pwr", "vdroop1", "lmh-dcvs-00"]
)
def test_what_is_no_temperature_is_left_out(kind: str) -> None:
    zone = "/sys/class/thermal/thermal_zone3"
    assert zone_temperatures({f"{zone}/temp": "88", f"{zone}/type": f"{kind}\n"}) == {}
    for heat in ("soc-thermal", "cpu-0-0-usr", "battery", "", "x" * 999):
        assert zone_temperatures({f"{zone}/temp": "88", f"{zone}/type": heat}) == {f"{zone}/temp": 88.0}


def test_only_paths_of_zones_are_zones() -> None:
    for path in ("/sys/class/thermal/thermal_zone1x/temp", "/data/temp", "/sys/class/thermal/thermal_zone9999/temp"):
        assert zone_temperatures({path: "41000"}) == {}
