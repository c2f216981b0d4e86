"""What a latency table says of networks: of a whole one, of its layers, and of what its layers could be decomposed into.

    Latency.of         network -> Answer: its kernels in the table's runtime, each measured, interpolated or missing
    Latency.per_layer  network -> ms by layer
    Latency.cost       network -> the prices by which `pipeline.compress` spreads a budget in ms over its layers
    within             a method that takes such prices -> a network that `of` finds to be within a budget
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.graph import kernels, nchwc_block

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latency_luts import Answer, LatencyTable, OpKey
    from pipeline.compress import Compressed
    from pipeline.compress.lowrank import Cost
    from pipeline.compress.structure import Choice, Piece, Target
    from pipeline.fusion.chain import Place

    Make = Callable[[Cost, float], Compressed]

TRIES = 8
"""Of `within`: budgets for the layers."""

CLOSE = 0.02
"""A network that takes so little less than its budget, a share of it, is as slow as it may be."""

AMPLE_MS = 1e12
"""More than any network takes."""


class Latency:
    """The latency of networks by a table, in ms, in its context: its runtime and device, one image after another.

    Args:
        abi: of the device that the network is for; empty: the table's. It decides onnxruntime's layout.
        block: channels of a block of that layout, 0 for none; None: as `pipeline.graph.nchwc_block` tells of the abi.
    """

    def __init__(self, table: LatencyTable, *, abi: str = "", block: int | None = None) -> None:
        self.table, self.runtime = table, table.context.runtime
        self.block = nchwc_block(abi or table.context.abi) if block is None else block

    def of(self, model: nn.Module, example: Tensor | Sequence[int]) -> Answer:
        """The sum of the network's kernels, as warm as a network of its size leaves them; no latency where one is missing.

        Args: example: a tensor of the input's shape, or the shape.

        Raises: UsageError: the table is of a runtime whose kernels are not known beforehand. ModelError: as of
        `pipeline.graph.kernels`.
        """
        uses = kernels(model, example, self.runtime, block=self.block)
        return self.table.total([use.key for use in uses], on_missing="report")

    def per_layer(self, model: nn.Module, example: Tensor | Sequence[int]) -> dict[str, float]:
        """Module name -> ms of the kernels that come from it, as in a large network; a layer with a missing kernel is left
        out. What a runtime fused counts where it is run: a ReLU at its convolution.

        Raises: as `of`.
        """
        found: dict[str, float | None] = {}
        for use in kernels(model, example, self.runtime, block=self.block):
            before, own = found.get(use.module, 0.0), self._ms(use.key)
            found[use.module] = None if before is None or own is None else before + own
        return {module: ms for module, ms in found.items() if ms is not None}

    def cost(self, model: nn.Module, example: Tensor | Sequence[int], *, step: int = 1) -> Cost:
        """For `LowRank(cost=..., budget=...)`: the ms of one layer of this network as it is, or as its chain of convolutions.

        Each kernel as in a large network, over all calls of the layer; half a ms to tell what was not asked before. A
        chain costs infinity where the table does not know one of its kernels, or where padding is not with zeros. It is
        priced alone, its neighbours as they are: what that leaves out is said in `pipeline.fusion.chain`. `of` is exact.

        Args: step: of channels between the convolutions of a chain; other numbers of them cost infinity. A step of
        `table.staircases`, or what all measured ranks are multiples of.

        Raises: as `of`. UsageError: step is below 1. The function raises it for a layer as it is that the table does not
        know, or that another network has.
        """
        from pipeline.compress.replace import traced
        from pipeline.fusion.chain import places

        if step < 1:
            raise UsageError(f"ranks in steps of {step} were asked for", try_="1 or more")
        calls = places(traced(model, example), self.runtime, self.block)
        layers = {name for name, _ in model.named_modules()}
        known: dict[tuple[Place, Piece, tuple[Piece, ...]], float] = {}

        def cost(target: Target, choice: Choice) -> float:
            if target.name not in layers:
                raise UsageError(f"the prices of a network without a layer {target.name!r} were asked for it")
            there = calls.get(target.name, ())
            if not choice.ranks:
                return math.fsum(self._known_ms(place.key, target.name) for place in there)
            if target.padding_mode != "zeros" or any(piece.c_out % step for piece in choice.pieces[:-1]):
                return math.inf
            prices = []
            for place in there:
                asked = (place, target.whole, choice.pieces)
                if asked not in known:
                    known[asked] = self._chain_ms(*asked)
                prices.append(known[asked])
            return math.fsum(prices)

        return cost

    def _chain_ms(self, place: Place, whole: Piece, pieces: Sequence[Piece]) -> float:
        from pipeline.fusion.chain import chain

        found = [self._ms(key) for key in chain(place, whole, pieces, self.runtime, self.block)]
        return math.inf if None in found else math.fsum(ms for ms in found if ms is not None)

    def _ms(self, key: OpKey) -> float | None:
        return self.table.lookup(key, on_missing="report").latency_ms

    def _known_ms(self, key: OpKey, layer: str) -> float:
        ms = self._ms(key)
        if ms is None:
            raise UsageError(f"the table does not know {key} of the layer {layer!r}", try_="handset lut build --for MODEL")
        return ms


def within(
    make: Make, latency: Latency, model: nn.Module, example: Tensor | Sequence[int], budget_ms: float, *, step: int = 1
) -> Compressed:
    """A compressed network that takes at most `budget_ms` by the table, with all that is not decomposed.

    The layers get what is left for them; where the network is over all the same, that much less, and where it is below by
    more than CLOSE, that much more; half-way between what was too much and what was not where that tells nothing new. TRIES
    budgets at most; the slowest network that is within its own is taken.

    Args:
        make: (cost, layers_budget_ms) -> the network with its layers within that budget together, as
            `LowRank(cost=cost, budget=layers_budget_ms, ...).apply(model, example)` gives it; UsageError where they cannot
            be. The first call has a budget that the layers keep as they are, and tells which they are.
        step: as of `Latency.cost`.

    Raises: UsageError: a budget that is no positive number, or is not reached (with what was); a kernel of the network that
    the table does not know.
    """
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise UsageError(f"a budget of {budget_ms} ms was asked for", try_="a number above 0")
    price = latency.cost(model, example, step=step)
    own: dict[str, float] = {}

    def cost(target: Target, choice: Choice) -> float:
        ms = price(target, choice)
        if not choice.ranks:
            own[target.name] = ms
        return ms

    made = make(cost, AMPLE_MS)
    least = found = _whole_ms(latency, made, example)
    if found <= budget_ms:
        return made
    best: tuple[float, Compressed] | None = None
    low, asked = 0.0, math.fsum(own.values())  # budgets of the layers: one that is not too much, and one that is
    over = asked
    refusal: UsageError | None = None
    for _ in range(TRIES):
        asked -= found - budget_ms
        if not low < asked < over or refusal is not None:
            asked = (low + over) / 2
        try:
            made = make(cost, asked)
        except UsageError as error:
            low, refusal = asked, error
            continue
        refusal, found = None, _whole_ms(latency, made, example)
        least = min(least, found)
        if found > budget_ms:
            over = asked
            continue
        low = asked
        if best is None or found > best[0]:
            best = found, made
        if found >= (1 - CLOSE) * budget_ms:
            break
    if best is not None:
        return best[1]
    what = f"{type(model).__name__} was asked for within {budget_ms:g} ms; the least that was reached is {least:.4g} ms"
    raise UsageError(what, try_="that, another method, or a table that knows lower ranks") from refusal


def _whole_ms(latency: Latency, made: Compressed, example: Tensor | Sequence[int]) -> float:
    answer = latency.of(made.model, example)
    if answer.latency_ms is None:
        missing = list(dict.fromkeys(answer.missing))
        more = f" and {len(missing) - 1} more kernels of the network" if len(missing) > 1 else ""
        try_ = f"handset lut build --for MODEL --pieces {made.method}"
        raise UsageError(f"the table does not know {missing[0]}{more}", try_=try_)
    return answer.latency_ms
