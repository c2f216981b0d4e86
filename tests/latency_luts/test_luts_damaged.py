"""Files that are no table: cut short, changed, foreign, newer, hostile. Each is refused in words."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import runpy
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latency_luts import (
    Context,
    LatencyTable,
    NewerSchema,
    TableFileError,
    load,
    save,
    store,
)

MADE = runpy.run_path(str(Path(__file__).with_name("test_luts_store.py")))
TABLE: LatencyTable = MADE["TABLE"]
CONTEXT: Context = MADE["CONTEXT"]


def _refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(TableFileError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    save(TABLE, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in [
        *range(1, 16),
        *range(16, len(whole), max(len(whole) // 100, 1)),
        *range(len(whole) - 16, len(whole)),
    ]:
        assert "cut short" in _refusal(tmp_path / "cut.parquet", whole[:length])


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path) -> None:
    """In the footer too, where pyarrow itself would end the process on some of them."""
    save(TABLE, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for at in [*range(16), *range(16, len(whole), max(len(whole) // 200, 1)), *range(len(whole) - 16, len(whole))]:
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        assert "damaged" in _refusal(tmp_path / "damaged.parquet", damaged)


@pytest.mark.parametrize(
    "data", [b"PAR1", b"PAR1PAR1", b"PAR1" + b"\0" * 8 + b"PAR1", b"key,latency\n" * 9, b"\0" * 99]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    assert "no latency table" in _refusal(tmp_path / "other", data)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("what", [{"a": 1}, [1, 2], OrderedDict(a=1), TABLE], ids=["dict", "list", "class", "table"])
def test_a_pickle_is_refused_by_name_and_not_opened(tmp_path: Path, protocol: int, what: object) -> None:
    assert "it is a pickle, which could run code" in _refusal(tmp_path / "table.pkl", pickle.dumps(what, protocol))


def test_a_footer_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    assert "footer is longer" in _refusal(tmp_path / "other", b"PAR1" + b"\0" * 4 + b"\xff" * 4 + b"PAR1")


def test_a_line_break_in_a_file_name_does_not_break_the_message(tmp_path: Path) -> None:
    with pytest.raises(TableFileError) as caught:
        load(tmp_path / "n\nl")
    assert "\n" not in str(caught.value)


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pandas.DataFrame({"key": ["a"]}).to_parquet(path)
    assert "handset did not write it" in _refusal(path, path.read_bytes())
    assert "no latency table of handset" in _refusal(path, store._seal(path.read_bytes()))


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableFileError, match="No such file"):
        load(tmp_path / "absent.parquet")
    with pytest.raises(TableFileError, match="not a file"):
        load(tmp_path)
    with pytest.raises(TableFileError, match="null byte"):
        load(tmp_path / "nul\0")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TableFileError, match="not a file"):
        load(tmp_path / "pipe")


def _rewrite(
    path: Path,
    header: Callable[[dict[str, Any]], Any] = lambda header: header,
    columns: Callable[[pa.Table], pa.Table] = lambda columns: columns,
) -> bytes:
    """The bytes of TABLE's file with another header or other columns, sealed as if handset had written them."""
    save(TABLE, path)
    columns_now = columns(pq.read_table(path))
    changed = header(json.loads(pq.read_schema(path).metadata[b"handset"]))
    text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    buffer = io.BytesIO()
    pq.write_table(columns_now.replace_schema_metadata({b"handset": text}), buffer)
    return store._seal(buffer.getvalue())


