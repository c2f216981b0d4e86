"""What a table build measures, and in which order: pure functions of what is wanted and of what is known by then.

First what the networks have, and what they would have at other widths and resolutions. Then, for the kinds of kernels that
take a network's time, lines of dense channel counts, which show where latency steps. Then in rounds: kernels again whose
interval is too wide, and of what widths, kernel sizes, expansions and resolutions would make those where the table tells its
own kernels worst.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latency_luts import Entry, LatencyTable, OpKey
from pipeline.errors import UsageError
from pipeline.sweep.grid import Grid, variants
from pipeline.sweep.plan import COLD, WARM, Limits, next_points

LINE = (*range(24, 57), 64, 72, 80, 88, 96, 104, 112, 120, 128)
"""Channel counts of a line: every one where steps of up to 16 can show, and few beyond for steps of 32."""

LINE_KINDS = 6
"""Kinds of kernels that get lines, those with the most kernels first."""

WIDE_SHARE = 0.5
"""Of a round: what is given to kernels whose interval is too wide."""

LEAST_US = 5.0
"""Intervals of shorter kernels are not narrowed: whole µs hide more than further bundles tell."""

LARGEST = 2.0

UNTESTED_ERROR = 0.3
"""What is taken for the error of a kernel that no others surround, so that nothing is known of it."""


@dataclass(frozen=True)
class Round:
    """`copies`: bundles for each kernel; `limits`: of each bundle; `purpose`: what for.

    Kernels are cold in what "networks", "relatives", "staircases", "explore" and "narrow" measure, warm in that of "warm", and
    in that of "states" between.
    """

    purpose: str
    keys: tuple[OpKey, ...]
    copies: int = 2
    limits: Limits = COLD


def lines(own: Sequence[OpKey], kinds: int = LINE_KINDS) -> list[OpKey]:
    """Kernels that differ from a usual one in one channel count only, for the commonest kinds of convolutions and layers."""
    groups: dict[tuple[object, ...], list[OpKey]] = {}
    for key in own:
        if (kind := _kind(key)) is not None:
            groups.setdefault(kind, []).append(key)
    found: dict[OpKey, None] = {}
    for kind in sorted(groups, key=lambda kind: -len(groups[kind]))[:kinds]:
        usual = _usual(groups[kind])
        for count in LINE:
            found.update(dict.fromkeys(_at(usual, count)))
    return list(found)


def _kind(key: OpKey) -> tuple[object, ...] | None:
    """What decides a kernel's code, whatever its activation; None for what has no line."""
    if key.op == "linear" and len(key.input_shape) == 2:
        return ("linear",)
    if key.op != "conv2d" or key.input_shape[1] <= 3 or key.groups not in (1, key.input_shape[1]):
        return None
    return (key.op, key.groups > 1, key.kernel, key.stride)


