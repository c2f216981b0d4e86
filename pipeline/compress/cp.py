"""CP: a convolution becomes 1x1, k_h x 1 depthwise, 1 x k_w depthwise, 1x1.

W[o, i, h, w] ~ sum over r of A_out[o, r] A_in[i, r] A_h[h, r] A_w[w, r], by alternating least squares. Reference: Lebedev,
Ganin, Rakhuba, Oseledets, Lempitsky, "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition", ICLR
2015, section 3.

Differs from the paper: the start is none of chance but made of nested SVDs, whose terms do not cancel each other; and the
least squares are damped, because without it terms grow that do (Phan et al., "Stable Low-rank Tensor Decomposition for
Compression of Convolutional Neural Network", ECCV 2020, section 3), which neither float32 nor fine-tuning survives. That
costs a little of the error. At the end all four vectors of a term have the same norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.lowrank import LowRank, check_rank, relative_error
from pipeline.compress.ranks import one_thread, singular_values
from pipeline.compress.structure import Choice, Target
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

ITERATIONS = 50
TOLERANCE = 2e-5
"""Of the error, from one iteration to the next."""
DAMPING = 1e-4
"""Of the squared norm of a term beside the squared error, for a kernel of norm 1."""


@dataclass(frozen=True)
class CpFactors:
    """(c_out, rank), (c_in, rank), (k_h, rank), (k_w, rank)."""

    out: Tensor
    into: Tensor
    height: Tensor
    width: Tensor
    relative_error: float


def full_rank(shape: tuple[int, ...]) -> int:
    """The rank at which a kernel of any values is met exactly: one component for each fibre along its longest axis."""
    return math.prod(shape) // max(shape)


@one_thread()
def cp(weight: Tensor, rank: int, *, iterations: int = ITERATIONS) -> CpFactors:
    """Decomposes a kernel into rank-one terms. A kernel with two axes longer than 1 is a matrix and takes its SVD.

    Args:
        weight: (c_out, c_in, k_h, k_w).
        rank: 1 ... full_rank(weight.shape), where the sum is the kernel again.

    Raises: UsageError: a rank out of its range, or a kernel that is not finite.
    """
    import torch

    shape = tuple(weight.shape)
    check_rank("CP", rank, full_rank(shape))
    if not torch.isfinite(weight).all():
        raise UsageError("the kernel holds NaN or infinity and cannot be decomposed")
    double = weight.detach().double().cpu()
    norm = float(double.norm())
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if not norm:
        found = [torch.zeros(size, rank, dtype=torch.float64) for size in shape]
    elif len(long) == 2:
        found = _of_matrix(double, long, rank)
    elif rank == full_rank(shape):
        found = _of_fibres(double)
    else:
        start = _nested(double / norm, rank)
        found = [factor * norm**0.25 for factor in _balanced(_least_squares(double / norm, start, iterations))]
    out, *others = factors = _balanced(found)
    error = relative_error(double.flatten(1), out @ _columns(*others).T)
    out, into, height, width = (factor.to(weight) for factor in factors)
    return CpFactors(out, into, height, width, error)


def _columns(into: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(c_in k_h k_w, rank): what the terms have beside the output channels. Never all four at once, which fills memories."""
    import torch

    return torch.einsum("ir,hr,wr->ihwr", into, height, width).flatten(0, 2)


def _of_matrix(weight: Tensor, axes: list[int], rank: int) -> list[Tensor]:
    """The best there is, of a kernel whose other axes are 1."""
    import torch

    left, values, right = torch.linalg.svd(weight.squeeze(), full_matrices=False)
    factors = [torch.ones(1, rank, dtype=torch.float64) for _ in range(4)]
    factors[axes[0]] = left[:, :rank] * values[:rank]
    factors[axes[1]] = right[:rank].T
    return factors


def _of_fibres(weight: Tensor) -> list[Tensor]:
    """Each fibre along the longest axis times unit vectors: exact."""
    import torch

    longest = max(range(4), key=lambda axis: weight.shape[axis])
    others = [axis for axis in range(4) if axis != longest]
    places = torch.cartesian_prod(*(torch.arange(weight.shape[axis]) for axis in others))
    factors: list[Tensor] = [weight] * 4
    factors[longest] = weight.movedim(longest, 0).flatten(1)
    for number, axis in enumerate(others):
        factors[axis] = torch.eye(weight.shape[axis], dtype=torch.float64)[:, places[:, number]]
    return factors


def _nested(weight: Tensor, rank: int) -> list[Tensor]:
    """The largest terms of the SVD along the output channels, of each of its rows along the input channels, and of what is
    left along the height and the width."""
    import torch

    c_in, height, width = weight.shape[1:]
    out, outer, rows = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    into, middle, windows = torch.linalg.svd(rows.reshape(-1, c_in, height * width), full_matrices=False)
    tall, inner, wide = torch.linalg.svd(windows.reshape(*windows.shape[:2], height, width), full_matrices=False)
    sizes = outer[:, None, None] * middle[:, :, None] * inner
    order = sizes.flatten().argsort(descending=True, stable=True)[:rank]
    first, second, third = torch.unravel_index(order, sizes.shape)
    return [
        out[:, first] * sizes.flatten()[order], into[first, :, second].T, tall[first, second, :, third].T,
        wide[first, second, third].T,
    ]  # fmt: skip


