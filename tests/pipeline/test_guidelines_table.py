"""What a finding's rewrite saves: kernels of the table, each by hand, and what is said where the table lacks one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.errors import UnsupportedOp, UsageError
from pipeline.graph import kernels
from pipeline.guidelines import Finding, check
from pipeline.models.blocks import conv_bn
from pipeline.models.mobilenet_v2 import InvertedResidual

CONTEXT: dict[str, Any] = {
    "device": "host", "soc": "EPYC", "os_build": "Debian 12", "abi": "arm64-v8a", "runtime": "litert",
    "runtime_version": "2.3.0", "runtime_sha256": "ab" * 32, "delegate": "xnnpack", "threads": 1, "cpu_mask": "0x2",
    "clocks": "not readable", "handset_version": "0.1.0", "created": "2026-11-21T12:00:00Z", "simulated": False,
}  # fmt: skip
IMAGE = (1, 24, 28, 28)


def conv(c_in: int, c_out: int, k: int = 1, g: int = 1, act: str = "relu", size: int = 28) -> OpKey:
    p = k // 2
    return OpKey(
        "conv2d", (1, c_in, size, size), c_out, (k, k), padding=(p, p, p, p), groups=g, activation=act, dtype="float32"
    )


def table(entries: dict[OpKey, int], runtime: str = "litert") -> LatencyTable:
    """Kernels with their µs."""
    rows = [Entry(key, us * 1e3, (us * 990.0, us * 1010.0), (us * 1000,), (), "kernel") for key, us in entries.items()]
    return LatencyTable(Context(**{**CONTEXT, "runtime": runtime}), tuple(rows))


def of(rule: str, findings: list[Finding]) -> Finding:
    (found,) = (each for each in findings if each.rule == rule)
    return found


def test_equal_channels_save_the_difference_of_two_kernels() -> None:
    known = table({conv(24, 144): 100, conv(64, 56): 70})
    found = of("g1", check(conv_bn(24, 144), IMAGE, known))
    assert (found.saving_ms, found.note) == (pytest.approx(0.030), "")


def test_a_rewrite_that_is_slower_saves_less_than_nothing() -> None:
    assert of("g1", check(conv_bn(24, 144), IMAGE, table({conv(24, 144): 100, conv(64, 56): 150}))).saving_ms == pytest.approx(
        -0.050
    )


def test_layers_that_share_a_name_are_told_apart() -> None:
    class Nameless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow, self.wide = (nn.Parameter(torch.zeros(c_out, 24, 1, 1)) for c_out in (24, 144))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([F.conv2d(x, self.narrow), F.conv2d(x, self.wide)], 1)

    known = {conv(24, 24, act="none"): 15, conv(24, 144, act="none"): 100, conv(64, 56, act="none"): 70}
    assert of("g1", check(Nameless(), IMAGE, table(known))).saving_ms == pytest.approx(0.030)


@pytest.mark.parametrize(
    ("known", "note"),
    [
        ({conv(24, 144): 100}, f"the table does not know {conv(64, 56)}"),
        ({conv(64, 56): 70}, f"the table does not know {conv(24, 144)}"),
        ({conv(8, 8): 1}, f"the table does not know {conv(24, 144)} and 1 more"),
    ],
)
def test_a_kernel_that_the_table_lacks_is_named(known: dict[OpKey, int], note: str) -> None:
    found = of("g1", check(conv_bn(24, 144), IMAGE, table(known)))
    assert (found.saving_ms, found.note) == (None, note)


def test_without_a_table_nothing_is_said_of_time() -> None:
    for found in check(InvertedResidual(24, 24, 1, 6), IMAGE):
        assert (found.saving_ms, found.time_share, found.note) == (None, None, "")


def test_no_groups() -> None:
    grouped = nn.Sequential(nn.Conv2d(64, 64, 1, groups=4), nn.ReLU())
    known = table({conv(64, 64, g=4): 100, conv(32, 32): 45})
    assert of("g2", check(grouped, (1, 64, 28, 28), known)).saving_ms == pytest.approx(0.055)


class Fragments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(32, 32, 1) for _ in range(4)])

    def forward(self, x: Tensor) -> Any:
        return torch.cat([part(x) for part in self.parts], 1)


def test_one_convolution_for_four_fragments() -> None:
    known = table({conv(32, 32, act="none"): 20, conv(64, 64, act="none"): 65})
    assert of("g3", check(Fragments(), (1, 32, 28, 28), known)).saving_ms == pytest.approx(0.015)


UNIT = {
    conv(24, 144, act="relu6"): 60, conv(144, 144, 3, 144, "relu6"): 90, conv(144, 24, act="none"): 40,
    OpKey("add", (1, 24, 28, 28), dtype="float32"): 10, conv(64, 64, 3, 64, "relu6"): 35,
}  # fmt: skip


def test_a_thin_depthwise_convolution_and_no_sum() -> None:
    found = of("g4", check(InvertedResidual(24, 24, 1, 6), IMAGE, table(UNIT)))
    assert found.saving_ms == pytest.approx((90 - 35 + 10) / 1e3)
    assert found.time_share == pytest.approx((90 + 10) / (60 + 90 + 40 + 10))


def test_sums_without_a_name_are_priced_once_each() -> None:
    """As in a program from a file, where only weights have names."""
    network = nn.Sequential(*[InvertedResidual(24, 24, 1, 6) for _ in range(2)]).eval()
    program = torch.export.export(network, (torch.zeros(IMAGE),)).module(check_guards=False)
    for asked in (network, program):
        savings = [each.saving_ms for each in check(asked, IMAGE, table(UNIT)) if each.rule == "g4"]
        assert savings == pytest.approx([0.065, 0.065])


def test_a_sum_that_the_runtime_fuses_is_not_priced() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv_bn(24, 24), conv_bn(24, 24, activation=None))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            return x + y

    fused = kernels(Residual(), IMAGE, "onnxruntime", abi="arm64-v8a")
    assert [use.key.op for use in fused] == ["conv2d", "conv2d"]
    found = of("g4", check(Residual(), IMAGE, table({conv(8, 8): 1}, "onnxruntime")))
    assert (found.saving_ms, found.note) == (None, "the runtime has no kernels of their own for what would go")


def test_what_saves_most_comes_first_and_the_unknown_last() -> None:
    known = table({**UNIT, conv(64, 56, act="relu6"): 59})
    found = check(InvertedResidual(24, 24, 1, 6), IMAGE, known)
    assert [(each.rule, each.saving_ms and round(each.saving_ms, 6)) for each in found] == [
        ("g4", 0.065), ("g1", 0.001), ("g1", None),
    ]  # fmt: skip


def test_kernels_of_another_runtime_are_not_guessed() -> None:
    with pytest.raises(UsageError, match="kernels were asked for the runtime 'ncnn'"):
        check(conv_bn(24, 144), IMAGE, table(UNIT, "ncnn"))


def test_an_op_without_known_kernels_stops_the_pricing_alone() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    assert check(Odd(), IMAGE) == []
    with pytest.raises(UnsupportedOp, match="bessel_j0"):
        check(Odd(), IMAGE, table(UNIT))
