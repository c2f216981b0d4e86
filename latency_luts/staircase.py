"""At which numbers of channels a kernel family's latency jumps: pure functions of what was measured.

Channels are computed in blocks (of a vector's width, of a tile), so latency grows in steps, and only the last number of
channels of a step is worth choosing. A *line* is the kernels of one family that differ along one axis of channels only. For
a step p every line is described twice, in relative terms: by a smooth curve alone (a cubic, times one that is straight
between knots p or 2p apart), and by that curve and two more terms that all lines share, the waste ceil(n / p) p - n of a
partly filled block and a surcharge wherever p does not divide n. Steps of p are there if the two terms explain more than
noise can (an F test, its noise never below what the entries' own intervals say, at SIGNIFICANCE divided by the steps tried)
and make the latency jump by MIN_JUMP or more. A curve or a bend is followed by the knots and is no step: of 15,360 simulated
lines that are smooth, kinked or jump once, 13 were called a staircase, each for one sharp bend or jump between few points.
Numbers of channels that are all multiples of p cannot show it. Of several steps the one that leaves least is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from latency_luts.errors import InvalidTable
from latency_luts.family import LEAST_NS, member
from latency_luts.key import OpKey, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latency_luts.entry import Entry
    from latency_luts.table import LatencyTable

STEPS = (2, 4, 8, 16, 32, 64)
SIGNIFICANCE = 1e-6
MIN_JUMP = 0.01
"""The mean jump at the end of a step, as a share of the latency there."""

MIN_POINTS = 8  # of a line
MAX_LINES = 40  # of one family and axis: the longest are looked at
MIN_FREE = 6
"""Points left over when all terms are fitted; with fewer nothing is said."""

MAX_STAIRCASES = 10_000  # that a file may hold
MAX_JUMPS = 1_000
AXES = ("c_in", "c_out", "channels")


class Jump(NamedTuple):
    """`at`: the last number of channels of a step; `ratio`: by how much the next measured number beyond is slower, above 0."""

    at: int
    ratio: float


@dataclass(frozen=True)
class Staircase:
    """Args:
        family: see `latency_luts.family`, without alignment: steps are what tells alignments apart.
        axis: of AXES: which number of channels.
        step: of STEPS.
        jumps: rising; where two measured numbers of channels stand on both sides of a step's end.
        gain: the share of what a smooth curve leaves unexplained that the steps explain, 0 ... 1.

    Raises:
        InvalidTable: a field has the wrong type or is out of range.
    """  # fmt: skip

    family: str
    axis: str
    step: int
    jumps: tuple[Jump, ...]
    gain: float

    def __post_init__(self) -> None:
        if not isinstance(self.family, str) or len(self.family) > 1000 or not self.family.isprintable():
            raise _invalid("family", self.family, "a printable text of at most 1000 characters")
        if self.axis not in AXES:
            raise _invalid("axis", self.axis, f"one of {', '.join(AXES)}")
        if type(self.step) is not int or self.step not in STEPS:
            raise _invalid("step", self.step, f"one of {', '.join(map(str, STEPS))}")
        if not isinstance(self.gain, float) or not 0 <= self.gain <= 1:
            raise _invalid("gain", self.gain, "a number of 0 ... 1")
        if not isinstance(self.jumps, tuple) or len(self.jumps) > MAX_JUMPS or not all(map(self._is_jump, self.jumps)):
            raise _invalid(
                "jumps", self.jumps, f"at most {MAX_JUMPS} jumps, each at a step's end and with a ratio above 0"
            )

    def _is_jump(self, jump: object) -> bool:
        if not isinstance(jump, Jump) or type(jump.at) is not int or type(jump.ratio) is not float:
            return False
        return jump.at > 0 and jump.at % self.step == 0 and 0 < jump.ratio < 1e9


class Line(NamedTuple):
    """Kernels that differ in one number of channels: (points,) each; `spread` is a standard error as a share of `ns`."""

    counts: NDArray[np.float64]
    ns: NDArray[np.float64]
    spread: NDArray[np.float64]


def find(entries: Iterable[Entry] | LatencyTable) -> tuple[Staircase, ...]:
    """The staircases of all families, in the order of their texts; families that are too small or smooth have none."""
    lines: dict[tuple[str, str], dict[tuple[int, ...], list[tuple[int, float, float]]]] = {}
    for text, ns, low, high in _points(entries):
        place = member(text)
        if place is None or ns < LEAST_NS:
            continue
        for index, axis in enumerate(place.axes[: len(place.aligned)]):
            fixed = place.at[:index] + place.at[index + 1 :]
            point = (place.at[index], ns, (high - low) / 2 / 1.96 / ns)
            lines.setdefault((place.family, axis), {}).setdefault(fixed, []).append(point)
    found = []
    for (family, axis), each in sorted(lines.items()):
        longest = sorted((points for points in each.values() if len(points) >= MIN_POINTS), key=len, reverse=True)
        detected = detect([_line(points) for points in longest[:MAX_LINES]])
        if detected is not None:
            found.append(Staircase(family, axis, *detected))
    return tuple(found)


def detect(lines: Sequence[Line]) -> tuple[int, tuple[Jump, ...], float] | None:
    """(step, jumps, gain) of lines that share their steps; None where they are smooth, too noisy or too few."""
    best: tuple[float, int, float] | None = None
    for step in STEPS:
        trial = _trial(lines, step)
        if trial is not None and (best is None or trial[0] < best[0]):
            best = (trial[0], step, trial[1])
    return None if best is None else (best[1], _jumps(lines, best[1]), best[2])


def round_channels(count: int, step: int | Staircase) -> int:
    """The largest number of channels up to `count` that ends a step; `count` itself where that is below the first step's end.

    Raises:
        ValueError: count or step is below 1.
    """
    width = step.step if isinstance(step, Staircase) else step
    if count < 1 or width < 1:
        raise ValueError(f"rounding {count} channels to steps of {width} was asked; both must be at least 1")
    return count // width * width or count


def steps(staircases: Iterable[Staircase], key: OpKey) -> dict[str, int]:
    """axis -> step for each number of channels of a kernel (see `latency_luts.family`); 1 where no step was found."""
    place = member(str(key))
    if place is None:
        return {}
    known = {each.axis: each.step for each in staircases if each.family == place.family}
    return {axis: known.get(axis, 1) for axis in place.axes[: len(place.aligned)]}


def _points(entries: Iterable[Entry] | LatencyTable) -> Iterable[tuple[str, float, float, float]]:
    from latency_luts.columns import Columns

    entries = getattr(entries, "entries", entries)
    if isinstance(entries, Columns):
        numbers = (values.tolist() for values in (entries.medians, entries.lows, entries.highs))
        return zip(entries.texts, *numbers, strict=True)
    return ((str(each.key), each.latency_ns_median, *each.interval_ns) for each in entries)


def _line(points: list[tuple[int, float, float]]) -> Line:
    import numpy as np

    counts, ns, spread = np.array(sorted(points), dtype=np.float64).T
    return Line(counts, ns, spread)


def _trial(lines: Sequence[Line], step: int) -> tuple[float, float] | None:
    """(variance left, gain) where steps of this width are there, else None."""
    import numpy as np
    from scipy.special import fdtrc

    left, terms, noise, slopes, free = [], [], [], [], -2
    for line in lines:
        counts = line.counts
        if counts[-1] - counts[0] < 3 * step or len(set(counts % step)) < 2:
            continue
        slope = float(np.polynomial.Polynomial.fit(counts, line.ns, 1, w=1 / line.ns).deriv()(0.0)) * counts / line.ns
        smooth = _smooth(counts, step)
        if len(counts) - smooth.shape[1] < 2:
            continue
        waste = (np.ceil(counts / step) * step - counts) / counts * slope
        pair = np.stack([waste, (counts % step != 0).astype(np.float64)], axis=1)
        y = np.log(line.ns / _level(line))
        fit, *_ = np.linalg.lstsq(smooth, np.column_stack([y, pair]), rcond=None)
        rest = np.column_stack([y, pair]) - smooth @ fit
        left.append(rest[:, 0])
        terms.append(rest[:, 1:])
        noise.append(line.spread**2)
        slopes.append(slope[counts > step] * step / counts[counts > step])
        free += len(counts) - smooth.shape[1]
    if free < MIN_FREE:
        return None
    y, pair = np.concatenate(left), np.concatenate(terms)
    weights, _, rank, _ = np.linalg.lstsq(pair, y, rcond=1e-6)
    before, after = float(y @ y), float(np.sum((y - pair @ weights) ** 2))
    variance = max(after / free, float(np.median(np.concatenate(noise))), 1e-12)
    chance = float(fdtrc(max(int(rank), 1), free, (before - after) / max(int(rank), 1) / variance))
    # One channel beyond the end of a step: all but one channel of a new block are wasted, and p divides no more.
    jump = float(np.mean(weights[0] * np.concatenate(slopes) * (step - 1) / step + weights[1]))
    gain = min(max(1 - after / before, 0.0), 1.0) if before else 0.0
    if chance > SIGNIFICANCE / len(STEPS) or jump < MIN_JUMP:
        return None
    return variance, gain


def _level(line: Line) -> NDArray[np.float64]:
    """A cubic through the latencies, which takes the curvature of small numbers of channels away; ones where it falls to 0."""
    import numpy as np

    level = np.asarray(np.polynomial.Polynomial.fit(line.counts, line.ns, 3, w=1 / line.ns)(line.counts))
    return level if (level > 0).all() else np.ones(len(level))


def _smooth(counts: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """(points, terms): log n, its square, and curves that are straight between the middles of steps.

    Between every other middle where there are many steps; a single bend can look like a few.
    """
    import numpy as np

    spacing = step * (2 if counts[-1] - counts[0] >= 8 * step else 1)
    knots = np.arange(counts[0] // step * step - 2 * spacing, counts[-1] + 3 * spacing, spacing) + step / 2
    hats = np.maximum(0.0, 1 - np.abs(counts[:, None] - knots) / spacing)
    log = np.log(counts)
    return np.column_stack([hats[:, hats.any(axis=0)], log, log**2])


def _jumps(lines: Sequence[Line], step: int) -> tuple[Jump, ...]:
    """At each end of a step: the median over the lines of the first time beyond it over the last before it."""
    import numpy as np

    ratios: dict[int, list[float]] = {}
    for line in lines:
        block = np.ceil(line.counts / step)
        for index in np.flatnonzero(np.diff(block) == 1):
            ratios.setdefault(int(block[index]) * step, []).append(float(line.ns[index + 1] / line.ns[index]))
    return tuple(Jump(at, float(np.median(each))) for at, each in sorted(ratios.items())[:MAX_JUMPS])


def _invalid(name: str, value: object, wanted: str) -> InvalidTable:
    return InvalidTable(f"a staircase was asked with {name}={short(value)}, which is not {wanted}")
