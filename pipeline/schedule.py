"""Learning rates over a training: what retraining rewinds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import UsageError

SHAPES = ("cosine", "steps")
DROPS = (0.5, 0.75)
"""Where the learning rate is divided by ten, as shares of a training: epochs 91 and 136 of 182 in the ResNet paper."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a training of `epochs`, of which the last `kept` are run.

    With `kept` below `epochs` it is the learning rate of the end of the original training, run again: learning rate
    rewinding. Renda, Frankle, Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020, section 2.

    Args:
        lr: at the start, after the warm-up; above 0.
        epochs: of the whole.
        shape: "cosine", half a cosine from `lr` to 0; "steps": a tenth after half, a hundredth after three quarters.
        kept: None: all.
        warmup: epochs in which the learning rate rises from 0, in a straight line, to what the shape says; of what is run.

    Raises: UsageError: a value out of its range.
    """

    lr: float
    epochs: int
    shape: str = "cosine"
    kept: int | None = None
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise UsageError(f"a training was asked with a learning rate of {self.lr}", try_="a number above 0")
        if self.shape not in SHAPES:
            raise UsageError(f"there is no schedule {self.shape!r}", try_=" or ".join(SHAPES))
        if self.epochs < 0 or not 0 <= self.run <= self.epochs:
            raise UsageError(
                f"a training was asked to run {self.run} of {self.epochs} epochs", try_="0 ... all of them"
            )
        if not 0 <= self.warmup < math.inf:
            raise UsageError(f"a training was asked with a warm-up of {self.warmup} epochs", try_="0 or more")

    @property
    def run(self) -> int:
        """Epochs that are run."""
        return self.epochs if self.kept is None else self.kept

    def at(self, epoch: float) -> float:
        """The learning rate when so many epochs, 0 ... `run`, of what is run are over."""
        share = (self.epochs - self.run + epoch) / max(1, self.epochs)
        factor = (
            0.5 + 0.5 * math.cos(math.pi * share) if self.shape == "cosine" else 0.1 ** sum(share >= d for d in DROPS)
        )
        return self.lr * factor * (min(1.0, epoch / self.warmup) if self.warmup else 1.0)
