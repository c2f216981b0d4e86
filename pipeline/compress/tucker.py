"""Tucker-2: a convolution becomes 1x1, k x k, 1x1.

Reference: Kim, Park, Yoo, Choi, Yang, Shin, "Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications", ICLR 2016, section 3.1: W ~ C x_1 U_out x_2 U_in, with U_out (c_out, r_out), U_in (c_in, r_in) and a
core C (r_out, r_in, k_h, k_w); section 3.2: the ranks by EVBMF of the unfoldings along both modes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.allocation import Allocation, spread
from pipeline.compress.lowrank import LowRank, relative_error
from pipeline.compress.ranks import evbmf, one_thread
from pipeline.compress.structure import Choice, Target
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("hooi", "hosvd")
HOOI_ITERATIONS = 50
HOOI_TOLERANCE = 1e-6
STEP, STEPS = 4, 16
"""Of ranks that are options whatever energy they cut off: multiples of so many channels, and at most so many of them."""


@dataclass(frozen=True)
class TuckerFactors:
    """core: (rank_out, rank_in, k_h, k_w); out_factor: (c_out, rank_out); in_factor: (c_in, rank_in)."""

    core: Tensor
    out_factor: Tensor
    in_factor: Tensor
    relative_error: float


@one_thread()
def tucker2(weight: Tensor, rank_out: int, rank_in: int, method: str = "hooi") -> TuckerFactors:
    """Decomposes the first two modes of a kernel.

    Args:
        weight: (c_out, c_in, k_h, k_w).
        rank_out, rank_in: 1 ... c_out and 1 ... c_in; at full rank the product is the kernel again.
        method: "hosvd" takes the singular vectors of each unfolding; "hooi" refines them in turn.

    Raises: UsageError: a rank out of its range, an unknown method, or a kernel that is not finite.
    """
    import torch
    from tensorly.decomposition import partial_tucker

    c_out, c_in = weight.shape[:2]
    _check_ranks("Tucker-2", rank_out, rank_in, c_out, c_in)
    if method not in METHODS:
        raise UsageError(f"Tucker-2 has no method {method!r}", try_=" or ".join(METHODS))
    if not torch.isfinite(weight).all():
        raise UsageError("the kernel holds NaN or infinity and cannot be decomposed")
    double = weight.detach().double().cpu()
    ranks = [rank_out, rank_in]
    (_, bases), _ = partial_tucker(double.numpy(), ranks, [0, 1], n_iter_max=0, init="svd", svd=_leading, tol=0)
    out_factor, in_factor = (torch.from_numpy(basis.copy()) for basis in bases)
    if method == "hooi":
        out_factor, in_factor = _refined(double, out_factor, in_factor)
    core = torch.einsum("oihw,oa,ib->abhw", double, out_factor, in_factor)
    error = relative_error(double, torch.einsum("abhw,oa,ib->oihw", core, out_factor, in_factor))
    return TuckerFactors(core.to(weight), out_factor.to(weight), in_factor.to(weight), error)


def _leading(matrix: Any, n_eigenvecs: int, **settings: Any) -> tuple[Any, Any, Any]:
    """The left singular vectors as tensorly wants an SVD, from the Gram matrix: as many as there are rows, and fast."""
    import numpy as np

    vectors = np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :n_eigenvecs]
    return vectors, np.zeros(n_eigenvecs), np.zeros((n_eigenvecs, 1))


def _refined(weight: Tensor, out_factor: Tensor, in_factor: Tensor) -> tuple[Tensor, Tensor]:
    """Higher-order orthogonal iteration. tensorly's takes a full SVD in each of its steps, whatever it is given."""
    import torch

    def leading(unfolded: Tensor, rank: int) -> Tensor:
        return torch.linalg.eigh(unfolded @ unfolded.T).eigenvectors.flip(-1)[:, :rank]

    whole = float(weight.square().sum())
    rank_out, rank_in = out_factor.shape[1], in_factor.shape[1]
    last = -1.0
    for _ in range(HOOI_ITERATIONS):
        out_factor = leading(torch.einsum("oihw,ib->obhw", weight, in_factor).flatten(1), rank_out)
        projected = torch.einsum("oihw,oa->iahw", weight, out_factor).flatten(1)
        in_factor = leading(projected, rank_in)
        kept = float((in_factor.T @ projected).square().sum())
        if kept - last <= HOOI_TOLERANCE * whole:
            break
        last = kept
    return out_factor, in_factor


