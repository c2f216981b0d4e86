"""From measured kernels to a table: one entry a key, whatever network it was met in."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.runner import Kernel
from devices.transport import DeviceDescription
from latency_luts import OpKey
from pipeline.kernel_times import KernelTimes
from pipeline.lut_build import build_lut
from pipeline.profiling import Settings
from pipeline.result import NamedKernel

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
DEVICE = DeviceDescription("pixel", "adb", "SoC 9", "Android 15", "6.1", "arm64", 8, None)
CONV = OpKey("conv2d", (1, 3, 8, 8), 4, (3, 3), dtype="float32")
ADD = OpKey("add", (1, 4, 8, 8), dtype="float32")


def named(
    key: OpKey | None, us: float, low: float, high: float, *samples: int, runtime_kernel: str = "k"
) -> NamedKernel:
    times = KernelTimes(Kernel("name", 0), us + 5, us, low, high, samples or (int(us),))
    return NamedKernel(times, "op", runtime_kernel, key, None)


def build(folder: Path, kernels: dict[str, list[NamedKernel]], **more: Any) -> Any:
    case = FAKE["deployed"](folder)
    settings = Settings(threads=2, cpu_mask=0x30)
    return build_lut(more.get("device", DEVICE), case, settings, "2000000 kHz", "2026-11-21T14:22:33Z", kernels)


def test_a_key_met_once_keeps_its_time_in_ns(tmp_path: Path) -> None:
    table = build(tmp_path, {"a": [named(CONV, 12.5, 12, 14, 12, 13, runtime_kernel="igemm")]})
    (entry,) = table.entries
    assert (entry.key, entry.latency_ns_median, entry.interval_ns) == (CONV, 12_500, (12_000, 14_000))
    assert (entry.samples_ns, entry.networks, entry.runtime_kernel) == ((12_000, 13_000), ("a",), "igemm")
    assert table.lookup(CONV).latency_ms == 0.0125


def test_a_key_met_again_has_the_median_and_the_widest_interval(tmp_path: Path) -> None:
    kernels = {
        "a": [named(CONV, 10, 9, 11, 10), named(ADD, 1, 1, 1), named(CONV, 14, 13, 20, 14, 15)],
        "b": [named(CONV, 11, 8, 12, 11)],
    }
    table = build(tmp_path, kernels)
    assert [entry.key for entry in table.entries] == [CONV, ADD]
    entry = table.entries[0]
    assert (entry.latency_ns_median, entry.interval_ns) == (11_000, (8_000, 20_000))
    assert entry.samples_ns == (10_000, 14_000, 15_000, 11_000) and entry.networks == ("a", "b")


def test_kernels_without_a_key_are_left_out(tmp_path: Path) -> None:
    assert len(build(tmp_path, {"a": [named(None, 3, 3, 3)], "b": []})) == 0


@pytest.mark.parametrize("simulated", [False, True])
def test_the_context_says_where_it_was_measured(tmp_path: Path, simulated: bool) -> None:
    device = DeviceDescription("pixel", "adb", "SoC 9", "Android 15", "6.1", "arm64", 8, None, simulated)
    context = build(tmp_path, {}, device=device).context
    assert (context.device, context.soc, context.os_build, context.abi) == (
        "pixel",
        "SoC 9",
        "Android 15, 6.1",
        "arm64",
    )
    assert (context.runtime, context.runtime_version, context.runtime_sha256) == ("litert", "1.0", "litert-sha")
    assert (context.delegate, context.threads, context.cpu_mask) == ("xnnpack", 2, "0x30")
    assert (context.clocks, context.created) == ("2000000 kHz", "2026-11-21T14:22:33Z")
    assert context.simulated is simulated
