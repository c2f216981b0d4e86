"""EVBMF against its formulas written plainly, ranks by energy, and the allocation against trying everything."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compress.allocation import allocate
from pipeline.compress.ranks import by_energy, evbmf, singular_values
from pipeline.errors import UsageError


def noisy(rows: int, columns: int, rank: int, noise: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (rows, columns))
    return left @ right.T + noise * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def plain(matrix: torch.Tensor) -> tuple[int, list[float], float]:
    """Nakajima et al.'s solution, one singular value and one variance at a time."""
    rows, columns = sorted(matrix.shape)
    alpha = rows / columns
    t = 2.5129 * math.sqrt(alpha)
    x_bar = (1 + t) * (1 + alpha / t)
    values = torch.linalg.svdvals(matrix).tolist()

    def energy(variance: float) -> float:
        total = 0.0
        for value in values:
            x = value**2 / (columns * variance)
            if x > x_bar:
                tau = (x - (1 + alpha) + math.sqrt((x - (1 + alpha)) ** 2 - 4 * alpha)) / 2
                total += x - tau + math.log((tau + 1) / x) + alpha * math.log(tau / alpha + 1)
            else:
                total += x - math.log(x)
        return total

    upper = sum(value**2 for value in values) / (rows * columns)
    variance = min((upper * 10 ** (-step / 2000) for step in range(8000)), key=energy)
    kept = [value for value in values if value > math.sqrt(columns * variance * x_bar)]
    shrunk = []
    for value in kept:
        signal = 1 - (rows + columns) * variance / value**2
        shrunk.append(value / 2 * (signal + math.sqrt(signal**2 - 4 * rows * columns * variance**2 / value**4)))
    return len(kept), shrunk, variance


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (25, 25), (5, 80), (40, 3)])
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_it_is_the_formula(shape: tuple[int, int], noise: float) -> None:
    matrix = noisy(*shape, 2, noise)
    found, (rank, values, variance) = evbmf(matrix), plain(matrix)
    assert found.rank == rank and found.noise_variance == pytest.approx(variance, rel=2e-3)
    assert found.singular_values.tolist() == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("shape", [(60, 200), (200, 60)])
def test_the_rank_and_the_noise_of_a_made_matrix_are_found(shape: tuple[int, int], rank: int) -> None:
    found = evbmf(noisy(*shape, rank, 0.5))
    assert found.rank == rank and found.noise_variance == pytest.approx(0.25, rel=0.1)
    given = evbmf(noisy(*shape, rank, 0.5), 0.25)
    assert given.rank == rank and given.noise_variance == 0.25


@pytest.mark.parametrize(("rows", "columns"), [(4, 9), (6, 6)])
def test_what_stands_out_of_a_given_noise_is_what_is_above_its_threshold(rows: int, columns: int) -> None:
    alpha = rows / columns
    t = 2.5129 * math.sqrt(alpha)
    threshold = math.sqrt(columns * 0.7 * (1 + t) * (1 + alpha / t))
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 9 * threshold, 1.001 * threshold, 0.999 * threshold
    assert evbmf(matrix, 0.7).rank == 2


def test_noise_alone_has_rank_0_and_no_noise_the_rank_of_the_matrix() -> None:
    found = evbmf(noisy(60, 200, 1, 1.0) - noisy(60, 200, 1, 0.0))
    assert found.rank == 0 and found.singular_values.shape == (0,)
    assert evbmf(noisy(60, 200, 6, 0.0)).rank == 6
    assert evbmf(noisy(60, 200, 6, 0.0).float()).rank == 6
    assert evbmf(torch.zeros(3, 4)).rank == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 50), st.floats(1e-12, 1e12))
def test_scale_and_transposition_change_nothing(rows: int, columns: int, seed: int, scale: float) -> None:
    matrix = noisy(rows, columns, 2, 1.0, seed)
    one, other, turned = evbmf(matrix), evbmf(matrix * scale), evbmf(matrix.T)
    assert one.rank == other.rank == turned.rank
    assert other.noise_variance == pytest.approx(one.noise_variance * scale**2, rel=1e-9)
    assert turned.noise_variance == pytest.approx(one.noise_variance, rel=1e-9)
    assert other.singular_values.tolist() == pytest.approx((one.singular_values * scale).tolist(), rel=1e-8)


@pytest.mark.parametrize(
    ("matrix", "variance"),
    [
        (torch.full((2, 2), math.nan), None), (torch.zeros(3), None), (torch.zeros(0, 3), None), (torch.ones(2, 2), 0.0),
        (torch.ones(2, 2), math.nan),
    ],
)  # fmt: skip
def test_what_has_no_rank_is_refused(matrix: torch.Tensor, variance: float | None) -> None:
    with pytest.raises(UsageError, match="EVBMF was given"):
        evbmf(matrix, variance)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.floats(1e-20, 1e20))
def test_singular_values(number: int, rows: int, columns: int, scale: float) -> None:
    matrices = torch.stack([noisy(rows, columns, 3, 1.0, seed) for seed in range(number)]) * scale
    exact = torch.linalg.svdvals(matrices)
    assert torch.allclose(singular_values(matrices), exact, rtol=1e-6, atol=1e-6 * float(exact.max()))


def test_energy() -> None:
    errors = [0.9, 0.5, 0.2, 0.0]
    assert [by_energy(errors, share) for share in (0.1, 0.75, 0.76, 0.97, 1.0)] == [0, 1, 2, 3, 3]


OPTIONS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 5))
def test_no_choice_within_the_budget_has_a_smaller_largest_error(
    layers: list[list[tuple[int, int]]], budget: int, fixed: int
) -> None:
    """Also where the cost does not fall with the error, as a latency need not."""
    errors = {str(number): [error / 10 for error, _ in layer] for number, layer in enumerate(layers)}

    def cost(layer: str, place: int) -> float:
        return layers[int(layer)][place][1]

    every = itertools.product(*layers)
    possible = [max(e for e, _ in one) / 10 for one in every if fixed + sum(price for _, price in one) <= budget]
    if not possible:
        smallest = fixed + sum(min(price for _, price in layer) for layer in layers)
        what = f"a budget of {budget} ms cannot be met: the smallest reachable is {smallest} ms"
        with pytest.raises(UsageError, match=what):
            allocate(errors, cost, budget, fixed, " ms")
        return
    found = allocate(errors, cost, budget, fixed, " ms")
    assert found.error == min(possible) == max(errors[layer][place] for layer, place in found.picks.items())
    assert found.cost == fixed + sum(cost(layer, place) for layer, place in found.picks.items()) <= budget


def test_a_cost_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="no finite number"):
        allocate({"a": [0.1, 0.0]}, lambda layer, place: math.nan, 1)


def test_nothing_to_allocate() -> None:
    assert allocate({}, lambda layer, place: 1.0, 5.0).picks == {}
