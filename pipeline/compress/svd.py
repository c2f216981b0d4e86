"""Truncated SVD of a folded kernel: a convolution becomes two.

A kernel (c_out, c_in / groups, k_h, k_w) is cut into its channel groups and each of these into k parts along its input
channels; every part is folded to a matrix whose rows are the output channels and some of the kernel's axes, and whose columns
are the rest. Rank j keeps the first j singular vectors of each. What stands on the columns becomes the first convolution
(groups k times as many, k j channels a group), what stands on the rows the second one (which has the layer's groups and bias):

    folding   rows         columns           first     second
    encode    c_out        c_in, k_h, k_w    k_h x k_w  1 x 1     Liebenwein et al.'s scheme 0, the one that ALDS uses
    split_h   c_out, k_h   c_in, k_w         1 x k_w    k_h x 1   scheme 1
    split_w   c_out, k_w   c_in, k_h         k_h x 1    1 x k_w   scheme 2
    decode    c_out, k_h, k_w   c_in         1 x 1      k_h x k_w scheme 3

Stride, padding and dilation go along with the axes. A linear layer is a 1x1 kernel, of which all foldings are the same.

Reference: Liebenwein, Maalouf, Feldman, Rus, "Compressing Neural Networks: Towards Determining the Optimal Layer-wise
Decomposition", NeurIPS 2021, section 2. Differs from the authors' code: in schemes 1 and 2 the parts are input channels here
too, where that code allocates by columns of the folded matrix and decomposes by channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.lowrank import LowRank, check_rank, relative_error
from pipeline.compress.ranks import evbmf, one_thread, singular_values
from pipeline.compress.structure import Choice, Piece, Target
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

FOLDINGS: Mapping[str, str] = {"encode": "", "split_h": "h", "split_w": "w", "decode": "hw"}
"""Folding -> the kernel's axes that stand on the rows."""
ALLOCATIONS = ("error", "ratio")


@dataclass(frozen=True)
class SvdFactors:
    """Weights of the two convolutions: first (groups k j, c_in / (groups k), ...), second (c_out, k j, ...)."""

    first: Tensor
    second: Tensor
    relative_error: float


