"""CP: exact where it can be, as good as tensorly's, and its terms stay small where they could cancel each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import parafac
from torch import nn

from pipeline.compress.cp import Cp, CpFactors, cp, full_rank
from pipeline.compress.replace import survey
from pipeline.errors import UsageError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of(factors: CpFactors) -> tuple[torch.Tensor, ...]:
    return factors.out, factors.into, factors.height, factors.width


def rebuilt(factors: CpFactors) -> torch.Tensor:
    return torch.einsum("or,ir,hr,wr->oihw", *of(factors))


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, n) for n in (6, 5, 3, 4)]), st.integers(0, 99), st.data())
def test_any_kernel_and_rank(shape: tuple[int, int, int, int], seed: int, data: st.DataObject) -> None:
    weight = normal(*shape, seed=seed)
    rank = data.draw(st.integers(1, full_rank(shape)))
    found = cp(weight, rank)
    error = float((rebuilt(found) - weight).norm() / weight.norm())
    assert found.relative_error == pytest.approx(error, abs=1e-5) and error <= 1 + 1e-6
    assert rank < full_rank(shape) or error < 1e-6
    assert [factor.shape for factor in of(found)] == [(size, rank) for size in shape]


def test_a_kernel_of_a_few_terms_is_found() -> None:
    weight = torch.einsum("or,ir,hr,wr->oihw", *(normal(n, 3, seed=n) for n in (12, 10, 3, 5)))
    assert cp(weight, 3, iterations=200).relative_error < 5e-3


@pytest.mark.parametrize("rank", [4, 12, 30])
def test_it_is_as_good_as_tensorlys(rank: int) -> None:
    weight = normal(16, 12, 3, 3)
    _, factors = parafac(weight.double().numpy(), rank, n_iter_max=50, init="random", random_state=0)
    theirs = torch.einsum("or,ir,hr,wr->oihw", *(torch.from_numpy(factor) for factor in factors))
    assert cp(weight, rank).relative_error <= float((theirs - weight).norm() / weight.norm()) + 0.02


def test_a_matrix_takes_its_svd() -> None:
    weight = normal(9, 7, 1, 1)
    values = torch.linalg.svdvals(weight.flatten(1))
    assert cp(weight, 3).relative_error == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-5)


def test_the_vectors_of_a_term_have_the_same_norm() -> None:
    norms = torch.stack([factor.norm(dim=0) for factor in of(cp(1e-4 * normal(12, 10, 3, 3), 9))])
    assert torch.allclose(norms, norms[:1].expand(4, -1), rtol=1e-4)


def test_terms_that_would_cancel_each_other_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to go on they grow to many times the kernel, for nearly the same error."""
    monkeypatch.setattr("pipeline.compress.cp.TOLERANCE", 1e-9)
    weight = normal(4, 4, 3, 3, seed=3)
    damped = cp(weight, 10, iterations=1000)
    monkeypatch.setattr("pipeline.compress.cp.DAMPING", 0.0)
    undamped = cp(weight, 10, iterations=1000)
    terms = [float(torch.stack([factor.norm(dim=0) for factor in of(one)]).prod(0).max()) for one in (damped, undamped)]
    assert terms[0] < 3 * float(weight.norm()) and terms[1] > 2 * terms[0]
    assert damped.relative_error < undamped.relative_error + 0.02


def test_more_terms_than_the_kernel_has_do_no_harm() -> None:
    weight = torch.einsum("o,i,h,w->oihw", *(normal(n, seed=n) for n in (6, 5, 3, 2)))
    found = cp(weight, 8)
    assert found.relative_error < 1e-3 and all(torch.isfinite(factor).all() for factor in of(found))


def test_zeros_and_types() -> None:
    found = cp(torch.zeros(4, 3, 3, 3, dtype=torch.float64), 5)
    assert not rebuilt(found).any() and found.relative_error == 0 and found.out.dtype == torch.float64


def test_it_repeats_exactly() -> None:
    one, other = (cp(normal(12, 10, 3, 3), 20) for _ in range(2))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(of(one), of(other), strict=True))


def test_the_layer_is_a_1x1_a_column_a_row_and_a_1x1() -> None:
    whole = nn.Sequential(nn.Conv2d(4, 8, (3, 5), (2, 3), (1, 2), (2, 1), padding_mode="circular"))
    smaller = Cp(ranks={"0": 5}).apply(whole).model
    first, column, row, last = smaller[0].children()
    assert (first.kernel_size, last.kernel_size, first.bias) == ((1, 1), (1, 1), None)
    assert (column.kernel_size, column.stride, column.padding, column.dilation) == ((3, 1), (2, 1), (1, 0), (2, 1))
    assert (row.kernel_size, row.stride, row.padding, row.dilation) == ((1, 5), (1, 3), (0, 2), (1, 1))
    assert column.groups == row.groups == 5 and torch.equal(last.bias, whole[0].bias)
    weight = rebuilt(cp(whole[0].weight, 5))
    image = normal(1, 4, 13, 14)
    exact = nn.Conv2d(4, 8, (3, 5), (2, 3), (1, 2), (2, 1), padding_mode="circular")
    exact.weight.data, exact.bias.data = weight, whole[0].bias.data
    assert torch.allclose(smaller(image), exact(image), atol=1e-5)


def test_the_error_that_an_option_is_judged_by_is_none_too_large() -> None:
    layer = nn.Conv2d(8, 9, 3)
    options = Cp(energy=0.5).options(survey(nn.Sequential(layer)).targets["0"], layer.weight.detach())
    for option in options[::5]:
        assert cp(layer.weight, *option.ranks).relative_error >= option.error - 1e-6
    assert options[0].error > options[-1].error


@pytest.mark.parametrize("rank", [0, 55])
def test_ranks_out_of_range_are_refused(rank: int) -> None:
    with pytest.raises(UsageError, match=rf"CP was asked for rank {rank}; try: 1 \.\.\. 54"):
        cp(normal(8, 6, 3, 3), rank)


def test_what_cannot_be_decomposed_is_refused() -> None:
    with pytest.raises(UsageError, match="NaN or infinity"):
        cp(torch.full((2, 2, 2, 2), math.inf), 1)
    with pytest.raises(UsageError, match="no ranks by EVBMF"):
        Cp(ranks="evbmf").apply(nn.Sequential(nn.Conv2d(2, 2, 3)))
    with pytest.raises(UsageError, match="0 iterations"):
        Cp(energy=0.5, iterations=0)
    whole = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 1), nn.Linear(3, 3))
    found = Cp(energy=0.1).apply(whole)
    assert found.layers == () and list(found.left_alone) == ["0", "1", "2"]