def _least_squares(weight: Tensor, factors: list[Tensor], iterations: int) -> list[Tensor]:
    """Each factor in turn, the columns of the others of norm 1. tensorly's multiplies with a matrix of c_out c_in k x rank
    elements, gigabytes for the kernels of a ResNet; here nothing is larger than c_in k_h k_w x rank."""
    import torch

    def fitted(axis: int, products: Tensor) -> Tensor:
        """From the kernel times the other factors."""
        grams = [factor.T @ factor for place, factor in enumerate(factors) if place != axis]
        gram = grams[0] * grams[1] * grams[2] + DAMPING * torch.eye(products.shape[1], dtype=torch.float64)
        return torch.cholesky_solve(products.T, torch.linalg.cholesky(gram)).T

    def direction(factor: Tensor) -> Tensor:
        return factor / factor.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)

    matrix = weight.flatten(1)
    axes = weight.shape[1:]
    last = math.inf
    factors = [direction(factor) for factor in factors]
    for _ in range(iterations):
        factors[3] = direction(factors[3])
        factors[0] = direction(fitted(0, matrix @ _columns(*factors[1:])))
        windows = (matrix.T @ factors[0]).reshape(*axes, -1)
        factors[1] = direction(fitted(1, torch.einsum("ihwr,hr,wr->ir", windows, factors[2], factors[3])))
        window = torch.einsum("ihwr,ir->hwr", windows, factors[1])
        factors[2] = direction(fitted(2, torch.einsum("hwr,wr->hr", window, factors[3])))
        products = torch.einsum("hwr,hr->wr", window, factors[2])
        factors[3] = fitted(3, products)
        squared = torch.stack([factor.T @ factor for factor in factors]).prod(0).sum()
        error = math.sqrt(max(0.0, 1 + float(squared) - 2 * float((products * factors[3]).sum())))
        if last - error <= TOLERANCE:
            break
        last = error
    return factors


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same components, each with its norm shared by its vectors."""
    import torch

    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    whole = norms.prod(0)
    scale = torch.where(whole > 0, whole**0.25 / norms.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return [factor * one for factor, one in zip(factors, scale, strict=True)]


class Cp(LowRank):
    """Every dense (groups 1) convolution by CP.

    Args:
        iterations: as of `cp`.
        others: as of `LowRank`; of a layer's `ranks` there is one. An option is judged by what any CP of its rank loses at
            least: the larger of the errors of the SVDs of (c_out k_h, c_in k_w) and (c_out k_w, c_in k_h) at that rank, so
            that no decomposition has to be made beforehand. EVBMF has no ranks for it.
    """

    name = "cp"

    def __init__(self, *, iterations: int = ITERATIONS, **others: Any) -> None:
        super().__init__(**others)
        if iterations < 1:
            raise UsageError(f"CP was given {iterations} iterations", try_="1 or more")
        self.iterations = iterations
        self.settings |= {"iterations": iterations}

    def why_not(self, target: Target) -> str:
        if target.whole.kernel == (1, 1):
            return "a 1x1 kernel or linear layer is a matrix: SVD decomposes it"
        return f"a grouped convolution ({target.groups} groups)" if target.groups > 1 else ""

    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        (rank,) = self.given(target, ranks, 1)
        check_rank(f"CP of {target.name!r}", rank, full_rank((target.c_out, target.c_in, *target.whole.kernel)))
        pieces = (
            target.piece(target.c_in, rank),
            target.piece(rank, rank, "h", rank),
            target.piece(rank, rank, "w", rank),
            target.piece(rank, target.c_out, last=True),
        )
        return Choice((rank,), pieces, error)

    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        """Up to the rank at which the layer would be as large as before: beyond that the bound says nothing useful."""
        import torch

        errors = torch.zeros(full_rank(tuple(weight.shape)) + 1, dtype=torch.float64)
        for order in ((0, 2, 1, 3), (0, 3, 1, 2)):
            squares = singular_values(weight.permute(order).flatten(2).flatten(0, 1)).square()
            lost = squares.flip(0).cumsum(0).flip(0)
            count = min(len(lost), len(errors))
            errors[:count] = torch.maximum(errors[:count], (lost[:count] / lost[0].clamp(min=1e-300)).sqrt())
        most = min(len(errors) - 1, max(1, weight.numel() // sum(weight.shape)))
        return [self.choice(target, (rank,), float(errors[rank])) for rank in range(1, most + 1)]

    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        found = cp(weight, choice.ranks[0], iterations=self.iterations)
        return [found.into.T, found.height.T, found.width.T, found.out], found.relative_error