def fold(weight: Tensor, folding: str = "encode", k: int = 1, groups: int = 1) -> Tensor:
    """(groups, k, rows, columns) of a kernel.

    Args:
        weight: (c_out, c_in / groups, k_h, k_w), or (c_out, c_in) of a linear layer.
        k: a divisor of c_in / groups.

    Raises: UsageError: an unknown folding, or groups or k that do not divide the channels.
    """
    if folding not in FOLDINGS:
        raise UsageError(f"SVD has no folding {folding!r}", try_=", ".join(FOLDINGS))
    c_out, c_in = weight.shape[:2]
    if k < 1 or groups < 1 or c_in % k or c_out % groups:
        raise UsageError(f"a kernel of {c_out} x {c_in} channels has no {groups} groups in {k} parts each")
    axes = (*weight.shape[2:], 1, 1)[:2]
    # group, output channel, part, input channel, height, width
    parts = weight.reshape(groups, c_out // groups, k, c_in // k, *axes)
    on_rows = [axis for axis, name in ((4, "h"), (5, "w")) if name in FOLDINGS[folding]]
    on_columns = [axis for axis in (4, 5) if axis not in on_rows]
    parts = parts.permute(0, 2, 1, *on_rows, 3, *on_columns)
    return parts.flatten(2, 2 + len(on_rows)).flatten(3)


def full_rank(target: Target, folding: str = "encode", k: int = 1) -> int:
    """The rank at which nothing is lost."""
    rows, columns = target.c_out // target.groups, target.c_in // target.groups // k
    for name, size in zip("hw", target.whole.kernel, strict=True):
        if name in FOLDINGS[folding]:
            rows *= size
        else:
            columns *= size
    return min(rows, columns)


@one_thread()
def svd(weight: Tensor, rank: int, folding: str = "encode", k: int = 1, groups: int = 1) -> SvdFactors:
    """The best approximation of that rank of every part. The singular values are shared by both factors.

    Args: as of `fold`. rank: 1 ... full; at full rank the product is the kernel again.

    Raises: UsageError: as `fold`; a rank out of its range; a kernel that is not finite.
    """
    left, right, error = split("SVD", fold(weight.detach(), folding, k, groups), rank)
    heights, widths = (*weight.shape[2:], 1, 1)[:2]
    row_axes = tuple(size if name in FOLDINGS[folding] else 1 for name, size in (("h", heights), ("w", widths)))
    column_axes = (heights // row_axes[0], widths // row_axes[1])
    first = right.reshape(groups * k * rank, weight.shape[1] // k, *column_axes)
    second = left.reshape(groups, k, weight.shape[0] // groups, *row_axes, rank).permute(0, 2, 1, 5, 3, 4)
    second = second.reshape(weight.shape[0], k * rank, *row_axes)
    return SvdFactors(first.to(weight), second.to(weight), error)


def split(what: str, matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The factors (..., rows, rank) and (..., rank, columns) of matrices (..., rows, columns), in double, each with the roots
    of the singular values, and the relative error of all together. Raises: UsageError: as `svd`."""
    import torch

    matrices = matrices.double().cpu()
    check_rank(what, rank, min(matrices.shape[-2:]))
    if not torch.isfinite(matrices).all():
        raise UsageError("the kernel holds NaN or infinity and cannot be decomposed")
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    root = values[..., :rank].sqrt()
    left, right = left[..., :rank] * root[..., None, :], right[..., :rank, :] * root[..., :, None]
    return left, right, relative_error(matrices, left @ right)


def energy_errors(matrices: Tensor) -> list[float]:
    """By rank kept, 0 ... full: the root of the share of the energy of all matrices together that is lost."""
    import torch

    squares = singular_values(matrices).square().sum((0, 1))
    lost = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])
    return (lost / lost[0]).sqrt().tolist() if lost[0] else [0.0] * len(lost)


def pieces(target: Target, rank: int, folding: str = "encode", k: int = 1) -> tuple[Piece, Piece]:
    """The two convolutions that a layer becomes."""
    between, on_rows = target.groups * k * rank, FOLDINGS[folding]
    on_columns = "".join(axis for axis in "hw" if axis not in on_rows)
    return (
        target.piece(target.c_in, between, on_columns, target.groups * k),
        target.piece(between, target.c_out, on_rows, target.groups, last=True),
    )


def closest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that is closest to the wanted one; of two the larger."""
    return min(divisors(number), key=lambda one: (abs(one - wanted), -one))


def divisors(number: int) -> list[int]:
    """In rising order."""
    return [one for one in range(1, number + 1) if number % one == 0]


class Svd(LowRank):
    """Every convolution and linear layer by SVD.

    Args:
        folding: "encode", "split_h", "split_w" or "decode".
        k: parts that the input channels are cut into; of each layer the closest divisor of its c_in / groups.
        allocation: what a budget makes equal in all layers: "error", the share of each kernel's energy that is lost; "ratio",
            the share of its full rank that is kept, whatever that loses.
        others: as of `LowRank`; of a layer's `ranks` there is one; its errors are Frobenius norms.
    """

    name = "svd"

    def __init__(self, *, folding: str = "encode", k: int = 1, allocation: str = "error", **others: Any) -> None:
        super().__init__(**others)
        if folding not in FOLDINGS:
            raise UsageError(f"SVD has no folding {folding!r}", try_=", ".join(FOLDINGS))
        if k < 1:
            raise UsageError(f"SVD was given k = {k}", try_="1 or more")
        if allocation not in ALLOCATIONS:
            raise UsageError(f"SVD has no allocation {allocation!r}", try_=" or ".join(ALLOCATIONS))
        self.folding, self.k, self.allocation = folding, k, allocation
        self.settings |= {"folding": folding, "k": k, "allocation": allocation}

    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        k = self._k(target)
        (rank,) = self.given(target, ranks, 1)
        check_rank(f"SVD of {target.name!r}", rank, full_rank(target, self.folding, k))
        return Choice((rank,), pieces(target, rank, self.folding, k), error, k)

    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        errors = energy_errors(fold(weight, self.folding, self._k(target), target.groups))
        if self.allocation == "ratio" and self.energy is None:
            errors = [1 - rank / (len(errors) - 1) for rank in range(len(errors))]
        return [self.choice(target, (rank,), errors[rank]) for rank in range(1, len(errors))]

    def noise_ranks(self, target: Target, weight: Tensor) -> tuple[int, ...]:
        matrices = fold(weight, self.folding, self._k(target), target.groups).flatten(0, 1)
        return (max(1, *(evbmf(matrix).rank for matrix in matrices)),)

    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        found = svd(weight, choice.ranks[0], self.folding, choice.k, target.groups)
        return [found.first, found.second], found.relative_error

    def _k(self, target: Target) -> int:
        return closest_divisor(target.c_in // target.groups, self.k)
