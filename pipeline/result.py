"""Launches -> the result document of a run: every number with its interval, its samples and its context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.reference import Reference
from devices.runner import CaseResult, RunnerResult
from latency_luts import OpKey, stats
from pipeline.deploy import Deployed
from pipeline.kernel_times import KernelTimes, clock_moved, has_samples, kernel_times, to_launch
from pipeline.settings import PROFILED, Settings


@dataclass(frozen=True)
class NamedKernel:
    """A kernel that ran, what it is (None where that cannot be told) and how long it took."""

    times: KernelTimes
    op: str
    runtime_kernel: str
    key: OpKey | None
    macs: int | None


def launches_of(case: str, results: Sequence[RunnerResult]) -> list[CaseResult]:
    """What each launch gave for a case, in order; launches without a sample of it are left out."""
    own = [result.cases[case] for result in results if case in result.cases]
    return [one for one in own if has_samples(one)]


def own_canary(case: str, results: Sequence[RunnerResult]) -> float:
    """This run's own quiet canary beside a case, ns; 0 where there is none."""
    return stats.canary_reference([to_launch(one) for one in launches_of(case, results)])


def failure_of(case: Deployed, results: Sequence[RunnerResult]) -> str | None:
    """Why a case failed in any of its launches, or has no end-to-end samples; None where all is well."""
    reasons = [result.cases[case.id].failed for result in results if case.id in result.cases]
    why = next((reason for reason in reasons if reason), None)
    if why is None and not launches_of(case.id, results):
        return "it was never measured"
    return why


def kernels_of(
    case: Deployed, results: Sequence[RunnerResult], references: Mapping[str, Reference], settings: Settings
) -> list[KernelTimes]:
    profiled = case.id + PROFILED
    return kernel_times(launches_of(profiled, results), references[profiled].ns, settings.confidence)


