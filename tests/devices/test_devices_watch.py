"""Which files are read during a run, and what their texts say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.conditions import parse_watched, watch_paths
from devices.conditions.affinity import CPU
from devices.conditions.watch import MAX_PATHS
from devices.host import HostTransport

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fake_device import FakeDevice

RECORDED = Path(__file__).resolve().parents[1] / "phone" / "recorded"
ZONE = "/sys/class/thermal/thermal_zone"
BATTERY = "/sys/class/power_supply/battery/temp"


def recorded(phone: str) -> dict[str, str]:
    lines = (RECORDED / phone / "sys.txt").read_text().splitlines()
    return {**dict(line.split(":", 1) for line in lines), "/proc/loadavg": "0.42 0.51 0.60 1/3215 12034"}


@pytest.mark.parametrize(
    ("phone", "policies", "zones"), [("pixel", (0, 4, 7), 0), ("galaxy", (0, 6), 8), ("walleye", (0, 4), 7)]
)
def test_recorded_phones(phone: str, policies: tuple[int, ...], zones: int) -> None:
    device = FakeDevice(recorded(phone))
    paths = watch_paths(device)
    clocks = [f"{CPU}/cpufreq/policy{first}/scaling_cur_freq" for first in policies]
    assert paths[: 2 + len(clocks)] == ["/proc/loadavg", BATTERY, *clocks]
    assert len(paths) == 2 + len(clocks) + zones and device.commands == 1
    seen = parse_watched(paths, [device.files[path] for path in paths])
    assert seen["load1"] == 0.42 and seen["battery_c"] == {"pixel": 29.1, "galaxy": 31.2, "walleye": 27.7}[phone]
    assert seen["temperature_c"] == {"pixel": None, "galaxy": 40.1, "walleye": 38.4}[phone]
    assert list(seen["clock_khz"]) == [str(first) for first in policies]


def test_the_hottest_zones_are_kept() -> None:
    files = {f"{ZONE}{number}/temp": f"{30 + number}000" for number in range(40)}
    files |= {f"{ZONE}39/type": "soc"}
    assert watch_paths(FakeDevice(files)) == [f"{ZONE}{number}/temp" for number in range(38, 30, -1)]


def test_without_policies_each_core_is_watched() -> None:
    clocks = [f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq" for core in (0, 1, 10)]
    assert watch_paths(FakeDevice(dict.fromkeys(clocks, "1800000"))) == clocks
    assert parse_watched(clocks, ["1", "2", "3"])["clock_khz"] == {"0": 1, "1": 2, "10": 3}


def test_at_most_so_many() -> None:
    files = {f"{CPU}/cpufreq/policy{number}/scaling_cur_freq": "1" for number in range(200)}
    files |= {f"{ZONE}{number}/temp": "40000" for number in range(200)} | {"/proc/loadavg": "x", BATTERY: "x"}
    paths = watch_paths(FakeDevice(files))
    assert len(paths) == len(set(paths)) == MAX_PATHS
    assert sum("policy" in path for path in paths) == 22 and paths[2].endswith("policy0/scaling_cur_freq")


def test_only_what_can_be_read_and_makes_sense() -> None:
    files = {
        f"{CPU}/cpufreq/policy0/scaling_cur_freq": "<unknown>",
        f"{ZONE}0/temp": "-274000",
        f"{ZONE}1/../../../../data/temp": "40000",
        f"{ZONE}1\nresults /etc/temp": "40000",
        f"{CPU}/cpufreq/policy٣/scaling_cur_freq": "1",
    }
    assert watch_paths(FakeDevice(files)) == []


def test_a_value_that_is_missing_or_odd_is_left_out() -> None:
    paths = [
        "/proc/loadavg",
        BATTERY,
        f"{CPU}/cpufreq/policy0/scaling_cur_freq",
        f"{ZONE}0/temp",
        f"{ZONE}1/temp",
        "/etc/x",
    ]
    nothing = {"load1": None, "temperature_c": None, "battery_c": None, "clock_khz": {}}
    assert parse_watched(paths, [None] * 6) == nothing
    assert parse_watched(paths, ["x", "²", "-1", "NaN", "", "1"]) == nothing
    assert parse_watched(paths, []) == nothing
    odd: list[object] = [1.5, [], {}, 10**5000, True, b"1"]
    assert parse_watched(paths, odd) == nothing  # type: ignore[arg-type]
    assert parse_watched(paths, ["1.5 1 1 1/2 3", "300", "7\n", "38500", "41000\n", "1"]) == {
        "load1": 1.5, "temperature_c": 41.0, "battery_c": 30.0, "clock_khz": {"0": 7},
    }  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(["/proc/loadavg", BATTERY, f"{ZONE}0/temp"]) | st.text(), st.none() | st.text()))
)
def test_any_text(pairs: list[tuple[str, str | None]]) -> None:
    seen = parse_watched([path for path, _ in pairs], [value for _, value in pairs])
    assert seen["temperature_c"] is None or 0 < seen["temperature_c"] < 130


def test_this_machine(host: HostTransport) -> None:
    paths = watch_paths(host)
    assert "/proc/loadavg" in paths
    seen = parse_watched(paths, list(host.read_texts(paths).values()))
    assert seen["load1"] is not None
