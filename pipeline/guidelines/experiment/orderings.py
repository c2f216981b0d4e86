"""What is ordered otherwise on a device than in the paper, and whether a guideline holds there: pure functions.

Two networks are ordered here only where the intervals of their speeds do not overlap; in the paper where its printed speeds
differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"


@dataclass(frozen=True)
class Speed:
    """One network in one runtime, images/s.

    Args:
        label: as the paper calls it.
        here, interval: measured; None where it could not be.
    """

    label: str
    macs: int
    paper: float
    here: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Reversal:
    """Two networks whose order is not the paper's.

    Args:
        faster, slower: here.
        here: by how much the first is faster, 0.1 is 10 %. paper: by how much it is slower there, 0.1 is 10 %.
        fewer_macs: what `faster` has less of, as a share of the other's; negative where it has more.
        by_macs: with as many multiply-accumulates as the other it would not be faster: rounded channels explain it.
    """

    faster: str
    slower: str
    here: float
    paper: float
    fewer_macs: float
    by_macs: bool


@dataclass(frozen=True)
class Compared:
    """All pairs that the paper orders.

    Args:
        same: ordered so here too. open: their intervals overlap. reversals: the rest, clearest first.
    """

    same: int
    open: int
    reversals: tuple[Reversal, ...]


@dataclass(frozen=True)
class Judgement:
    """A claim on one device: HOLDS where all of its pairs are ordered so, FAILS where one is the other way round.

    Args:
        confirmed, against, open: pairs (faster, slower) as the claim has them.
    """

    verdict: str
    confirmed: tuple[tuple[str, str], ...]
    against: tuple[tuple[str, str], ...]
    open: tuple[tuple[str, str], ...]


def compare(speeds: Sequence[Speed]) -> Compared:
    """Each pair here against the paper; networks that could not be measured are in none."""
    same, unknown, reversals = 0, 0, []
    for one, other in itertools.combinations([speed for speed in speeds if speed.here is not None], 2):
        if one.paper == other.paper:
            continue
        first, second = (one, other) if one.paper > other.paper else (other, one)
        if surely_faster(first, second):
            same += 1
        elif surely_faster(second, first):
            reversals.append(_reversal(second, first))
        else:
            unknown += 1
    return Compared(same, unknown, tuple(sorted(reversals, key=lambda found: -found.here)))


def judge(speeds: Sequence[Speed], expected: Sequence[tuple[str, str]]) -> Judgement:
    """Whether each `faster` of the pairs is surely faster than its `slower`. Pairs that were not measured are open."""
    known = {speed.label: speed for speed in speeds}
    confirmed: list[tuple[str, str]] = []
    against: list[tuple[str, str]] = []
    unknown: list[tuple[str, str]] = []
    for pair in expected:
        faster, slower = (known[label] for label in pair)
        kind = confirmed if surely_faster(faster, slower) else against if surely_faster(slower, faster) else unknown
        kind.append(pair)
    verdict = FAILS if against else HOLDS if confirmed and not unknown else OPEN
    return Judgement(verdict, tuple(confirmed), tuple(against), tuple(unknown))


def surely_faster(one: Speed, other: Speed) -> bool:
    """Its interval lies above the other's."""
    return one.interval is not None and other.interval is not None and one.interval[0] > other.interval[1]


def _reversal(faster: Speed, slower: Speed) -> Reversal:
    assert faster.here is not None and slower.here is not None
    return Reversal(
        faster=faster.label,
        slower=slower.label,
        here=faster.here / slower.here - 1,
        paper=1 - faster.paper / slower.paper,
        fewer_macs=1 - faster.macs / slower.macs,
        by_macs=faster.here * faster.macs <= slower.here * slower.macs,
    )
