"""The kernels of the same networks at other widths and resolutions.

Varying one kernel at a time (`pipeline.sweep.grid`) cannot make a concatenation, a channel shuffle or a gate of another size,
because several shapes change together in these, and it leaves the corners to chance: what a table does not surround it does
not tell. So the networks themselves are made narrower, wider and of other resolutions, and all their kernels are taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from latency_luts import OpKey
from pipeline.artifact import Network
from pipeline.errors import HandsetError
from pipeline.graph import kernels
from pipeline.models import build
from pipeline.sweep.grid import Grid


def relatives(networks: Sequence[Network], grid: Grid, runtime: str, abi: str) -> list[OpKey]:
    """Each kernel once, those first that reach farthest: resolutions from both ends inwards, then widths.

    A network that cannot be of a resolution, or has no width (one from a file), is passed over there.
    """
    sides = sorted(set(grid.resolutions) - {grid.base_resolution})
    ends = [side for pair in zip(sides, reversed(sides), strict=True) for side in pair]
    wanted = [(1.0, side) for side in dict.fromkeys(ends)]
    wanted[2:2] = itertools.product(grid.multipliers, (grid.base_resolution, *sides[:1]))
    found: dict[OpKey, None] = {}
    for multiplier, side in wanted:
        for network in networks:
            found.update(dict.fromkeys(_kernels(network, multiplier, side / grid.base_resolution, runtime, abi)))
    return list(found)


def _kernels(network: Network, multiplier: float, scale: float, runtime: str, abi: str) -> Iterator[OpKey]:
    if multiplier != 1 and network.source != "zoo":
        return
    batch, channels, *space = network.input_shape
    shape = (batch, channels, *(max(1, round(side * scale)) for side in space))
    try:
        module = network.module if multiplier == 1 else build(network.name, width_mult=multiplier)
        if module is not None:
            yield from (use.key for use in kernels(module, shape, runtime, abi=abi))
    except HandsetError:  # an input that its layers cannot take
        return
