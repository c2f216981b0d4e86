"""Launches -> one profile of the result document: its numbers fit together, and every sample is in it."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.reference import Reference
from devices.runner import CaseResult, RunnerResult
from latency_luts import OpKey, stats
from pipeline.artifact import Parity
from pipeline.kernel_times import to_launch
from pipeline.profiling import measure
from pipeline.result import NamedKernel, failure_of, kernels_of, launches_of, own_canary, profile_document
from pipeline.settings import PROFILED, Settings

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
CASE = "net.litert"
KEY = OpKey("conv2d", (1, 8, 8, 8), 8, (3, 3), dtype="float32")
SETTINGS = Settings(launches=2, budget_s=0.1, threads=2, cpu_mask=6)
ABSENT_WHERE_FAILED = ("latency_ms", "samples_ns", "kernels", "verdict", "peak_memory_bytes", "conditions")


@dataclasses.dataclass
class Run:
    case: Any
    results: list[RunnerResult]
    references: dict[str, Reference]

    def document(self, kernels: list[NamedKernel] | None = None, **settings: Any) -> dict[str, Any]:
        chosen = dataclasses.replace(SETTINGS, **settings)
        if kernels is None:
            times = kernels_of(self.case, self.results, self.references, chosen)
            kernels = [
                NamedKernel(one, "conv2d", one.kernel.name, KEY if i == 0 else None, 7) for i, one in enumerate(times)
            ]
        failed = failure_of(self.case, self.results)
        return profile_document(self.case, self.results, kernels, self.references, chosen, failed, [{"load1": 0.5}])


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def build(*, case: Any = None, **settings: Any) -> Run:
        folder, device = tmp_path / "run", tmp_path / "device"
        folder.mkdir()
        device.mkdir()
        case = case or FAKE["deployed"](folder)
        fake = FAKE["FakeDevice"](device, **settings)
        results = measure([case], fake, FAKE["installed"](folder), SETTINGS, folder, lambda seconds, name: None)
        reference = Reference(float(FAKE["CANARY_NS"]), "kept")
        return Run(case, results, {case.id: reference, case.id + PROFILED: reference})

    return build


def test_a_profile_says_what_was_run(run: Any) -> None:
    document = run().document()
    assert (document["network"], document["runtime"], document["runtime_version"]) == ("net", "litert", "1.0")
    assert (document["runtime_sha256"], document["delegate"]) == ("litert-sha", "xnnpack")
    assert document["artifact"] == {
        "file": "net.tflite", "sha256": "5" * 64, "bytes": 7, "converter": "a converter 1.0", "parity": None,
    }  # fmt: skip
    assert (document["threads"], document["cpu_mask"], document["failed"]) == (2, "0x6", None)
    assert document["model_load_ms"] == 3 and document["peak_memory_bytes"] == 1 << 20


def test_parity_is_passed_on(tmp_path: Path, run: Any) -> None:
    case = FAKE["deployed"](tmp_path)
    artifact = dataclasses.replace(case.artifact, parity=Parity(1e-4, 2e-6, {"china": 2e-6}))
    document = run(case=dataclasses.replace(case, artifact=artifact)).document()
    assert document["artifact"]["parity"] == {"tolerance": 1e-4, "worst_error": 2e-6, "errors": {"china": 2e-6}}


def test_every_sample_is_there_with_its_context(run: Any) -> None:
    one = run()
    document = one.document()
    blocks = [block for result in one.results for block in result.cases[CASE].blocks]
    samples = [ns for block in blocks if not block.warmup for ns in block.sample_ns]
    assert document["samples_ns"] == samples and len(samples) == 80
    assert document["warmup_ns"] == [ns for block in blocks if block.warmup for ns in block.sample_ns]
    assert {len(document[name]) for name in ("canary_ns", "start_ns", "preempted", "launch", "block", "kept")} == {80}
    assert document["launch"] == [0] * 40 + [1] * 40
    assert document["block"][:9] == [1] * 8 + [2] and document["block"][40] == 1
    assert document["kept"] == ([0] + [1] * 7) * 10
    assert document["latency_ms"]["samples"] == sum(document["kept"]) == 70


def test_the_latencies_are_those_of_the_samples_in_ms(run: Any) -> None:
    one = run()
    document = one.document()
    launches = [to_launch(result.cases[CASE]) for result in one.results]
    summary = stats.summarise(launches, FAKE["CANARY_NS"])
    latency = document["latency_ms"]
    assert latency["median"] == summary.plain.median / 1e6 == pytest.approx(10, rel=0.01)
    assert latency["interval"] == [summary.plain.low / 1e6, summary.plain.high / 1e6]
    assert (latency["mad"], latency["confidence"]) == (summary.mad / 1e6, 0.95)
    assert latency["corrected"]["median"] == summary.corrected.median / 1e6
    assert document["launch_medians_ms"] == [median / 1e6 for median in summary.launch_medians]
    assert document["canary"] == {
        "reference_ns": 500_000, "reference_origin": "kept", "own_ns": 500_000, "exponent": summary.exponent,
    }  # fmt: skip
    verdict = stats.judge(summary, interval=0.01)
    assert document["verdict"] == {
        "stable": True, "text": verdict.text, "reasons": list(verdict.reasons), "next": "",
    }  # fmt: skip


def test_the_sums_of_kernels_fit_together(run: Any) -> None:
    document = run().document()
    conv, linear = document["kernels"]
    assert (conv["name"], conv["op"], conv["runtime_kernel"], conv["index"]) == (
        "Convolution (NHWC, F32)", "conv2d", "Convolution (NHWC, F32)", 0,
    )  # fmt: skip
    assert (conv["key"], linear["key"], conv["macs"]) == (str(KEY), None, 7)
    assert conv["latency_ms"]["median"] == 6 and linear["latency_ms"]["corrected"]["median"] == 3
    assert document["kernels_sum_ms"] == document["kernels_sum_plain_ms"] == 9
    assert (conv["share"], linear["share"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    profiled, whole = document["profiled_ms"]["corrected"]["median"], document["latency_ms"]["corrected"]["median"]
    assert document["between_kernels_ms"] == pytest.approx(profiled - 9)
    assert document["profiler_cost_ms"] == pytest.approx(profiled - whole)


def test_both_ends_of_each_block_are_conditions(run: Any) -> None:
    document = run().document()
    before, *ends = document["conditions"]
    assert before == {"load1": 0.5} and len(ends) == 2 * 12
    start, end = ends[2:4]  # of the first block after the warm-up
    assert start == {"at_ns": 0, "core": 1, "clock_khz": 2_000_000, "temperature_c": None, "load1": None}
    assert end["at_ns"] == sum(document["samples_ns"][:8]) and end["clock_khz"] is None


def test_a_case_that_failed_has_a_reason_and_no_numbers(run: Any) -> None:
    one = run(failures={CASE: "cannot load"})
    document = one.document([])
    assert document["failed"] == "cannot load" and document["network"] == "net"
    assert not set(ABSENT_WHERE_FAILED) & set(document)


def test_a_case_of_which_nothing_is_known_was_never_measured(run: Any) -> None:
    one = run(mute=[CASE])
    assert failure_of(one.case, one.results) == failure_of(one.case, []) == "it was never measured"
    assert launches_of(CASE, one.results) == [] and own_canary(CASE, one.results) == 0


def test_a_case_that_failed_in_a_later_launch_has_failed(run: Any) -> None:
    one = run()
    assert failure_of(one.case, one.results) is None
    crashed = RunnerResult({CASE: CaseResult(CASE, failed="killed")}, True, 0)
    assert failure_of(one.case, [*one.results, crashed]) == "killed"


def test_where_the_profiled_case_failed_the_latency_stands_and_the_reason_is_told(run: Any) -> None:
    document = run(failures={CASE + PROFILED: "the profiler crashed"}).document()
    assert document["failed"] is None and document["latency_ms"]["median"] > 9
    assert document["kernels"] == [] and document["kernels_sum_ms"] is None
    assert document["kernels_missing"] == "the profiler crashed" and "profiled_ms" not in document


def test_where_the_runtime_reported_no_kernels_that_is_told(run: Any) -> None:
    assert run().document([])["kernels_missing"] == "the runtime reported no kernels"


def test_without_a_load_time_the_profile_stands(run: Any) -> None:
    one = run()
    for result in one.results:
        result.cases[CASE].load_ns = None
        result.cases[CASE].peak_memory_bytes = None
    document = one.document()
    assert document["model_load_ms"] is None and document["peak_memory_bytes"] is None
