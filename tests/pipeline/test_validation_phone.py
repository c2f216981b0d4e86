"""`handset lut validate` on the test phone, which is emulated: it refuses, or does all of it and says so everywhere."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import latency_luts
from latency_luts import Context, Entry, LatencyTable
from pipeline import cli
from pipeline.graph import kernels
from pipeline.spec import resolve

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
NETWORK = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), (1, 3, 12, 12)
"""
CONTEXT = Context(
    device="host", soc="a", os_build="b", abi="x86_64", runtime="onnxruntime", runtime_version="1", runtime_sha256="00" * 32,
    delegate="", threads=1, cpu_mask="0x1", clocks="", handset_version="0", created="2026-01-01T00:00:00Z", simulated=False,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With nets.py, and t.parquet of a host that knows its kernels."""
    (tmp_path / "nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    network = resolve("nets.py:small")
    assert network.module is not None
    keys = dict.fromkeys(use.key for use in kernels(network.module, network.input_shape, "onnxruntime", abi="x86_64"))
    entries = tuple(Entry(key, 1000.0, (900.0, 1100.0), (1000, 1000), ("another",), "Conv") for key in keys)
    latency_luts.save(LatencyTable(CONTEXT, entries), "t.parquet")
    return tmp_path


def test_an_emulated_phone_judges_no_table_unless_it_is_asked_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ON["need"]()
    with ON["Phone"]("x86_64", "pixel", cores=2) as phone:
        before = ON["settings"](phone)
        words = ["lut", "validate", "--lut", "t.parquet", "nets.py:small", "--device", f"127.0.0.1:{phone.port}"]
        assert cli.main([*words, *ON["QUICK"]]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"127.0.0.1:{phone.port} is emulated: its times are not a phone's, and no table is judged by them" in line
        assert not ON["run_folders"](folder)
        assert cli.main([*words, *ON["QUICK"], "--allow-other-context", "--ignore-conditions"]) == 4
        assert ON["is_tidy"](phone, before)
    assert capsys.readouterr().out.startswith("SIMULATED: this is no real phone")
    (run,) = ON["run_folders"](folder)
    document: dict[str, Any] = json.loads((run / "validation.json").read_text("utf-8"))
    assert [one["name"] for one in document["networks"]] == ["small"]
    assert {one["field"] for one in document["context"]["differences"]} >= {"device", "soc", "simulated"}
    assert document["networks"][0]["predicted_ms"]["alone"]["plain"] > 0
    assert "<b>SIMULATED</b>" in (run / "validation.html").read_text("utf-8")
    assert not list(run.glob("*.parquet"))
