"""From values to places on an axis. Places are percents of the axis' width, so that a chart is as wide as its page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LOG_OVER = 20.0
"""A range of more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` (low < high; both positive where it is logarithmic)."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"no axis from {self.low} to {self.high}{' on a log scale' if self.log else ''}")

    def percent(self, value: float) -> float:
        """Where `value` stands, 0 ... 100; values outside stand at the end that they are nearest to."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return 100 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100 * (value - self.low) / (self.high - self.low)


def from_zero(values: Sequence[float], margin: float = 0.04) -> Scale:
    """A linear axis for lengths: from 0 to a little more than the largest value."""
    return Scale(0.0, max([*values, 0.0]) * (1 + margin) or 1.0)


def positions(values: Sequence[float]) -> Scale:
    """An axis for points: from 0, or logarithmic where the positive values span more than `LOG_OVER`."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > LOG_OVER * min(positive):
        return Scale(min(positive) / 1.3, max(positive) * 1.3, log=True)
    return from_zero(values)


def around(values: Sequence[float], margin: float = 0.04) -> Scale:
    """A linear axis that holds all values closely; a single value gets 1 % of room on either side."""
    if not values:
        return Scale(0.0, 1.0)
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.01 or 1.0
    return Scale(low - room, high + room)


def ticks(scale: Scale, target: int = 6) -> list[float]:
    """Round values inside the axis, growing, at most `target` + 1 of them; at least 2 where `target` is 4 or more.

    Linear: multiples of 1, 2 or 5 times a power of ten. Logarithmic: 1, 2, 5 or 1, 3 of each decade, or decades alone
    where these are too many, every second or third decade and so on where those are; where an axis is so short that it
    holds less than two of them, linear ones.
    """
    found = _decades(scale, target) if scale.log else []
    return found if len(found) >= 2 else _multiples(scale, target)


def _decades(scale: Scale, target: int) -> list[float]:
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    sparse = [((1,), stride) for stride in range(1, len(decades) + 1)]
    for leads, stride in (((1, 2, 5), 1), ((1, 3), 1), *sparse):
        values = [lead * 10.0**decade for decade in decades if decade % stride == 0 for lead in leads]
        values = [value for value in values if scale.low <= value <= scale.high]
        if len(values) <= target + 1:
            return values
    return []


def _multiples(scale: Scale, target: int) -> list[float]:
    """The multiples of the smallest round step that gives few enough."""
    power = 10.0 ** (math.floor(math.log10((scale.high - scale.low) / target)) - 1)
    for lead in (5, 10, 20, 50, 100, 200):
        first, last = math.ceil(scale.low / (lead * power)), math.floor(scale.high / (lead * power))
        if last - first <= target:
            break
    return [index * lead * power for index in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """The ticks as text, with as few decimals as tell them apart; over a long range each with its own decimals."""
    if len(values) > 1 and 0 < LOG_OVER * values[0] < values[-1]:
        return [f"{value:.6g}" for value in values]
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) if values else 0.0)
    for decimals in range(10):
        if all(abs(round(value, decimals) - value) <= step / 100 for value in values):
            return [f"{value:.{decimals}f}" for value in values]
    return [f"{value:.12g}" for value in values]
