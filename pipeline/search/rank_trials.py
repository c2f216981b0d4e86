"""The trials of a rank search: what is stored of each, what is read back, and which of them are the front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import StorageError, UsageError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from pipeline.search.rank_space import Space

FACTS = "handset"
"""The attribute of a stored trial that holds what is not in its shares."""
LONGEST_WHY = 300


@dataclass(frozen=True)
class Trial:
    """One network that was tried.

    Args:
        ranks: of the layers that are decomposed.
        macs: as `pipeline.graph.count` counts.
        cost: in the unit of the search; None: it cannot be told, and `why`.
        coverage: the share of its kernels that was measured, 0 ... 1; None: its cost is not made of kernels.
        accuracy: 0 ... 1; None: it was not evaluated, because it is not feasible.
    """

    number: int
    ranks: Mapping[str, tuple[int, ...]]
    params: int
    macs: int
    cost: float | None
    coverage: float | None
    accuracy: float | None
    why: str = ""

    @property
    def feasible(self) -> bool:
        """Its cost is known and within the budget."""
        return self.accuracy is not None


def stored(trial: Trial) -> dict[str, Any]:
    """What `read` needs beside the shares."""
    return {
        "params": trial.params, "macs": trial.macs, "cost": trial.cost, "coverage": trial.coverage,
        "accuracy": trial.accuracy, "why": trial.why,
    }  # fmt: skip


def read(kept: FrozenTrial, space: Space) -> Trial:
    """Raises: StorageError: what is stored is not what `stored` wrote; others may write there too."""
    try:
        facts = kept.user_attrs[FACTS]
        cost, coverage, accuracy = (_number(facts[name]) for name in ("cost", "coverage", "accuracy"))
        if accuracy is not None and cost is None:
            raise ValueError("an accuracy without a cost")
        return Trial(
            kept.number, space.ranks(kept.params), int(facts["params"]), int(facts["macs"]), cost, coverage, accuracy,
            str(facts["why"])[:LONGEST_WHY],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise StorageError(f"trial {kept.number} of the study cannot be read", try_="another --study") from error


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        return None if value is None else float(value)
    raise ValueError("no number that a trial has")


def pareto(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The feasible ones that no other beats, by rising cost: nothing that costs as little is as accurate."""
    rated = [
        (one.cost, -one.accuracy, one.number, one)
        for one in trials
        if one.cost is not None and one.accuracy is not None
    ]
    front: list[Trial] = []
    best = -math.inf
    for _, negated, _, trial in sorted(rated, key=lambda one: one[:3]):
        if -negated > best:
            front.append(trial)
            best = -negated
    return tuple(front)
