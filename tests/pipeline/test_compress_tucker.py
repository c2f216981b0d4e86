"""Tucker-2 by closed forms: exact ranks are recovered, the error is the norm of what is lost, bad ranks are refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from torch import nn

from pipeline.compress.replace import survey
from pipeline.compress.tucker import Tucker2, TuckerFactors, tucker2
from pipeline.errors import UsageError

METHODS = ("hooi", "hosvd")
SIZE = st.integers(1, 6)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rebuilt(factors: TuckerFactors) -> torch.Tensor:
    return torch.einsum("abhw,oa,ib->oihw", factors.core, factors.out_factor, factors.in_factor)


def error(weight: torch.Tensor, factors: TuckerFactors) -> float:
    return float(torch.linalg.norm(rebuilt(factors) - weight) / torch.linalg.norm(weight))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("rank_out", "rank_in"), [(1, 1), (3, 2), (2, 5)])
def test_a_kernel_of_exactly_these_ranks_is_recovered(rank_out: int, rank_in: int, method: str) -> None:
    core = normal(rank_out, rank_in, 3, 3)
    weight = torch.einsum("abhw,oa,ib->oihw", core, normal(12, rank_out, seed=1), normal(10, rank_in, seed=2))
    factors = tucker2(weight, rank_out, rank_in, method)
    assert factors.relative_error < 1e-6 and error(weight, factors) < 1e-5
    assert factors.core.shape == (rank_out, rank_in, 3, 3)
    assert factors.out_factor.shape == (12, rank_out) and factors.in_factor.shape == (10, rank_in)


@pytest.mark.parametrize("method", METHODS)
def test_factors_are_orthonormal_and_the_error_is_the_norm_of_what_is_lost(method: str) -> None:
    weight = normal(12, 10, 3, 3)
    factors = tucker2(weight, 5, 4, method)
    for factor in (factors.out_factor, factors.in_factor):
        assert torch.allclose(factor.T @ factor, torch.eye(factor.shape[1]), atol=1e-5)
    assert factors.relative_error == pytest.approx(error(weight, factors), rel=1e-4)
    # by Pythagoras
    kept = float(torch.linalg.norm(factors.core) / torch.linalg.norm(weight))
    assert factors.relative_error == pytest.approx(math.sqrt(1 - kept**2), rel=1e-4)


def test_with_one_mode_whole_the_error_is_that_of_the_svd() -> None:
    """Eckart and Young: the singular values that are cut off."""
    weight = normal(12, 4, 3, 3)
    values = torch.linalg.svdvals(weight.reshape(12, -1))
    expected = float(torch.linalg.norm(values[5:]) / torch.linalg.norm(values))
    for method in METHODS:
        assert tucker2(weight, 5, 4, method).relative_error == pytest.approx(expected, rel=1e-4)


def test_hosvd_takes_the_singular_vectors_of_each_unfolding() -> None:
    weight = normal(12, 10, 3, 3)
    factors = tucker2(weight, 5, 4, "hosvd")
    outer = torch.linalg.svd(weight.reshape(12, -1)).U[:, :5]
    inner = torch.linalg.svd(weight.transpose(0, 1).reshape(10, -1)).U[:, :4]
    assert torch.allclose(factors.out_factor @ factors.out_factor.T, outer @ outer.T, atol=1e-4)
    assert torch.allclose(factors.in_factor @ factors.in_factor.T, inner @ inner.T, atol=1e-4)


def test_hooi_is_better_than_hosvd() -> None:
    better = [
        tucker2(normal(16, 12, 3, 3, seed=seed), 4, 3).relative_error
        < tucker2(normal(16, 12, 3, 3, seed=seed), 4, 3, "hosvd").relative_error - 1e-4
        for seed in range(3)
    ]
    assert all(better)


@settings(max_examples=40, deadline=None)
@given(SIZE, SIZE, st.sampled_from([1, 2, 3]), st.integers(0, 100), st.data())
def test_any_kernel_and_ranks(c_out: int, c_in: int, size: int, seed: int, data: Any) -> None:
    weight = normal(c_out, c_in, size, size, seed=seed)
    rank_out, rank_in = data.draw(st.integers(1, c_out)), data.draw(st.integers(1, c_in))
    hooi, hosvd = (tucker2(weight, rank_out, rank_in, method) for method in METHODS)
    assert 0 <= hooi.relative_error <= hosvd.relative_error + 1e-6
    assert hosvd.relative_error <= 1 + 1e-9
    for factors in (hooi, hosvd):
        assert factors.relative_error == pytest.approx(error(weight, factors), abs=1e-4)
        assert factors.core.shape == (rank_out, rank_in, size, size)
    if (rank_out, rank_in) == (c_out, c_in):
        assert hooi.relative_error < 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(32, 4, 1, 1), (3, 20, 1, 1), (16, 1, 3, 3)])
def test_full_rank_of_a_flat_kernel_is_exact_repeats_and_says_nothing(shape: tuple[int, ...], method: str) -> None:
    """More ranks are asked than an unfolding has: the factors are filled up, always in the same way."""
    weight = normal(*shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (tucker2(weight, shape[0], shape[1], method) for _ in range(2))
    assert one.relative_error < 1e-6 and error(weight, one) < 1e-5
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("core", "out_factor", "in_factor"))


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_of_zeros_is_decomposed_without_error(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = tucker2(torch.zeros(8, 6, 3, 3), 4, 3, method)
    assert factors.relative_error == 0 and not rebuilt(factors).any()


def test_the_kernel_is_left_alone_and_its_type_kept() -> None:
    weight = normal(8, 6, 3, 3).double().requires_grad_()
    before = weight.detach().clone()
    factors = tucker2(weight, 3, 2)
    assert torch.equal(weight, before) and factors.core.dtype == torch.float64 and not factors.core.requires_grad


@pytest.mark.parametrize(("rank_out", "rank_in"), [(0, 1), (1, 0), (9, 1), (1, 7), (-1, 1)])
def test_ranks_out_of_range_are_refused(rank_out: int, rank_in: int) -> None:
    what = rf"ranks \({rank_out}, {rank_in}\) do not fit a kernel of 8 x 6 channels; try: 1 \.\.\. 8 and 1 \.\.\. 6"
    with pytest.raises(UsageError, match=what):
        tucker2(normal(8, 6, 3, 3), rank_out, rank_in)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_kernel_that_is_not_finite_is_refused(bad: float) -> None:
    weight = normal(8, 6, 3, 3)
    weight[3, 2, 1, 0] = bad
    with pytest.raises(UsageError, match="NaN or infinity"):
        tucker2(weight, 2, 2)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="no method 'als'; try: hooi or hosvd"):
        tucker2(normal(8, 6, 3, 3), 2, 2, "als")


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 10, (3, 1), (2, 1), (1, 0), (2, 1)))
        return nn.Sequential(nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect", bias=False), inner)


def test_a_layers_settings_and_bias_are_kept() -> None:
    whole, image = network(), normal(2, 4, 9, 9)
    smaller = Tucker2(ranks={"0": (6, 4), "1.1": (10, 6)}, even_if_larger=True).apply(whole).model
    assert torch.allclose(smaller(image), whole(image), atol=1e-5)
    shrink, core, grow = smaller.get_submodule("1.1").children()
    assert isinstance(core, nn.Conv2d) and isinstance(grow, nn.Conv2d) and isinstance(shrink, nn.Conv2d)
    assert (core.kernel_size, core.stride, core.padding, core.dilation) == ((3, 1), (2, 1), (1, 0), (2, 1))
    assert shrink.bias is None and core.bias is None and grow.bias is not None
    assert all(layer.bias is None for layer in smaller.get_submodule("0").children() if isinstance(layer, nn.Conv2d))


def test_params_after_follow_from_the_ranks() -> None:
    (layer,) = Tucker2(ranks={"1.1": (5, 3)}).apply(network()).layers
    assert (layer.layer, layer.ranks) == ("1.1", (5, 3))
    assert layer.params_before == 10 * 6 * 3 + 10
    assert layer.params_after == 6 * 3 + 5 * 3 * 3 + 10 * 5 + 10


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("2", "there is no convolution or linear layer of that name"),
        ("1", "there is no convolution or linear layer of that name"),
        ("1.0", r"a grouped convolution \(2 groups\)"),
        ("2.0", "a 1x1 kernel or linear layer is a matrix: SVD decomposes it"),
    ],
)
def test_only_a_dense_convolution_can_be_named(name: str, why: str) -> None:
    whole = nn.Sequential(*network(), nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(UsageError, match=rf"tucker2 cannot decompose '{name}': {why}; try: 0, 1\.1"):
        Tucker2(ranks={name: (1, 1)}).apply(whole)


def test_by_a_rule_layers_that_it_cannot_decompose_are_left_alone_with_the_reason() -> None:
    compressed = Tucker2(energy=0.5).apply(network())
    assert compressed.left_alone["1.0"] == "a grouped convolution (2 groups)"
    assert "1.0" not in [layer.layer for layer in compressed.layers]
    assert torch.equal(compressed.model.get_submodule("1.0").weight, network()[1][0].weight)


def test_evbmf_finds_the_ranks_under_the_noise() -> None:
    core = torch.einsum("abhw,oa,ib->oihw", normal(6, 4, 3, 3), normal(48, 6, seed=1), normal(40, 4, seed=2))
    layer = nn.Conv2d(40, 48, 3)
    layer.weight.data = core / core.std() + 0.3 * normal(48, 40, 3, 3, seed=3)
    (found,) = Tucker2(ranks="evbmf").apply(nn.Sequential(layer)).layers
    assert found.ranks == (6, 4)


def test_the_error_that_an_option_is_judged_by_is_that_of_hosvd() -> None:
    layer, method = nn.Conv2d(10, 12, 3), Tucker2(energy=0.5)
    layer.weight.data = normal(12, 10, 3, 3)
    options = method.options(survey(nn.Sequential(layer)).targets["0"], layer.weight.detach())
    assert options[-1].ranks == (12, 10) and options[-1].error < 1e-6
    errors = [option.error for option in options]
    assert errors == sorted(errors, reverse=True)
    for option in options:
        real = tucker2(layer.weight, *option.ranks, "hosvd").relative_error
        assert option.error == pytest.approx(real, abs=1e-6)
    assert len({round(error, 6) for error in errors}) == len(errors)  # the lowest ranks are not all called equally bad


def test_hooi_is_as_good_as_tensorlys() -> None:
    weight = normal(14, 11, 3, 3)
    (core, _), _ = partial_tucker(weight.double().numpy(), [5, 4], [0, 1], n_iter_max=200, tol=1e-10)
    theirs = math.sqrt(1 - float((core**2).sum()) / float(weight.double().square().sum()))
    assert tucker2(weight, 5, 4).relative_error == pytest.approx(theirs, abs=2e-3)


def test_a_layer_that_is_not_finite_is_refused_by_its_network() -> None:
    broken = network()
    with torch.no_grad():
        next(broken.parameters())[0, 0, 0, 0] = math.nan
    with pytest.raises(UsageError, match="NaN"):
        Tucker2(ranks={"0": (2, 2)}).apply(broken)


def test_prices_are_asked_for_pairs_of_whole_steps_too() -> None:
    layer = nn.Conv2d(8, 72, 3)
    layer.weight.data = normal(72, 8, 3, 3)
    # a device on which only ranks of whole fours are known, and the second one costs nothing
    def cost(target: Any, choice: Any) -> float:
        if not choice.ranks:
            return 100.0
        return float(choice.ranks[0]) if not any(rank % 4 for rank in choice.ranks) else math.inf

    options = Tucker2(budget=1.0, cost=cost).options(survey(nn.Sequential(layer)).targets["0"], layer.weight.detach())
    assert {(8 * i, 4 * j) for i in range(1, 10) for j in (1, 2)} <= {option.ranks for option in options}
    assert len(options) == len({option.ranks for option in options}) < 18 + 8 + 72
    for option in options[:: len(options) // 7]:
        real = tucker2(layer.weight, *option.ranks, "hosvd").relative_error
        assert option.error == pytest.approx(real, abs=1e-6)
    (found,) = Tucker2(budget=41.0, cost=cost).apply(nn.Sequential(layer)).layers
    assert found.ranks == (40, 8)
