"""The kernels of the same networks at other widths and resolutions."""

from __future__ import annotations

import pytest
from torch import nn

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.artifact import Network
from pipeline.graph import kernels
from pipeline.models import build
from pipeline.sweep.grid import Grid
from pipeline.sweep.relatives import relatives
from pipeline.sweep.request import USUAL_GRID

ABI = "x86_64"


def network(name: str, module: nn.Module, side: int = 224, source: str = "python") -> Network:
    return Network(name, source, (1, 3, side, side), module=module.eval())


def keys(module: nn.Module, side: int) -> set[OpKey]:
    return {use.key for use in kernels(module.eval(), (1, 3, side, side), "litert", abi=ABI)}


@pytest.fixture(scope="module")
def shufflenet() -> Network:
    return network("shufflenet_v2", build("shufflenet_v2"), source="zoo")


def test_they_are_the_kernels_that_the_network_has_at_each_width_and_resolution(shufflenet: Network) -> None:
    found = relatives([shufflenet], Grid(resolutions=(160, 224, 256), multipliers=(0.5,)), "litert", ABI)
    narrow = build("shufflenet_v2", width_mult=0.5)
    assert shufflenet.module is not None
    expected = keys(shufflenet.module, 160) | keys(shufflenet.module, 256) | keys(narrow, 224) | keys(narrow, 160)
    assert len(found) == len(set(found)) and set(found) == expected
    assert any(key.op == "concat" and key.input_shape[2] == 20 for key in found)


def test_the_farthest_resolutions_come_first_then_widths(shufflenet: Network) -> None:
    grid = Grid(resolutions=(128, 160, 192, 224, 256), multipliers=(0.5,))
    first = [key.input_shape for key in relatives([shufflenet], grid, "litert", ABI) if key.input_shape[1] == 3]
    assert [shape[-1] for shape in first] == [128, 256, 224, 160, 192]
    assert relatives([shufflenet], Grid(), "litert", ABI) == []


def test_a_network_from_a_file_has_no_width_whatever_its_name() -> None:
    some = network("shufflenet_v2", nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    assert relatives([some], Grid(multipliers=(1.4,)), "litert", ABI) == []


def test_a_network_that_takes_no_other_resolution_is_passed_over() -> None:
    fixed = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
    assert relatives([network("fixed", fixed, 32)], Grid(resolutions=(160, 224)), "litert", ABI) == []


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_resolutions_between_are_known(runtime: str, shufflenet: Network) -> None:
    """By the usual grid, and of a channel shuffle too, whose kernels no variant of a single one could tell."""
    assert shufflenet.module is not None
    measured = {use.key for use in kernels(shufflenet.module, (1, 3, 224, 224), runtime, abi=ABI)}
    measured |= set(relatives([shufflenet], USUAL_GRID, runtime, ABI))
    context = Context("a", "", "", "", runtime, "", "", "", 1, "", "", "", "2026-01-01T00:00:00Z", False)
    table = LatencyTable(context, [Entry(key, 1e4, (9.9e3, 1.01e4), (10_000,), (), "") for key in measured])
    for side in (208, 176):
        asked = [use.key for use in kernels(shufflenet.module, (1, 3, side, side), runtime, abi=ABI)]
        assert len(set(asked) - measured) > len(set(asked)) / 2
        assert table.total(asked, on_missing="report").missing == ()
