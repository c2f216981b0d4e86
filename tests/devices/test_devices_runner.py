"""The job file and the parser of results: exact both ways, and damage is always an error that names its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devices.runner
from devices.errors import DeviceError
from devices.runner import MAX_LINE_BYTES, Case, Kernel, Watch, format_job, parse_results, read_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=30)
ID = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)
NUMBER = st.integers(0, 1 << 48)
NS = st.integers(0, (1 << 63) - 1)


def case_strategy() -> st.SearchStrategy[Case]:
    kinds = {"str": TEXT, "int": NUMBER, "bool": st.booleans()}
    fields = {field.name: kinds[str(field.type)] for field in dataclasses.fields(Case)}
    return st.builds(Case, **{**fields, "id": ID})


def read_job(text: str) -> list[dict[str, str]]:
    """A job file as native/job.c reads it: key and rest of the line; the first entry is the job's own."""
    head, *lines = text.split("\n")[:-1]
    assert head == "handset-job 1"
    sections: list[dict[str, str]] = [{}]
    for line in lines:
        key, _, value = line.partition(" ")
        if key == "case":
            sections.append({})
        if key == "watch":
            value = "\n".join([*filter(None, [sections[-1].pop(key, "")]), value])
        assert key not in sections[-1]
        sections[-1][key] = value
    return sections


def as_text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


@given(st.lists(case_strategy(), max_size=3), TEXT, NUMBER, st.booleans(), st.lists(TEXT, max_size=3), NUMBER)
def test_job_round_trip(
    cases: list[Case], results: str, seed: int, canary: bool, watch: list[str], watch_ns: int
) -> None:
    text = format_job(cases, results, seed=seed, canary=canary, watch=watch, watch_ns=watch_ns)
    job, *sections = read_job(text)
    watched = {"watch": "\n".join(watch), "watch_ns": str(watch_ns)} if watch else {}
    assert job == {"results": results, "seed": str(seed), "canary": str(int(canary)), **watched}
    assert len(sections) == len(cases)
    for case, section in zip(cases, sections, strict=True):
        wanted = dataclasses.asdict(case)
        assert section.pop("case") == wanted.pop("id")
        if not case.cpu_mask:
            del wanted["cpu_mask"]
        assert section == {key: as_text(value) for key, value in wanted.items()}


def test_empty_values_are_left_out() -> None:
    (_, section) = read_job(format_job([Case("a", "m", "litert", "l")], "r"))
    assert not {"delegate", "input", "output", "log", "profile_prefix", "optimized_model", "cpu_mask"} & set(section)
    assert section["profile"] == "0" and section["memory_bytes"] == "0"


@pytest.mark.parametrize(
    "settings_",
    [
        {"model": "a\nlimit_ns 0"},
        {"model": "a\rb"},
        {"log": "a\0b"},
        {"input": "\udcff"},
        {"output": "x" * 8000},
        {"output": "ü" * 4000},
        {"id": "é"},
        {"id": "a\tb"},
        {"id": "\x7f"},
    ],
)
def test_what_a_job_cannot_carry(settings_: dict[str, Any]) -> None:
    case = dataclasses.replace(Case("a", "m", "litert", "l"), **settings_)
    with pytest.raises(DeviceError, match="the runner cannot take"):
        format_job([case], "r")


@pytest.mark.parametrize("path", ["a\nresults /etc/passwd", "a\0", "\udcff", "x" * 8000, ""])
def test_a_path_that_cannot_be_watched(path: str) -> None:
    with pytest.raises(DeviceError, match="the runner cannot"):
        format_job([Case("a", "m", "litert", "l")], "r", watch=["/proc/loadavg", path])


def test_at_most_64_files_are_watched() -> None:
    assert format_job([], "r", watch=["/a"] * 64).count("watch /a\n") == 64
    with pytest.raises(DeviceError, match="can watch 64 files, not 65"):
        format_job([], "r", watch=["/a"] * 65)


def test_the_longest_line_a_job_can_carry() -> None:
    room = MAX_LINE_BYTES - len("model ")
    assert "x" * room in format_job([Case("a", "x" * room, "litert", "l")], "r")
    with pytest.raises(DeviceError):
        format_job([Case("a", "x" * (room + 1), "litert", "l")], "r")


# What comes back.

