"""The random networks that tables are judged by: drawn from their seed, of a bounded size, known and writable everywhere."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.deploy import DELEGATES, Target
from pipeline.graph import count, kernels
from pipeline.sweep.measure import unwritable
from pipeline.sweep.plan import distinct

HELD_OUT = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "held_out.py"))
FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
FAMILIES = list(HELD_OUT["FAMILIES"])
RUNTIMES = ("onnxruntime", "litert")


@pytest.fixture(scope="module")
def networks() -> list[Any]:
    """One of each family."""
    found: list[Any] = HELD_OUT["networks"](len(FAMILIES), seed=3)
    return found


def weights(one: Any) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in one.module.state_dict().values() if weight.is_floating_point()])


def test_families_take_turns_and_names_differ(networks: list[Any]) -> None:
    assert [one.family for one in networks] == FAMILIES
    assert len(FAMILIES) >= 10
    assert len({one.name for one in networks}) == len(networks)
    assert not any(one.module.training for one in networks)


def test_a_network_is_that_of_its_seed_and_number_alone(networks: list[Any]) -> None:
    torch.manual_seed(5)
    again, other = HELD_OUT["network"](3, seed=3), HELD_OUT["network"](3, seed=4)
    assert again.name == networks[3].name and again.input_shape == networks[3].input_shape
    assert torch.equal(weights(again), weights(networks[3]))
    assert weights(other).shape != weights(again).shape or not torch.equal(weights(other), weights(again))


def test_the_size_is_bounded(networks: list[Any]) -> None:
    low, high = HELD_OUT["MACS"]
    for one in networks:
        counts = count(one.module, one.input_shape)
        assert low <= counts.macs <= high, one.name
        assert counts.params <= HELD_OUT["MAX_PARAMS"], one.name


def test_what_no_draw_reaches_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = HELD_OUT["network"]
    monkeypatch.setitem(asked.__globals__, "MACS", (1, 2))
    monkeypatch.setitem(asked.__globals__, "DRAWS", 3)
    with pytest.raises(RuntimeError, match="no mobilenet_v1 of 1 to 2 multiply-accumulates in 3 draws"):
        asked(0)


def test_values_neither_fade_nor_explode(networks: list[Any]) -> None:
    """Denormal numbers take a processor many times as long: no tensor on the way may be all of them."""
    for one in networks:
        sizes: list[float] = []

        def note(layer: torch.nn.Module, inputs: Any, output: torch.Tensor, sizes: list[float] = sizes) -> None:
            sizes.append(float(output.abs().mean()))

        layers = [layer for layer in one.module.modules() if isinstance(layer, torch.nn.Conv2d)]
        hooks = [layer.register_forward_hook(note) for layer in layers]
        with torch.no_grad():
            output = one.module(torch.rand(one.input_shape, generator=torch.Generator().manual_seed(0)))
        for hook in hooks:
            hook.remove()
        assert output.isfinite().all(), one.name
        assert min(sizes) > 1e-3 and max(sizes) < 1e4, one.name


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_kernel_is_known_and_can_be_measured_by_itself(networks: list[Any], runtime: str, tmp_path: Path) -> None:
    met = distinct({one.name: [use.key for use in kernels(one.module, one.input_shape, runtime)] for one in networks})
    target = Target(FAKE["installed"](tmp_path)["host"], runtime, DELEGATES[runtime][0])
    assert len(met) > 300
    assert unwritable(met, target, tmp_path) == {}
