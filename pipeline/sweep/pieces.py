"""The kernels that decompositions of a network would have: what a table must know to price them.

A table answers for ranks between measured ones (`latency_luts.interpolate`), where these surround them, at most four times as
large or small, with channels of the same alignment, and none of another gcd. So each layer is taken at a few ranks of a line
from the lowest to the one at which its chain has as many multiply-accumulates as the layer, each with the network's own
channels at the other side; Tucker-2's two ranks in a grid. Every second rank is an odd multiple of what aligns its channels.

Only shapes count: no weight is decomposed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from latency_luts import OpKey
from pipeline.compress import build
from pipeline.compress.cp import full_rank as full_rank_of_cp
from pipeline.compress.lowrank import LowRank
from pipeline.compress.replace import copied, survey, swap, traced
from pipeline.compress.structure import Choice, Target, assemble, macs
from pipeline.compress.svd import closest_divisor
from pipeline.compress.svd import full_rank as full_rank_of_svd
from pipeline.errors import UsageError
from pipeline.fusion.chain import chain, places
from pipeline.graph import kernels, nchwc_block

if TYPE_CHECKING:
    from torch import Tensor, nn

SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Of the highest rank worth having: each at most twice the one before."""

PARTS = (1, 2, 4, 8)
"""ALDS: parts that a layer's input channels are cut into, or the nearest divisors."""

ALIGNED = 4
"""Channels between the convolutions of a chain are multiples of this, where the rank allows it."""


def piece_keys(
    model: nn.Module, example: Tensor | Sequence[int], runtime: str, methods: Sequence[str],
    shares: Sequence[float] = SHARES, *, abi: str = "", block: int | None = None,
) -> list[OpKey]:  # fmt: skip
    """Each kernel once: of every chain in its layer's place, and of networks in which all layers are chains.

    Args:
        example, runtime, abi, block: as of `pipeline.graph.kernels`.
        methods: of METHODS.
        shares: ranks, as shares of the highest one that is worth having, in (0, 1]; the largest should be 1.

    Raises: UsageError: an unknown method or runtime, a share out of its range. ModelError: the network fails on that input.
    """
    check_methods(methods)
    if wrong := [share for share in shares if not 0 < share <= 1]:
        raise UsageError(f"pieces were asked for at the share {wrong[0]:g} of full rank", try_="shares in (0, 1]")
    block = nchwc_block(abi) if block is None else block
    network = copied(model)
    found = survey(network, traced(network, example))
    calls = places(traced(network, example), runtime, block)
    keys: dict[OpKey, None] = {}
    for name in methods:
        method = build(name, ranks={})
        assert isinstance(method, LowRank)
        choices = {
            layer: [method.choice(target, ranks) for ranks in METHODS[name](method, target, shares)]
            for layer, target in found.targets.items()
            if layer in calls and target.padding_mode == "zeros" and not method.why_not(target)
        }
        for layer, some in choices.items():
            for place, choice in itertools.product(calls[layer], some):
                keys |= dict.fromkeys(chain(place, found.targets[layer].whole, choice.pieces, runtime, block))
        for number in range(max(map(len, choices.values()), default=0)):
            chosen = {layer: some[number] for layer, some in choices.items() if number < len(some)}
            replaced = {found.modules[one]: _empty(found.modules[one], found.targets[one], chosen[one]) for one in chosen}
            swap(network, replaced)
            keys |= dict.fromkeys(use.key for use in kernels(network, example, runtime, block=block))
            swap(network, {new: old for old, new in replaced.items()})
    return list(keys | dict.fromkeys(_reorders(keys, block)))


def _reorders(keys: Iterable[OpKey], block: int) -> Iterator[OpKey]:
    """Fewer channels than a block are reordered back before a convolution reads them, and no more are: none lie around."""
    for key in keys:
        if key.op == "reorder_out" and key.input_shape[1] < block:
            images, _, *size = key.input_shape
            for count in range(ALIGNED, block, ALIGNED):
                yield dataclasses.replace(key, input_shape=(images, count, *size))


def check_methods(methods: Sequence[str]) -> None:
    """Raises: UsageError: one of them has no pieces."""
    if unknown := [name for name in methods if name not in METHODS]:
        raise UsageError(f"there are no pieces of the method {unknown[0]!r}", try_=", ".join(METHODS))


def _empty(layer: nn.Module, target: Target, choice: Choice) -> nn.Module:
    """The chain with zeros for weights."""
    import torch

    shapes = [(piece.c_out, piece.c_in // piece.groups, *piece.kernel) for piece in choice.pieces]
    return assemble(layer, target, choice.pieces, [torch.zeros(shape) for shape in shapes])


Ranks = Iterator[tuple[int, ...]]


def _svd(method: LowRank, target: Target, shares: Sequence[float]) -> Ranks:
    full = full_rank_of_svd(target)
    return ((rank,) for rank in _line(full, _worth(method, target, full), target.groups, shares))


def _cp(method: LowRank, target: Target, shares: Sequence[float]) -> Ranks:
    full = full_rank_of_cp((target.c_out, target.c_in, *target.whole.kernel))
    return ((rank,) for rank in _line(full, _worth(method, target, full), 1, shares))


def _alds(method: LowRank, target: Target, shares: Sequence[float]) -> Ranks:
    """Without the k of one channel a part, a depthwise convolution, which is a family of its own at each rank."""
    channels = target.c_in // target.groups
    for k in sorted({closest_divisor(channels, part) for part in PARTS}):
        if k < channels:
            full = full_rank_of_svd(target, k=k)
            for rank in _line(full, _worth(method, target, full, k), target.groups * k, shares):
                yield k, rank


def _tucker2(method: LowRank, target: Target, shares: Sequence[float]) -> Ranks:
    """The pairs around those with fewer multiply-accumulates than the layer."""
    out, into = (_line(full, full, 1, shares) for full in (target.c_out, target.c_in))
    for i, j in itertools.product(range(len(out)), range(len(into))):
        if _macs(method, target, (out[max(i - 1, 0)], into[max(j - 1, 0)])) < macs([target.whole], target.calls or ()):
            yield out[i], into[j]


METHODS: dict[str, Callable[[LowRank, Target, Sequence[float]], Ranks]] = {
    "alds": _alds, "cp": _cp, "svd": _svd, "tucker2": _tucker2
}  # fmt: skip
"""Method -> a layer's ranks that are worth measuring."""


def _worth(method: LowRank, target: Target, full: int, k: int = 0) -> int:
    """The rank, at most the full one, at which the chain has as many multiply-accumulates as the layer: they grow with it."""
    one = _macs(method, target, (k, 1) if k else (1,))
    return min(full, math.ceil(macs([target.whole], target.calls or ()) / max(one, 1)))


def _macs(method: LowRank, target: Target, ranks: tuple[int, ...]) -> int:
    return macs(method.choice(target, ranks).pieces, target.calls or ())


def _line(full: int, most: int, channels: int, shares: Sequence[float]) -> list[int]:
    """Rising ranks up to `most`, or the next one that aligns: all that align where these are few, else about these shares.

    Args: channels: between the convolutions, of each rank.
    """
    step = ALIGNED // math.gcd(ALIGNED, channels)
    count = math.ceil(most / step)
    if count <= len(shares):
        steps = list(range(1, count + 1))
    else:
        steps = [math.ceil(share * count) for share in sorted(shares, reverse=True)]
        steps[1::2] = [number - (number % 2 == 0) for number in steps[1::2]]
    return sorted({min(full, step * number) for number in steps if number})
