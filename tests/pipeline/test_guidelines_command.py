"""`handset guidelines`: what it prints and writes, its exit status, and one line where it was asked in vain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latency_luts import Context, Entry, LatencyTable, OpKey, save
from pipeline import cli, guidelines_command

CONTEXT = Context(
    device="host", soc="EPYC", os_build="Debian 12", abi="arm64-v8a", runtime="litert", runtime_version="2.3.0",
    runtime_sha256="ab" * 32, delegate="xnnpack", threads=1, cpu_mask="0x2", clocks="not readable",
    handset_version="0.1.0", created="2026-11-21T12:00:00Z", simulated=False,
)  # fmt: skip
Run = Callable[..., tuple[int, str, str]]
NETWORK = """
from torch import nn
def expansion(): return nn.Sequential(nn.Conv2d(24, 144, 1), nn.ReLU()), (1, 24, 28, 28)
def calm(): return nn.Conv2d(24, 24, 1), (1, 24, 28, 28)
def named():
    network = nn.Sequential()
    network.add_module("\\x1b[31mred\\n", nn.Conv2d(24, 144, 1))
    return network, (1, 24, 28, 28)
def broken(): return nn.Conv2d(3, 3, 1), (1, 24, 28, 28)
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`handset guidelines ...` -> exit status, stdout, stderr."""

    def make_parser() -> cli._Parser:
        parser = cli._Parser(prog="handset")
        guidelines_command.add_arguments(parser.add_subparsers(required=True).add_parser("guidelines"))
        return parser

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main(["guidelines", *map(str, argv)])
        except SystemExit as error:
            status = int(error.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.setattr(cli, "make_parser", make_parser)
    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With nets.py, and t.parquet that knows the expansion's kernel and its rewrite."""
    (tmp_path / "nets.py").write_text(NETWORK)
    shapes = {(24, 144): 100_000, (64, 56): 70_000}
    entries = [
        Entry(
            OpKey("conv2d", (1, c_in, 28, 28), c_out, activation="relu", dtype="float32"),
            ns, (ns * 0.99, ns * 1.01), (ns,), (), "kernel",
        )
        for (c_in, c_out), ns in shapes.items()
    ]  # fmt: skip
    save(LatencyTable(CONTEXT, tuple(entries)), tmp_path / "t.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_printed(run: Run, folder: Path) -> None:
    assert run("nets.py:expansion", "--lut", "t.parquet") == (
        0,
        "nets.py:expansion: 1 finding, 1 of G1\n"
        "rule  where  measured   bound      saves  what                     rewrite\n"
        "G1    0       135,168  95,635  0.0300 ms  memory access, elements  64 -> 56 channels instead of 24 -> 144\n",
        "",
    )
    assert run("nets.py:calm") == (0, "nets.py:calm: 0 findings\n", "")


def test_what_the_table_lacks_is_said(run: Run, folder: Path) -> None:
    status, out, _ = run("nets.py:named", "--lut", "t.parquet")
    assert status == 0
    assert out.splitlines()[-1].startswith("no saving for 1 finding: the table does not know conv2d[in=1x24x28x28 out=144")


def test_the_document(run: Run, folder: Path) -> None:
    assert run("nets.py:expansion", "nets.py:calm", "--lut", "t.parquet", "--json", "o.json")[0] == 0
    document = json.loads(Path("o.json").read_text())
    assert (document["kind"], document["schema_version"]) == ("guidelines", 1)
    assert document["table"]["context"]["device"] == "host" and document["table"]["entries"] == 2
    expansion, calm = document["models"]
    assert (expansion["name"], expansion["input_shape"]) == ("nets.py:expansion", [1, 24, 28, 28])
    (found,) = expansion["findings"]
    assert (found["rule"], found["where"], found["measured"], found["note"]) == ("g1", "0", 135_168, "")
    assert found["excess"] == pytest.approx(found["measured"] / found["bound"])
    assert found["saving_ms"] == pytest.approx(0.03)
    assert calm["findings"] == []


@pytest.mark.parametrize(("rules", "status"), [("g1", 1), ("G1,g2", 1), ("g2", 0), ("g2, g3,g4", 0)])
def test_fail_on(run: Run, folder: Path, rules: str, status: int) -> None:
    assert run("nets.py:calm", "nets.py:expansion", "--fail-on", rules)[0] == status
    assert run("nets.py:calm", "--fail-on", rules)[0] == 0


def test_a_long_list_is_cut_on_the_terminal_alone(run: Run, folder: Path) -> None:
    status, out, _ = run("mobilenet_v2", "--limit", "3", "--json", "o.json")
    lines = out.splitlines()
    findings = json.loads(Path("o.json").read_text())["models"][0]["findings"]
    assert status == 0 and len(lines) == 6
    assert lines[-1] == f"{len(findings) - 3} more; --limit {len(findings)} prints them"


def test_a_program_in_a_file(run: Run, folder: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(24, 144, 1), torch.nn.ReLU()).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 24, 28, 28),)), "net.pt2")
    status, out, _ = run("net.pt2", "--lut", "t.parquet")
    assert status == 0 and out.startswith("net.pt2: 1 finding, 1 of G1\n") and "0.0300 ms" in out


def test_names_of_layers_cannot_steer_a_terminal(run: Run, folder: Path) -> None:
    _, out, _ = run("nets.py:named")
    assert "\x1b" not in out and len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["nets.py:expansion", "--fail-on", "g5"], 2, "'g5' is not a list of g1, g2, g3, g4"),
        (["nets.py:expansion", "--fail-on", ","], 2, "is not a list of g1"),
        (["nets.py:expansion", "--limit", "0"], 2, "'0' is not a number"),
        ([], 2, "MODEL"),
        (["mobilnet_v2"], 2, "there is no network 'mobilnet_v2'; try: mobilenet_v2"),
        (["nets.py:calm", "nets.py:calm"], 2, "nets.py:calm was asked 2 times"),
        (["nets.py:broken"], 2, "fails on an input of 1x24x28x28"),
        (["nets.py:calm", "--lut", "absent.parquet"], 2, "absent.parquet"),
        (["nets.py:calm", "--lut", "nets.py"], 2, "nets.py"),
        (["nets.py:calm", "--lut", "t.parquet", "--json", "t.parquet"], 2, "is a file that is read"),
        (["nets.py:calm", "--json", "nets.py"], 2, "is a file that is read"),
        (["nets.py:calm", "--json", "absent/o.json"], 1, "absent"),
    ],
)
def test_one_line_where_asked_in_vain(run: Run, folder: Path, argv: list[str], status: int, said: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    got, out, err = run(*argv)
    assert (got, out) == (status, "")
    assert err.startswith("handset: ") and err.count("\n") == 1 and said in err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