class Tucker2(LowRank):
    """Every dense (groups 1) convolution by Tucker-2.

    Args:
        method: as of `tucker2`.
        others: as of `LowRank`, but that within a budget the sum of all layers' squared errors becomes small instead of the
            largest error: the network keeps more of its accuracy. Of a layer's `ranks` there are two, (rank_out, rank_in).

    Both ranks of an option cut off the same share of their unfolding's energy; its error is that of the HOSVD, which HOOI only
    makes smaller. With a `cost` pairs of whole steps are options too: a latency has steps of its own, and a table knows few
    ranks.
    """

    name = "tucker2"

    def __init__(self, *, method: str = "hooi", **others: Any) -> None:
        super().__init__(**others)
        if method not in METHODS:
            raise UsageError(f"Tucker-2 has no method {method!r}", try_=" or ".join(METHODS))
        self.method = method
        self.settings |= {"method": method}

    def why_not(self, target: Target) -> str:
        if target.whole.kernel == (1, 1):
            return "a 1x1 kernel or linear layer is a matrix: SVD decomposes it"
        return f"a grouped convolution ({target.groups} groups)" if target.groups > 1 else ""

    def choice(self, target: Target, ranks: tuple[int, ...], error: float = 0.0) -> Choice:
        rank_out, rank_in = self.given(target, ranks, 2)
        _check_ranks(f"Tucker-2 of {target.name!r}", rank_out, rank_in, target.c_out, target.c_in)
        pieces = (
            target.piece(target.c_in, rank_in),
            target.piece(rank_in, rank_out, "hw"),
            target.piece(rank_out, target.c_out, last=True),
        )
        return Choice((rank_out, rank_in), pieces, error)

    def options(self, target: Target, weight: Tensor) -> list[Choice]:
        lost, kept = _hosvd_energy(weight)
        found: dict[tuple[int, int], float] = {}
        for bound in sorted({float(share) for one in lost for share in one[1:]}, reverse=True):
            first, second = (max(1, int((one > bound).sum())) for one in lost)
            found[first, second] = _error(kept, first, second)
        if self.cost is not None:
            for first, second in itertools.product(*(_stepped(count) for count in kept.shape)):
                found[first, second] = _error(kept, first, second)
        return [self.choice(target, ranks, error) for ranks, error in found.items()]

    def allocated(
        self, options: Mapping[str, Sequence[Choice]], costs: Mapping[str, Sequence[float]], budget: float, fixed: float
    ) -> Allocation:
        errors = {name: [choice.error for choice in choices] for name, choices in options.items()}
        return spread(errors, lambda name, place: costs[name][place], budget, fixed, self._unit)

    def noise_ranks(self, target: Target, weight: Tensor) -> tuple[int, ...]:
        return tuple(max(1, evbmf(unfolded).rank) for unfolded in _unfoldings(weight))

    def factors(self, target: Target, weight: Tensor, choice: Choice) -> tuple[list[Tensor], float]:
        rank_out, rank_in = choice.ranks
        found = tucker2(weight, rank_out, rank_in, self.method)
        return [found.in_factor.T, found.core, found.out_factor], found.relative_error


def _stepped(count: int) -> range:
    """Ranks up to the full one in steps of a few channels, STEPS at most."""
    step = STEP * math.ceil(count / (STEP * STEPS))
    return range(step, count + 1, step)


def _error(kept: Tensor, rank_out: int, rank_in: int) -> float:
    """|W - W'| / |W|"""
    return max(0.0, 1.0 - float(kept[rank_out - 1, rank_in - 1])) ** 0.5


def _hosvd_energy(weight: Tensor) -> tuple[list[Tensor], Tensor]:
    """Shares of a kernel's energy: lost by each rank (0 first) of each unfolding alone, and kept by both ranks together.

    The bases are orthonormal, so what (rank_out, rank_in) keep is the energy of that corner of the whole core. The usual bound,
    the sum of both losses, is over 1 from some rank down and would call all lower ones equally bad.
    """
    import torch

    double = weight.detach().double().cpu()
    bases, lost = [], []
    for unfolded in _unfoldings(double):
        values, vectors = torch.linalg.eigh(unfolded @ unfolded.T)
        squares, basis = values.flip(0).clamp(min=0), vectors.flip(1)
        cut = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])
        lost.append(cut / cut[0] if cut[0] else cut)
        bases.append(basis)
    core = torch.einsum("oihw,oa,ib->abhw", double, *bases).square().sum((2, 3)).cumsum(0).cumsum(1)
    whole = float(core[-1, -1])
    return lost, core / whole if whole else torch.ones_like(core)


def _unfoldings(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(c_out, ...) and (c_in, ...)."""
    return weight.flatten(1), weight.transpose(0, 1).flatten(1)


def _check_ranks(what: str, rank_out: int, rank_in: int, c_out: int, c_in: int) -> None:
    if not (1 <= rank_out <= c_out and 1 <= rank_in <= c_in):
        what = f"{what}: ranks ({rank_out}, {rank_in}) do not fit a kernel of {c_out} x {c_in} channels"
        raise UsageError(what, try_=f"1 ... {c_out} and 1 ... {c_in}")
