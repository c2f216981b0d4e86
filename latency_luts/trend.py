"""Coefficients of at least 0 that fit latencies best in relative terms, with all kernels and with each left out in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_PIVOT = 1e-7
"""Of the largest: features that are closer to each other than that have no factorisation that could be updated."""

_LEAST_LEFT = 1e-6
"""Of a kernel's own share in its fit: with less, the others hardly tell it."""

_ROUNDING = 1e-12


def fit(features: Floats, ns: Floats) -> Floats:
    """Coefficients of at least 0 that fit features @ coefficients = ns with the least relative squares."""
    from scipy.optimize import nnls

    relative = features / ns[:, None]
    scale = relative.max(axis=0)
    try:
        coefficients, _ = nnls(relative / scale, np.ones(len(ns)))
    except RuntimeError:  # it gave up: the trend is flat, and the leave-one-out error shows what that costs
        coefficients = np.eye(features.shape[1])[0]
    return np.asarray(coefficients / scale, dtype=np.float64)


def fits_without(features: Floats, ns: Floats, rows: NDArray[np.int64]) -> Floats:
    """(rows, features): `fit` without each of `rows`.

    As long as the same coefficients are above 0, that is a least-squares fit of these without a row, which an orthogonal
    factorisation of all rows gives directly: coefficients - R^-1 q e / (1 - h), with the row's q, its error e and h = q q.
    Whether they are the same is tested by the conditions of Kuhn and Tucker; where they are not, it is fitted anew.
    """
    relative = features / ns[:, None]
    scale = relative.max(axis=0)
    relative = relative / scale
    active = fit(features, ns) > 0
    some, others = relative[:, active], relative[:, ~active]
    q, r = np.linalg.qr(some)
    pivots = np.abs(np.diag(r))
    found = np.zeros((len(rows), features.shape[1]))
    good = np.zeros(len(rows), dtype=np.bool_)
    if len(ns) > len(pivots) and pivots.min() > _LEAST_PIVOT * pivots.max():
        whole = np.linalg.solve(r, q.sum(axis=0))
        error, own = 1 - some[rows] @ whole, 1 - (q[rows] ** 2).sum(axis=1)
        good = own > _LEAST_LEFT
        steps = np.linalg.solve(r, (q[rows] * (error / np.where(good, own, 1.0))[:, None]).T)
        without = whole[:, None] - steps
        left = 1 - (some[rows] * without.T).sum(axis=1)
        slopes = others.sum(axis=0)[:, None] - (others.T @ some) @ without - others[rows].T * left
        good &= (without > 0).all(axis=0) & (slopes <= _ROUNDING * len(ns)).all(axis=0)
        found[:, active] = (without / scale[active, None]).T
    for number in np.flatnonzero(~good):
        rest = np.arange(len(ns)) != rows[number]
        found[number] = fit(features[rest], ns[rest])
    return found