def profile_document(
    case: Deployed,
    results: Sequence[RunnerResult],
    kernels: Sequence[NamedKernel],
    references: Mapping[str, Reference],
    settings: Settings,
    failed: str | None,
    around: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """One network in one runtime, as it stands in `profiles` of the result document.

    Args:
        failed: why there are no times of it, or None.
        around: what the device was like before and after.
    """
    artifact = case.artifact
    document: dict[str, Any] = {
        "network": artifact.network,
        "runtime": case.runtime,
        "runtime_version": case.runtime_version,
        "runtime_sha256": case.library_sha256,
        "delegate": case.delegate,
        "bundle": case.bundle,
        "artifact": {
            "file": artifact.path.name,
            "sha256": artifact.sha256,
            "bytes": artifact.bytes,
            "converter": artifact.converter,
            "parity": None
            if artifact.parity is None
            else {
                "tolerance": artifact.parity.tolerance,
                "worst_error": artifact.parity.worst_error,
                "errors": dict(artifact.parity.errors),
            },
        },
        "threads": settings.threads,
        "cpu_mask": hex(settings.cpu_mask),
        "failed": failed,
    }
    if document["failed"] is not None:
        return document
    measured = launches_of(case.id, results)
    launches = [to_launch(one) for one in measured]
    reference = references[case.id]
    summary = stats.summarise(launches, reference.ns, confidence=settings.confidence)
    verdict = stats.judge(summary, interval=settings.interval)
    moved = _clock_moved_share(measured)
    reasons = list(verdict.reasons)
    if moved > 0.5:
        reasons.append(f"the clock moved during {moved:.0%} of the blocks")
    loads = [one.load_ns / 1e6 for one in measured if one.load_ns is not None]
    document |= {
        "latency_ms": {
            **_estimate(summary.plain),
            "mad": summary.mad / 1e6,
            "corrected": _estimate(summary.corrected),
        },
        **_samples(measured, launches),
        **_kernels(case, results, kernels, summary, references, settings),
        "peak_memory_bytes": max((one.peak_memory_bytes or 0 for one in measured), default=0) or None,
        "model_load_ms": stats.median(loads) if loads else None,
        "conditions": [*around, *_block_conditions(measured)],
        "launch_medians_ms": [median / 1e6 for median in summary.launch_medians],
        "canary": {
            "reference_ns": reference.ns,
            "reference_origin": reference.origin,
            "own_ns": own_canary(case.id, results),
            "exponent": summary.exponent,
        },
        "preempted_share": summary.preempted_share,
        "disturbed_share": summary.disturbed_share,
        "clock_moved_share": moved,
        "verdict": {"stable": not reasons, "text": verdict.text, "reasons": reasons, "next": ""},
    }
    return document


def _clock_moved_share(measured: Sequence[CaseResult]) -> float:
    """The share of the blocks that were left out because the clock moved, or would have been, were others left."""
    moved = [one for case in measured for one in clock_moved(case)]
    return sum(moved) / len(moved) if moved else 0.0


def _estimate(estimate: stats.Estimate) -> dict[str, Any]:
    return {
        "median": estimate.median / 1e6,
        "interval": [estimate.low / 1e6, estimate.high / 1e6],
        "confidence": estimate.confidence,
        "samples": estimate.count,
    }


def _samples(measured: Sequence[CaseResult], launches: Sequence[stats.Launch]) -> dict[str, Any]:
    blocks = [[block for block in one.blocks if not block.warmup] for one in measured]
    return {
        "samples_ns": [ns for one in blocks for block in one for ns in block.sample_ns],
        "canary_ns": [ns for one in blocks for block in one for ns in block.canary_ns],
        "start_ns": [ns for one in blocks for block in one for ns in block.start_ns],
        "preempted": [n for one in blocks for block in one for n in block.preempted],
        "launch": [number for number, launch in enumerate(launches) for _ in launch.samples],
        "block": [int(block) for launch in launches for block in launch.block],
        "kept": [int(kept) for launch in launches for kept in launch.kept],
        "clock_moved": [
            int(moved)
            for case, one in zip(measured, blocks, strict=True)
            for moved, block in zip(clock_moved(case), one, strict=True)
            for _ in block.sample_ns
        ],
        "warmup_ns": [ns for one in measured for block in one.blocks if block.warmup for ns in block.sample_ns],
    }


def _kernels(
    case: Deployed,
    results: Sequence[RunnerResult],
    kernels: Sequence[NamedKernel],
    summary: stats.Summary,
    references: Mapping[str, Reference],
    settings: Settings,
) -> dict[str, Any]:
    profiled = [to_launch(one) for one in launches_of(case.id + PROFILED, results)]
    if not kernels or not profiled:
        reasons = [result.cases[case.id + PROFILED].failed for result in results if case.id + PROFILED in result.cases]
        why = next((reason for reason in reasons if reason), "the runtime reported no kernels")
        return {"kernels": [], "kernels_missing": why, "kernels_sum_ms": None}
    total_us = sum(kernel.times.corrected_us for kernel in kernels)
    whole = stats.summarise(profiled, references[case.id + PROFILED].ns, confidence=settings.confidence)
    return {
        "profiled_ms": {**_estimate(whole.plain), "corrected": _estimate(whole.corrected)},
        "kernels_sum_ms": total_us / 1e3,
        "kernels_sum_plain_ms": sum(kernel.times.plain_us for kernel in kernels) / 1e3,
        "profiler_cost_ms": (whole.corrected.median - summary.corrected.median) / 1e6,
        "between_kernels_ms": whole.corrected.median / 1e6 - total_us / 1e3,
        "kernels": [_kernel(index, kernel, total_us) for index, kernel in enumerate(kernels)],
    }


def _kernel(index: int, kernel: NamedKernel, total_us: float) -> dict[str, Any]:
    times = kernel.times
    # The runtimes' clocks tick in whole µs: the centre is the mean of the middle half, which is as robust as a median.
    return {
        "index": index,
        "name": times.kernel.name,
        "op": kernel.op,
        "runtime_kernel": kernel.runtime_kernel,
        "key": None if kernel.key is None else str(kernel.key),
        "latency_ms": {
            "median": times.plain_us / 1e3,
            "interval": [times.low_us / 1e3, times.high_us / 1e3],
            "corrected": {"median": times.corrected_us / 1e3, "interval": [times.low_us / 1e3, times.high_us / 1e3]},
        },
        "share": times.corrected_us / total_us if total_us else 0.0,
        "macs": kernel.macs,
    }


def _block_conditions(measured: Sequence[CaseResult]) -> list[dict[str, Any]]:
    rows = []
    for one in measured:
        for block in one.blocks:
            ends = (block.start_ns[0], block.start_ns[-1] + block.sample_ns[-1]) if block.start_ns else ()
            for at_ns, core, clock_khz in zip(ends, block.core, block.clock_khz, strict=False):
                rows.append(
                    {"at_ns": at_ns, "core": core, "clock_khz": clock_khz, "temperature_c": None, "load1": None}
                )
    return rows
