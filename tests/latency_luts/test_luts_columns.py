"""Entries kept as columns are those that were saved, and as strict as entries built one by one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import (
    Context,
    Entry,
    InvalidKey,
    InvalidTable,
    LatencyTable,
    LutError,
    MissingKernel,
    OpKey,
    load,
    save,
)
from latency_luts.columns import Columns, _check_keys
from latency_luts.store import _schema

CONTEXT = Context(
    device="host", soc="", os_build="", abi="x86_64", runtime="onnxruntime", runtime_version="1.31.1", runtime_sha256="",
    delegate="", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip


def conv(c_in: int, c_out: int, groups: int = 1) -> OpKey:
    return OpKey("conv2d", (1, c_in, 14, 14), c_out, groups=groups, dtype="float32")


def entry(c_in: int, c_out: int, ns: float = 1e3) -> Entry:
    return Entry(conv(c_in, c_out), ns, (0.9 * ns, 1.1 * ns), (1, 2, c_in), ("a", "b"), "Conv")


ENTRIES = tuple(entry(8 * i, 16, 1e3 + i) for i in range(1, 30))


@pytest.fixture
def loaded(tmp_path: Path) -> LatencyTable:
    save(LatencyTable(CONTEXT, ENTRIES), tmp_path / "table.parquet")
    return load(tmp_path / "table.parquet")


def test_a_loaded_table_is_the_saved_one_in_each_way_of_looking(loaded: LatencyTable) -> None:
    assert isinstance(loaded.entries, Columns)
    assert loaded == LatencyTable(CONTEXT, ENTRIES) and LatencyTable(CONTEXT, ENTRIES) == loaded
    assert loaded.entries == ENTRIES and hash(loaded) == hash(LatencyTable(CONTEXT, ENTRIES))
    assert tuple(loaded) == ENTRIES and len(loaded) == 29
    assert loaded.entries[0] == ENTRIES[0] and loaded.entries[-1] == ENTRIES[-1] and loaded.entries[2:5] == ENTRIES[2:5]
    assert ENTRIES[3] in loaded.entries and loaded.entries.index(ENTRIES[3]) == 3
    with pytest.raises(IndexError):
        loaded.entries[29]
    assert dataclasses.asdict(loaded.entries[4]) == dataclasses.asdict(ENTRIES[4])
    assert loaded.entries != ENTRIES[:-1] and loaded.entries != (*ENTRIES[:-1], entry(8, 16))
    assert repr(loaded.entries) == "<29 entries>"


def test_it_answers_as_the_table_that_was_saved(loaded: LatencyTable) -> None:
    made = LatencyTable(CONTEXT, ENTRIES)
    for keys in ([conv(8, 16), conv(232, 16), conv(8, 16)], [conv(20, 16)], [conv(8, 16), conv(20, 24), conv(999, 16)]):
        for on_missing in ("report", "bound"):
            assert loaded.total(keys, on_missing=on_missing) == made.total(keys, on_missing=on_missing)  # type: ignore[arg-type]
    with pytest.raises(MissingKernel):
        loaded.lookup(conv(999, 16))


def test_entries_without_rows() -> None:
    empty = Columns(_schema().empty_table().drop_columns(["simulated"]))
    assert len(empty) == 0 and tuple(empty) == () and empty == () and empty.find(str(conv(8, 8))) is None


def _columns(**changed: Any) -> pa.Table:
    rows: dict[str, list[Any]] = {
        "key": [str(conv(8 * i, 16)) for i in range(1, 5)], "latency_ns_median": [1.0] * 4, "interval_low_ns": [1.0] * 4,
        "interval_high_ns": [2.0] * 4, "samples_ns": [[1, 2]] * 4, "networks": [["a", "b"], [], ["b"], ["c"]],
        "runtime_kernel": ["Conv"] * 4, "warm_ns": [0.5, None, 1.0, 2.0],
    }  # fmt: skip
    for name, value in changed.items():
        rows[name] = [*rows[name][:2], value, *rows[name][3:]]
    return pa.Table.from_pydict(rows, schema=pa.schema([field for field in _schema() if field.name != "simulated"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_ns_median", float("nan")), ("latency_ns_median", float("inf")), ("latency_ns_median", -1e-9),
        ("interval_low_ns", 3.0), ("interval_low_ns", -1.0), ("interval_high_ns", float("nan")), ("samples_ns", []),
        ("samples_ns", [1, -1]), ("samples_ns", [None, 1]), ("networks", ["a", "a"]), ("networks", [""]),
        ("networks", [None]), ("networks", ["a\n"]), ("networks", ["x" * 1001]), ("runtime_kernel", "a\tb"),
        ("runtime_kernel", "x" * 1001), ("warm_ns", float("nan")), ("warm_ns", -1.0), ("warm_ns", float("inf")),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_as_an_entry_is(name: str, value: Any) -> None:
    field = {"interval_low_ns": "interval_ns", "interval_high_ns": "interval_ns"}.get(name, name)
    with pytest.raises(InvalidTable, match=f"{field}="):
        Columns(_columns(**{name: value}))


def test_the_same_network_in_two_rows_is_no_repetition() -> None:
    assert [each.networks for each in Columns(_columns())] == [("a", "b"), (), ("b",), ("c",)]


def test_a_kernel_that_is_there_twice_is_named() -> None:
    with pytest.raises(InvalidTable, match=r"two entries of conv2d\[in=1x8x14x14"):
        Columns(_columns(key=str(conv(8, 16))))


def test_a_slice_of_a_file_is_read_with_its_own_samples() -> None:
    columns = _columns(samples_ns=[7, 8, 9]).slice(2)
    assert [each.samples_ns for each in Columns(columns)] == [(7, 8, 9), (1, 2)]


_edits = st.sampled_from(
    [
        ("in=1x16", "in=1x016"), ("in=1x16", "in=1x0"), ("in=1x16", "in=1x99999999999"), ("in=1x16", "in=1x17"),
        ("in=1x16", "in=16"), ("out=32", "out=0"), ("out=32", "out=33"), ("out=32 ", ""), ("g=4", "g=3"), ("g=4", "g=04"),
        ("g=4 ", ""), ("g=4", "g=1"), ("k=3x3", "k=3"), ("k=3x3 ", ""), ("act=relu6", "act=relu 6"), ("add=0", "add=2"),
        ("dtype=float32", "dtype=Float"), ("conv2d", "conv3d"), ("conv2d", "mean"), (" p=1,1,1,1", " p=1,1,1,1 p=1,1,1,1"),
        ("]", " detail=x]"), ("]", " detail=" + "x" * 201 + "]"), ("]", ""), ("s=2x2 p=1,1,1,1", "p=1,1,1,1 s=2x2"),
        ("", ""), ("g=4", "g=2"), ("in=1x16x14x14", "in=1x32x7x7"), ("out=32", "out=64"), ("in=1x16", "in=1x2147483648"),
    ]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.lists(_edits, max_size=2), min_size=1, max_size=6))
def test_keys_are_refused_exactly_where_parsing_each_would_refuse(edits: list[list[tuple[str, str]]]) -> None:
    texts = ["conv2d[in=1x16x14x14 out=32 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=4 act=relu6 add=0 dtype=float32]"]
    for each in edits:
        text = texts[0]
        for old, new in each:
            text = text.replace(old, new, 1)
        texts.append(text)

    def parse() -> None:
        for text in texts:
            OpKey.parse(text)

    try:
        parse()
    except LutError as error:
        with pytest.raises(InvalidKey) as caught:
            _check_keys(texts)
        assert str(caught.value) == str(error)
    else:
        _check_keys(texts)
