"""What both writers of bundles share: which kernels a model holds and where, and the sizes that keys tell.

A bundle is one model that holds many unrelated kernels side by side, so that each finds its weights as cold as a network
leaves them. `producers`: an op writes each kernel's input just before it; `consumers`: an op shrinks its output just after.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latency_luts import OpKey
from pipeline.errors import UnsupportedOp

MAX_KERNELS = 60
"""Of one bundle: the on-device runner takes 64 inputs and outputs of a model."""

MAX_MODEL_BYTES = 1 << 29
FIRST_LAYER_CHANNELS = 3

ORDER_OCTAVES = 2.0
"""Kernels whose tensors differ by less than so many doublings may stand in either order."""

CHAIN_LENGTH, CHAIN_SIDE, CHAIN_STEP, CHAIN_WIDTHS = 64, 7, 16, 8

POOL = 1 << 18
"""So many different random numbers; larger weights repeat them."""


@dataclass(frozen=True)
class BundlePlan:
    """What was written.

    Args:
        keys: the kernels, in the order of their branches in the file.
        places: for each of them the name under which `pipeline.kernels` finds its op in the file.
        model_bytes: of the file.
        producers, consumers: what was asked for; a kernel that would be another without one has its own all the same.
    """

    keys: tuple[OpKey, ...]
    places: tuple[str, ...]
    model_bytes: int
    producers: bool
    consumers: bool

    def by_place(self) -> dict[str, OpKey]:
        return dict(zip(self.places, self.keys, strict=True))


def ordered(keys: Sequence[OpKey], order_seed: int, *, random_order: bool) -> list[OpKey]:
    """The order in which the branches run.

    From large tensors to small ones, as in a network, where the same memory serves kernels of about the same size one after
    the other; the seed says which of about the same size stand beside each other. `random_order`: any order at all.

    Raises: UnsupportedOp: no kernel at all, too many, or one that is not float32.
    """
    if not 1 <= len(keys) <= MAX_KERNELS:
        raise UnsupportedOp(f"a bundle was asked with {len(keys)} kernels", try_=f"1 to {MAX_KERNELS}")
    for key in keys:
        if key.dtype != "float32":
            raise UnsupportedOp(f"a bundle was asked with {key}", try_="float32 kernels")
    rng = random.Random(order_seed)
    places = [0.0 if random_order else -math.log2(max(1, activation_bytes(key))) for key in keys]
    mixed = [place + rng.uniform(0, ORDER_OCTAVES) for place in places]
    return [key for _, key in sorted(zip(mixed, keys, strict=True), key=lambda pair: pair[0])]


def chain_keys(seed: int) -> list[OpKey]:
    """Small 1x1 convolutions that follow each other, from a fraction of a µs to some ten of them.

    A chain of them tells what the profiler adds to a kernel: it is short, so that it is timed without disturbance on a busy
    device too, and its kernels' times differ, so that what whole µs cut off is cut off on average.
    """
    rng = random.Random(seed)
    widths = [CHAIN_STEP * rng.randint(1, CHAIN_WIDTHS) for _ in range(CHAIN_LENGTH + 1)]
    return [
        OpKey("conv2d", (1, c_in, CHAIN_SIDE, CHAIN_SIDE), c_out, dtype="float32")
        for c_in, c_out in itertools.pairwise(widths)
    ]


def unsupported(key: OpKey, form: str, why: str = "") -> UnsupportedOp:
    return UnsupportedOp(f"no {form} model of one kernel can be written for {key}{': ' if why else ''}{why}")


def is_first_layer(key: OpKey) -> bool:
    """Whether a kernel reads a network's input: nothing wrote that just before, so that it is cold."""
    return key.op == "conv2d" and key.groups == 1 and key.input_shape[1] <= FIRST_LAYER_CHANNELS


def details(key: OpKey) -> dict[str, str]:
    """A key's `detail` by its words: {"axes": "2,3"}."""
    return dict(word.split("=", 1) for word in key.detail.split(" ") if "=" in word)


def ints(text: str, separator: str = ",") -> tuple[int, ...]:
    """Raises: ValueError: it holds anything but whole numbers."""
    return tuple(int(part) for part in text.split(separator)) if text else ()


def shape_of(text: str) -> tuple[int, ...]:
    """As in "1x72x1x1"; () for "scalar"."""
    return () if text == "scalar" else ints(text, "x")


def conv_output(key: OpKey) -> tuple[int, int]:
    """Height and width of what a convolution or a pooling gives. Raises: UnsupportedOp: nothing is left of its input."""
    top, left, bottom, right = key.padding
    sides = []
    for axis, pads in ((0, top + bottom), (1, left + right)):
        span = (key.kernel[axis] - 1) * key.dilation[axis] + 1
        sides.append((key.input_shape[2 + axis] + pads - span) // key.stride[axis] + 1)
    if min(sides) < 1:
        raise unsupported(key, "whole", "its window is larger than its input")
    return sides[0], sides[1]


def weight_bytes(key: OpKey) -> int:
    """Weights and bias of a convolution or a linear layer, 4 bytes each; 0 for other kernels."""
    if key.op == "conv2d":
        return 4 * key.out_channels * (1 + key.input_shape[1] // key.groups * math.prod(key.kernel))
    return 4 * key.out_channels * (1 + key.input_shape[-1]) if key.op == "linear" else 0


def activation_bytes(key: OpKey) -> int:
    """Input and output together, an output like the input where the key does not tell."""
    size = math.prod(key.input_shape)
    if key.op == "conv2d":
        return 4 * (size + key.out_channels * math.prod(conv_output(key)))
    return 4 * (size + key.out_channels) if key.op == "linear" else 8 * size


@functools.cache
def _pool() -> Any:
    import numpy as np

    return np.random.default_rng(1).uniform(0.01, 0.02, POOL).astype(np.float32)


def numbers(shape: Sequence[int], seed: int) -> Any:
    """float32 of 0.01 ... 0.02: no denormals, and what sums over thousands of them stays small.

    The same few random numbers over and over, from a place that the seed tells: their values do not change a kernel's time.
    """
    import numpy as np

    pool = _pool()
    return np.resize(np.roll(pool, -(seed * 7919) % POOL), tuple(shape))


def activation_numbers(activation: str) -> tuple[str, tuple[float, ...]]:
    """A key's activation: its name and its numbers, as in "clip(-1,1)" -> ("clip", (-1.0, 1.0))."""
    name, _, rest = activation.partition("(")
    return name, tuple(float(part) for part in rest.rstrip(")").split(",")) if rest else ()


def check_size(size: int, count: int) -> None:
    """Raises: UnsupportedOp: the model would be too large for one file."""
    if size > MAX_MODEL_BYTES:
        raise UnsupportedOp(
            f"a bundle of {count} weights would have {size >> 20} MiB",
            try_=f"fewer kernels in a bundle, at most {MAX_MODEL_BYTES >> 20} MiB together",
        )
