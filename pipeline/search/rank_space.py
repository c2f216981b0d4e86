"""What a rank search varies: of each layer its ranks, as shares of full rank in steps of 1/32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.compress import build
from pipeline.compress.cp import full_rank as full_rank_of_cp
from pipeline.compress.lowrank import LowRank
from pipeline.compress.ranks import by_energy, one_thread
from pipeline.compress.replace import check_finite, copied, survey, swap
from pipeline.compress.structure import Target, as_it_is, assemble, params
from pipeline.compress.svd import full_rank as full_rank_of_svd
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

STEPS = 32
LOWEST = 1 / STEPS
AXES = {"cp": ("rank",), "svd": ("rank",), "tucker2": ("rank_out", "rank_in")}
"""Method -> the names of a layer's ranks."""
ENERGIES = (0.95, 0.8)
SHARES = (1 / 2, 1 / 4, 1 / 8, LOWEST)
"""Of the starts: the energy that every layer keeps, and one share for all ranks."""
LONGEST_NAME = 480
"""Of a layer: Optuna's tables hold names of 512 characters."""

Shares = dict[str, float]
"""Name of a rank, "layer.rank_out", -> its share, 1/32 ... 1."""


@dataclass(frozen=True)
class Space:
    """Args: full: layer -> its ranks at the share 1, one an axis of the method."""

    method: str
    targets: Mapping[str, Target]
    full: Mapping[str, tuple[int, ...]]

    @property
    def names(self) -> list[str]:
        """Of all ranks, in the order of the layers."""
        return [f"{layer}.{axis}" for layer in self.full for axis in AXES[self.method]]

    def ranks(self, shares: Mapping[str, float]) -> dict[str, tuple[int, ...]]:
        """The layers that are decomposed, with their ranks. A layer whose shares are all 1 stays as it is, and so does one
        that would not have fewer parameters."""
        method, found = _method(self.method), {}
        for layer, full in self.full.items():
            own = tuple(shares[f"{layer}.{axis}"] for axis in AXES[self.method])
            ranks = _ranks(own, full)
            if min(own) < 1 and _smaller(method, self.targets[layer], ranks):
                found[layer] = ranks
        return found

    def shares(self, ranks: Mapping[str, Sequence[int]]) -> Shares:
        """The smallest shares that keep at least these ranks."""
        return {
            f"{layer}.{axis}": min(STEPS, math.ceil(STEPS * rank / whole)) / STEPS
            for layer, full in self.full.items()
            for axis, rank, whole in zip(AXES[self.method], ranks[layer], full, strict=True)
        }

    def starts(self, model: nn.Module) -> Iterator[Shares]:
        """Where a search begins: the network as it is, ranks by EVBMF, by energy, and the same share for all."""
        yield dict.fromkeys(self.names, 1.0)
        method = _method(self.method)
        with one_thread():
            weights = {layer: model.get_parameter(f"{layer}.weight").detach() for layer in self.full}
            if self.method != "cp":  # EVBMF is for matrices
                yield self.shares({layer: method.noise_ranks(self.targets[layer], weights[layer]) for layer in weights})
            options = {layer: method.options(self.targets[layer], weights[layer]) for layer in weights}
        for energy in ENERGIES:
            kept = {layer: some[by_energy([one.error for one in some], energy)] for layer, some in options.items()}
            yield self.shares({layer: choice.ranks for layer, choice in kept.items()})
        for share in SHARES:
            yield dict.fromkeys(self.names, share)


def space_of(method: str, model: nn.Module) -> Space:
    """The layers that the method makes smaller, at its lowest ranks at least.

    Raises: UsageError: there is no search by this method, no such layer, or a layer with NaN or infinity.
    """
    if method not in AXES:
        raise UsageError(f"there is no rank search by {method!r}", try_=", ".join(AXES))
    compressor, found = _method(method), survey(model)
    full = {
        name: _full(method, target)
        for name, target in found.targets.items()
        if not compressor.why_not(target) and len(name) <= LONGEST_NAME
    }
    lowest = {name: _ranks((LOWEST,) * len(whole), whole) for name, whole in full.items()}
    full = {name: full[name] for name, ranks in lowest.items() if _smaller(compressor, found.targets[name], ranks)}
    if not full:
        what = f"{type(model).__name__} has no layer that {method} makes smaller"
        raise UsageError(what, try_=", ".join(other for other in AXES if other != method))
    check_finite({name: found.modules[name] for name in full})
    return Space(method, {name: found.targets[name] for name in full}, full)


def outlined(model: nn.Module, method: str, ranks: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the network with the structure that `decomposed` gives it: what is decomposed there has zeros for weights.
    Enough to be priced, and no decomposition has to be made for it."""
    import torch

    compressor, outline = _method(method), copied(model)
    found = survey(outline)
    replacements: dict[nn.Module, nn.Module] = {}
    for name, own in ranks.items():
        target, layer = found.targets[name], found.modules[name]
        pieces = compressor.choice(target, tuple(own)).pieces
        zeros = [torch.zeros(piece.c_out, piece.c_in // piece.groups, *piece.kernel) for piece in pieces]
        replacements[layer] = assemble(layer, target, pieces, zeros)
    swap(outline, replacements)
    return outline


def decomposed(model: nn.Module, method: str, ranks: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy of the network with these layers decomposed, the others as they are."""
    return build(method, ranks=ranks, even_if_larger=True).apply(model).model


def _method(name: str) -> LowRank:
    method = build(name, ranks={})
    assert isinstance(method, LowRank)
    return method


def _full(method: str, target: Target) -> tuple[int, ...]:
    """For CP the rank at which the layer would be as large as before: beyond it there is nothing to search for."""
    if method == "tucker2":
        return target.c_out, target.c_in
    if method == "svd":
        return (full_rank_of_svd(target),)
    shape = (target.c_out, target.c_in, *target.whole.kernel)
    return (max(1, min(full_rank_of_cp(shape), math.prod(shape) // sum(shape))),)


def _ranks(shares: Sequence[float], full: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(1, round(share * whole)) for share, whole in zip(shares, full, strict=True))


def _smaller(method: LowRank, target: Target, ranks: tuple[int, ...]) -> bool:
    return params(method.choice(target, ranks).pieces) < params(as_it_is(target).pieces)
