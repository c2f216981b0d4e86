"""The device's clocks and temperature over a run: which lines are drawn, where they run, and when there is nothing to draw."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.report import context, render
from pipeline.report.conditions import MOST_POINTS, clock_series, meanwhile, thinned
from pipeline.report.document import read
from pipeline.report.views import Moment

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
Document = dict[str, Any]


@pytest.fixture
def result() -> Document:
    found: Document = SAMPLE["phone"]()
    return found


def moment(at_s: float, clocks: dict[str, float], celsius: float | None = None, status: float | None = None) -> Moment:
    return Moment(at_s, clocks, celsius, status, None)


def test_the_phone_has_clocks_and_a_temperature(result: Document) -> None:
    found = meanwhile(read(result))
    assert found is not None
    clock, temperature = found.strips
    assert (clock.title, clock.range, clock.lines) == ("clock", "1.60 – 2.80 GHz", ["core 0", "core 4"])
    assert (temperature.title, temperature.range, temperature.lines) == ("temperature", "31.00 – 44.88 °C", [])
    assert clock.chart.count("<path") == 2 and temperature.chart.count("<path") == 1
    assert found.note == "throttled, by Android's own word, at 1 of 3 looks"


def test_lines_run_from_edge_to_edge_and_within(result: Document) -> None:
    found = meanwhile(read(result))
    assert found is not None
    for strip in found.strips:
        for path in re.findall(r'd="M([^"]*)"', strip.chart):
            points = [tuple(map(float, point.split())) for point in path.split("L")]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            assert (xs[0], xs[-1]) == (0, 1000) and xs == sorted(xs)
            assert min(ys) >= 0 and max(ys) <= 1000
    rising = re.findall(r'd="M([^"]*)"', found.strips[1].chart)[0].split("L")
    heights = [float(point.split()[1]) for point in rising]
    assert heights == sorted(heights, reverse=True), "it grows warmer, so the line goes up"


def test_it_stands_below_the_samples(result: Document, tmp_path: Path) -> None:
    text = render(result, tmp_path / "index.html").read_text("utf-8")
    samples = text.partition('<section id="samples">')[2].partition("</section>")[0]
    assert samples.index("The device meanwhile") > samples.rindex("Samples over time")
    assert "throttled, by Android" in samples


@pytest.mark.parametrize("points", [0, 1, 2])
def test_less_than_three_looks_are_not_drawn(result: Document, points: int) -> None:
    result["device_conditions"]["trace"] = result["device_conditions"]["trace"][:points]
    assert meanwhile(read(result)) is None


def test_a_device_that_says_nothing_is_not_drawn(result: Document, tmp_path: Path) -> None:
    result["device_conditions"]["trace"] = [{"at_s": i, "clock_khz": {}, "temperature_c": None} for i in range(9)]
    assert meanwhile(read(result)) is None
    assert "The device meanwhile" not in render(result, tmp_path / "index.html").read_text("utf-8")


def test_looks_without_a_time_are_not_drawn(result: Document) -> None:
    for look in result["device_conditions"]["trace"]:
        look["at_s"] = 0.0
    assert meanwhile(read(result)) is None


def test_only_what_is_known_is_drawn(result: Document) -> None:
    for look in result["device_conditions"]["trace"]:
        look |= {"clock_khz": None, "thermal_status": None}
    found = meanwhile(read(result))
    assert found is not None and [strip.title for strip in found.strips] == ["temperature"] and found.note == ""


def test_looks_are_put_in_order(result: Document) -> None:
    shuffled = read(result)
    result["device_conditions"]["trace"].reverse()
    assert read(result).conditions == shuffled.conditions


def test_cores_that_were_looked_at_seldom_have_no_line() -> None:
    """Between launches every core is read, during one only the first of each cluster."""
    clocks = [{"0": 1e6, "4": 2e6} for _ in range(20)]
    for seldom in (0, 10, 19):
        clocks[seldom] |= {"1": 1e6, "5": 2e6}
    found = clock_series([moment(i, own) for i, own in enumerate(clocks)])
    assert list(found) == ["core 0", "core 4"] and len(found["core 4"]) == 20


def test_many_cores_become_their_slowest_and_fastest() -> None:
    clocks = {str(core): 1e6 + core for core in range(64)}
    found = clock_series([moment(i, clocks) for i in range(5)] + [moment(9, {})])
    assert found == {
        "slowest core": [(i, 1e6) for i in range(5)],
        "fastest core": [(i, 1e6 + 63) for i in range(5)],
    }


@given(st.integers(0, 5 * MOST_POINTS))
def test_a_long_trace_is_thinned(points: int) -> None:
    trace = [moment(i, {}) for i in range(points)]
    found = thinned(trace)
    assert min(points, MOST_POINTS / 2) <= len(found) <= MOST_POINTS and found[:1] == trace[:1]


def test_what_was_set_and_restarts_are_in_the_context(result: Document) -> None:
    rows = context.machine(read(result))
    assert ("screen", "set: stay_on 7 (was 0)") in rows and ("governor", "not available") in rows
    assert ("restarted", "1 time") in rows
    result["device_conditions"]["boot_ids"] = ["boot-1"]
    assert "restarted" not in dict(context.machine(read(result)))


def test_clocks_around_a_run_are_read_in_both_spellings(result: Document) -> None:
    profile = result["profiles"][0]
    clocks = dict(context.machine(read(result)))["clock"]
    for look in profile["conditions"][:2]:
        look["clock_khz"] = {"0": look.pop("clocks_khz")[0], "1": None}
    assert dict(context.machine(read(result)))["clock"] == clocks == "2.45 – 2.60 GHz"


@pytest.mark.parametrize(
    ("look", "words"),
    [
        ({"at_s": None}, "nothing as device_conditions.trace[0].at_s, not a number"),
        ({"at_s": 1, "clock_khz": {"0": "fast"}}, "device_conditions.trace[0].clock_khz.0, not a finite number"),
        ({"at_s": 1, "clock_khz": [1]}, "holds [1] at device_conditions.trace[0].clock_khz, not an object"),
        ({"at_s": 1, "temperature_c": float("inf")}, "device_conditions.trace[0].temperature_c, not a finite number"),
    ],
)
def test_a_wrong_field_is_named(result: Document, look: Document, words: str) -> None:
    result["device_conditions"]["trace"] = [look]
    with pytest.raises(UsageError) as caught:
        read(result)
    assert words in str(caught.value)
