"""What to measure: the distinct kernels of networks, in which bundles, and which one next. Pure functions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latency_luts import OpKey
from pipeline.sweep.bundle import activation_bytes, weight_bytes

BUNDLE_SIZE = 40
MAX_WEIGHT_BYTES = 24 << 20
"""Of one bundle: about what a mobile network has, so that weights lie where those of a network do."""
MAX_ACTIVATION_BYTES = 256 << 20
"""Inputs and outputs of one bundle, where nothing is reused: a bound on the memory of the device."""

UNKNOWN = 1e9
"""The distance of a candidate to a family of which nothing was measured."""

Coordinates = tuple[float, ...]
Family = tuple[object, ...]


def distinct(networks: Mapping[str, Iterable[OpKey]]) -> dict[OpKey, tuple[str, ...]]:
    """Each kernel once, in the order in which it is met, with the networks that have it."""
    met: dict[OpKey, dict[str, None]] = {}
    for network, keys in networks.items():
        for key in keys:
            met.setdefault(key, {})[network] = None
    return {key: tuple(names) for key, names in met.items()}


@dataclass(frozen=True)
class Limits:
    """Of one bundle. A kernel that is larger alone gets a bundle all the same, with nothing else large in it.

    With small limits that is a bundle of its own: what the kernel itself leaves in the caches is the best that a small network
    could offer it.
    """

    kernels: int = BUNDLE_SIZE
    weight_bytes: int = MAX_WEIGHT_BYTES
    activation_bytes: int = MAX_ACTIVATION_BYTES


COLD = Limits()
WARM = Limits(kernels=12, weight_bytes=256 << 10, activation_bytes=1 << 20)
"""So small that a kernel finds everything in a second-level cache when the model runs again."""


def bundles(
    keys: Sequence[OpKey], *, copies: int = 2, limits: Limits | None = None, seed: int = 0
) -> list[list[OpKey]]:
    """Kernels by bundle: each in `copies` of them, with other neighbours each time.

    Args: limits: those of COLD where None.

    A copy is all kernels dealt anew, from those with the largest tensors to those with the smallest and each to one of the
    emptiest bundles: so every bundle has, as a network has, a few large tensors and many small ones, and none is so small
    that its weights stay in the cache.
    """
    limits = limits or COLD
    rng = random.Random(seed)
    return [one for _ in range(copies) for one in _deal(list(dict.fromkeys(keys)), limits, rng)]


def _deal(keys: list[OpKey], limits: Limits, rng: random.Random) -> list[list[OpKey]]:
    if not keys:
        return []
    rng.shuffle(keys)
    keys.sort(key=activation_bytes, reverse=True)
    # a kernel that is over a limit alone fills one bundle, not as many as it is times larger
    need = (
        len(keys) / limits.kernels,
        sum(min(1.0, weight_bytes(key) / limits.weight_bytes) for key in keys),
        sum(min(1.0, activation_bytes(key) / limits.activation_bytes) for key in keys),
    )
    piles = [_Pile([]) for _ in range(math.ceil(max(need)))]
    for key in keys:
        fitting = [pile for pile in piles if pile.has_room(key, limits)]
        if not fitting:
            piles.append(_Pile([]))
            fitting = piles[-1:]
        fewest = min(len(pile.keys) for pile in fitting)
        rng.choice([pile for pile in fitting if len(pile.keys) <= fewest + 1]).add(key)
    return [pile.keys for pile in piles if pile.keys]


@dataclass
class _Pile:
    keys: list[OpKey]
    weight_bytes: int = 0
    activation_bytes: int = 0

    def has_room(self, key: OpKey, limits: Limits) -> bool:
        if not self.keys:
            return True
        return (
            len(self.keys) < limits.kernels
            and self.weight_bytes + weight_bytes(key) <= limits.weight_bytes
            and self.activation_bytes + activation_bytes(key) <= limits.activation_bytes
        )

    def add(self, key: OpKey) -> None:
        self.keys.append(key)
        self.weight_bytes += weight_bytes(key)
        self.activation_bytes += activation_bytes(key)


def family(key: OpKey) -> Family:
    """What must be equal for two kernels to tell of each other: all but channel counts and sizes."""
    depthwise = key.op == "conv2d" and 1 < key.groups == key.input_shape[1]
    groups = "depthwise" if depthwise else key.groups
    rank = len(key.input_shape)
    return (key.op, key.kernel, key.stride, key.dilation, groups, key.activation, key.fused_add, key.dtype, rank)


def coordinates(key: OpKey) -> Coordinates:
    """Where a kernel stands in its family: logarithms to the base 2 of its sizes."""
    return tuple(math.log2(size) for size in (*key.input_shape, max(1, key.out_channels)))


def next_points(points: Sequence[OpKey], errors: Mapping[OpKey, float], count: int) -> list[OpKey]:
    """The kernels to measure next, of those that could be: where the table knows least.

    Args:
        points: candidates; those that were measured already are passed over.
        errors: measured kernel -> its leave-one-out error, a share of its latency, at least 0.
        count: so many, fewer where there are no more candidates.

    A candidate is worth the error of its nearest measured kernel of the same family times the distance to it; a doubling of
    one size is 1. What was chosen counts as measured, with the error that it was chosen for. A family of which nothing
    was measured comes first.

    Raises: ValueError: an error below 0, or not a number.
    """
    import numpy as np

    if any(not error >= 0 for error in errors.values()):
        raise ValueError("a leave-one-out error below 0, or not a number")
    measured: dict[Family, list[tuple[Coordinates, float]]] = {}
    for key, error in errors.items():
        measured.setdefault(family(key), []).append((coordinates(key), error))
    groups: dict[Family, _Waiting] = {}
    for key in dict.fromkeys(points):
        if key not in errors:
            groups.setdefault(family(key), _Waiting([])).keys.append(key)
    for name, group in groups.items():
        group.place(measured.get(name, []))
    chosen: list[OpKey] = []
    while groups and len(chosen) < count:
        name = max(groups, key=lambda name: groups[name].best)
        chosen.append(groups[name].take())
        if not np.isfinite(groups[name].best):  # its last one is taken
            del groups[name]
    return chosen


class _Waiting:
    """The candidates of one family, each with the distance to what is known and the error there."""

    def __init__(self, keys: list[OpKey]) -> None:
        self.keys = keys

    def place(self, measured: Sequence[tuple[Coordinates, float]]) -> None:
        import numpy as np

        self._where = np.array([coordinates(key) for key in self.keys])
        self._distance = np.full(len(self.keys), UNKNOWN)
        self._error = np.ones(len(self.keys))
        self._taken = np.zeros(len(self.keys), dtype=bool)
        for place, error in measured:
            self._learn(np.array(place), error)

    def _learn(self, place: Any, error: float) -> None:
        import numpy as np

        distance = np.sqrt(np.sum((self._where - place) ** 2, axis=1))
        nearer = distance < self._distance
        self._distance[nearer], self._error[nearer] = distance[nearer], error

    @property
    def best(self) -> float:
        """What the best candidate is worth; minus infinity where none is left."""
        return float(self._worth().max())

    def _worth(self) -> Any:
        import numpy as np

        return np.where(self._taken, -np.inf, self._distance * self._error)

    def take(self) -> OpKey:
        best = int(self._worth().argmax())
        self._taken[best] = True
        self._learn(self._where[best], float(self._error[best]))
        return self.keys[best]
