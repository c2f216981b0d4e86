"""The trace: by the rules of the Trace Event Format and by those of Perfetto's importer, which is the stricter reader."""

from __future__ import annotations

import copy
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CheckFailed, StorageError, UsageError
from pipeline.report import perfetto

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
Document = dict[str, Any]
BENCH = SAMPLE["sample"]()
ONE = BENCH["profiles"][0]
BEGINS_S = (0.0, 900.0, 2000.5, 3000.0)
"""Of the sample's three launches, and the end of the last one."""


def timed() -> Document:
    """The sample with what a run notes between its launches."""
    result: Document = copy.deepcopy(SAMPLE["phone"]())
    trace = result["device_conditions"]["trace"]
    looks = [{"at_s": s, "launch": n, "uptime_s": s + 5, "clock_khz": {}} for n, s in enumerate(BEGINS_S)]
    result["device_conditions"]["trace"] = [*looks, *trace]
    return result


def written(result: Document, folder: Path) -> list[Document]:
    """The traces, each checked by the rules that hold for all."""
    return [checked(path.read_text("utf-8")) for path in perfetto.write(result, folder / "trace.json")]


def checked(text: str) -> Document:
    assert "\\u" not in text, "older importers cannot read escapes"
    assert re.search(r'"(ts|dur)": [0-9.]*e', text) is None, "nor exponents"
    assert all(c.isprintable() or c == "\n" for c in text)
    trace: Document = json.loads(text)
    assert sorted(trace) == ["otherData", "traceEvents"]
    ends: dict[int, int] = {}
    threads: dict[int, int] = {}
    named = set()
    for event in trace["traceEvents"]:
        pid, tid, ns = event["pid"], event["tid"], round(event["ts"] * 1000)
        assert type(pid) is type(tid) is int and pid > 0 and tid > 0 and event["ts"] >= 0
        assert threads.setdefault(tid, pid) == pid, "a thread's number belongs to one process"
        assert event["name"] and len(event["name"]) <= 300 and isinstance(event["args"], dict)
        assert abs(event["ts"] * 1000 - ns) < 1e-3
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "process_sort_index", "thread_sort_index")
            named.add((event["name"], pid if event["name"].startswith("process") else tid))
        elif event["ph"] == "C":
            assert [type(value) for value in event["args"].values()] == [float]
            assert ("process_name", pid) in named or pid in {e["pid"] for e in trace["traceEvents"] if e["ph"] == "M"}
        else:
            assert event["ph"] == "X" and ("thread_name", tid) in named
            assert ns >= ends.get(tid, 0), "two events of a thread overlap"
            ends[tid] = ns + round(event["dur"] * 1000)
            assert ends[tid] > ns
    pids = {event["pid"] for event in trace["traceEvents"]}
    assert {("process_name", pid) for pid in pids} <= named
    return trace


def tracks(trace: Document, kind: str = "X") -> dict[str, list[Document]]:
    names = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    found: dict[str, list[Document]] = {}
    for event in trace["traceEvents"]:
        if event["ph"] == kind:
            found.setdefault(names[event["tid"]] if kind == "X" else event["name"], []).append(event)
    return found


