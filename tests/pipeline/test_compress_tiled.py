"""Chains of convolutions as one kernel, and SVD in tiles: exact at full rank, with the shuffle between its two layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.compress import build
from pipeline.compress.alds import Alds
from pipeline.compress.cp import Cp
from pipeline.compress.lowrank import LowRank
from pipeline.compress.replace import survey
from pipeline.compress.structure import assemble, compose
from pipeline.compress.svd import Svd
from pipeline.compress.tiled import TiledSvd, tiled_svd, tiles
from pipeline.compress.tucker import Tucker2
from pipeline.errors import UsageError


def layer(c_in: int, c_out: int, kernel: tuple[int, int], groups: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c_in + 7 * c_out)
        return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, (2, 1), (1, 0), groups=groups), nn.ReLU())


METHODS: list[tuple[LowRank, tuple[int, ...], int]] = [
    (Svd(energy=1.0), (4,), 1),
    (Svd(energy=1.0, folding="split_h", k=2), (3,), 1),
    (Svd(energy=1.0, folding="split_w"), (5,), 2),
    (Svd(energy=1.0, folding="decode"), (2,), 2),
    (Alds(keep=1.0), (3, 2), 1),
    (Cp(energy=1.0), (7,), 1),
    (Tucker2(energy=1.0), (5, 4), 1),
    (TiledSvd(energy=1.0, grid=(2, 3)), (2,), 1),
    (TiledSvd(energy=1.0, grid=(4, 4)), (1,), 1),
]


@pytest.mark.parametrize(("method", "ranks", "groups"), METHODS, ids=lambda one: getattr(one, "name", str(one)))
def test_a_chain_is_the_one_kernel_that_it_is_composed_to(method: LowRank, ranks: tuple[int, ...], groups: int) -> None:
    module = layer(12, 8, (3, 5), groups)
    found = survey(module)
    target, conv = found.targets["0"], found.modules["0"]
    choice = method.choice(target, ranks)
    weights, error = method.factors(target, conv.get_parameter("weight").detach(), choice)
    kernel = compose(target, choice.pieces, weights)
    assert kernel.shape == conv.get_parameter("weight").shape and kernel.dtype == torch.float64
    x = torch.randn(2, 12, 9, 11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = assemble(conv, target, choice.pieces, weights)(x)
        conv.get_parameter("weight").copy_(kernel)
        assert torch.allclose(conv(x), expected, atol=1e-5)
    assert error > 0.01  # it is a kernel of its own, not the layer's


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3, 6]), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_tiles_at_full_rank_are_the_kernel_again(down: int, across: int, seed: int) -> None:
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(seed))
    full = min(8 // down, 6 // across * 9)
    found = tiled_svd(weight, full, (down, across))
    assert found.relative_error < 1e-6
    assert found.first.shape == (down * across * full, 6 // across, 3, 3)
    assert found.second.shape == (8, full * across, 1, 1)
    module = nn.Sequential(nn.Conv2d(6, 8, 3, bias=False))
    module[0].weight.data.copy_(weight)
    smaller = TiledSvd(energy=1.0, grid=(down, across), even_if_larger=True).apply(module, (1, 6, 7, 7))
    x = torch.randn(1, 6, 7, 7)
    assert torch.allclose(smaller.model(x), module(x), atol=1e-4)


def test_the_error_of_a_rank_is_what_the_tiles_lose_together() -> None:
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    found = tiled_svd(weight, 2, (2, 3))
    lost = sum(float(torch.linalg.svdvals(tile.double())[2:].square().sum()) for row in tiles(weight, (2, 3)) for tile in row)
    assert found.relative_error == pytest.approx((lost / float(weight.double().square().sum())) ** 0.5, rel=1e-6)


def test_more_tiles_of_a_random_matrix_lose_less_for_the_same_parameters() -> None:
    """The demonstration of the paper: at four times fewer parameters, 1x1, 4x4 and 16x16 tiles."""
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    errors = [tiled_svd(weight, 32 // parts, (parts, parts)).relative_error for parts in (1, 4, 16)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("grid", [(0, 1), (3, 1), (1, 5)])
def test_a_grid_that_does_not_divide_the_channels_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=f"has no grid of {grid[0]} x {grid[1]} tiles"):
        tiles(torch.zeros(8, 6, 3, 3), grid)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tiled SVD was given the grid \(0, 2\); try: two whole numbers of 1 or more"):
        build("tiled_svd", keep=0.5, grid=(0, 2))
    with pytest.raises(UsageError, match="tiled SVD of '0' was asked for rank 5; try: 1 ... 4"):
        build("tiled_svd", ranks={"0": 5}).apply(layer(6, 8, (3, 3)))
    with pytest.raises(UsageError, match="tiled SVD was asked for rank 0; try: 1 ... 4"):
        tiled_svd(torch.zeros(8, 6, 3, 3), 0, (2, 2))
    with pytest.raises(UsageError, match="NaN or infinity"):
        tiled_svd(torch.full((8, 6, 3, 3), torch.nan), 1, (2, 2))


def test_grids_of_layers_are_their_own_and_grouped_layers_are_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2))
    found = build("tiled_svd", ranks={"0": 1, "1": 1}, grids={"1": (4, 2)}).apply(module)
    pieces = [[(one.out_channels, one.groups) for one in found.model[at] if hasattr(one, "groups") and hasattr(one, "bias")]
              for at in (0, 1)]  # fmt: skip
    assert pieces == [[(4, 2), (8, 2)], [(8, 2), (8, 4)]]
    assert found.left_alone == {"2": "a grouped convolution (2 groups)"}


def test_a_constant_ratio_keeps_the_same_share_of_every_layers_ranks() -> None:
    module = nn.Sequential(nn.Conv2d(32, 64, 3, bias=False), nn.Conv2d(64, 64, 3, bias=False))
    module[0].weight.data[16:] = 0  # half of the first layer's ranks say nothing: by error it would keep fewer
    shares = {
        allocation: [layer.ranks[0] / 64 for layer in build("svd", keep=0.4, allocation=allocation).apply(module).layers]
        for allocation in ("ratio", "error")
    }
    assert shares["ratio"][0] == pytest.approx(shares["ratio"][1], abs=0.03)
    assert shares["error"][0] < 0.3 < shares["error"][1]
    with pytest.raises(UsageError, match="SVD has no allocation 'mean'; try: error or ratio"):
        build("svd", keep=0.4, allocation="mean")
