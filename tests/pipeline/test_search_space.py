"""What a rank search varies: layers, their full ranks, shares of these, the first networks that are tried."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.graph import kernels
from pipeline.search.rank_space import AXES, LOWEST, decomposed, outlined, space_of

SEARCH = runpy.run_path(str(Path(__file__).with_name("search_network.py")))
SHAPE, model = SEARCH["SHAPE"], SEARCH["model"]


def test_layers_that_a_method_makes_smaller_and_their_full_ranks(model: nn.Module) -> None:
    assert space_of("tucker2", model).full == {"first": (16, 3), "second": (24, 16)}
    assert space_of("cp", model).full == {"first": (432 // 25,), "second": (3456 // 46,)}
    assert space_of("svd", model).full == {"first": (16,), "second": (24,), "point": (24,), "linear": (4,)}
    assert space_of("tucker2", model).names == [
        "first.rank_out", "first.rank_in", "second.rank_out", "second.rank_in"
    ]  # fmt: skip


def test_ranks_are_shares_of_full_rank_rounded_and_1_at_least(model: nn.Module) -> None:
    space = space_of("tucker2", model)
    one = dict.fromkeys(space.names, 1.0)
    assert space.ranks(one) == {}
    assert space.ranks(dict.fromkeys(space.names, LOWEST)) == {"first": (1, 1), "second": (1, 1)}
    assert space.ranks({**one, "second.rank_out": 0.5}) == {"second": (12, 16)}
    assert space.ranks({**one, "second.rank_out": 9 / 32, "second.rank_in": 5 / 32}) == {"second": (7, 2)}


def test_a_layer_that_would_not_become_smaller_stays(model: nn.Module) -> None:
    """24 x 24 of rank 12 has 576 weights, as many as before."""
    space = space_of("svd", model)
    one = dict.fromkeys(space.names, 1.0)
    assert space.ranks({**one, "point.rank": 12 / 32}) == {"point": (9,)}
    assert space.ranks({**one, "point.rank": 0.5}) == {}


@pytest.mark.parametrize("method", AXES)
def test_shares_keep_the_ranks_that_were_asked_at_least_and_no_step_more(method: str, model: nn.Module) -> None:
    space = space_of(method, model)
    ranks = {layer: tuple(max(1, whole // 3) for whole in full) for layer, full in space.full.items()}
    shares = space.shares(ranks)
    for layer, full in space.full.items():
        for axis, whole, rank in zip(AXES[method], full, ranks[layer], strict=True):
            share = shares[f"{layer}.{axis}"]
            assert share * 32 == int(share * 32) and share * whole >= rank > (share - LOWEST) * whole


@pytest.mark.parametrize("method", AXES)
def test_an_outline_is_the_decomposed_network_but_for_its_values(method: str, model: nn.Module) -> None:
    before = {name: values.clone() for name, values in model.state_dict().items()}
    space = space_of(method, model)
    ranks = space.ranks(dict.fromkeys(space.names, 0.25))
    assert set(ranks) == set(space.full)
    outline, real = outlined(model, method, ranks), decomposed(model, method, ranks)
    shapes = [{name: values.shape for name, values in one.state_dict().items()} for one in (outline, real)]
    assert shapes[0] == shapes[1]
    assert not outline.get_parameter("second.0.weight").any() and real.get_parameter("second.0.weight").any()
    for runtime in ("onnxruntime", "litert"):
        keys = [[use.key for use in kernels(one, SHAPE, runtime)] for one in (outline, real)]
        assert keys[0] == keys[1]
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_starts_go_from_the_network_as_it_is_to_the_lowest_ranks(model: nn.Module) -> None:
    counts = {}
    for method in AXES:
        space = space_of(method, model)
        starts = list(space.starts(model))
        assert set(starts[0].values()) == {1.0} and set(starts[-1].values()) == {LOWEST}
        assert all(list(start) == space.names for start in starts)
        counts[method] = len(starts)
    assert counts["svd"] == counts["tucker2"] == counts["cp"] + 1  # EVBMF is for matrices


def test_the_starts_by_energy_keep_it(model: nn.Module) -> None:
    space = space_of("svd", model)
    high, low = [space.ranks(start) for start in list(space.starts(model))[2:4]]
    weight = model.get_parameter("linear.weight").detach().double()
    squares = torch.linalg.svdvals(weight).square()
    kept = float(squares[: low["linear"][0]].sum() / squares.sum()) if "linear" in low else 1.0
    assert kept >= 0.8
    assert all(high.get(layer, space.full[layer]) >= ranks for layer, ranks in low.items()) and high != low
