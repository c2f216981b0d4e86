"""The times of layers: which kernel of a profile is of which layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from latency_luts import OpKey
from pipeline.compression.layer_times import by_module, layer_times
from pipeline.export.program import save_program
from pipeline.graph import OpUse, kernels

WIDTHS = (4, 6, 8)


def key(width: int) -> OpKey:
    return OpKey.parse(f"conv2d[in=1x3x8x8 out={width} k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=0 dtype=float32]")


def kernel(width: int | None, ms: float) -> dict[str, Any]:
    return {"key": None if width is None else str(key(width)), "latency_ms": {"median": 99.0, "corrected": {"median": ms}}}


def use(width: int, module: str) -> OpUse:
    return OpUse(key(width), 0, 0, module)


def test_the_nth_kernel_of_a_key_is_the_nth_that_was_told() -> None:
    uses = [use(4, "a"), use(6, "b.0"), use(4, "b.1"), use(4, "a")]
    profile = [kernel(6, 1.0), kernel(4, 2.0), kernel(4, 4.0), kernel(4, 8.0)]
    assert by_module(uses, profile) == {"a": 10.0, "b.0": 1.0, "b.1": 4.0}


def test_a_layer_whose_kernel_is_not_as_told_has_no_time() -> None:
    uses = [use(4, "a"), use(6, "a"), use(6, "b"), use(8, "c")]
    assert by_module(uses, [kernel(4, 1.0), kernel(6, 2.0), kernel(8, 4.0)]) == {"c": 4.0}  # one 6 of two
    assert by_module(uses, [kernel(4, 1.0), kernel(6, 2.0), kernel(6, 2.0), kernel(8, 4.0), kernel(8, 4.0)]) == {
        "a": 3.0, "b": 2.0
    }  # fmt: skip
    assert by_module(uses, [kernel(None, 1.0)]) == {}


@given(st.lists(st.tuples(st.sampled_from(WIDTHS), st.sampled_from("abcd"), st.integers(1, 1000)), max_size=12), st.randoms())
def test_in_whatever_order_the_kernels_ran_no_time_is_lost(made: list[tuple[int, str, int]], chance: Any) -> None:
    shuffled = list(made)
    chance.shuffle(shuffled)
    found = by_module([use(width, module) for width, module, _ in made], [kernel(width, ms) for width, _, ms in shuffled])
    assert found.keys() == {module for _, module, _ in made}
    assert sum(found.values()) == pytest.approx(sum(ms for _, _, ms in made))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, padding=1))
        self.head = nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.head(self.stem(x)))
        return out


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_layers_of_a_file_are_those_of_the_network(tmp_path: Path, runtime: str) -> None:
    path, network = tmp_path / "twice.pt2", Twice().eval()
    save_program(network, (1, 3, 8, 8), path)
    uses = kernels(network, (1, 3, 8, 8), runtime, abi="arm64-v8a")
    profile = [kernel(None, 1.0) | {"key": str(one.key)} for one in uses]

    def bench(**more: Any) -> dict[str, Any]:
        one = {"network": "twice", "runtime": runtime, "failed": None, "kernels": profile}
        return {"device": {"abi": "arm64-v8a"}, "profiles": [one | more, one | {"network": "other"}]}

    found = layer_times({"twice": path}, bench(), lambda _: None)["twice"]
    assert found[runtime]["stem.0"] == found[runtime]["stem.1"] == 1
    assert found[runtime]["head"] == 2 + (runtime == "litert")  # which makes the output channels first
    assert sum(found[runtime].values()) == len(profile)
    assert layer_times({"twice": path}, bench(failed="the link was lost"), lambda _: None) == {"twice": {}}
