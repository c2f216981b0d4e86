"""CSV: exact there and back, no formulas, bounded, errors with their line."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latency_luts import (
    Context,
    Entry,
    InvalidTable,
    LatencyTable,
    OpKey,
    TableFileError,
    TableStorageError,
    convert,
    export_csv,
    import_csv,
)

CONTEXT = Context(
    device="pixel", soc="Tensor G3", os_build="AP4A", abi="arm64-v8a", runtime="litert", runtime_version="2.1.0",
    runtime_sha256="cd" * 32, delegate="xnnpack", threads=1, cpu_mask="0x80", clocks="", handset_version="0.1.0",
    created="2026-11-21T14:22:33Z", simulated=False,
)  # fmt: skip


def entry(width: int, kernel: str = "Add", networks: tuple[str, ...] = ("net",), detail: str = "") -> Entry:
    key = OpKey("add", (1, width), dtype="float32", detail=detail)
    return Entry(key, 1000.5, (0.1 + 0.2, 2000.0), (3, 1, 2), networks, kernel)


TABLE = LatencyTable(CONTEXT, (entry(1), entry(2, networks=()), entry(3, networks=("a", "b"))))

_texts = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), max_size=20)
_odd = st.sampled_from(["'", "''", "'=1", "-", "@x", '"', ',"', "+1,2"])
_hostile = st.one_of(_texts, _texts.map(lambda text: "=" + text), _odd)
_ns = st.floats(0, 1e15)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, ...]:
    made = []
    for width in draw(st.sets(st.integers(1, 99), max_size=4)):
        low, high = sorted((draw(_ns), draw(_ns)))
        samples = tuple(draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5)))
        networks = tuple(draw(st.sets(_hostile.filter(bool), max_size=3)))
        detail = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
        key = OpKey("add", (1, width), dtype="float32", detail=detail)
        warm = draw(st.none() | _ns)
        made.append(Entry(key, draw(_ns), (low, high), samples, networks, draw(_hostile), warm))
    return tuple(made)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries())
def test_a_table_comes_back_exactly_and_no_cell_is_a_formula(tmp_path: Path, made: tuple[Entry, ...]) -> None:
    path = tmp_path / "table.csv"
    export_csv(LatencyTable(CONTEXT, made), path)
    assert import_csv(path, CONTEXT) == LatencyTable(CONTEXT, made)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, strict=True))
    assert all(len(row) == 8 and not any(cell.startswith(("=", "+", "-", "@")) for cell in row) for row in rows)
    assert [row[0] for row in rows[1:]] == [str(each.key) for each in made]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries())
def test_a_file_that_another_program_saved_again_is_read(tmp_path: Path, made: tuple[Entry, ...]) -> None:
    path = tmp_path / "table.csv"
    export_csv(LatencyTable(CONTEXT, made), path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows([*rows, []])
    assert import_csv(path, CONTEXT) == LatencyTable(CONTEXT, made)


def test_what_it_looks_like(tmp_path: Path) -> None:
    export_csv(LatencyTable(CONTEXT, (entry(3, "=1+1", ("a", "b")),)), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "key,latency_ns_median,interval_low_ns,interval_high_ns,samples_ns,networks,runtime_kernel,warm_ns",
        'add[in=1x3 act=none dtype=float32],1000.5,0.30000000000000004,2000.0,3 1 2,"[""a"", ""b""]",\'=1+1,',
    ]


def test_a_file_without_warm_times_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"{HEADER}\n{ROW}\n")
    (only,) = import_csv(tmp_path / "table.csv", CONTEXT)
    assert only.warm_ns is None and only.latency_ns_median == 1000.5


def _refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TableFileError) as caught:
        import_csv(path, CONTEXT)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


HEADER = ",".join(convert.COLUMNS[:-1])  # as earlier versions wrote it
ROW = "add[in=1x3 act=none dtype=float32],1000.5,1.0,2000.0,3 1 2,,Add"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it is empty"), ("\n", "line 1 has other columns"),
        ("a,b\n1,2\n", "line 1 has other columns"), (HEADER.replace(",", ";"), "line 1"),
        (f"{HEADER}\n{ROW}\n{ROW}\n", "line 3: .*twice"), (f"{HEADER}\n{ROW},\n", "line 2 has 8 cells"),
        (f"{HEADER}\n{ROW[:-4]}\n", "line 2 has 6 cells"), (f"{HEADER}\n\n{ROW},x,y,z\n", "line 3"),
        (f'{HEADER}\n"{ROW}\n', "line 2 is no CSV"), (f'{HEADER}\n"a"b,\n', "line 2 is no CSV"),
        (f"{HEADER}\n={ROW}\n", "line 2: .*formula"), (f"{HEADER}\n{ROW[:-3]}=cmd()\n", "line 2: .*formula"),
        (f"{HEADER}\n{ROW.replace('1000.5', 'nan')}\n", "line 2: .*latency_ns_median"),
        (f"{HEADER}\n{ROW.replace('1000.5', '-1')}\n", "line 2: .*latency_ns_median"),
        (f"{HEADER}\n{ROW.replace('1000.5', '1e999')}\n", "line 2: .*latency_ns_median"),
        (f"{HEADER}\n{ROW.replace('1000.5', '=1+1')}\n", "line 2: .*latency_ns_median"),
        (f"{HEADER}\n{ROW.replace('2000.0', '0.5')}\n", "line 2: .*interval_ns"),
        (f"{HEADER}\n{ROW.replace('3 1 2', '')}\n", "line 2: .*samples_ns"),
        (f"{HEADER}\n{ROW.replace('3 1 2', '3 -1')}\n", "line 2: .*samples_ns"),
        (f"{HEADER}\n{ROW.replace('3 1 2', '3 1.5')}\n", "line 2: .*samples_ns"),
        (f"{HEADER}\n{ROW.replace('3 1 2', '9223372036854775808')}\n", "line 2: .*samples_ns"),
        (f"{HEADER}\n{ROW.replace('in=1x3', 'in=1x03')}\n", "line 2: .*canonical"),
        (f"{HEADER}\n{ROW.replace(',,Add', ',{},Add')}\n", "line 2: .*networks"),
        (f"{HEADER}\n{ROW.replace(',,Add', ',[1],Add')}\n", "line 2: .*networks"),
        (f"{HEADER}\n{ROW.replace(',,Add', ',[,Add')}\n", "line 2: "),
        (f"{HEADER}\n{ROW.replace(',,Add', ',' + '[' * 9999 + ',Add')}\n", "line 2: "),
        (f"{HEADER}\n{ROW}\x07\n", "line 2: .*runtime_kernel"), (b"\xff\xfe", "byte 0 is not UTF-8"),
        (f"{HEADER}\n\0", "NUL"), (pickle.dumps({}), "it is a pickle"), (pickle.dumps({}, 0), "it is a pickle"),
    ],
)  # fmt: skip
def test_other_files_are_refused_with_the_line(tmp_path: Path, text: str | bytes, found: str) -> None:
    import re

    assert re.search(found, _refusal(tmp_path / "table.csv", text))


@pytest.mark.parametrize(
    ("bound", "value", "found"),
    [
        ("MAX_CSV_BYTES", 99, "larger than 99 bytes"),
        ("MAX_ROWS", 2, "more than 2 rows"),
        ("MAX_CELL_CHARS", 9, "more than 9"),
    ],
)
def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, found: str) -> None:
    text = "\n".join([HEADER, *[ROW.replace("1x3", f"1x{n}") for n in range(4)], ""])
    monkeypatch.setattr(convert, bound, value)
    assert found in _refusal(tmp_path / "table.csv", text)


def test_a_place_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(TableStorageError):
        export_csv(TABLE, tmp_path / "absent" / "table.csv")
    with pytest.raises(TableFileError, match="No such file"):
        import_csv(tmp_path / "absent.csv", CONTEXT)


def test_a_number_without_samples_becomes_an_entry_that_says_so() -> None:
    made = convert.imported_entry(entry(1).key, 1234.5, 0.1, "somebody")
    assert made.samples_ns == (1234,) and made.interval_ns == pytest.approx((1111.05, 1357.95))
    for ns, share in (
        (float("nan"), 0.1),
        (-1.0, 0.1),
        (float("inf"), 0.1),
        (1.0, -0.1),
        (1.0, 2.0),
        (1.0, float("nan")),
    ):
        with pytest.raises(InvalidTable):
            convert.imported_entry(entry(1).key, ns, share, "somebody")
