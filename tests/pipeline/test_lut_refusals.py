"""What `handset lut` is asked in vain: files that are no table, words that are no key. One line each, nothing is written."""

from __future__ import annotations

import pickle
import runpy
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latency_luts import save, store

MADE = runpy.run_path(str(Path(__file__).with_name("test_lut_query.py")))
run = MADE["run"]  # a fixture
conv, stepped = MADE["conv"], MADE["stepped"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tables that are none, and of one that is."""
    save(stepped(), tmp_path / "good.parquet")
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped.parquet").write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "foreign.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(store, "SCHEMA_VERSION", 99)
        save(stepped(), tmp_path / "newer.parquet")
    (tmp_path / "pickle.parquet").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "folder.parquet").mkdir()
    header = "key,latency_ns_median,interval_low_ns,interval_high_ns,samples_ns,networks,runtime_kernel\n"
    for name, cells in (("nan", "nan,1.0,2.0,1"), ("minus", "1.0,1.0,2.0,-5"), ("good", "1.0,1.0,2.0,1")):
        (tmp_path / f"{name}.csv").write_text(f'{header}"{conv(8)}",{cells},,\n')
    (tmp_path / "empty.csv").write_text(header)
    (tmp_path / "lacking.csv").write_text(header.replace("samples_ns", "samples"))
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


TABLES = {
    "absent": "No such file", "cut": "does not end as a Parquet", "flipped": "not those that were written",
    "foreign": "handset did not write it", "newer": "schema_version is 99", "pickle": "could run code",
    "folder": "is not a file",
}  # fmt: skip


@pytest.mark.parametrize(("name", "why"), TABLES.items())
@pytest.mark.parametrize("argv", ["query --lut {}", "diff good {}", "diff {} good", "export --lut {} --to csv --out o"])
def test_what_is_no_table_is_one_line_and_status_2(run: Run, bad: Path, argv: str, name: str, why: str) -> None:
    words = {word: f"{bad / word}.parquet" for word in (name, "good")} | {"o": str(bad / "o")}
    status, out, err = run(*(words.get(word.format(name), word) for word in argv.split()))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("handset: ") and why in err
    assert not (bad / "o").exists()


IMPORT = "import --from csv --device d --runtime litert --out O"


@pytest.mark.parametrize(
    ("argv", "status", "why"),
    [
        ("query --lut T conv2d[dtype=float32]", 2, "in is missing"),
        ("query --lut T add[in=1x01|act=none|dtype=float32]", 2, "not written in the canonical way"),
        ("query --lut T add[in=1x1|act=none|dtype=float64]", 1, "has not measured"),
        ("query --lut T --limit 0", 2, "'0' is not a number from 1"),
        ("query --lut T --limit -3", 2, "'-3' is not a number from 1"),
        ("query --lut T --json F", 1, "cannot write"),
        ("query --lut T --json absent/q.json", 1, "cannot write"),
        ("query --lut T --model nothing_like_it", 2, "there is no network"),
        ("query --lut T --on-missing zero", 2, "invalid choice"),
        ("diff T T --alpha 2", 2, "alpha=2.0"),
        ("diff T T --alpha nan", 2, "alpha=nan"),
        ("diff T T --minimum-effect -1", 2, "not a percentage"),
        ("diff T T --minimum-effect nan", 2, "not a percentage"),
        ("diff T T --json F", 1, "cannot write"),
        ("export --lut T --to pickle --out O", 2, "invalid choice"),
        ("export --lut T --to csv --out F", 1, "cannot write"),
        ("export --lut T --to csv --out absent/o.csv", 1, "cannot write"),
        ("export --lut T --to csv --layers C --out O", 2, "--layers is for once-for-all"),
        ("export --lut T --to once-for-all --layers absent --out O", 2, "No such file"),
        ("import --from csv --out O C", 2, "where the numbers were measured"),
        ("import --from csv --context-from C --out O C", 2, "latency table"),
        (f"{IMPORT} --threads 0 C", 2, "'0' is not a number"),
        (f"{IMPORT} --clocks \x1b[31m C", 2, "clocks"),
        (f"{IMPORT} nan.csv", 2, "latency_ns_median='nan' is not a number"),
        (f"{IMPORT} minus.csv", 2, "samples_ns has '-5'"),
        (f"{IMPORT} empty.csv", 1, "no kernel is in"),
        (f"{IMPORT} nothing.csv", 2, "it is empty"),
        (f"{IMPORT} lacking.csv", 2, "it lacks samples_ns, it has 'samples'"),
        (f"{IMPORT} good.parquet", 2, "is not UTF-8 text"),
        ("export --lut loop --to csv --out O", 2, "symbolic links"),
        ("export --lut T --to once-for-all --layers T --out O", 2, "reading the list of layers good.parquet"),
        (f"{IMPORT} pickle.parquet", 2, "could run code"),
        (f"{IMPORT} F", 2, "is not a file"),
        (f"{IMPORT} C --json O", 2, "a file that is read"),
        (f"{IMPORT} \x1b[31mabsent", 2, "'\\x1b[31mabsent'"),
    ],
)  # fmt: skip
def test_what_is_asked_in_vain_is_one_line(
    run: Run, bad: Path, monkeypatch: pytest.MonkeyPatch, argv: str, status: int, why: str
) -> None:
    monkeypatch.chdir(bad)
    named = {"T": "good.parquet", "C": "good.csv", "F": "folder.parquet", "O": "out"}
    found, out, err = run(*(named.get(word, word).replace("|", " ") for word in argv.split(" ")))
    assert (found, out, len(err.splitlines())) == (status, "", 1), err
    assert why in err and "\x1b" not in err
    assert not (bad / "out").exists()
