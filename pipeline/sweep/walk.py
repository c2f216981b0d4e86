"""Small and large networks that nobody asked about: random walks through convolutions that fit behind each other.

They are written directly, as bundles are, and timed end to end. What their kernels take as a network, beside what the same
kernels take in small and in large bundles, tells how the length of a network changes the time of its kernels: no network that
a table is asked about later is needed for that.
"""

from __future__ import annotations

import math
import random

from latency_luts import OpKey
from pipeline.kernels.file_op import same_padding

WIDTHS = {56: (16, 24, 64), 28: (24, 64, 144), 14: (64, 144, 256), 7: (144, 256, 512)}
"""Side -> channels: a strided kernel keeps its channels, so that neighbouring sides share some."""
SHORTEST, LONGEST = 2, 100
"""Kernels of a walk behind its first: from a tenth of a small mobile network to a large one."""
DENSE_MACS = 40e6
"""A dense 3x3 of more multiply-accumulates would take as long as a walk."""
STRIDE, DENSE = 0.12, 0.15
"""How often a walk goes on at half the side, and with a dense 3x3 instead of a depthwise one."""


def walks(count: int, seed: int = 0) -> list[tuple[OpKey, ...]]:
    """So many networks, evenly from short to long ones on a logarithmic scale, in a random order."""
    rng = random.Random(seed)
    span = math.log(LONGEST / SHORTEST)
    lengths = [round(SHORTEST * math.exp(span * (number + 0.5) / count)) for number in range(count)]
    rng.shuffle(lengths)
    return [_walk(length, rng) for length in lengths]


def _walk(length: int, rng: random.Random) -> tuple[OpKey, ...]:
    side = rng.choice(tuple(WIDTHS)[:-1])
    keys, width = [_stem(side)], WIDTHS[side][0]
    while len(keys) <= length:
        if rng.random() < STRIDE and width in WIDTHS.get(side // 2, ()):
            keys.append(_depthwise(side, width, 2))
            side //= 2
        elif keys[-1].kernel == (1, 1):
            dense = rng.random() < DENSE and 9 * (width * side) ** 2 <= DENSE_MACS
            keys.append(_dense(side, width) if dense else _depthwise(side, width, 1))
        else:
            keys.append(_pointwise(side, width, width := rng.choice(WIDTHS[side])))
    return tuple(keys)


def _stem(side: int) -> OpKey:
    return _conv(2 * side, 3, WIDTHS[side][0], 3, 2, 1)


def _pointwise(side: int, c_in: int, c_out: int) -> OpKey:
    return _conv(side, c_in, c_out, 1, 1, 1)


def _depthwise(side: int, width: int, stride: int) -> OpKey:
    return _conv(side, width, width, 3, stride, width)


def _dense(side: int, width: int) -> OpKey:
    return _conv(side, width, width, 3, 1, 1)


def _conv(side: int, c_in: int, c_out: int, kernel: int, stride: int, groups: int) -> OpKey:
    before, after = same_padding(side, kernel, stride, 1)  # what both formats can say without a kernel of its own
    return OpKey(
        "conv2d", (1, c_in, side, side), c_out, (kernel, kernel), (stride, stride), (before, before, after, after),
        groups=groups, activation="relu", dtype="float32",
    )  # fmt: skip
