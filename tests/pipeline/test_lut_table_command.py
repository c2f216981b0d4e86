"""`handset lut query`, `diff`, `export` and `import`: what they say and write, one line where in vain."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import Context, ContextMismatch, Entry, LatencyTable, OpKey, load, merge, save, store
from pipeline import cli
from pipeline.lut import table_command
from pipeline.lut.facts import NARROW, families, priced, rows_of

CONTEXT = Context(
    device="host", soc="EPYC", os_build="Debian 12", abi="x86_64", runtime="litert", runtime_version="2.3.0",
    runtime_sha256="ab" * 32, delegate="xnnpack", threads=1, cpu_mask="0x2", clocks="not readable",
    handset_version="0.1.0", created="2026-11-21T12:00:00Z", simulated=False,
)  # fmt: skip
Run = Callable[..., tuple[int, str, str]]
NETWORK = """
import torch
def make():
    first, second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 24, 1)
    return torch.nn.Sequential(first, torch.nn.ReLU(), second), (1, 3, 16, 16)
"""


def conv(c_out: int, c_in: int = 16, **more: Any) -> OpKey:
    return OpKey("conv2d", (1, c_in, 14, 14), c_out, dtype="float32", **more)


def entry(key: OpKey, ns: float, half: float = 0.01) -> Entry:
    return Entry(key, ns, (ns * (1 - half), ns * (1 + half)), (round(ns), round(ns) + 1), (), "Conv2D")


def stepped(factor: float = 1.0, **context: Any) -> LatencyTable:
    """Steps of 8 channels, and one kernel of a family of its own that is told badly."""
    noise = np.random.default_rng(1).normal(1, 0.002, 97)
    some = [entry(conv(n), factor * float(noise[n]) * (2000 + 900 * -(-n // 8))) for n in range(1, 97)]
    some.append(entry(OpKey("mean", (1, 96, 7, 7), dtype="float32", detail="axes=2,3"), 700.0, half=0.3))
    return LatencyTable(dataclasses.replace(CONTEXT, **context), tuple(some))


@cache
def with_gaps() -> LatencyTable:
    return LatencyTable(CONTEXT, tuple(each for each in stepped() if each.key.out_channels % 7))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`handset lut ...` -> exit status, stdout, stderr."""

    def make_parser() -> cli._Parser:
        parser = cli._Parser(prog="handset")
        actions = parser.add_subparsers(required=True)
        for name in ("query", "diff", "export", "import"):
            getattr(table_command, f"add_{name}")(actions.add_parser(name))
        return parser

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main([str(word) for word in argv])
        except SystemExit as error:
            status = int(error.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.setattr(cli, "make_parser", make_parser)
    return call


@pytest.fixture
def lut(tmp_path: Path) -> Path:
    save(stepped(), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def network(folder: Path) -> str:
    (folder / "net.py").write_text(NETWORK)
    return f"{folder / 'net.py'}:make"


def of_network(path: str, **context: Any) -> list[OpKey]:
    from pipeline.graph import kernels
    from pipeline.spec import resolve

    found = resolve(path)
    assert found.module is not None
    return [use.key for use in kernels(found.module, found.input_shape, "litert", abi="x86_64")]


def test_a_table_says_what_it_is(run: Run, lut: Path, tmp_path: Path) -> None:
    status, out, _ = run("query", "--lut", lut, "--json", tmp_path / "t.json")
    assert status == 0
    for words in (
        "host, EPYC, x86_64",
        "litert 2.3.0, xnnpack, library abab",
        "1 thread, mask 0x2",
        "97, 0.700 µs ... ",
    ):
        assert words in out
    step = next(line for line in out.splitlines() if " c_out " in line)
    assert step.split()[0] == "8" and "out=D" in step
    document = json.loads((tmp_path / "t.json").read_text("utf-8"))
    assert (document["schema_version"], document["kind"]) == (1, "lut_table")
    assert document["narrow"] == {"half_width": NARROW, "share": 96 / 97}
    (conv_, mean) = document["families"]
    assert (conv_["entries"], conv_["interpolating"], mean["leave_one_out"]) == (96, 96, None)
    assert [each["step"] for each in document["staircases"]] == [8]


def test_errors_of_families_are_the_tables_own() -> None:
    table = stepped()
    (first, last) = families(table, rows_of(table))
    assert [each.error for each in first.judged or ()] == list(table.family_errors)
    errors = np.concatenate([each.errors for each in first.judged or ()])
    assert first.rms == pytest.approx(float(np.sqrt(np.mean(errors**2))))
    assert (last.judged, last.interpolating) == ((), 0)


def test_a_time_of_nothing_is_told_badly_and_spoils_no_other() -> None:
    rows = rows_of(LatencyTable(CONTEXT, (entry(conv(8), 0.0), entry(conv(9), 1000.0), entry(conv(10), 1000.0))))
    assert rows.half_widths.tolist() == [np.inf, pytest.approx(0.01), pytest.approx(0.01)]


def test_only_the_largest_families_are_judged_where_that_is_asked() -> None:
    table = stepped()
    assert [each.judged is None for each in families(table, rows_of(table), judge=1)] == [False, True]


def test_keys_are_measured_or_interpolated_and_say_so(run: Run, tmp_path: Path) -> None:
    whole = stepped()
    table = LatencyTable(CONTEXT, tuple(each for each in whole if each.key != conv(50)))
    save(table, tmp_path / "t.parquet")
    asked = [conv(50), conv(49), conv(49)]
    status, out, _ = run("query", "--lut", tmp_path / "t.parquet", *asked, "--json", tmp_path / "q.json")
    answer = table.total(asked)
    assert status == 0 and answer.latency_ms is not None
    assert "3 kernels: 2 measured, 1 interpolated" in out
    assert "interpolated, left-out error" in out
    document = json.loads((tmp_path / "q.json").read_text("utf-8"))
    assert (document["schema_version"], document["kind"]) == (1, "lut_query")
    (asked_,) = document["asked"]
    assert asked_["latency_ms"] == answer.latency_ms and asked_["interval_ms"] == list(answer.interval_ms or ())
    rows = {row["key"]: row for row in asked_["kernels"]}
    assert rows[str(conv(49))]["times"] == 2 and rows[str(conv(49))]["kind"] == "measured"
    assert rows[str(conv(50))]["leave_one_out"] == answer.errors[0].rms
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    status, _, err = run("query", "--lut", tmp_path / "t.parquet", conv(50), "--no-interpolate")
    assert status == 1 and "has not measured" in err


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([*range(40, 60), 700]), min_size=1, max_size=30), st.sampled_from(["report", "bound"]))
def test_what_is_told_of_kernels_sums_to_what_is_known(counts: list[int], on_missing: Any) -> None:
    table = with_gaps()
    keys = [conv(n) for n in counts]
    answer = table.total(keys, on_missing=on_missing)
    rows = priced(keys, answer)
    assert {row.key: row.times for row in rows} == {key: keys.count(key) for key in keys}
    assert sum(row.times * (row.latency_ms or 0) for row in rows) == pytest.approx(answer.known_ms)
    for row in rows:
        alone = table.lookup(row.key, on_missing=on_missing)
        assert (row.latency_ms, row.kind, row.bound_ms) == (alone.latency_ms, alone.kind, alone.bound_ms)


