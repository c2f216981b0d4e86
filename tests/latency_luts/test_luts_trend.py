"""The parts of a family's fit, each against the plain way to say it: trends without a kernel, and who is around a point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import trend
from latency_luts.neighbours import NEIGHBOURS, REACH, Around
from latency_luts.trend import fit, fits_without

SEEDS = st.integers(0, 2**32 - 1)


def features_of(random: np.random.Generator, kernels: int, columns: int) -> np.ndarray:
    """As those of kernels: ones, and products of sizes over some orders of magnitude."""
    sizes = np.exp2(random.uniform(0, 10, (kernels, columns - 1)))
    return np.column_stack([np.ones(kernels), *(np.prod(sizes[:, : i + 1], axis=1) for i in range(columns - 1))])


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 60), st.integers(2, 5), st.sampled_from([0.0, 0.05, 1.0]))
def test_trends_without_a_kernel_are_those_of_the_others(seed: int, kernels: int, columns: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    features = features_of(random, kernels, columns)
    # what counts hardly at all is now above 0 and now not
    counts = random.uniform(0, 3, columns) * random.choice([0, 0.001, 1], columns)
    ns = (features @ counts + 1) * np.exp(noise * random.standard_normal(kernels))
    rows = random.permutation(kernels)[: random.integers(1, kernels + 1)]
    told = fits_without(features, ns, rows)
    for row, weights in zip(rows, told, strict=True):
        rest = np.arange(kernels) != row
        assert (weights >= 0).all()
        if rest.sum() > columns:  # with fewer, many trends fit
            assert features @ weights == pytest.approx(features @ fit(features[rest], ns[rest]), rel=1e-6)


def test_features_that_say_the_same_are_fitted_all_the_same() -> None:
    random = np.random.default_rng(0)
    features = features_of(random, 30, 3)[:, [0, 1, 1, 2, 2]]
    ns = features @ np.array([5.0, 1, 1, 2, 0]) * random.uniform(0.9, 1.1, 30)
    for row, weights in zip(range(30), fits_without(features, ns, np.arange(30)), strict=True):
        rest = np.arange(30) != row
        assert features @ weights == pytest.approx(features @ fit(features[rest], ns[rest]), rel=1e-9)


def test_hardly_any_trend_is_fitted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what makes it fast; nothing else would tell."""
    random = np.random.default_rng(1)
    features = features_of(random, 200, 4)
    ns = features @ np.ones(4) * random.uniform(0.95, 1.05, 200)
    fitted = []
    monkeypatch.setattr(trend, "fit", lambda *given: fitted.append(1) or fit(*given))
    fits_without(features, ns, np.arange(200))
    assert len(fitted) < 20


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 120), st.integers(1, 4), st.booleans())
def test_neighbours_are_the_nearest_and_one_on_each_side(seed: int, kernels: int, axes: int, grid: bool) -> None:
    random = np.random.default_rng(seed)
    log = random.integers(0, 9, (axes, kernels)) / 2 if grid else random.uniform(0, 4, (axes, kernels))
    rows = np.arange(kernels)
    around = Around(log, log.T, rows)
    between = np.flatnonzero(around.between())
    if not len(between):
        return
    near = around.neighbours(between)
    for row, used, weights in zip(between, near.used, near.weights, strict=True):
        away = log - log[:, [row]]
        distance = np.where((np.abs(away) <= REACH).all(axis=0) & (rows != row), np.abs(away).sum(axis=0), np.inf)
        wanted = [int(kernel) for kernel in np.argsort(distance, kind="stable")[:NEIGHBOURS] if np.isfinite(distance[kernel])]
        if distance[wanted[0]] == 0:
            assert (used[weights > 0].tolist(), weights[weights > 0].tolist()) == (wanted[:1], [1])
            continue
        for side in ((away <= 0).all(axis=0), (away >= 0).all(axis=0)):
            if not side[wanted].any():
                wanted.append(int(np.argmin(np.where(side, distance, np.inf))))
        assert used[weights > 0].tolist() == wanted
        assert weights[weights > 0] == pytest.approx(distance[wanted] ** -2.0)
        assert set(used.tolist()) == set(wanted)


@pytest.mark.parametrize(("axes", "count"), [(2, 5), (2, 40), (3, 100)])
def test_a_point_is_between_kernels_that_have_it_in_their_hull(axes: int, count: int) -> None:
    """By a linear programme: weights of at least 0 that sum to 1 and give the point."""
    from scipy.optimize import linprog

    random = np.random.default_rng(axes * count)
    log = random.uniform(0, 2, (axes, count))
    points = random.uniform(0, 2, (60, axes))
    found = Around(log, points).between()
    for point, told in zip(points, found, strict=True):
        near = (np.abs(log - point[:, None]) <= REACH).all(axis=0)
        rows = np.vstack([np.exp2(log[:, near]), np.ones(near.sum())])
        held = linprog(np.zeros(near.sum()), A_eq=rows, b_eq=[*np.exp2(point), 1]).status == 0
        sides = [(np.sign(log - point[:, None]) * sign >= 0).all(axis=0).any() for sign in (1, -1)]
        assert told == (held and all(sides))
    assert 0 < found.sum() < 60 or count == 5
