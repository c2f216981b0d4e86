"""The result document of a run: what each part says, and the tables beside it."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import latency_luts
from devices.discovery import cache_dir
from latency_luts import OpKey
from pipeline import runfolder
from pipeline.artifact import Network
from pipeline.document import Measured, run_document
from pipeline.profiling import measure
from pipeline.result import NamedKernel
from pipeline.settings import Settings
from pipeline.subjects import Subject

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
RUNTIMES = ("litert", "onnxruntime")
KEYS = (OpKey("conv2d", (1, 8, 8, 8), 8, (3, 3), dtype="float32"), OpKey("linear", (1, 8), 10, dtype="float32"))
CONDITIONS = {
    "set": [],
    "trace": [
        {"at_s": 0.0, "load1": 0.5, "temperature_c": None, "clock_khz": {"0": 2_000_000}},
        {"at_s": 9.0, "load1": 1.5, "temperature_c": 40.0, "clock_khz": {"0": 1_000_000}},
    ],
    "boot_ids": ["b"],
}
COMMAND = "handset bench 'a b' --device fake --budget 0.3 --launches 2 --interval 3"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def name_kernels(case: Any, times: Any, folder: Path) -> tuple[list[NamedKernel], str]:
        named = [NamedKernel(time, "op", time.kernel.name, key, 5) for time, key in zip(times, KEYS, strict=False)]
        return named, "no key" if case.runtime == "onnxruntime" else ""

    def build(*, networks: tuple[str, ...] = ("net",), simulated: bool = False, **settings: Any) -> Measured:
        folder = runfolder.create(tmp_path / "reports", "fake", {"models": list(networks)})
        device = FAKE["FakeDevice"](tmp_path / "device", **settings)
        (tmp_path / "device").mkdir(exist_ok=True)
        cases = [FAKE["deployed"](folder.artifacts, name, runtime) for name in networks for runtime in RUNTIMES]
        installed = FAKE["installed"](tmp_path)
        chosen = Settings(launches=2, budget_s=0.3, cpu_mask=2)
        results = measure(cases, device, installed, chosen, folder.path, lambda seconds, case: None)
        subjects = [Subject(Network(name, "zoo", (1, 1, 8, 8), params=9), macs=42) for name in networks]
        description = dataclasses.replace(device.describe(), simulated=simulated)
        return Measured(
            COMMAND, chosen, folder, description, installed, subjects, cases, results, {}, {}, CONDITIONS
        )

    monkeypatch.setattr("pipeline.naming.name_kernels", name_kernels)
    return build


def test_a_document_says_what_was_asked_and_where_it_ran(make: Any) -> None:
    run = make()
    document = run_document(run)
    assert json.loads(json.dumps(document, allow_nan=False))["schema_version"] == 1
    assert (document["kind"], document["run"], document["command"]) == ("bench", run.folder.name, COMMAND)
    assert document["created"] == run.folder.plan["created"] and document["complete"] is True
    assert document["settings"]["budget_s"] == 0.3 and set(document["settings"]["runtimes"]) == set(RUNTIMES)
    assert document["device"]["name"] == "fake" and document["device"]["simulated"] is False
    assert document["runner"] == {"sha256": "runner-sha", "origin": "here"}
    assert document["canary"] == {"kind": "kind", "disturbed_over": 1.5}
    assert document["networks"] == [
        {
            "name": "net", "source": "zoo", "input_shape": [1, 1, 8, 8], "params": 9, "macs": 42,
            "accuracy": None, "compressed_from": None, "compression": None,
        }
    ]  # fmt: skip
    assert [(one["network"], one["runtime"]) for one in document["profiles"]] == [("net", name) for name in RUNTIMES]
    assert document["profiles"][0]["conditions"][:2] == [
        CONDITIONS["trace"][0] | {"at_ns": None},
        CONDITIONS["trace"][1] | {"at_ns": None},
    ]
    assert document["device_conditions"] == CONDITIONS
    assert document["notes"] == ["net.onnxruntime: no key"]


def test_there_is_one_table_a_runtime_with_the_kernels_of_all_networks(make: Any) -> None:
    run = make(networks=("net", "other"))
    document = run_document(run)
    assert document["tables"] == {name: f"table-{name}-float32-t1.parquet" for name in RUNTIMES}
    tables = {name: latency_luts.load(run.folder.path / file) for name, file in document["tables"].items()}
    litert, onnx = tables["litert"], tables["onnxruntime"]
    assert [entry.key for entry in litert.entries] == list(KEYS) and len(onnx) == 1
    assert all(entry.networks == ("net", "other") for entry in (*litert.entries, *onnx.entries))
    assert litert.entries[0].latency_ns_median == 6e6 and len(litert.entries[0].samples_ns) == 2 * 2 * 35
    assert (litert.context.runtime, litert.context.delegate, litert.context.clocks) == (
        "litert", "xnnpack", "1000000-2000000 kHz",
    )  # fmt: skip


def test_clocks_that_cannot_be_read_are_said_to_be_so(make: Any) -> None:
    run = dataclasses.replace(make(), conditions={"set": [], "trace": [], "boot_ids": []})
    document = run_document(run)
    assert latency_luts.load(run.folder.path / document["tables"]["litert"]).context.clocks == "not readable"


def test_a_simulated_device_gets_no_table(make: Any) -> None:
    run = make(simulated=True)
    assert run_document(run)["tables"] == {} and list(run.folder.path.glob("*.parquet")) == []


def test_a_failed_case_makes_the_run_incomplete_and_has_no_table(make: Any) -> None:
    document = run_document(make(failures={"net.litert": "no op", "net.litert+kernels": "no op"}))
    litert, onnx = document["profiles"]
    assert litert["failed"] == "no op" and "verdict" not in litert and onnx["failed"] is None
    assert document["complete"] is False and list(document["tables"]) == ["onnxruntime"]


def test_an_unstable_profile_says_what_to_type_next(make: Any) -> None:
    noisy = FAKE["noisy"](0.3)
    litert, _ = run_document(make(samples=noisy))["profiles"]
    assert not litert["verdict"]["stable"]
    assert litert["verdict"]["next"] == ("handset bench 'a b' --device fake --interval 3 --budget 0.6 --launches 4")


def test_a_stable_profile_has_nothing_to_type_next(make: Any) -> None:
    litert, _ = run_document(make())["profiles"]
    assert litert["verdict"]["stable"] and litert["verdict"]["next"] == ""


def test_the_reference_of_a_case_is_kept_for_the_next_run(make: Any) -> None:
    first = run_document(make())
    assert [one["canary"]["reference_origin"] for one in first["profiles"]] == ["first", "first"]
    assert len(list((cache_dir() / "canary").iterdir())) == 4  # two cases, each without and with the profiler
    second = run_document(make())
    assert [one["canary"]["reference_origin"] for one in second["profiles"]] == ["kept", "kept"]


@pytest.mark.parametrize("change", [{"threads": 2}, {"cpu_mask": 1}], ids=["threads", "cores"])
def test_another_way_to_run_has_another_reference(make: Any, change: dict[str, int]) -> None:
    run = make()
    run_document(run)
    other = dataclasses.replace(run, settings=dataclasses.replace(run.settings, **change))
    assert run_document(other)["profiles"][0]["canary"]["reference_origin"] == "first"
