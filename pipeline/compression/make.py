"""One trial: a network is compressed, retrained and judged. Each round of it is a point of the comparison."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.compress import build
from pipeline.compress.deeptwist import METHODS
from pipeline.compress.iterative import iterate
from pipeline.compression.budget import Budget
from pipeline.compression.methods import given_ranks, settings_of
from pipeline.compression.request import Asked, Tuning
from pipeline.compression.subject import Subject
from pipeline.schedule import Schedule

if TYPE_CHECKING:
    from torch import nn

    from pipeline.compress import Compressed
    from pipeline.compress.lowrank import Cost
    from pipeline.datasets import Dataset
    from pipeline.training import OnStep, Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """A network on the page. before, after: top-1 as shares, around training; None where it was not judged."""

    compressed: Compressed
    round: int
    before: float | None = None
    after: float | None = None
    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0


def recipe_of(tuning: Tuning) -> Recipe:
    from pipeline.training import Recipe

    whole = tuning.original_epochs or tuning.epochs
    schedule = Schedule(tuning.lr, whole, tuning.schedule, tuning.epochs, tuning.warmup)
    return Recipe(
        schedule, tuning.batch_size, tuning.weight_decay, threads=tuning.threads, on=tuning.on, bfloat16=tuning.bfloat16,
        distill=tuning.distill,
    )  # fmt: skip


def points(subject: Subject, asked: Asked, word: str, budget: Budget, seed: int, say: Say) -> Iterator[Point]:
    """The rounds of a trial, the last of which meets the budget.

    Raises: UsageError: the budget cannot be met. ModelError: the network cannot be traced or trained.
    """
    name, settings = settings_of(word)
    if name == "deeptwist":
        yield _twisted(subject, asked, settings.pop("method"), settings, budget, seed, say)
    elif budget.unit == "ms":
        yield _judged(subject, asked, _one_shot(subject, name, settings, budget), seed, say)
    else:
        parts = [number / asked.rounds for number in range(1, asked.rounds + 1)]
        steps = [METHODS[name](**settings, **budget.share(part).settings()) for part in parts]
        found: list[Point] = []

        def retrain(compressed: Compressed) -> None:
            found.append(_judged(subject, asked, compressed, seed + 1000 * len(found), say))

        for number, _ in enumerate(iterate(steps, subject.module, subject.example, retrain), 1):
            yield dataclasses.replace(found[-1], round=number if asked.rounds > 1 else 0)


def _one_shot(subject: Subject, name: str, settings: dict[str, Any], budget: Budget) -> Compressed:
    if budget.unit != "ms":
        return build(name, **settings, **budget.settings()).apply(subject.module, subject.example)
    from pipeline.constraints import within

    assert subject.latency is not None
    shape = subject.network.input_shape

    def make(cost: Cost, layers_ms: float) -> Compressed:
        return build(name, **settings, cost=cost, budget=layers_ms).apply(subject.module, shape)

    return within(make, subject.latency, subject.module, shape, budget.value)


def _judged(subject: Subject, asked: Asked, compressed: Compressed, seed: int, say: Say) -> Point:
    """Its accuracy before and after fine-tuning, in place. Activations are normalised anew first."""
    begun, module = time.monotonic(), compressed.model
    if subject.dataset is None:
        return Point(compressed, 0)
    before = _settled(subject.dataset, module)
    if not asked.tuning.epochs:
        return Point(compressed, 0, before, seconds=time.monotonic() - begun)
    loss = _fitted(subject.dataset, asked.tuning, module, subject.module, seed, say, None)
    return Point(compressed, 0, before, _accuracy(subject.dataset, module), loss, time.monotonic() - begun)


def _twisted(
    subject: Subject, asked: Asked, name: str, settings: dict[str, Any], budget: Budget, seed: int, say: Say
) -> Point:
    """DeepTwist with the ranks that the method has for the budget: those of a network that is decomposed, then trained."""
    begun, dataset = time.monotonic(), subject.dataset
    assert dataset is not None
    first = _one_shot(subject, name, settings, budget)
    before = _settled(dataset, first.model)
    ranks = {one.layer: given_ranks(name, one.k, one.ranks) for one in first.layers}
    steps = -(-len(dataset.train_y) // asked.tuning.batch_size)
    method = build(
        "deeptwist", method=name, every=asked.tuning.every or steps, ranks=ranks, even_if_larger=True, **settings
    )
    loss: list[float] = []

    def train(module: nn.Module, on_step: OnStep) -> None:
        loss.extend(_fitted(dataset, asked.tuning, module, subject.module, seed, say, on_step))

    compressed = method.apply(subject.module, subject.example, train)
    after = _settled(dataset, compressed.model)
    return Point(compressed, 0, before, after, loss, time.monotonic() - begun)


def _settled(dataset: Dataset, module: nn.Module) -> float:
    from pipeline.training import recalibrate

    recalibrate(module, dataset)
    return _accuracy(dataset, module)


def _accuracy(dataset: Dataset, module: nn.Module) -> float:
    from pipeline.evaluate import accuracy

    return accuracy(module, dataset)


def _fitted(
    dataset: Dataset, tuning: Tuning, module: nn.Module, teacher: nn.Module, seed: int, say: Say, on_step: OnStep | None
) -> list[float]:
    """Args: teacher: the network as it was, which a training may listen to."""
    from pipeline.training import fit

    steps = -(-len(dataset.train_y) // tuning.batch_size)

    def told(step: int) -> None:
        if on_step is not None:
            on_step(step)
        if step % 10 == 0:
            say(f"epoch {(step - 1) // steps + 1} of {tuning.epochs}, {(step - 1) % steps / steps:.0%}")

    return fit(module, dataset, recipe_of(tuning), seed, told, teacher)