def test_a_network_is_priced_without_being_exported(run: Run, tmp_path: Path) -> None:
    model = network(tmp_path)
    keys = of_network(model)
    save(
        LatencyTable(CONTEXT, tuple(entry(key, 1000.0 * (n + 1)) for n, key in enumerate(keys))), tmp_path / "t.parquet"
    )
    status, out, _ = run("query", "--lut", tmp_path / "t.parquet", "--model", model, "--json", tmp_path / "q.json")
    assert status == 0 and f"{len(keys)} kernels: {len(keys)} measured" in out
    (asked,) = json.loads((tmp_path / "q.json").read_text("utf-8"))["asked"]
    assert asked["name"] == "make"
    assert asked["latency_ms"] == pytest.approx(sum(range(1, len(keys) + 1)) / 1e3)


def test_a_missing_kernel_is_an_error_unless_asked_otherwise(run: Run, tmp_path: Path) -> None:
    model = network(tmp_path)
    first, *rest = of_network(model)
    save(LatencyTable(CONTEXT, (entry(first, 1000.0),)), tmp_path / "t.parquet")
    asked = ("query", "--lut", tmp_path / "t.parquet", "--model", model)
    status, out, err = run(*asked)
    assert (status, out) == (1, "") and "litert 2.3.0 has not measured" in err
    status, out, _ = run(*asked, "--on-missing", "report")
    assert (
        status == 0 and "not known; what is known sums to 1.000 µs" in out and f"1 measured, {len(rest)} missing" in out
    )
    status, out, _ = run(*asked, "--on-missing", "bound")
    assert status == 0 and "not known; bounds: none" in out


