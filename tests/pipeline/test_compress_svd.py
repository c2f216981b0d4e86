"""SVD of folded kernels: Eckart and Young for every folding, what the decomposed layer is, full rank exact for any layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.compress.alds import Alds
from pipeline.compress.cp import Cp
from pipeline.compress.replace import survey
from pipeline.compress.structure import Piece, macs, params
from pipeline.compress.svd import FOLDINGS, Svd, closest_divisor, divisors, fold, full_rank, svd
from pipeline.errors import UsageError
from pipeline.graph import count

AXES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "encode": ((0,), (1, 2, 3)), "split_h": ((0, 2), (1, 3)), "split_w": ((0, 3), (1, 2)), "decode": ((0, 2, 3), (1,)),
}  # fmt: skip
"""Folding -> the kernel's axes on the rows and on the columns."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parts(weight: torch.Tensor, folding: str, k: int, groups: int) -> list[torch.Tensor]:
    """The matrices, cut out one by one."""
    rows, columns = AXES[folding]
    cut = [part for group in weight.chunk(groups, 0) for part in group.chunk(k, 1)]
    return [one.permute(*rows, *columns).reshape(math.prod(one.shape[axis] for axis in rows), -1) for one in cut]


@pytest.mark.parametrize("folding", FOLDINGS)
@pytest.mark.parametrize(("k", "groups"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_the_error_is_the_tail_of_the_singular_values(folding: str, k: int, groups: int) -> None:
    weight = normal(8, 6, 3, 2)
    matrices = parts(weight, folding, k, groups)
    assert torch.equal(fold(weight, folding, k, groups).flatten(0, 1), torch.stack(matrices))
    values = torch.stack([torch.linalg.svdvals(matrix.double()) for matrix in matrices])
    for rank in range(1, values.shape[1] + 1):
        expected = float(values[:, rank:].norm() / weight.double().norm())
        assert svd(weight, rank, folding, k, groups).relative_error == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("folding", FOLDINGS)
@pytest.mark.parametrize(("k", "groups"), [(1, 1), (3, 1), (3, 2), (1, 6)])
def test_the_two_convolutions_are_that_truncation(folding: str, k: int, groups: int) -> None:
    """The layer's answer is that of the kernel put together again from its truncated parts."""
    layer = nn.Conv2d(6 * groups if groups < 6 else 6, 12, (3, 2), (2, 1), (2, 1), (1, 2), groups)
    layer.weight.data, image = normal(*layer.weight.shape), normal(2, layer.in_channels, 9, 8, seed=1)
    method = Svd(ranks={"0": 2}, folding=folding, k=k, even_if_larger=True)
    if full_rank(survey(nn.Sequential(layer)).targets["0"], folding, k) < 2:
        method = Svd(ranks={"0": 1}, folding=folding, k=k, even_if_larger=True)
    compressed = method.apply(nn.Sequential(layer), (2, layer.in_channels, 9, 8))
    (decision,) = compressed.layers
    rows, columns = AXES[folding]
    rebuilt = layer.weight.detach().clone()
    for group in rebuilt.chunk(groups, 0):
        for part in group.chunk(k, 1):
            order = [*rows, *columns]
            moved = part.permute(order)
            left, values, right = torch.linalg.svd(moved.flatten(0, len(rows) - 1).flatten(1), full_matrices=False)
            values[decision.ranks[0] :] = 0
            inverse = [order.index(axis) for axis in range(4)]
            part.copy_(((left * values) @ right).reshape(moved.shape).permute(inverse))
    expected = nn.functional.conv2d(
        image, rebuilt, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    assert torch.allclose(compressed.model(image), expected, atol=1e-4)
    first, second = compressed.model[0].children()
    assert first.groups == groups * k and second.groups == groups and first.bias is None
    assert first.out_channels == groups * k * decision.ranks[0]


def test_encode_is_a_grouped_convolution_and_a_1x1() -> None:
    target = survey(nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1))).targets["0"]
    method = Svd(ranks={}, k=4)
    first, second = method.choice(target, (3,)).pieces
    assert first == Piece(8, 12, (3, 3), (2, 2), (1, 1), (1, 1), 4) and second == Piece(12, 10, bias=True)
    assert params([first, second]) == 3 * (4 * 10 + 8 * 9) + 10


def test_pieces_tell_the_macs_that_the_graph_counts() -> None:
    whole = nn.Sequential(nn.Conv2d(4, 8, (3, 5), (2, 3), (1, 2), (2, 1), groups=2), nn.Conv2d(8, 8, 3, padding="same"))
    for folding in FOLDINGS:
        compressed = Svd(energy=0.99, folding=folding, even_if_larger=True).apply(whole, (2, 4, 17, 19))
        assert len(compressed.layers) == 2
        assert compressed.macs_after == sum(layer.macs_after or 0 for layer in compressed.layers)
        assert compressed.macs_after == count(compressed.model, (2, 4, 17, 19)).macs
    assert macs([Piece(4, 4, (3, 3), padding="same")], [(1, 5, 6)]) == 5 * 6 * 4 * 4 * 9


METHODS = {"svd": Svd, "alds": Alds, "cp": Cp}


@st.composite
def convolutions(draw: Any) -> tuple[nn.Conv2d, tuple[int, int, int, int]]:
    groups = draw(st.integers(1, 4))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    padding: Any = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    if draw(st.booleans()):
        stride, padding = (1, 1), draw(st.sampled_from(["same", "valid"]))
    channels = (groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)))
    mode = draw(st.sampled_from(["zeros", "replicate", "reflect", "circular"]))
    layer = nn.Conv2d(
        *channels, kernel, stride, padding, dilation, groups, draw(st.booleans()), padding_mode=mode, dtype=torch.float64
    )  # fmt: skip
    layer.weight.data = normal(*layer.weight.shape, seed=draw(st.integers(0, 99))).double()
    return layer, (1, channels[0], draw(st.integers(10, 13)), draw(st.integers(10, 13)))


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.sampled_from(list(FOLDINGS)), st.integers(1, 4), st.sampled_from(list(METHODS)))
def test_full_rank_is_exact_for_any_convolution(drawn: Any, folding: str, k: int, method: str) -> None:
    layer, shape = drawn
    whole, image = nn.Sequential(nn.Identity(), layer), normal(*shape, seed=1).double()
    target = survey(whole).targets["1"]
    k = closest_divisor(target.c_in // target.groups, k)
    full = full_rank(target, folding, k) if method == "svd" else full_rank(target, "encode", k)
    if method == "svd":
        found = Svd(ranks={"1": full}, folding=folding, k=k, even_if_larger=True)
    elif method == "alds":
        found = Alds(ranks={"1": (k, full)}, even_if_larger=True)  # type: ignore[assignment]
    elif target.groups == 1 and target.whole.kernel != (1, 1):
        sizes = (target.c_out, target.c_in, *target.whole.kernel)
        found = Cp(ranks={"1": math.prod(sizes) // max(sizes)}, even_if_larger=True)  # type: ignore[assignment]
    else:
        return
    expected = layer(image)
    answer = found.apply(whole, shape).model(image)
    assert answer.shape == expected.shape and torch.allclose(answer, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 12), (2, 5, 12), (12,)])
@pytest.mark.parametrize("k", [1, 3])
def test_a_linear_layer_at_full_rank_is_exact_for_any_leading_axes(shape: tuple[int, ...], k: int) -> None:
    whole, rows = nn.Sequential(nn.Linear(12, 7)), normal(*shape)
    smaller = Alds(ranks={"0": (k, min(7, 12 // k))}, even_if_larger=True).apply(whole).model
    assert torch.allclose(smaller(rows), whole(rows), atol=1e-5)
    assert any(isinstance(module, nn.Linear) for module in smaller.modules()) == (k == 1)


def test_a_layer_that_would_grow_is_left_alone() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 32, 3))
    compressed = Svd(energy=1.0).apply(whole)
    assert compressed.layers == () and set(compressed.left_alone.values()) == {"it would not become smaller"}
    assert torch.equal(compressed.model(normal(1, 8, 6, 6)), whole(normal(1, 8, 6, 6)))
    assert [one.layer for one in Svd(energy=1.0, even_if_larger=True).apply(whole).layers] == ["0", "1"]


def test_a_depthwise_layer_becomes_a_row_and_a_column() -> None:
    whole = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8))
    (layer,) = Svd(ranks={"0": 1}, folding="split_h").apply(whole).layers
    assert (layer.params_before, layer.params_after) == (8 * 25 + 8, 8 * 5 + 8 * 5 + 8)


def test_energy_keeps_what_it_says_and_one_rank_less_does_not() -> None:
    whole = nn.Sequential(nn.Conv2d(16, 24, 3))
    (layer,) = Svd(energy=0.6).apply(whole).layers
    (less,) = Svd(ranks={"0": layer.ranks[0] - 1}).apply(whole).layers
    assert layer.relative_error**2 <= 0.4 < less.relative_error**2


def test_divisors() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert (closest_divisor(12, 5), closest_divisor(12, 9), closest_divisor(7, 4), closest_divisor(1, 9)) == (6, 12, 7, 1)


@pytest.mark.parametrize("rank", [0, -1, 9])
def test_ranks_out_of_range_are_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=rf"SVD was asked for rank {rank}; try: 1 \.\.\. 8"):
        svd(normal(8, 6, 3, 3), rank)
    with pytest.raises(UsageError, match=rf"SVD of '0' was asked for rank {rank}; try: 1 \.\.\. 8"):
        Svd(ranks={"0": rank}).apply(nn.Sequential(nn.Conv2d(6, 8, 3)))


