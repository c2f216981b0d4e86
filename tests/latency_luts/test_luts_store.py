"""Tables survive the disk exactly; a damaged file, a full disk and made-up numbers are refused."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latency_luts import (
    Context,
    ContextMismatch,
    Entry,
    InvalidTable,
    LatencyTable,
    LutError,
    NewerSchema,
    OpKey,
    SimulatedTable,
    TableFileError,
    TableStorageError,
    WarmthPoint,
    load,
    merge,
    save,
    store,
)

CONTEXT = Context(
    device="pixel", soc="Tensor G3", os_build="AP4A.250105.002", abi="arm64-v8a", runtime="litert",
    runtime_version="2.1.0", runtime_sha256="cd" * 32, delegate="xnnpack", threads=1, cpu_mask="0x80",
    clocks="2850000 kHz locked", handset_version="0.1.0", created="2026-11-21T14:22:33Z", simulated=False,
)  # fmt: skip
FAKE = dataclasses.replace(CONTEXT, device="simulated-phone", simulated=True)


def entry(width: int, latency_ns: float = 1000.5, networks: tuple[str, ...] = ("net",)) -> Entry:
    samples = tuple(range(1000, 1020))
    return Entry(OpKey("add", (1, width), dtype="float32"), latency_ns, (latency_ns, 2000.0), samples, networks, "Add")


TABLE = LatencyTable(CONTEXT, (entry(1), entry(2, networks=()), entry(3, networks=("a", "b"))))

_texts = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), max_size=30)
_durations = st.floats(0, 1e15)


@st.composite
def tables(draw: st.DrawFn) -> LatencyTable:
    texts = {each.name: draw(_texts) for each in dataclasses.fields(Context)}
    texts |= {"device": "d" + texts["device"], "runtime": "r" + texts["runtime"]}
    created = draw(st.datetimes()).isoformat()
    context = Context(**{**texts, "threads": draw(st.integers(1, 64)), "created": created, "simulated": False})  # type: ignore[arg-type]
    entries = []
    for width in draw(st.sets(st.integers(1, 99), max_size=5)):
        ends = sorted((draw(_durations), draw(_durations)))
        samples = tuple(draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9)))
        networks = tuple(draw(st.sets(_texts.filter(bool), max_size=3)))
        key = OpKey("add", (1, width), dtype="float32")
        entries.append(Entry(key, draw(_durations), (ends[0], ends[1]), samples, networks, draw(_texts)))
    return LatencyTable(context, tuple(entries))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_a_table_comes_back_equal(tmp_path: Path, table: LatencyTable) -> None:
    save(table, tmp_path / "table.parquet")
    assert load(tmp_path / "table.parquet") == table
    assert [each.name for each in tmp_path.iterdir()] == ["table.parquet"]


@pytest.mark.parametrize("name", ["a b.parquet", "-x", "ünï", "q'\"$(id).parquet", "n\nl", "x" * 255])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    save(TABLE, str(tmp_path / name))
    assert load(str(tmp_path / name)) == TABLE


def test_the_same_table_gives_the_same_bytes_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"older")
    save(TABLE, path)
    first = path.read_bytes()
    save(TABLE, path)
    assert path.read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pandas_reads_it(tmp_path: Path) -> None:
    save(TABLE, tmp_path / "table.parquet")
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    assert list(frame["key"]) == [str(each.key) for each in TABLE]
    assert list(frame["samples_ns"][0]) == list(TABLE.entries[0].samples_ns)
    assert pq.read_schema(tmp_path / "table.parquet").field("samples_ns").type == pa.list_(pa.int64())
    assert not frame["simulated"].any()


def test_the_first_version_is_still_read() -> None:
    assert load(Path(__file__).parent / "data" / "table_v1.parquet") == TABLE


def test_there_is_an_upgrade_for_each_older_version() -> None:
    assert set(store.UPGRADES) == set(range(1, store.SCHEMA_VERSION))


# --- made-up numbers


def test_a_simulated_table_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SimulatedTable, match="simulated-phone"):
        save(LatencyTable(FAKE, TABLE.entries), tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_simulated_table_that_was_allowed_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    save(LatencyTable(FAKE, TABLE.entries), path, allow_simulated=True)
    assert load(path).context.simulated
    assert "not measurements" in json.loads(pq.read_schema(path).metadata[b"handset"])["warning"]
    assert pandas.read_parquet(path)["simulated"].all()


# --- a disk that fails


def _replace_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store.os, "replace", fail)


def _fsync_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", fail)


def _write_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "open", lambda path, mode: Full(path, mode), raising=False)


def _open_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store, "open", fail, raising=False)


@pytest.mark.parametrize("fault", [_replace_fails, _fsync_fails, _write_fails_half_way, _open_fails])
def test_a_failed_save_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = tmp_path / "table.parquet"
    save(TABLE, path)
    with monkeypatch.context() as patch:
        fault(patch)
        with pytest.raises(TableStorageError, match="No space left|Input/output|Read-only") as caught:
            save(LatencyTable(CONTEXT, ()), path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert load(path) == TABLE
    assert [each.name for each in tmp_path.iterdir()] == ["table.parquet"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(TABLE, tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_system_on_file_sizes_is_one_clear_error(tmp_path: Path) -> None:
    """A real write that fails in the middle, without a patch."""
    code = (
        "import resource, sys, latency_luts as l, pyarrow.parquet\n"
        "table = l.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: l.save(table, sys.argv[2])\n"
        "except l.TableStorageError as error: print(error)\n"
    )
    old = Path(__file__).parent / "data" / "table_v1.parquet"
    root = Path(store.__file__).parents[1]
    command = [sys.executable, "-c", code, str(old), str(tmp_path / "table.parquet")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["absent/table.parquet", "folder", "nul\0.parquet", "x" * 256])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TableStorageError, match="saving a table of"):
        save(TABLE, tmp_path / place)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes into read-only folders")
def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TableStorageError, match="Permission denied"):
        save(TABLE, tmp_path / "table.parquet")


# --- files that are no table


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
    for length in [*range(16), *range(16, len(whole), max(len(whole) // 100, 1)), *range(len(whole) - 16, len(whole))]:
        assert "cut short" in _refusal(tmp_path / "cut.parquet", whole[:length])


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path) -> None:
    """In the footer too, where pyarrow itself would end the process on some of them."""
    save(TABLE, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for at in [*range(16), *range(16, len(whole), max(len(whole) // 200, 1)), *range(len(whole) - 16, len(whole))]:
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        assert "damaged" in _refusal(tmp_path / "damaged.parquet", damaged)


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\0" * 8 + b"PAR1", b"key,latency\n" * 9, b"\0" * 99]
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
    data = _rewrite(path, lambda header: {**header, "schema_version": 1}, lambda columns: columns.drop_columns(["warm_ns"]))
    path.write_bytes(data)
    assert load(path) == TABLE and load(path).warmth == ()


def test_warm_times_and_their_curve_come_back(tmp_path: Path) -> None:
    first, *others = TABLE.entries
    curve = (WarmthPoint(0.5, 0.0), WarmthPoint(4.0, 1.0))
    table = LatencyTable(CONTEXT, (dataclasses.replace(first, warm_ns=7.5), *others), warmth=curve)
    save(table, tmp_path / "table.parquet")
    assert load(tmp_path / "table.parquet") == table and table != TABLE


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


# --- merging


def test_merging_keeps_all_entries_and_the_later_date() -> None:
    later = dataclasses.replace(CONTEXT, created="2026-12-01T00:00:00Z")
    merged = merge(LatencyTable(later, (entry(1),)), LatencyTable(CONTEXT, (entry(2),)))
    assert merged == LatencyTable(later, (entry(1), entry(2)))


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Context) if each.name != "created"])
def test_each_field_of_the_context_keeps_tables_apart(name: str) -> None:
    value = {"threads": 4, "simulated": True}.get(name, "other")
    other = dataclasses.replace(CONTEXT, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ContextMismatch, match=name) as caught:
        merge(TABLE, LatencyTable(other, ()))
    assert caught.value.fields == (name,)


def test_all_differing_fields_are_named() -> None:
    other = dataclasses.replace(CONTEXT, device="host", threads=2, delegate="")
    with pytest.raises(ContextMismatch) as caught:
        merge(TABLE, LatencyTable(other, ()))
    assert caught.value.fields == ("device", "delegate", "threads")
    assert "'pixel', 'host'" in str(caught.value)


def test_the_same_measurement_merges_and_names_the_networks_of_both() -> None:
    a, b = (LatencyTable(CONTEXT, (entry(1, networks=networks),)) for networks in (("x", "y"), ("y", "z")))
    assert merge(a, b).entries == (entry(1, networks=("x", "y", "z")),)
    assert merge(TABLE, TABLE) == TABLE


def test_two_measurements_of_one_kernel_need_a_decision() -> None:
    a, b = (LatencyTable(CONTEXT, (entry(1, latency),)) for latency in (10.0, 20.0))
    with pytest.raises(InvalidTable, match="both have measured add") as caught:
        merge(a, b)
    assert isinstance(caught.value, LutError)
    assert merge(a, b, on_duplicate="first") == a
    assert merge(a, b, on_duplicate="second") == b
