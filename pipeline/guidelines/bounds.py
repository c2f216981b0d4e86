"""The closed forms of ShuffleNetV2's section 2: memory access of a 1x1 convolution, and the least that it can be.

B are the multiply-accumulates, all else are elements; what the paper calls MAC is `memory_access` here.
"""

from __future__ import annotations

import math

from pipeline.errors import UsageError


def pointwise_memory_access(h: int, w: int, c_in: int, c_out: int, groups: int = 1) -> int:
    """Elements that a 1x1 convolution of stride 1 moves: h w (c_in + c_out) + c_in c_out / groups.

    Args: all at least 1; groups divides both channels.

    Raises: UsageError: one of them is out of its range.

    Reference: equations 1 (groups = 1) and 2.
    """
    for name, value in (("h", h), ("w", w), ("c_in", c_in), ("c_out", c_out), ("groups", groups)):
        _check(name, value)
    if c_in % groups or c_out % groups:
        raise UsageError(
            f"memory access was asked with groups={groups}, which does not divide {c_in} channels in and {c_out} out"
        )
    return h * w * (c_in + c_out) + c_in * c_out // groups


def memory_access_bound(h: int, w: int, macs: int) -> float:
    """Elements that no 1x1 convolution with so many multiply-accumulates stays below: 2 sqrt(h w B) + B / (h w).

    It is reached where channels in and out are equal, and then exact: no rounding makes it larger than what is bounded.

    Args: all at least 1.

    Raises: UsageError: one of them is out of its range.

    Reference: the inequality below equation 1.
    """
    for name, value in (("h", h), ("w", w), ("macs", macs)):
        _check(name, value)
    return balanced_memory_access(h, w, macs, 1)


def balanced_memory_access(h: int, w: int, macs: int, groups: int) -> float:
    """The same for convolutions of so many groups: 2 sqrt(h w B g) + B / (h w), from equation 2 by the same inequality."""
    square = h * w * macs * groups
    root = math.isqrt(square)
    return 2 * (root if root * root == square else math.sqrt(square)) + macs / (h * w)


def ungrouped_memory_access(moved: int, weights: int, groups: int) -> float:
    """Elements that a convolution moves without groups where all channels shrink by sqrt(groups): Table 2's comparison.

    Multiply-accumulates and weights stay what they were.

    Args: moved: elements of its input and its output. weights: those of its weight.
    """
    return moved / math.sqrt(groups) + weights


def _check(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise UsageError(f"memory access was asked with {name}={str(value)[:40]}, which is not a whole number above 0")
