"""`handset lut query`: what it says of a table, of kernels and of networks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import Context, Entry, LatencyTable, OpKey, save
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
