"""What the device said of itself during a run, on one axis of time; and which blocks ran while its clock moved."""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from devices.conditions import Conditions
from devices.runner import CaseResult, RunnerResult, Watch, parse_results
from pipeline import device_trace
from pipeline.device_trace import CONDITIONS, note_conditions, noted_conditions, trace_document
from pipeline.errors import StorageError
from pipeline.kernel_times import clock_moved, to_launch

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
CLOCK = "/sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq"
S = 10**9


def launch(begin_s: float | None, *watched: Watch) -> RunnerResult:
    return RunnerResult({}, True, 0, None if begin_s is None else int(begin_s * S), watched)


def noted(folder: Path, *rows: tuple[int, Conditions], watch: Sequence[str] = ()) -> list[dict[str, Any]]:
    for number, conditions in rows:
        note_conditions(folder, number, conditions, watch)
    return noted_conditions(folder)


def test_what_was_noted_comes_back_and_a_line_cut_short_does_not(tmp_path: Path) -> None:
    rows = noted(tmp_path, (0, Conditions(0.5, 31.0, (1_000, None), thermal_status=1, boot_id="b")), watch=["/a"])
    with (tmp_path / CONDITIONS).open("a") as file:
        file.write('[1]\n{"launch": 1, "load')
    assert noted_conditions(tmp_path) == rows
    assert (rows[0]["launch"], rows[0]["clocks_khz"], rows[0]["watch"]) == (0, [1_000, None], ["/a"])
    assert noted_conditions(tmp_path / "nowhere") == []
    with pytest.raises(StorageError, match="cannot write"):
        note_conditions(tmp_path / "nowhere", 0, Conditions(None, None, ()), ())


def test_launches_and_what_was_seen_between_and_in_them_are_on_one_axis(tmp_path: Path) -> None:
    rows = noted(
        tmp_path,
        (0, Conditions(0.5, 31.0, (600, 900), thermal_status=0, boot_id="b")),
        (1, Conditions(0.7, 35.0, (700, None), thermal_status=1, boot_id="c")),
        (2, Conditions(0.9, 36.0, (800, 800), thermal_status=0, boot_id="c")),
        watch=[CLOCK],
    )
    results = [launch(1000, Watch(2 * S, ("2600000",))), launch(1010, Watch(0, (None,)), Watch(5 * S, ("1795000",)))]
    document = trace_document(rows, [0, 1], results, [{"name": "doze", "state": "set"}])
    assert [(point["at_s"], point.get("thermal_status")) for point in document["trace"]] == [
        (0, 0), (2, None), (10, 1), (10, None), (15, 0), (15, None),
    ]  # fmt: skip
    clocks = [point["clock_khz"] for point in document["trace"]]
    assert clocks == [{"0": 600, "1": 900}, {"4": 2600000}, {"0": 700}, {}, {"0": 800, "1": 800}, {"4": 1795000}]
    assert document["boot_ids"] == ["b", "c"] and document["set"] == [{"name": "doze", "state": "set"}]
    assert not {"boot_id", "watch", "clocks_khz"} & set(document["trace"][0])
    json.dumps(document, allow_nan=False)


def test_a_long_run_keeps_a_bounded_number_of_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_trace, "MAX_POINTS", 10)
    rows = noted(tmp_path, (0, Conditions(0.5, None, ())), watch=[CLOCK])
    trace = trace_document(rows, [0], [launch(0, *(Watch(i * S, ("1",)) for i in range(99)))], [])["trace"]
    assert len(trace) <= 10 and trace[0]["at_s"] == 0 and trace[-1]["at_s"] > 80


@pytest.mark.parametrize("rows", [[], [{"launch": None}], [{"launch": "x", "watch": 7, "clocks_khz": None}], [{}]])
def test_odd_lines_and_launches_without_a_clock_are_no_error(rows: list[dict[str, Any]]) -> None:
    document = trace_document(rows, [3, 4], [launch(None, Watch(0, ("1",))), launch(5, Watch(0, ("1",)))], [])
    assert all(point["at_s"] == 0 for point in document["trace"]) and document["boot_ids"] == []


def case_with(*clocks: tuple[int, int], warm: tuple[int, int] = (-1, -1)) -> CaseResult:
    blocks = [FAKE["block"]([100] * 4, warmup=True) | {"clock_khz": list(warm)}]
    blocks += [FAKE["block"]([100] * 4) | {"clock_khz": list(clock)} for clock in clocks]
    lines = [json.dumps(block | {"case": "a"}).encode() + b"\n" for block in blocks]
    return parse_results(lines).cases["a"]


@pytest.mark.parametrize(
    ("clocks", "moved"),
    [
        ([(2000, 2000)] * 3, [0, 0, 0]),
        ([(2000, 2000), (2000, 1500), (2000, 2000)], [0, 1, 0]),
        ([(2000, 2000), (1500, 1500), (2000, 2000)], [0, 1, 0]),  # at another clock all through
        ([(2000, 2010), (1990, 2000)], [0, 0]),  # a clock that is measured, not known
        ([(-1, -1)] * 2, [0, 0]),
        ([(2000, -1), (-1, 2000), (-1, 900), (2000, 2000)], [0, 0, 1, 0]),
        ([], []),
    ],
)
def test_blocks_at_another_clock_than_most_are_told(clocks: list[tuple[int, int]], moved: list[int]) -> None:
    assert clock_moved(case_with(*clocks, warm=(500, 900))) == [bool(one) for one in moved]


def test_blocks_at_another_clock_are_left_out_unless_hardly_any_other_is_left() -> None:
    first = [False, True, True, True]  # the first sample of each block
    launch = to_launch(case_with((2000, 2000), (2000, 1500), (2000, 2000)))
    assert launch.kept.tolist() == [*first, *[False] * 4, *first]
    wild = to_launch(case_with((2000, 1000), (1000, 2000), (2000, 1000)))
    assert wild.kept.tolist() == first * 3