BEGIN: dict[str, Any] = {"type": "begin", "monotonic_raw_ns": 3, "realtime_ns": 1_800_000_000_000_000_000, "watched": 2}
WATCH: dict[str, Any] = {"type": "watch", "at_ns": 8, "values": ["1950000", None]}
LOADED: dict[str, Any] = {
    "type": "loaded", "case": "a", "open_ns": 40, "load_ns": 12, "version": "1.2", "cpu_mask": "0xf0", "canary": "c",
    "inputs": [{"name": "x", "bytes": 4, "shape": [1]}],
}  # fmt: skip
BLOCK: dict[str, Any] = {
    "type": "block", "case": "a", "block": 0, "warmup": False, "start_ns": [1, 20], "canary_ns": [3, 4],
    "sample_ns": [5, 6], "preempted": [0, 1], "last_canary_ns": 7, "core": [1, 2], "clock_khz": [-1, 1800000],
}  # fmt: skip
LIST: dict[str, Any] = {
    "type": "kernel_list", "case": "a", "list": 1,
    "kernels": [
        {"name": "k", "index": 0, "kind": 4},
        {"name": "l", "index": 1, "kind": 0, "op": "Conv", "inputs": [[1, 2]], "outputs": [[]]},
    ],
}  # fmt: skip
KERNELS: dict[str, Any] = {"type": "kernels", "case": "a", "list": 1, "sample": 0, "us": [9, 10]}
INFERRED: dict[str, Any] = {"type": "inferred", "case": "a", "inferences": 1, "outputs": [{"name": "y"}]}
FINISHED: dict[str, Any] = {"type": "finished", "case": "a", "peak_memory_bytes": 4096, "profile": "/p.json"}
FAILED: dict[str, Any] = {"type": "failed", "case": "a", "signal": 11, "stage": "loading", "why": "broke"}
END: dict[str, Any] = {"type": "end", "stopped": 0, "elapsed_ns": 5}
ALL = [BEGIN, WATCH, LOADED, BLOCK, LIST, KERNELS, INFERRED, FINISHED, FAILED, END]


