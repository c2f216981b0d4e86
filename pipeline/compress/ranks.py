"""How many ranks to keep of a matrix: by a model of the noise, or by energy. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-6
"""Singular values below this share of the largest are rounding: float32 weights are not known better."""
NOISE_STEPS = 256


@contextmanager
def one_thread() -> Iterator[None]:
    """For work of many small decompositions: two threads on a busy machine take many times longer. Sums do not depend on
    the number of threads then, either."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Evbmf:
    """rank: 0 where all is noise. singular_values: the `rank` that are kept, shrunk. noise_variance: of one element."""

    rank: int
    singular_values: Tensor
    noise_variance: float


def singular_values(matrices: Tensor) -> Tensor:
    """Of (..., rows, columns): (..., min(rows, columns)) in double, descending; exact to 1e-8 of the largest.

    From the eigenvalues of the smaller Gram matrix, which for a kernel is many times faster than an SVD.
    """
    import torch

    double = matrices.detach().double().cpu()
    scale = double.abs().amax() if double.numel() else double.new_ones(())
    double = double / scale if scale > 0 else double
    gram = double @ double.mT if double.shape[-2] <= double.shape[-1] else double.mT @ double
    values: Tensor = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(-1) * scale
    return values


def evbmf(matrix: Tensor, noise_variance: float | None = None) -> Evbmf:
    """The rank that stands out of the noise, by the global analytic solution of empirical variational Bayesian matrix
    factorisation.

    With L <= M and alpha = L / M, the singular values above sqrt(M noise_variance x_bar) are kept, x_bar = (1 + t)(1 + alpha
    / t), t = 2.5129 sqrt(alpha), each shrunk by its noise. The noise variance that is not given minimises the free energy.

    Args:
        matrix: (rows, columns), tall or wide, of any scale.
        noise_variance: of one element, above 0; None: it is estimated.

    Raises: UsageError: not a matrix of finite numbers, or a variance that is not above 0.

    Reference: Nakajima, Sugiyama, Babacan, Tomioka, "Global Analytic Solution of Fully-observed Variational Bayesian Matrix
    Factorization", JMLR 2013, section 3.

    Differs from the paper: t is its published approximation; the variance is searched over a logarithmic grid first, because
    the free energy has more than one minimum, and relative to the matrix, so that scale does not matter.
    """
    import torch

    if matrix.ndim != 2 or not matrix.numel():
        raise UsageError(f"EVBMF was given a tensor of shape {tuple(matrix.shape)}", try_="a matrix: rows, columns")
    if not torch.isfinite(matrix).all():
        raise UsageError("EVBMF was given a matrix with NaN or infinity")
    if noise_variance is not None and not 0 < noise_variance < math.inf:
        raise UsageError(f"EVBMF was given a noise variance of {noise_variance}", try_="a number above 0")
    rows, columns = sorted(matrix.shape)
    values = singular_values(matrix).numpy()
    largest = float(values[0])
    if not largest:
        return Evbmf(0, torch.zeros(0, dtype=torch.float64), noise_variance or 0.0)
    values = values / largest
    alpha = rows / columns
    t = 2.5129 * math.sqrt(alpha)
    x_bar = (1 + t) * (1 + alpha / t)
    variance = _noise_variance(values, columns, x_bar) if noise_variance is None else noise_variance / largest**2
    kept = values[values > math.sqrt(columns * variance * x_bar)]
    signal = 1 - (rows + columns) * variance / kept**2
    shrunk = kept / 2 * (signal + (signal**2 - 4 * rows * columns * variance**2 / kept**4).clip(0) ** 0.5)
    told = variance * largest**2 if noise_variance is None else noise_variance
    return Evbmf(len(kept), torch.from_numpy(shrunk * largest), told)


def _noise_variance(values: Any, columns: int, x_bar: float) -> float:
    """The minimum of the free energy, for singular values of which the largest is 1."""
    import numpy as np
    from scipy.optimize import brentq

    rows = len(values)
    alpha = rows / columns
    squares = values**2

    def terms(logarithm: Any) -> tuple[Any, Any, Any]:
        """x, whether it is kept, and its tau, computed at x_bar for what is not kept, where the formula holds."""
        x = squares / (columns * np.exp(np.asarray(logarithm)[..., None]))
        above = np.maximum(x, x_bar) - (1 + alpha)
        return x, x > x_bar, (above + np.sqrt(above**2 - 4 * alpha)) / 2

    def free_energy(logarithm: Any) -> Any:
        """Up to terms without the variance."""
        x, kept, tau = terms(logarithm)
        parts = x + np.where(kept, np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau, 0)
        return parts.sum(-1) + rows * np.asarray(logarithm)

    def slope(logarithm: float) -> float:
        """Its derivative: by a root the minimum is exact, by values to half of the digits only."""
        x, kept, tau = terms(logarithm)
        return float(rows - (x - np.where(kept, tau, 0)).sum())

    most = min(math.ceil(rows / (1 + alpha)) - 1, rows - 1)  # more than these cannot stand out
    rest = squares[most:]
    upper = float(squares.sum()) / (rows * columns)
    lower = max(float(rest[0]) / (columns * x_bar), float(rest.mean()) / columns, SMALLEST**2 / (columns * x_bar))
    if lower >= upper:
        return upper
    grid = np.linspace(math.log(lower), math.log(upper), NOISE_STEPS)
    energies = free_energy(grid)
    best = int(np.argmin(energies))
    before, after = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    if slope(before) < 0 < slope(after):
        found = float(brentq(slope, before, after, xtol=1e-15, rtol=1e-15))
        if free_energy(found) <= energies[best]:
            return math.exp(found)
    return math.exp(grid[best])


def by_energy(errors: Sequence[float], energy: float) -> int:
    """The place of the first relative error that leaves a share of the energy, the sum of squares: error^2 <= 1 - energy.

    Args: errors: in falling order; the last one is taken where none is small enough. energy: in (0, 1].
    """
    return next((place for place, error in enumerate(errors) if error**2 <= 1 - energy), len(errors) - 1)