def test_keys_come_from_stdin(run: Run, lut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(data: bytes) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        return run("query", "--lut", lut, "-")

    assert "2 kernels: 2 measured" in feed(f"{conv(8)}\n\n  {conv(9)}\r\n".encode())[1]
    assert feed(b"\n \n")[0] == 2
    assert feed(b"\xff\x1b[31m\n")[0] == 2
    monkeypatch.setattr(table_command, "MAX_STDIN_BYTES", 10)
    status, _, err = feed(str(conv(8)).encode())
    assert status == 2 and "more than 10 bytes" in err
    monkeypatch.setattr("sys.stdin", None)
    assert run("query", "--lut", lut, "-")[0] == 2


def test_long_lists_are_cut_and_say_by_how_much(run: Run, lut: Path) -> None:
    status, out, _ = run("query", "--lut", lut, "--limit", 3, *(conv(n) for n in range(1, 41)))
    assert status == 0 and len(out.splitlines()) == 1 + 1 + 3 + 1
    assert "37 more; --limit 40 prints them" in out
    assert str(conv(1)) not in out  # the longest first


def test_nothing_changed_between_a_table_and_itself(run: Run, lut: Path) -> None:
    status, out, _ = run("diff", lut, lut, "--fail-on-change")
    assert status == 0 and "noise: nothing changed" in out and "factor   1.0000" in out


def test_a_change_is_found_and_fails_only_where_that_is_asked(run: Run, lut: Path, tmp_path: Path) -> None:
    slower = [dataclasses.replace(each, latency_ns_median=each.latency_ns_median * 1.5, interval_ns=tuple(
        end * 1.5 for end in each.interval_ns)) if each.key == conv(40) else each for each in stepped()]  # fmt: skip
    save(LatencyTable(dataclasses.replace(CONTEXT, device="other"), tuple(slower[:-1])), tmp_path / "new.parquet")
    asked = ("diff", lut, tmp_path / "new.parquet", "--json", tmp_path / "d.json")
    status, out, _ = run(*asked)
    assert status == 0 and "change: 1 kernel changed" in out and "+50 %" in out
    assert "host -> other" in out and "only in old: 1 kernel" in out
    document = json.loads((tmp_path / "d.json").read_text("utf-8"))
    assert (document["schema_version"], document["kind"], document["verdict"]) == (1, "lut_diff", "change")
    assert document["context"] == [{"name": "device", "old": "host", "new": "other"}]
    (change,) = document["changes"]
    assert change["key"] == str(conv(40)) and change["ratio"] == pytest.approx(1.5) and change["beyond_factor"] is True
    assert run(*asked, "--fail-on-change")[0] == 1
    assert run(*asked, "--fail-on-change", "--minimum-effect", "60%")[0] == 0


@pytest.mark.parametrize("kind", ["csv", "netadapt"])
def test_what_was_exported_is_imported_and_says_so(run: Run, lut: Path, tmp_path: Path, kind: str) -> None:
    out, back = tmp_path / f"t.{kind}", tmp_path / "back.parquet"
    status, said, err = run("export", "--lut", lut, "--to", kind, "--out", out, "--json", tmp_path / "e.json")
    assert (status, said.strip()) == (0, str(out))
    unmapped = json.loads((tmp_path / "e.json").read_text("utf-8"))["unmapped"]
    assert len(unmapped) == (kind == "netadapt") and ("could not be mapped" in err) == bool(unmapped)
    assert run("import", "--from", kind, "--context-from", lut, "--half-width", 1, "--out", back, out)[0] == 0
    old, new = load(lut), load(back)
    times = {each.key: each.latency_ns_median for each in old if kind == "csv" or each.key.op == "conv2d"}
    assert {each.key: each.latency_ns_median for each in new} == pytest.approx(times)
    if kind == "csv":
        assert tuple(new) == tuple(old)
    else:
        assert {each.runtime_kernel for each in new} == {"NetAdapt Conv2d"}
    assert new.context.handset_version == f"imported from {kind} by 0.1.0" and new.context.device == "host"
    with pytest.raises(ContextMismatch):
        merge(old, new, on_duplicate="first")


def test_netadapt_gets_the_names_of_a_networks_layers(run: Run, tmp_path: Path) -> None:
    model = network(tmp_path)
    save(LatencyTable(CONTEXT, tuple(entry(key, 1000.0) for key in of_network(model))), tmp_path / "t.parquet")
    asked = ("--to", "netadapt", "--model", model, "--out", tmp_path / "n.json")
    assert run("export", "--lut", tmp_path / "t.parquet", *asked)[0] == 0
    layers = json.loads((tmp_path / "n.json").read_text("utf-8"))
    assert {name: layer["num_out_channels"] for name, layer in layers.items()} == {"0": 8, "2": 24}


def test_once_for_all_layers_are_imported_and_blocks_are_listed(run: Run, tmp_path: Path) -> None:
    layers = ["Conv-input:224x224x3-output:112x112x32"]
    layers += [
        f"expanded_conv-input:56x56x24-output:56x56x24-expand:{n}-kernel:3-stride:1-idskip:1" for n in range(2, 9)
    ]
    (tmp_path / "o.yaml").write_text("".join(f"{name}: {{mean: 0.5}}\n" for name in layers))
    asked = ("--from", "once-for-all", "--device", "Pixel 6", "--runtime", "tflite", "--out", tmp_path / "o.parquet")
    status, _, err = run("import", *asked, tmp_path / "o.yaml", "--half-width", "5%")
    assert status == 0 and "7 could not be mapped, the first 5:" in err and len(err.splitlines()) == 1 + 5
    (one,) = table = load(tmp_path / "o.parquet")
    assert one.interval_ns == pytest.approx((475_000, 525_000)) and one.runtime_kernel == "once-for-all Conv"
    assert (table.context.device, table.context.runtime, table.context.threads) == ("Pixel 6", "tflite", 1)
    status, _, err = run("import", *asked, "--force", tmp_path / "o.yaml")
    assert status == 2 and "--half-width" in err
    (tmp_path / "names").write_text(f"{layers[0]}\n{layers[1]}\n")
    out = ("--to", "once-for-all", "--layers", tmp_path / "names", "--out", tmp_path / "again.yaml")
    assert run("export", "--lut", tmp_path / "o.parquet", *out)[0] == 0
    assert (tmp_path / "again.yaml").read_text() == f"{layers[0]}: {{mean: 0.5}}\n"
    (tmp_path / "blocks.yaml").write_text(f"{layers[1]}: {{mean: 0.5}}\n")
    status, _, err = run("import", *asked, "--force", "--half-width", 5, tmp_path / "blocks.yaml")
    assert status == 1 and "no kernel is in" in err


def test_a_file_that_is_there_is_replaced_only_by_force(run: Run, lut: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_text("mine")
    asked = ("export", "--lut", lut, "--to", "csv", "--out")
    status, _, err = run(*asked, out)
    assert status == 2 and "is there already; try: --force" in err and out.read_text() == "mine"
    assert run(*asked, out, "--force")[0] == 0 and out.read_text() != "mine"
    before = lut.read_bytes()
    assert run(*asked, lut, "--force")[0] == 2  # the table itself
    assert run("query", "--lut", lut, "--json", lut)[0] == 2
    assert lut.read_bytes() == before
    assert run(*asked, "/dev/null", "--force")[0] == 1 and not Path("/dev/null").is_file()


def test_simulated_numbers_stay_marked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    save(stepped(simulated=True), path, allow_simulated=True)
    for asked in (("query", "--lut", path), ("query", "--lut", path, conv(8)), ("diff", path, path)):
        assert "SIMULATED" in run(*asked)[1]
    status, _, err = run("export", "--lut", path, "--to", "csv", "--out", tmp_path / "s.csv")
    assert status == 2 and "not measured but simulated" in err and not (tmp_path / "s.csv").exists()
    run("export", "--lut", path, "--to", "csv", "--out", tmp_path / "s.csv")
    save(stepped(), tmp_path / "t.parquet")
    assert run("export", "--lut", tmp_path / "t.parquet", "--to", "csv", "--out", tmp_path / "t.csv")[0] == 0
    out = ("--from", "csv", "--context-from", path, "--out", tmp_path / "i.parquet")
    assert run("import", *out, tmp_path / "t.csv")[0] == 2 and not (tmp_path / "i.parquet").exists()


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
    return tmp_path


TABLES = {
    "absent": "No such file", "cut": "does not begin and end", "flipped": "not those that were written",
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