def encode(*lines: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


def test_every_kind_of_line() -> None:
    result = parse_results(encode(*ALL))
    assert result.complete and result.torn == 0
    case = result.cases["a"]
    assert (case.open_ns, case.load_ns, case.version, case.cpu_mask, case.canary) == (40, 12, "1.2", 0xF0, "c")
    assert case.inputs == ({"name": "x", "bytes": 4, "shape": [1]},) and case.outputs == ({"name": "y"},)
    (block,) = case.blocks
    assert not block.warmup
    assert (block.start_ns, block.canary_ns, block.sample_ns, block.preempted) == ((1, 20), (3, 4), (5, 6), (0, 1))
    assert (block.last_canary_ns, block.core, block.clock_khz) == (7, (1, 2), (None, 1800000))
    (run,) = case.kernel_runs
    assert (run.sample, run.us) == (0, (9, 10))
    assert run.kernels == (Kernel("k", 0, 4), Kernel("l", 1, 0, "Conv", ((1, 2),), ((),)))
    assert (case.peak_memory_bytes, case.profile, case.failed) == (4096, "/p.json", "broke [SIGSEGV]")
    assert case.finished
    assert result.begin_realtime_ns == BEGIN["realtime_ns"]
    assert result.watched == (Watch(8, ("1950000", None)),)


def test_nothing_at_all() -> None:
    result = parse_results([])
    assert (dict(result.cases), result.complete, result.torn) == ({}, False, 0)
    assert (result.begin_realtime_ns, result.watched) == (None, ())


def test_results_of_before_there_was_a_begin() -> None:
    """Runs that were made with an older handset are read again."""
    old = {key: value for key, value in LOADED.items() if key != "open_ns"}
    result = parse_results(encode(old, BLOCK, LIST, KERNELS, FINISHED, END))
    assert (result.complete, result.begin_realtime_ns, result.watched) == (True, None, ())
    assert (result.cases["a"].load_ns, result.cases["a"].open_ns, result.cases["a"].finished) == (12, None, True)


@pytest.mark.parametrize("lines", [[LOADED], [LOADED, BLOCK, KERNELS], [LOADED, INFERRED], [LOADED, FAILED]])
def test_only_a_case_that_got_to_its_end_is_finished(lines: list[dict[str, Any]]) -> None:
    assert not parse_results(encode(LIST, *lines, END)).cases["a"].finished
    assert parse_results(encode(LIST, *lines, FINISHED)).cases["a"].finished


@given(st.lists(st.tuples(NS, st.lists(st.none() | st.text(max_size=64), max_size=64)), max_size=9))
def test_watched_round_trip(rows: list[tuple[int, list[str | None]]]) -> None:
    lines = [{"type": "watch", "at_ns": at, "values": values} for at, values in rows]
    assert parse_results(encode(*lines)).watched == tuple(Watch(at, tuple(values)) for at, values in rows)


@pytest.mark.parametrize(("stopped", "complete"), [(0, True), (15, False)])
def test_a_stopped_runner_is_not_complete(stopped: int, complete: bool) -> None:
    assert parse_results(encode(LOADED, {**END, "stopped": stopped})).complete is complete


@pytest.mark.parametrize(("signal", "said"), [(0, "broke"), (4, "broke [SIGILL]"), (64, "broke [signal 64]")])
def test_why_a_case_failed(signal: int, said: str) -> None:
    assert parse_results(encode({**FAILED, "signal": signal})).cases["a"].failed == said


def test_long_texts_are_cut() -> None:
    lines = encode(
        {**FAILED, "why": "w" * 10**5, "signal": 0},
        {**LIST, "kernels": [{"name": "n" * 10**5, "index": 0, "kind": 0, "op": "o" * 10**5}]},
        {**KERNELS, "us": [1]},
    )
    case = parse_results(lines).cases["a"]
    assert len(case.failed or "") == 1000
    assert [(len(kernel.name), len(kernel.op)) for kernel in case.kernel_runs[0].kernels] == [(500, 100)]


def test_unknown_memory_is_none() -> None:
    assert parse_results(encode({**FINISHED, "peak_memory_bytes": -1})).cases["a"].peak_memory_bytes is None


@pytest.mark.parametrize("values", [[], ["1"], ["1", "2", "3"]])
def test_as_many_values_as_files_are_watched(values: list[str]) -> None:
    with pytest.raises(DeviceError, match=f"damaged in line 2: ValueError {len(values)} values of 2 watched files"):
        parse_results(encode(BEGIN, {**WATCH, "values": values}))


def test_lists_belong_to_their_case() -> None:
    other = {**LIST, "case": "b", "kernels": [{"name": "other", "index": 0, "kind": 0}]}
    result = parse_results(encode(LIST, other, KERNELS, {**KERNELS, "case": "b", "us": [1]}))
    assert [kernel.name for kernel in result.cases["a"].kernel_runs[0].kernels] == ["k", "l"]
    assert [kernel.name for kernel in result.cases["b"].kernel_runs[0].kernels] == ["other"]


@given(st.lists(st.tuples(NS, NS, NS.filter(bool), st.integers(0, 99)), max_size=20), NS, st.booleans())
def test_block_round_trip(rows: list[tuple[int, int, int, int]], last: int, warmup: bool) -> None:
    starts, canaries, samples, preempted = ([row[i] for row in rows] for i in range(4))
    line = {**BLOCK, "start_ns": starts, "canary_ns": canaries, "sample_ns": samples, "preempted": preempted}
    (block,) = parse_results(encode({**line, "warmup": warmup, "last_canary_ns": last})).cases["a"].blocks
    assert (block.start_ns, block.canary_ns) == (tuple(starts), tuple(canaries))
    assert (block.sample_ns, block.preempted) == (tuple(samples), tuple(preempted))
    assert (block.warmup, block.last_canary_ns) == (warmup, last)


@given(st.integers(0, sum(len(line) for line in encode(*ALL))))
def test_a_file_cut_anywhere_gives_what_was_whole(cut: int) -> None:
    data = b"".join(encode(*ALL))[:cut]
    lines = data.splitlines(keepends=True)
    result = parse_results(lines)
    assert result.torn == (0 if data.endswith(b"\n") or not data else 1)
    assert result.complete == (data.count(b"\n") == len(ALL))
    whole = parse_results(lines[: data.count(b"\n")])
    assert whole.cases == result.cases


DAMAGE: list[tuple[dict[str, Any] | bytes, str]] = [
    (b"\n", "line 3"),
    (b"{\n", "line 3"),
    (b"\xff\xfe\n", "line 3"),
    (b"[]\n", "TypeError"),
    (b"null\n", "TypeError"),
    (b"[" * 100_000 + b"\n", "RecursionError"),
    (b'{"type": "finished", "case": "a", "peak_memory_bytes": 1e999, "profile": ""}\n', "not a whole number"),
    (b'{"type": "loaded"}\n', "case"),
    ({**LOADED, "type": "surprise"}, "unknown type 'surprise'"),
    ({**LOADED, "type": "x" * 10**5}, "unknown type 'xxx"),
    ({**LOADED, "load_ns": float("nan")}, "not a whole number"),
    ({**LOADED, "load_ns": "12"}, "not a whole number"),
    ({**LOADED, "cpu_mask": 15}, "TypeError"),
    ({**LOADED, "cpu_mask": "all"}, "ValueError"),
    ({**LOADED, "inputs": "abc"}, "not a list of objects"),
    ({**INFERRED, "outputs": {"name": "y"}}, "not a list of objects"),
    ({**BLOCK, "sample_ns": [5]}, "different lengths"),
    ({**BLOCK, "canary_ns": []}, "different lengths"),
    ({**BLOCK, "preempted": [0, 0, 0]}, "different lengths"),
    ({**BLOCK, "sample_ns": [5, -6]}, "negative time"),
    ({**BLOCK, "sample_ns": [5, 0]}, "an inference that took none"),
    ({**BLOCK, "canary_ns": [-3, 4]}, "negative time"),
    ({**BLOCK, "start_ns": [-1, 4]}, "negative time"),
    ({**BLOCK, "last_canary_ns": -1}, "negative time"),
    ({**BLOCK, "sample_ns": [5, 6.5]}, "not a whole number"),
    ({**BLOCK, "sample_ns": [5, True]}, "not a whole number"),
    ({**BLOCK, "sample_ns": [5, None]}, "not a whole number"),
    ({**BLOCK, "sample_ns": [5, 1 << 63]}, "not a whole number of 64 bits"),
    ({**BLOCK, "sample_ns": [5, 10**4000]}, "not a whole number of 64 bits"),
    ({**BLOCK, "sample_ns": 5}, "not a list"),
    ({**BLOCK, "core": [1]}, "IndexError"),
    ({**BLOCK, "clock_khz": []}, "IndexError"),
    ({**KERNELS, "list": 2}, "KeyError"),
    ({**KERNELS, "case": "b"}, "KeyError"),
    ({**KERNELS, "us": [1]}, "1 times for 2 kernels"),
    ({**KERNELS, "us": [1, -2]}, "negative time"),
    ({**LIST, "kernels": ["k"]}, "TypeError"),
    ({**LIST, "kernels": [{"name": "k", "index": 0}]}, "kind"),
    ({**FAILED, "signal": 11.5}, "not a whole number"),
    ({"type": "end"}, "stopped"),
    ({**LOADED, "open_ns": "x"}, "not a whole number"),
    ({**BEGIN, "realtime_ns": 1.5}, "not a whole number"),
    ({"type": "begin"}, "realtime_ns"),
    ({**BEGIN, "watched": True}, "not a whole number"),
    ({**WATCH, "at_ns": -1}, "negative time"),
    ({**WATCH, "at_ns": None}, "not a whole number"),
    ({**WATCH, "values": "ab"}, "not a list of at most 64"),
    ({**WATCH, "values": {"a": "b"}}, "not a list of at most 64"),
    ({**WATCH, "values": ["1"] * 65}, "not a list of at most 64"),
    ({**WATCH, "values": [1, None]}, "no text of at most 64"),
    ({**WATCH, "values": ["x" * 65, None]}, "no text of at most 64"),
    ({"type": "watch", "at_ns": 1}, "values"),
]


@pytest.mark.parametrize(("damaged", "said"), DAMAGE, ids=range(len(DAMAGE)))
def test_damage_names_its_line(damaged: dict[str, Any] | bytes, said: str) -> None:
    (line,) = [damaged] if isinstance(damaged, bytes) else encode(damaged)
    with pytest.raises(DeviceError, match="damaged in line 3") as told:
        parse_results([*encode(LOADED, LIST), line, *encode(END)])
    assert said in str(told.value)
    assert len(str(told.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(ALL) - 1))
    lines = [dict(line) for line in ALL]
    lines[position][data.draw(st.sampled_from(sorted(ALL[position])))] = data.draw(JSON)
    try:
        parse_results(encode(*lines))
    except DeviceError as error:
        assert "damaged in line" in str(error)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_read_or_refused(lines: list[bytes]) -> None:
    try:
        result = parse_results(lines)
    except DeviceError as error:
        assert "damaged in line" in str(error)
    else:
        assert not result.cases and result.torn == sum(not line.endswith(b"\n") for line in lines)


def test_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_bytes(b"one\n\xfftwo\r\n\ntorn")
    assert list(read_lines(str(path))) == [b"one\n", b"\xfftwo\r\n", b"\n", b"torn"]


@pytest.mark.parametrize("content", [b"x" * 101, b"a\n" * 51, b"\n" * 101])
def test_a_file_that_is_too_large(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.runner, "MAX_RESULT_BYTES", 100)
    path = tmp_path / "results"
    path.write_bytes(content[:100])
    assert b"".join(read_lines(str(path))) == content[:100]
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="larger than"):
        list(read_lines(str(path)))
