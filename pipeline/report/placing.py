"""Where names can stand beside dots so that nothing covers anything: the nearest free place of some hundred."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Place = tuple[float, float]

_DIRECTIONS = (0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240)  # degrees, the most readable first
_DISTANCES = (9.0, 16.0, 26.0, 40.0, 58.0, 80.0, 110.0)


@dataclass(frozen=True)
class Box:
    """A rectangle in px; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float, radius: float) -> Box:
        return cls(x - radius, y - radius, x + radius, y + radius)

    @property
    def middle(self) -> Place:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def meets(self, other: Box) -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def holds(self, other: Box) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def nearest(self, place: Place) -> Place:
        return min(max(place[0], self.left), self.right), min(max(place[1], self.top), self.bottom)


def distance(box: Box, place: Place) -> float:
    return math.dist(box.nearest(place), place)


def beside(places: Sequence[Place], width: float, height: float, taken: Sequence[Box], frame: Box) -> Box | None:
    """A box of that size in the frame near one of the places that meets no other; None where there is none."""
    for box in _candidates(places, width, height):
        if frame.holds(box) and not any(box.meets(other) for other in taken):
            return box
    return None


def _candidates(places: Sequence[Place], width: float, height: float) -> Iterator[Box]:
    """All directions at one distance before the next one; a box touches the circle around its place."""
    for far in _DISTANCES:
        for x, y in places:
            for degrees in _DIRECTIONS:
                across, down = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
                middle_x = x + far * across + width / 2 * _side(across)
                middle_y = y + far * down + height / 2 * _side(down)
                yield Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2)


def _side(value: float) -> float:
    return 0.0 if abs(value) < 1e-9 else math.copysign(1.0, value)