def processes(trace: Document) -> list[str]:
    return [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"]


def test_kernels_stand_in_order_one_behind_another_beside_the_whole(tmp_path: Path) -> None:
    result = SAMPLE["sample"]()
    found = tracks(written(result, tmp_path)[0])
    profile = result["profiles"][0]
    kernels = found["mobilenet_v2: kernels, back to back"][:66]
    assert [event["name"] for event in kernels] == [row["name"] for row in profile["kernels"]]
    assert sum(event["dur"] for event in kernels) == pytest.approx(profile["kernels_sum_ms"] * 1e3, abs=0.1)
    assert kernels[-1]["ts"] + kernels[-1]["dur"] == pytest.approx(sum(event["dur"] for event in kernels))
    (whole, _) = found["mobilenet_v2: end to end"]
    assert whole["ts"] == 0
    assert whole["dur"] == pytest.approx(profile["latency_ms"]["corrected"]["median"] * 1e3, abs=0.001)
    row, args = profile["kernels"][1], kernels[1]["args"]
    assert args["us"] == pytest.approx(row["latency_ms"]["corrected"]["median"] * 1e3)
    assert args["plain_us"] == pytest.approx(row["latency_ms"]["median"] * 1e3)
    assert (args["key"], args["op"], args["macs"]) == (row["key"], "conv2d", row["macs"])
    assert args["interval_low_us"] < args["us"] < args["interval_high_us"]
    assert args["share_percent"] == pytest.approx(100 * row["share"])


def test_a_process_is_a_runtime_and_says_what_is_simulated(tmp_path: Path) -> None:
    result = SAMPLE["sample"]()
    assert processes(written(result, tmp_path)[0]) == ["host: onnxruntime 1.31.1", "host: litert 2.1.4"]
    result = timed()
    result["device"]["simulated"] = True
    for trace in written(result, tmp_path):
        assert len(processes(trace)) >= 2
        assert all(name.startswith("host (SIMULATED): ") for name in processes(trace))
        assert trace["otherData"]["simulated"] is True and trace["otherData"]["created"] == result["created"]


def test_a_network_that_failed_is_left_out_by_name(tmp_path: Path) -> None:
    result = SAMPLE["sample"]()
    del result["profiles"][0]["kernels"]
    result["profiles"][0]["kernels_missing"] = "the runtime reported no kernels"
    (trace, *_) = written(result, tmp_path)
    left_out = trace["otherData"]["left_out"]
    assert left_out["mobilenet_v2 onnxruntime"] == "the runtime reported no kernels"
    assert "STABLEHLO_COMPOSITE" in left_out["resnet20 litert"]
    assert len(tracks(trace)["mobilenet_v2: end to end"]) == 2 and len(tracks(trace)["resnet20: end to end"]) == 1


def test_a_run_in_which_all_failed_is_no_trace(tmp_path: Path) -> None:
    result = SAMPLE["sample"]()
    result["profiles"] = [result["profiles"][3]]
    with pytest.raises(CheckFailed, match="no network that was measured: litert: op STABLEHLO"):
        perfetto.write(result, tmp_path / "trace.json")
    assert list(tmp_path.iterdir()) == []


def test_what_was_traced_over_time_is_a_trace_of_its_own(tmp_path: Path) -> None:
    result = timed()
    _, trace = written(result, tmp_path)
    counters = tracks(trace, "C")
    clock = counters["clock of core 4"]
    looks = [look for look in result["device_conditions"]["trace"] if "4" in look["clock_khz"]]
    seen = [(event["ts"] / 1e6, event["args"]["MHz"]) for event in clock]
    assert seen == [(pytest.approx(look["at_s"]), look["clock_khz"]["4"] / 1e3) for look in looks]
    assert [event["args"]["°C"] for event in counters["temperature"]] == [look["temperature_c"] for look in looks]
    assert len(counters["thermal status"]) == 3


def test_samples_and_canaries_stand_where_they_were_taken(tmp_path: Path) -> None:
    result = timed()
    _, trace = written(result, tmp_path)
    profile = result["profiles"][0]
    samples = tracks(trace)["mobilenet_v2 onnxruntime (linux): samples"]
    canary = tracks(trace, "C")["canary beside mobilenet_v2 onnxruntime (linux)"]
    assert [event["dur"] for event in samples] == [ns / 1e3 for ns in profile["samples_ns"]]
    assert [event["args"]["µs"] for event in canary] == [ns / 1e3 for ns in profile["canary_ns"]]
    assert [event["args"]["kept"] for event in samples] == [bool(kept) for kept in profile["kept"]]
    for event, own, launch, start_ns in zip(samples, canary, profile["launch"], profile["start_ns"], strict=True):
        assert event["ts"] == own["ts"] == pytest.approx(BEGINS_S[launch] * 1e6 + start_ns / 1e3)
    assert trace["otherData"]["left_out"] == {}


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_samples_are_left_out_where_the_begin_of_a_launch_is_not_known(tmp_path: Path, lost: int) -> None:
    result = timed()
    del result["device_conditions"]["trace"][lost]
    _, trace = written(result, tmp_path)
    assert "X" not in {event["ph"] for event in trace["traceEvents"]}
    assert trace["otherData"]["left_out"]["mobilenet_v2 onnxruntime (linux)"].startswith("the document does not tell")


def test_a_document_that_tells_nothing_over_time_is_one_file(tmp_path: Path) -> None:
    assert perfetto.write(SAMPLE["sample"](), tmp_path / "trace.json") == [tmp_path / "trace.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    result = SAMPLE["hostile"]()
    result["profiles"][0]["kernels"][0]["name"] = "\ud800 \x00\x1b[31m"
    result["profiles"][0]["kernels"][1]["name"] = "\u202e"
    for trace in written(result, tmp_path):
        assert len(trace["traceEvents"]) > 20


@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.floats(0, 50, allow_subnormal=False), min_size=1, max_size=30))
def test_no_two_kernels_overlap_whatever_their_times(
    tmp_path_factory: pytest.TempPathFactory, times: list[float]
) -> None:
    kernels = [
        ONE["kernels"][0] | {"latency_ms": {"median": ms, "interval": [ms, ms], "corrected": None}} for ms in times
    ]
    result = BENCH | {"profiles": [ONE | {"kernels": kernels}]}
    (trace,) = written(result, tmp_path_factory.mktemp("trace"))
    found = tracks(trace)["mobilenet_v2: kernels, back to back"]
    assert [event["args"]["us"] for event in found] == [ms * 1e3 for ms in times]


@pytest.mark.parametrize("ms", [-0.001, 1e300])
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, ms: float) -> None:
    result = SAMPLE["sample"]()
    result["profiles"][0]["kernels"][2]["latency_ms"] = {"median": ms, "interval": [ms, ms]}
    with pytest.raises(UsageError, match=r"for kernel 2"):
        perfetto.write(result, tmp_path / "trace.json")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*trace\.json"):
        perfetto.write(SAMPLE["sample"](), tmp_path / "none" / "trace.json")
