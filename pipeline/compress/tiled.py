"""Tiled SVD: the folded kernel is cut into a grid of tiles, each a matrix of the same rank.

A kernel W (c_out, c_in, k_h, k_w), its output channels cut into a parts and its input channels into b, has a b tiles of (c_out
/ a) x (c_in / b k_h k_w); tile (p, q) ~ U_pq V_pq of rank j. As layers that is a convolution in b groups (c_in -> a b j), a
shuffle, and a 1x1 in a groups (a b j -> c_out): more ranks in all than one matrix has for the same parameters, which spreads
the error evenly over the kernel.

Reference: Lee, Kapoor, Kim, "DeepTwist: Learning Model Compression via Occasional Weight Distortion", arXiv 1810.12823, and
its second publication arXiv 1905.10145. Differs from the paper: there the tiles are of the matrix, whatever the channels;
here they are of whole channels, so that the network can be run as it is. That costs the finest grids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.lowrank import LowRank, check_rank
from pipeline.compress.ranks import one_thread
from pipeline.compress.structure import Choice, Target
from pipeline.compress.svd import closest_divisor, energy_errors, split
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Grid = tuple[int, int]
"""Parts of the output channels and of the input channels."""


@dataclass(frozen=True)
class TiledFactors:
    """Weights of the two convolutions: first (a b j, c_in / b, k_h, k_w), second (c_out, b j, 1, 1)."""

    first: Tensor
    second: Tensor
    relative_error: float


def tiles(weight: Tensor, grid: Grid) -> Tensor:
    """(a, b, rows, columns) of a kernel (c_out, c_in, k_h, k_w) or (c_out, c_in).

    Raises: UsageError: the grid does not divide the channels.
    """
    c_out, c_in = weight.shape[:2]
    down, across = grid
    if down < 1 or across < 1 or c_out % down or c_in % across:
        raise UsageError(f"a kernel of {c_out} x {c_in} channels has no grid of {down} x {across} tiles")
    parts = weight.reshape(down, c_out // down, across, c_in // across, *weight.shape[2:])
    return parts.transpose(1, 2).flatten(3)


@one_thread()
def tiled_svd(weight: Tensor, rank: int, grid: Grid) -> TiledFactors:
    """The best approximation of that rank of every tile. The singular values are shared by both factors.

    Args: as of `tiles`. rank: 1 ... full; at full rank the product is the kernel again.

    Raises: UsageError: as `tiles`; a rank out of its range; a kernel that is not finite.
    """
    left, right, error = split("tiled SVD", tiles(weight.detach(), grid), rank)
    (down, across), kernel = grid, (*weight.shape[2:], 1, 1)[:2]
    # first: part of the input, part of the output, rank; the shuffle makes of that part of the output, rank, part of the input
    first = right.transpose(0, 1).reshape(down * across * rank, weight.shape[1] // across, *kernel)
    second = left.permute(0, 2, 3, 1).reshape(weight.shape[0], rank * across, 1, 1)
    return TiledFactors(first.to(weight), second.to(weight), error)


class TiledSvd(LowRank):
    """Every dense (groups 1) convolution and linear layer by SVD in tiles.

    Args:
        grid: (parts of the output channels, parts of the input channels); of each layer the closest divisors.
        grids: layer -> its own grid.
        others: as of `LowRank`; of a layer's `ranks` there is one, of each tile; its errors are Frobenius norms.
    """

    name = "tiled_svd"

    def __init__(self, *, grid: Grid = (2, 2), grids: Mapping[str, Grid] | None = None, **others: Any) -> None:
        super().__init__(**others)
        for one in (grid, *(grids or {}).values()):
            if len(one) != 2 or not all(type(parts) is int and parts >= 1 for parts in one):
                raise UsageError(f"tiled SVD was given the grid {str(one)[:60]}", try_="two whole numbers of 1 or more")
        self.grid, self.grids = grid, dict(grids or {})
        self.settings |= {"grid": grid, "grids": self.grids}

    def why_not(self, target: Target) -> str:
        return f"a grouped convolution ({target.groups} groups)" if target.groups > 1 else ""

    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        down, across = self._grid(target)
        (rank,) = self.given(target, ranks, 1)
        check_rank(f"tiled SVD of {target.name!r}", rank, _full_rank(target, (down, across)))
        first = target.piece(target.c_in, down * across * rank, "hw", across)
        second = target.piece(down * across * rank, target.c_out, "", down, last=True)
        return Choice((rank,), (first, dataclasses.replace(second, shuffle=across)), error, across)

    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        errors = energy_errors(tiles(weight, self._grid(target)))
        return [self.choice(target, (rank,), errors[rank]) for rank in range(1, len(errors))]

    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        found = tiled_svd(weight, choice.ranks[0], self._grid(target))
        return [found.first, found.second], found.relative_error

    def _grid(self, target: Target) -> Grid:
        down, across = self.grids.get(target.name, self.grid)
        return closest_divisor(target.c_out, down), closest_divisor(target.c_in, across)


def _full_rank(target: Target, grid: Grid) -> int:
    height, width = target.whole.kernel
    return min(target.c_out // grid[0], target.c_in // grid[1] * height * width)
