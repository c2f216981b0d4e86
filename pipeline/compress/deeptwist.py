"""DeepTwist: a network is trained in its own structure, and every few steps its weights are replaced by what a decomposition
would leave of them. At the end they are decomposed.

    W <- train for S_D steps,  W <- the low-rank W' closest to W,  and so on;  at the end W' = its factors

Between two distortions training is free of the structure; what survives them lies in flat minima.

Reference: Lee, Kapoor, Kim, "DeepTwist: Learning Model Compression via Occasional Weight Distortion", arXiv 1810.12823,
Algorithm 1; the low-rank part again as arXiv 1905.10145. Useful distances S_D are 100 to 5000 steps there, of trainings of
hundreds of epochs. The fewer epochs, the shorter: of three, 20 steps kept 0.7 points more of resnet20 than 200 (one seed).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.compress.alds import Alds
from pipeline.compress.base import Compressed, Compressor
from pipeline.compress.cp import Cp
from pipeline.compress.lowrank import LowRank, Plan
from pipeline.compress.ranks import one_thread
from pipeline.compress.replace import copied
from pipeline.compress.structure import compose
from pipeline.compress.svd import Svd
from pipeline.compress.tiled import TiledSvd
from pipeline.compress.tucker import Tucker2
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

METHODS: Mapping[str, type[LowRank]] = {"alds": Alds, "cp": Cp, "svd": Svd, "tiled_svd": TiledSvd, "tucker2": Tucker2}
EVERY = 200

Train = Callable[["nn.Module", Callable[[int], None]], None]
"""Trains a network in place; calls back with 1, 2, ... after each step, which may change its weights."""


class DeepTwist(Compressor):
    """Training with occasional distortion, by any of the low-rank methods.

    Args:
        method: of the decomposition.
        every: steps between two distortions, S_D.
        settings: of that method. Ranks are chosen once, from the weights that training starts with.

    `data` of `apply` is a `Train`; None: nothing is trained, which leaves the decomposition alone. A layer's relative error is
    that of the last distortion: the smaller, the nearer training has come to the structure.
    """

    name = "deeptwist"

    def __init__(self, *, method: str = "tucker2", every: int = EVERY, **settings: Any) -> None:
        if method not in METHODS:
            raise UsageError(f"deeptwist has no method {method!r}", try_=", ".join(METHODS))
        if type(every) is not int or every < 1:
            raise UsageError(f"deeptwist was asked to distort every {every} steps", try_="a whole number of 1 or more")
        self.every, self.inner = every, METHODS[method](**settings)
        self.settings: dict[str, Any] = {**self.inner.settings, "method": method, "every": every}

    def apply(
        self, model: nn.Module, example: Tensor | Sequence[int] | None = None, data: Train | None = None
    ) -> Compressed:
        plan = self.inner.plan(copied(model), example)
        if data is not None:
            data(plan.model, lambda step: None if step % self.every else twist(self.inner, plan))
        found = self.inner.carry_out(plan, example)
        return dataclasses.replace(found, method=self.name, settings=self.settings)


@one_thread()
def twist(method: LowRank, plan: Plan) -> None:
    """Replaces the weights of the plan's layers by what their decomposition leaves of them, in place."""
    import torch

    with torch.no_grad():
        for name, choice in plan.choices.items():
            target, weight = plan.found.targets[name], plan.found.modules[name].get_parameter("weight")
            factors, _ = method.factors(target, weight.detach(), choice)
            weight.copy_(compose(target, choice.pieces, factors).reshape(weight.shape))
