"""One-shot and iterative: compress, retrain; or compress a little, retrain, compress a little more, and so on.

Reference: Renda, Frankle, Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020, section 2;
Liebenwein et al., NeurIPS 2021, section 3. The schedule of the retraining is the caller's (`pipeline.schedule`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.compress.base import Compressed
from pipeline.compress.lowrank import LowRank, Plan
from pipeline.compress.replace import copied
from pipeline.compress.structure import compose

if TYPE_CHECKING:
    from torch import Tensor, nn


def iterate(
    steps: Sequence[LowRank], model: nn.Module, example: Tensor | Sequence[int] | None,
    retrain: Callable[[Compressed], None],
) -> Iterator[Compressed]:  # fmt: skip
    """Each step's network, retrained: a prune-retrain curve.

    Args:
        steps: the same method with smaller and smaller budgets. The budgets are of the network as it was: each step
            decomposes the kernels that the last step's factors have become by retraining.
        retrain: trains its `model` in place.
    """
    current = model
    for step in steps:
        plan = step.plan(copied(current), example)
        compressed = step.carry_out(plan, example)
        retrain(compressed)
        yield compressed
        current = restored(current, plan, compressed.model)


def restored(original: nn.Module, plan: Plan, compressed: nn.Module) -> nn.Module:
    """The network in its own structure, with the kernels that the factors of each layer multiply to.

    Args: original: of that structure. plan: what `compressed` was made by.
    """
    import torch

    model = copied(original)
    chains = tuple(f"{name}." for name in plan.choices)
    rest = {key: value for key, value in compressed.state_dict().items() if not key.startswith(chains)}
    model.load_state_dict(rest, strict=False)
    with torch.no_grad():
        for name, choice in plan.choices.items():
            layer, pieces = model.get_submodule(name), list(compressed.get_submodule(name).children())
            weighted = [piece for piece in pieces if "weight" in piece._parameters]
            shapes = [(one.c_out, one.c_in // one.groups, *one.kernel) for one in choice.pieces]
            factors = [one.get_parameter("weight").reshape(shape) for one, shape in zip(weighted, shapes, strict=True)]
            kernel = compose(plan.found.targets[name], choice.pieces, factors)
            layer.get_parameter("weight").copy_(kernel.reshape(layer.get_parameter("weight").shape))
            if layer._parameters.get("bias") is not None:
                layer.get_parameter("bias").copy_(weighted[-1].get_parameter("bias"))
    return model
