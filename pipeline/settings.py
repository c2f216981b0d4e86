"""How to measure: what the stages of a run agree on."""

from __future__ import annotations

from dataclasses import dataclass

PROFILED = "+kernels"
"""Suffix of the id of a case that runs with the runtime's profiler on."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        interval: the half-width of the interval of the median to reach, as a share of it (0.01 is ±1 %).
        budget_s: seconds of timed inference at most for one case, however wide its interval still is.
        launches: at least that many launches.
        launch_s, kernels_s: seconds of timed inference a case gets in one launch, without and with the profiler.
        kernel_runs, kernel_runs_most: inferences with the profiler in one launch, at least, however long they take, and at
            most: onnxruntime writes 600 bytes for each kernel of each.
        warmup_s: at least that long before the first sample; what was not steady by then is cut off afterwards.
        limit_s: a load or an inference that takes longer has hung.
        memory_bytes: limit on a case's address space; 0 for none.
        cpu_mask: cores to run on; 0 lets the device's own capacities decide.
    """

    threads: int = 1
    cpu_mask: int = 0
    interval: float = 0.01
    confidence: float = 0.95
    budget_s: float = 6.0
    launches: int = 3
    launch_s: float = 1.0
    kernels_s: float = 0.5
    kernel_runs: int = 1
    kernel_runs_most: int = 150
    warmup_s: float = 0.2
    limit_s: float = 60.0
    memory_bytes: int = 0
    canary: bool = True
    seed: int = 1
