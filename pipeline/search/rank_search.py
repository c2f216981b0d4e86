"""Rank search: which ranks of which layers, as a Pareto front of accuracy against milliseconds or MACs.

    shares  ─►  ranks  ─►  structure  ─►  cost  ─►  decomposed network  ─►  accuracy
    (Optuna)    (Space)                   (caller)  (within the budget)     (caller)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.search.rank_space import Shares, Space, decomposed, outlined, space_of
from pipeline.search.rank_study import open_study, storage_errors, suggest
from pipeline.search.rank_trials import FACTS, LONGEST_WHY, Trial, pareto, read, stored

if TYPE_CHECKING:
    from optuna import Study
    from torch import Tensor, nn


@dataclass(frozen=True)
class Price:
    """What a network costs.

    Args:
        cost: None: it cannot be told, and `why`.
        coverage: the share of its kernels that was measured, 0 ... 1.
    """

    cost: float | None
    coverage: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Ranked:
    """Args: trials: all of the study. front: those that no other beats, by rising cost. stopped: by Ctrl-C, early."""

    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    stopped: bool = False


Evaluate = Callable[["nn.Module"], float]
Cost = Callable[["nn.Module"], "float | Price"]
Judge = Callable[[int, Mapping[str, tuple[int, ...]]], Trial]


class RankSearch:
    """Optuna over the ranks of all layers that a method makes smaller, with accuracy and cost as objectives.

    Each rank is a share of its full rank, 1/32 ... 1 in steps of 1/32; a layer of shares 1 stays as it is. Networks over the
    budget, or without a price, are not evaluated: to the sampler they are constraints that are not met. A network that comes
    up again is not evaluated again.

    Args:
        method: "tucker2" (both ranks of a layer apart), "svd" or "cp".
        trials: that the study has at the end, with those that it had before and those of other machines.
        budget: of the cost; None: none.
        seed: of what is tried; the same seed tries the same, also after a stop.
        storage: a database's URL; None: in memory. study: its name in there.
        about: what else all trials of a stored study must have in common: data, table and so on.
    """

    def __init__(
        self, *, method: str = "tucker2", trials: int = 100, budget: float | None = None, seed: int = 0,
        storage: str | None = None, study: str = "ranks", about: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        if trials < 1:
            raise UsageError(f"a rank search was asked with {trials} trials", try_="1 or more")
        if budget is not None and not 0 < budget < math.inf:
            raise UsageError(f"a rank search was asked with a budget of {budget}", try_="a number above 0")
        if seed < 0:
            raise UsageError(f"a rank search was asked with the seed {seed}", try_="0 or more")
        self.method, self.trials, self.budget, self.seed = method, trials, budget, seed
        self.storage, self.study, self.about = storage, study, dict(about or {})

    def run(
        self, model: nn.Module, example: Tensor | Sequence[int], evaluate: Evaluate, cost: Cost,
        on_trial: Callable[[Trial, int], None] | None = None,
    ) -> Ranked:  # fmt: skip
        """Searches until the study has its trials. Ctrl-C ends that early and is not raised.

        Args:
            example: a tensor of the input's shape, or the shape.
            evaluate: accuracy of a network, 0 ... 1. The network is a copy: it may calibrate it or train it.
            cost: asked of each network before it is decomposed: of its structure, with zeros for the weights of new layers.
            on_trial: told each new trial, and how many there are.

        Raises:
            UsageError: there is no such method, nothing to decompose, no such storage, a stored study of something else, or
                a budget that no trial met.
            ModelError: the network fails on the example. StorageError: the storage failed.
        """
        from pipeline.graph import count

        space = space_of(self.method, model)
        study = open_study(self.storage, self.study, self._about(model, example))
        starts = list(space.starts(model))

        def judge(number: int, ranks: Mapping[str, tuple[int, ...]]) -> Trial:
            outline = outlined(model, self.method, ranks)
            counts, price = count(outline, example), _price(cost(outline))
            kept = price.cost is not None and (self.budget is None or price.cost <= self.budget)
            accuracy = _accuracy(evaluate(decomposed(model, self.method, ranks))) if kept else None
            why = price.why[:LONGEST_WHY]
            return Trial(number, ranks, counts.params, counts.macs, price.cost, price.coverage, accuracy, why)

        known: dict[int, Trial] = {}
        stopped = False
        try:
            while _catch_up(known, study, space) < self.trials:
                trial = self._try(study, space, starts, known, judge)
                if on_trial is not None:
                    on_trial(trial, len(known) + 1)
        except KeyboardInterrupt:
            stopped = True
            _catch_up(known, study, space)
        front = pareto(known.values())
        if not front and not stopped:
            raise self._in_vain(list(known.values()))
        return Ranked(tuple(known.values()), front, stopped)

    def _about(self, model: nn.Module, example: Tensor | Sequence[int]) -> dict[str, str]:
        shape = "x".join(str(int(size)) for size in getattr(example, "shape", example))
        budget = "none" if self.budget is None else repr(float(self.budget))
        return {"method": self.method, "network": f"{_digest(model)} on {shape}", "budget": budget, **self.about}

    def _try(
        self, study: Study, space: Space, starts: Sequence[Shares], known: Mapping[int, Trial], judge: Judge
    ) -> Trial:
        """One more trial, told to the study: as failed where it is cut off, so that another is tried instead."""
        from optuna.trial import TrialState

        with storage_errors():
            asked = study.ask()
        try:
            with storage_errors():
                ranks = space.ranks(suggest(study, asked, space.names, starts, self.seed))
            same = next((one for one in known.values() if one.ranks == ranks), None)
            trial = judge(asked.number, ranks) if same is None else dataclasses.replace(same, number=asked.number)
            with storage_errors():
                asked.set_user_attr(FACTS, stored(trial))
                asked.set_constraint("no price", float(trial.cost is None))
                if self.budget is not None:
                    asked.set_constraint("over the budget", 0.0 if trial.cost is None else trial.cost / self.budget - 1)
                values = (trial.accuracy or 0.0, math.inf if trial.cost is None else trial.cost)
                study.tell(asked, values, TrialState.COMPLETE)
        except BaseException:
            with contextlib.suppress(Exception):  # the storage itself may be what failed
                study.tell(asked, state=TrialState.FAIL)
            raise
        return trial

    def _in_vain(self, trials: Sequence[Trial]) -> UsageError:
        costs = [trial.cost for trial in trials if trial.cost is not None]
        if not costs:
            return UsageError(f"no network that was tried has a price: {trials[0].why}", try_="another table")
        what = f"no trial of {len(trials):,} meets the budget of {self.budget:.6g}: the smallest costs {min(costs):.6g}"
        return UsageError(what, try_=f"a budget of {min(costs):.6g} or more")


def _catch_up(known: dict[int, Trial], study: Study, space: Space) -> int:
    """Adds what was finished here and elsewhere since; how many there are then."""
    from optuna.trial import TrialState

    with storage_errors():
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    known |= {one.number: read(one, space) for one in finished if one.number not in known}
    return len(known)


def _price(given: float | Price) -> Price:
    """Raises: UsageError: it is no cost."""
    price = given if isinstance(given, Price) else Price(float(given))
    if price.cost is not None and not 0 <= price.cost < math.inf:
        raise UsageError(f"a network was priced at {price.cost}", try_="a cost function that gives numbers")
    return price


def _accuracy(value: float) -> float:
    """Raises: UsageError: it is none."""
    if not 0 <= value <= 1:
        raise UsageError(f"a network was found {value} accurate", try_="an evaluation that gives 0 ... 1")
    return float(value)


def _digest(model: nn.Module) -> str:
    """Of all weights and statistics, their names and shapes."""
    import torch

    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
