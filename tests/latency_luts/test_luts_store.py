"""Tables survive the disk exactly, older ones are still read, and made-up numbers are refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latency_luts import (
    Context,
    Entry,
    LatencyTable,
    OpKey,
    SimulatedTable,
    WarmthPoint,
    load,
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


def test_warm_times_and_their_curve_come_back(tmp_path: Path) -> None:
    first, *others = TABLE.entries
    curve = (WarmthPoint(0.5, 0.0), WarmthPoint(4.0, 1.0))
    table = LatencyTable(CONTEXT, (dataclasses.replace(first, warm_ns=7.5), *others), warmth=curve)
    save(table, tmp_path / "table.parquet")
    assert load(tmp_path / "table.parquet") == table and table != TABLE


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