def _usual(keys: Sequence[OpKey]) -> OpKey:
    """With the commonest activation, and the middle one of those by size."""
    activation, _ = Counter(key.activation for key in keys).most_common(1)[0]
    alike = sorted((key for key in keys if key.activation == activation), key=lambda key: math.prod(key.input_shape))
    return alike[len(alike) // 2]


def _at(key: OpKey, count: int) -> list[OpKey]:
    shape = key.input_shape
    if key.op == "linear":
        return [
            dataclasses.replace(key, input_shape=(shape[0], 64), out_channels=count),
            dataclasses.replace(key, input_shape=(shape[0], count), out_channels=64),
        ]
    if key.groups > 1:
        times = max(1, key.out_channels // shape[1])
        return [
            dataclasses.replace(key, input_shape=(shape[0], count, *shape[2:]), out_channels=times * count, groups=count)
        ]
    return [
        dataclasses.replace(key, input_shape=(shape[0], 64, *shape[2:]), out_channels=count),
        dataclasses.replace(key, input_shape=(shape[0], count, *shape[2:]), out_channels=64),
    ]


def candidates(own: Sequence[OpKey], grid: Grid, table: LatencyTable) -> list[OpKey]:
    """What the grid makes of the networks' kernels, denser at the steps that the table has found.

    Left out is what has over LARGEST times the work of any kernel of its op that the networks have.

    Raises: UsageError: these are more than the grid allows.
    """
    steps: dict[str, list[int]] = {}
    for stair in table.staircases:
        steps.setdefault(stair.family.partition("[")[0], []).append(stair.step)
    found = {op: Counter(each).most_common(1)[0][0] for op, each in steps.items()}
    most: dict[str, int] = {}
    for key in own:
        most[key.op] = max(most.get(key.op, 0), _size(key))
    try:
        made = variants(own, dataclasses.replace(grid, stairs={**found, **grid.stairs}))
    except UsageError:  # the steps alone make it too many
        made = variants(own, grid)
    return [key for key in made if _size(key) <= LARGEST * most[key.op]]


def _size(key: OpKey) -> int:
    """Multiply-accumulates of a convolution before its stride, elements of anything else."""
    taps = math.prod(key.kernel) * key.out_channels // key.groups if key.op in ("conv2d", "linear") else 1
    return math.prod(key.input_shape) * max(1, taps)


def wide(entries: Sequence[Entry], interval: float) -> list[OpKey]:
    """Kernels whose interval is wider than asked, those that hide most ns first. Args: interval: half-width, a share."""
    found = [
        ((entry.interval_ns[1] - entry.interval_ns[0]) / 2, entry.key)
        for entry in entries
        if entry.latency_ns_median >= 1e3 * LEAST_US
        and (entry.interval_ns[1] - entry.interval_ns[0]) / 2 > interval * entry.latency_ns_median
    ]
    return [key for _, key in sorted(found, key=lambda pair: -pair[0])]


def next_round(
    table: LatencyTable, points: Sequence[OpKey], slots: int, interval: float, given_up: Mapping[OpKey, str]
) -> list[Round]:
    """The best use of `slots` kernels in bundles; none where nothing is left to learn.

    Args: given_up: kernels that cannot be measured.
    """
    again = wide(table.entries, interval)[: int(slots * WIDE_SHARE) if points else slots]
    errors = dict.fromkeys((entry.key for entry in table), UNTESTED_ERROR) | table.left_out_errors()
    for entry in table:  # shares of what takes next to nothing are large, and matter to no network
        errors[entry.key] *= min(1.0, entry.latency_ns_median / (1e3 * LEAST_US))
    errors |= dict.fromkeys(given_up, 0.0)
    new = next_points(points, errors, (slots - len(again)) // 2)
    rounds = [
        Round("explore", tuple(new), 2),
        Round("warm", tuple(new), 1, WARM),
        Round("narrow", tuple(again), 1),
    ]
    return [one for one in rounds if one.keys]


def error_of(table: LatencyTable) -> float | None:
    """The leave-one-out error over all kernels that lie between others, each with the weight of its time, as in a network's
    sum; None where there are none. What takes less than a clock can tell may be off by any factor.
    """
    errors = table.left_out_errors()
    known = [(entry.latency_ns_median, errors[entry.key]) for entry in table if entry.key in errors]
    total = sum(ns for ns, _ in known)
    return math.sqrt(sum(ns * error**2 for ns, error in known) / total) if total else None


def expected_error(history: Sequence[tuple[int, float]], count: int) -> float | None:
    """The error with `count` kernels, from (kernels, error) of the rounds so far: a power law, never rising.

    None for fewer than two rounds.
    """
    if len(history) < 2:
        return None
    (first, before), (last, now) = history[0], history[-1]
    if not last > first or min(before, now) <= 0:
        return now
    slope = min(0.0, math.log(now / before) / math.log(last / first))
    return now * (max(count, last) / last) ** slope