def test_the_rewriting_of_these_tests_is_itself_harmless(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(_rewrite(path))
    assert load(path) == TABLE


def test_a_newer_version_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(_rewrite(path, lambda header: {**header, "schema_version": 3, "context": "of another shape"}))
    with pytest.raises(NewerSchema, match="schema_version is 3, newer than 2"):
        load(path)


def test_an_older_version_goes_through_all_upgrades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SCHEMA_VERSION", 3)
    renamed = {"device": "from 2", "soc": "from 1"}

    def upgrade(field: str) -> Callable[[store.Stored], store.Stored]:
        return lambda stored: stored._replace(context={**stored.context, field: renamed[field]})

    monkeypatch.setattr(store, "UPGRADES", {1: upgrade("soc"), 2: upgrade("device")})
    path = tmp_path / "table.parquet"
    path.write_bytes(_rewrite(path, lambda header: {**header, "schema_version": 1}))
    assert load(path).context == dataclasses.replace(CONTEXT, **renamed)


def test_version_1_has_neither_warm_times_nor_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    data = _rewrite(
        path, lambda header: {**header, "schema_version": 1}, lambda columns: columns.drop_columns(["warm_ns"])
    )
    path.write_bytes(data)
    assert load(path) == TABLE and load(path).warmth == ()


def _with(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: {**header, "context": {**header["context"], **changes}}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (lambda header: b"{", "damaged"),
        (lambda header: b"\xff\xfe", "damaged"),
        (lambda header: b"[" * 60_000, "damaged"),
        (lambda header: b" " * 70_000, "no latency table of handset"),
        (lambda header: [], "no latency table of handset"),
        (lambda header: {**header, "kind": "bench"}, "no latency table of handset"),
        (lambda header: {**header, "schema_version": True}, "valid schema_version"),
        (lambda header: {**header, "schema_version": 0}, "valid schema_version"),
        (lambda header: {**header, "schema_version": "1"}, "valid schema_version"),
        (lambda header: {**header, "context": None}, "without a context"),
        (lambda header: {**header, "context": {}}, "other fields: abi"),
        (_with(colour="red"), "other fields: colour"),
        (_with(threads="1"), "threads="),
        (_with(simulated=True), "disagree"),
        (_with(soc="\ud800"), "soc="),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: Callable[[dict[str, Any]], Any], found: str) -> None:
    path = tmp_path / "table.parquet"
    assert found in _refusal(path, _rewrite(path, header))


def _set(name: str, values: list[Any], kind: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda columns: columns.set_column(columns.schema.get_field_index(name), name, pa.array(values, kind))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (lambda columns: columns.drop_columns(["samples_ns"]), "other columns than a table: samples_ns"),
        (lambda columns: columns.append_column("x", pa.array([1, 2, 3])), "other columns than a table: x"),
        (lambda columns: columns.append_column("key", columns["key"]), "there twice"),
        (_set("samples_ns", [[1.0]] * 3, pa.list_(pa.float64())), "other columns than a table: samples_ns"),
        (_set("latency_ns_median", [1, 2, 3], pa.int64()), "other columns than a table: latency_ns_median"),
        (_set("latency_ns_median", [1.0, None, 3.0], pa.float64()), "empty cells in latency_ns_median"),
        (_set("latency_ns_median", [1.0, float("nan"), 3.0], pa.float64()), "latency_ns_median=nan"),
        (_set("samples_ns", [[1], [], [1]], pa.list_(pa.int64())), "samples_ns"),
        (_set("samples_ns", [[1], [None], [1]], pa.list_(pa.int64())), "samples_ns"),
        (_set("key", ["a", "b", "c"], pa.string()), "which has not the form"),
        (_set("key", [str(TABLE.entries[0].key)] * 3, pa.string()), "two entries"),
        (_set("simulated", [False, True, False], pa.bool_()), "disagree"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, columns: Callable[[pa.Table], pa.Table], found: str) -> None:
    path = tmp_path / "table.parquet"
    assert found in _refusal(path, _rewrite(path, columns=columns))


@pytest.mark.parametrize(
    ("bound", "value"), [("MAX_FILE_BYTES", 999), ("MAX_ENTRIES", 2), ("MAX_SAMPLES", 59), ("MAX_CONTENT_BYTES", 99)]
)
def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    save(TABLE, tmp_path / "table.parquet")
    monkeypatch.setattr(store, bound, value)
    assert str(value) in _refusal(tmp_path / "again.parquet", (tmp_path / "table.parquet").read_bytes())