@pytest.mark.parametrize(
    ("given_settings", "why"),
    [
        ({}, "given none of ranks, energy, keep, budget"),
        ({"energy": 0.5, "keep": 0.5}, "given energy and keep of"),
        ({"keep": 0.0}, "keep = 0.0"),
        ({"energy": 1.5}, "energy = 1.5"),
        ({"budget": math.nan}, "budget of nan"),
        ({"ranks": "all"}, "ranks = 'all'"),
        ({"keep": 0.5, "unit": "ms"}, "the unit 'ms'; try: params or macs"),
        ({"keep": 0.5, "folding": "none"}, "no folding 'none'; try: encode"),
        ({"keep": 0.5, "k": 0}, "k = 0"),
    ],
)
def test_settings_that_say_nothing_are_refused(given_settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Svd(**given_settings)


@pytest.mark.parametrize("bad", [(1, 2), 1.5, True, "2"])
def test_ranks_are_whole_numbers(bad: Any) -> None:
    with pytest.raises(UsageError, match="svd was given ranks .* for '0'; try: a whole number"):
        Svd(ranks={"0": bad}).apply(nn.Sequential(nn.Conv2d(6, 8, 3)))


def test_macs_need_an_example() -> None:
    with pytest.raises(UsageError, match="count MACs without an example"):
        Svd(keep=0.5, unit="macs").apply(nn.Sequential(nn.Conv2d(6, 8, 3)))
