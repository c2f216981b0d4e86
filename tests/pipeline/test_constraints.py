"""What a table says of networks, of their layers, and of decompositions: against kernels listed of really decomposed ones."""

from __future__ import annotations

import dataclasses
import math
import runpy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.compress import Compressed, build
from pipeline.compress.lowrank import Cost, LowRank
from pipeline.compress.replace import survey, traced
from pipeline.compress.structure import Choice, Target, as_it_is
from pipeline.constraints import AMPLE_MS, TRIES, Latency, within
from pipeline.errors import UsageError
from pipeline.fusion.chain import chain, places
from pipeline.graph import kernels
from pipeline.models import MODELS
from pipeline.models import build as build_model

SUITE = runpy.run_path(str(Path(__file__).with_name("graph_networks.py")))
CONTEXT: dict[str, Any] = {
    "device": "host", "soc": "EPYC", "os_build": "Debian 12", "abi": "arm64-v8a", "runtime": "litert",
    "runtime_version": "2.3.0", "runtime_sha256": "ab" * 32, "delegate": "xnnpack", "threads": 1, "cpu_mask": "0x2",
    "clocks": "not readable", "handset_version": "0.1.0", "created": "2026-11-21T12:00:00Z", "simulated": False,
}  # fmt: skip
WEIGHTED = ("conv2d", "linear")
PLACES = [("onnxruntime", 16), ("onnxruntime", 8), ("onnxruntime", 0), ("litert", 0), ("tflite", 0)]
NETWORKS = ["resnet20", "biases", "grouped", "hard_swish_excite", "inception", "kernel_shapes", "pads", "pyramid", "tokens"]
IMAGE = (1, 16, 12, 12)


def ns_of(key: OpKey) -> float:
    """An invented time: what is read, and the multiply-accumulates."""
    macs = 0.0
    if key.op in WEIGHTED:
        macs = math.prod(key.input_shape) * key.out_channels * math.prod(key.kernel) / key.groups / math.prod(key.stride)
    return 1000 + math.prod(key.input_shape) / 8 + macs / 32


def table_of(keys: Iterable[OpKey], **context: Any) -> LatencyTable:
    entries = [Entry(k, ns_of(k), (ns_of(k) * 0.99, ns_of(k) * 1.01), (1,), (), "kernel") for k in dict.fromkeys(keys)]
    return LatencyTable(Context(**{**CONTEXT, **context}), tuple(entries))


def ms_of(keys: Iterable[OpKey]) -> float:
    return math.fsum(ns_of(key) for key in keys) / 1e6


class Two(nn.Module):
    """A residual block with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.b(F.relu(self.a(x))))
        return self.head(x.mean((2, 3)))


def two() -> nn.Module:
    torch.manual_seed(0)
    return Two().eval()


def keys_of(model: nn.Module, shape: Sequence[int] = IMAGE) -> list[OpKey]:
    return [use.key for use in kernels(model, shape, "litert")]


def chains_of(model: nn.Module, shape: Sequence[int] = IMAGE) -> list[OpKey]:
    """The kernels of the network, and of it with every layer at every rank in one network."""
    found = survey(model)
    keys = keys_of(model, shape)
    for rank in range(1, 17):
        ranks = {name: min(rank, target.c_out, target.c_in) for name, target in found.targets.items()}
        keys += keys_of(build("svd", ranks=ranks, even_if_larger=True).apply(model).model, shape)
    return keys


def make_by_svd(model: nn.Module, shape: Sequence[int] = IMAGE, **settings: Any) -> Any:
    def make(cost: Cost, budget: float) -> Compressed:
        return build("svd", cost=cost, budget=budget, **settings).apply(model, shape)

    return make


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    if name in MODELS:
        return build_model(name), MODELS[name].input_shape
    found: tuple[nn.Module, tuple[int, ...]] = SUITE["build"](name)
    return found


def half(method: str, target: Target) -> tuple[int, ...]:
    """Ranks of which 4 divides the channels between, where there are as many."""
    c_in, c_out = target.c_in // target.groups, target.c_out // target.groups
    if method == "tucker2":
        return max(1, target.c_out // 8 * 4), max(1, target.c_in // 8 * 4)
    if method == "alds":
        return (2, 2) if c_in % 2 == 0 and c_out > 1 else (1, 1)
    return (max(1, min(c_out, c_in * math.prod(target.whole.kernel)) // 8 * 4),)


@pytest.mark.parametrize("method", ["svd", "tucker2", "alds"])
@pytest.mark.parametrize("name", NETWORKS)
def test_chains_have_the_kernels_that_the_decomposed_network_has(name: str, method: str) -> None:
    model, shape = network(name)
    found, one = survey(model, traced(model, shape)), build(method, ranks={})
    assert isinstance(one, LowRank)
    ranks = {layer: half(method, target) for layer, target in found.targets.items() if not one.why_not(target)}
    settings = {"method": "hosvd"} if method == "tucker2" else {}
    made = build(method, ranks=ranks, even_if_larger=True, **settings).apply(model).model
    compared = 0
    for runtime, block in PLACES:
        told: list[OpKey] = []
        for layer, there in places(traced(model, shape), runtime, block).items():
            if layer in ranks:
                target = found.targets[layer]
                pieces = one.choice(target, ranks[layer]).pieces
                told += [key for place in there for key in chain(place, target.whole, pieces, runtime, block)]
        listed = [
            use.key for use in kernels(made, shape, runtime, block=block)
            if use.key.op in WEIGHTED and use.module.rpartition(".")[0] in ranks
        ]  # fmt: skip
        assert Counter(map(str, listed)) == Counter(str(key) for key in told if key.op in WEIGHTED), (runtime, block)
        compared += len(listed)
    assert compared or not ranks


def test_an_addition_that_leaves_the_blocks_is_fused_elsewhere_which_is_the_named_difference() -> None:
    model, shape = network("resnet20")
    ranks = {"layer3.0.conv1": (31, 31), "layer3.0.conv2": (31, 31)}
    made = build("tucker2", ranks=ranks, even_if_larger=True, method="hosvd").apply(model).model
    listed = [use.key for use in kernels(made, shape, "onnxruntime", block=16) if use.module == "layer3.0.conv2.2"]
    (place,) = places(traced(model, shape), "onnxruntime", 16)["layer3.0.conv2"]
    target = survey(model).targets["layer3.0.conv2"]
    pieces = build("tucker2", ranks={}).choice(target, (31, 31)).pieces  # type: ignore[attr-defined]
    told = [key for key in chain(place, target.whole, pieces, "onnxruntime", 16) if key.op in WEIGHTED][-1:]
    assert [(key.activation, key.fused_add) for key in (*listed, *told)] == [("relu", True), ("none", False)]
    assert [dataclasses.replace(key, activation="none", fused_add=False) for key in listed] == told


@pytest.mark.parametrize(
    ("k", "rank", "moves"),
    [
        (1, 16, []),
        (1, 8, ["reorder_out[in=1x8x8x8 dtype=float32]"]),
        (2, 4, ["reorder_out[in=1x32x8x8 dtype=float32]"]),
        (2, 16, []),
        (4, 4, ["reorder_out[in=1x32x8x8 dtype=float32]", "reorder_in[in=1x16x8x8 dtype=float32]"]),
        (1, 17, ["reorder_in[in=1x32x8x8 dtype=float32]"]),
    ],
)
def test_reorders_between_layouts_are_a_part_of_a_chain(k: int, rank: int, moves: list[str]) -> None:
    model = nn.Sequential(nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 16, 1)).eval()
    shape = (1, 16, 8, 8)
    (place,), target = places(traced(model, shape), "onnxruntime", 16)["1"], survey(model).targets["1"]
    pieces = build("alds", ranks={}).choice(target, (k, rank)).pieces  # type: ignore[attr-defined]
    found = [str(key) for key in chain(place, target.whole, pieces, "onnxruntime", 16) if key.op not in WEIGHTED]
    if rank == 17:  # 17 channels are no vectors: the second convolution reads and writes them as they lie
        moves = ["reorder_out[in=1x17x8x8 dtype=float32]", *moves]
    assert Counter(found) == Counter(moves)
    made = build("alds", ranks={"1": (k, rank)}, even_if_larger=True).apply(model).model
    lists = [kernels(one, shape, "onnxruntime", block=16) for one in (made, model)]
    more, before = (Counter(str(use.key) for use in some if use.key.op not in WEIGHTED) for some in lists)
    assert more - before == Counter(moves)


def test_of_is_the_sum_of_the_kernels_and_says_what_was_measured() -> None:
    model = two()
    keys = keys_of(model)
    answer = Latency(table_of(keys)).of(model, IMAGE)
    assert (answer.kind, answer.coverage) == ("measured", 1.0) and answer.latency_ms == pytest.approx(ms_of(keys))
    lacking = Latency(table_of(keys[1:])).of(model, torch.zeros(IMAGE))
    assert (lacking.latency_ms, lacking.missing) == (None, (keys[0],)) and 0 < lacking.coverage < 1


def test_latency_grows_with_each_entry() -> None:
    model = two()
    keys = keys_of(model)
    usual = Latency(table_of(keys)).of(model, IMAGE).latency_ms
    assert usual is not None
    for slow in dict.fromkeys(keys):
        entries = [
            Entry(k, ns, (ns, ns), (1,), (), "k") for k in dict.fromkeys(keys) for ns in [ns_of(k) * (1 + (k == slow))]
        ]
        slower = Latency(LatencyTable(Context(**CONTEXT), tuple(entries))).of(model, IMAGE).latency_ms
        assert slower == pytest.approx(usual + keys.count(slow) * ns_of(slow) / 1e6) and slower > usual


def test_the_device_of_the_table_decides_the_layout() -> None:
    model = two()
    listed = {block: [use.key for use in kernels(model, IMAGE, "onnxruntime", block=block)] for block in (0, 16)}
    assert listed[0] != listed[16]
    every = [*listed[0], *listed[16]]
    arm = table_of(every, runtime="onnxruntime")
    assert Latency(arm).of(model, IMAGE).latency_ms == pytest.approx(ms_of(listed[0]))
    assert Latency(arm, block=16).of(model, IMAGE).latency_ms == pytest.approx(ms_of(listed[16]))
    assert Latency(arm, abi="x86_64").block in (8, 16)


def test_layers_have_the_sum_of_their_kernels_and_unknown_ones_none() -> None:
    model = two()
    uses = kernels(model, IMAGE, "litert")
    known = [use.key for use in uses if use.module != "b"]
    found = Latency(table_of(known)).per_layer(model, IMAGE)
    assert "b" not in found and found["a"] == pytest.approx(ms_of(use.key for use in uses if use.module == "a"))
    assert found["head"] == pytest.approx(ms_of(use.key for use in uses if use.module == "head"))
    assert math.fsum(found.values()) == pytest.approx(ms_of(known))


def choice_of(model: nn.Module, layer: str, rank: int, shape: Sequence[int] = IMAGE) -> tuple[Target, Choice]:
    target = survey(model, traced(model, shape)).targets[layer]
    return target, build("svd", ranks={}).choice(target, (rank,))  # type: ignore[attr-defined]


def test_a_price_is_that_of_the_layer_or_of_its_chain() -> None:
    model = two()
    cost = Latency(table_of(chains_of(model))).cost(model, IMAGE)
    target, choice = choice_of(model, "b", 8)
    own = [use.key for use in kernels(model, IMAGE, "litert") if use.module == "b"]
    made = build("svd", ranks={"b": 8}, even_if_larger=True).apply(model).model
    chained = [use.key for use in kernels(made, IMAGE, "litert") if use.module in ("b.0", "b.1")]
    assert len(chained) == 2 and cost(target, choice) == pytest.approx(ms_of(chained))
    assert cost(target, as_it_is(target)) == pytest.approx(ms_of(own))


@pytest.mark.parametrize("between", [lambda x: F.max_pool2d(x, 2), lambda x: x.reshape(1, 16, 4, 36)])
def test_a_layer_that_is_called_twice_costs_both_and_one_that_is_not_nothing(between: Callable[[Tensor], Tensor]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.idle = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(between(self.layer(x))))

    model = Twice().eval()
    cost = Latency(table_of(chains_of(model))).cost(model, IMAGE)
    target, choice = choice_of(model, "layer", 8)
    made = build("svd", ranks={"layer": 8}, even_if_larger=True).apply(model).model
    chained = [key for key in keys_of(made) if key.op == "conv2d"]
    assert len(chained) == 4 and cost(target, choice) == pytest.approx(ms_of(chained))
    assert cost(*choice_of(model, "idle", 2)) == 0


def test_what_has_no_price_costs_infinity() -> None:
    model = two()
    target, choice = choice_of(model, "b", 6)
    keys = chains_of(model)
    assert Latency(table_of(keys)).cost(model, IMAGE, step=3)(target, choice) < math.inf
    assert Latency(table_of(keys)).cost(model, IMAGE, step=4)(target, choice) == math.inf
    unknown = [key for key in keys if key.out_channels != 6]
    assert Latency(table_of(unknown)).cost(model, IMAGE)(target, choice) < math.inf, "it lies between others"
    assert Latency(table_of(keys_of(model))).cost(model, IMAGE)(target, choice) == math.inf
    mirrored = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")).eval()
    target, choice = choice_of(mirrored, "0", 8)
    (place,) = places(traced(mirrored, IMAGE), "onnxruntime", 0)["0"]
    taken_for_zeros = chain(place, target.whole, choice.pieces, "onnxruntime", 0)
    own = [use.key for use in kernels(mirrored, IMAGE, "onnxruntime", block=0)]
    cost = Latency(table_of([*own, *taken_for_zeros], runtime="onnxruntime")).cost(mirrored, IMAGE)
    assert cost(target, choice) == math.inf and cost(target, as_it_is(target)) == pytest.approx(ms_of([place.key]))


def test_what_cannot_be_priced_is_said() -> None:
    model = two()
    latency = Latency(table_of([key for key in keys_of(model) if key.op != "conv2d"]))
    target, choice = choice_of(model, "a", 6)
    with pytest.raises(UsageError, match="does not know conv2d.*of the layer 'a'.*handset lut build"):
        latency.cost(model, IMAGE)(target, as_it_is(target))
    with pytest.raises(UsageError, match="a network without a layer 'a'"):
        latency.cost(nn.Sequential(nn.Conv2d(16, 16, 1)), IMAGE)(target, choice)
    with pytest.raises(UsageError, match="steps of 0"):
        latency.cost(model, IMAGE, step=0)
    with pytest.raises(UsageError, match="the runtime 'other'"):
        Latency(table_of([], runtime="other")).of(model, IMAGE)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_a_compressed_network_is_within_its_budget(share: float) -> None:
    model = two()
    latency = Latency(table_of(chains_of(model)))
    budget_ms = share * ms_of(keys_of(model))
    made = within(make_by_svd(model), latency, model, IMAGE, budget_ms)
    reached = latency.of(made.model, IMAGE).latency_ms
    assert reached is not None and 0.8 * budget_ms < reached <= budget_ms and made.layers


def test_a_network_within_its_budget_stays_as_it_is() -> None:
    model = two()
    latency = Latency(table_of(keys_of(model)))
    budget_ms = latency.of(model, IMAGE).latency_ms
    assert budget_ms is not None and within(make_by_svd(model), latency, model, IMAGE, budget_ms).layers == ()


def test_the_budget_of_the_layers_is_tightened_until_the_network_is_within_its_own() -> None:
    """A method whose networks take more than its layers' prices said; and one that cannot do with the first budget."""
    model = two()
    latency = Latency(table_of(chains_of(model)))
    asked: list[float] = []
    whole_ms = ms_of(keys_of(model))
    layers = [name for name in survey(model).targets if name != "b"]

    def careless(cost: Cost, budget: float) -> Compressed:
        asked.append(budget)
        return build("svd", cost=cost, budget=budget * 1.1 if budget < AMPLE_MS else budget).apply(model, IMAGE)

    made = within(careless, latency, model, IMAGE, 0.8 * whole_ms)
    assert (latency.of(made.model, IMAGE).latency_ms or 9) <= 0.8 * whole_ms
    assert len(asked) > 2 and asked == sorted(asked, reverse=True)
    asked.clear()

    def refusing(cost: Cost, budget: float) -> Compressed:
        asked.append(budget)
        if budget < asked[1] if len(asked) > 1 else False:
            raise AssertionError("it asks for less than what was refused")
        if len(asked) == 2:
            raise UsageError("cannot be met")
        return build("svd", cost=cost, budget=budget, layers=layers).apply(model, IMAGE)

    with pytest.raises(UsageError, match=r"Two was asked for within .* ms; the least that was reached is"):
        within(refusing, latency, model, IMAGE, 0.2 * whole_ms)
    assert len(asked) == TRIES + 1 and asked[2] == pytest.approx((asked[1] + own_ms(model, layers)) / 2)


def test_what_a_method_leaves_of_the_budget_is_used() -> None:
    """A method whose networks take less than its layers' prices said."""
    model = two()
    latency = Latency(table_of(chains_of(model)))
    budget_ms = 0.7 * ms_of(keys_of(model))

    def timid(cost: Cost, budget: float) -> Compressed:
        return build("svd", cost=cost, budget=budget if budget == AMPLE_MS else 0.8 * budget).apply(model, IMAGE)

    usual, found = (
        latency.of(within(make, latency, model, IMAGE, budget_ms).model, IMAGE).latency_ms or 9
        for make in (make_by_svd(model), timid)
    )
    assert 0.97 * usual <= found <= budget_ms


def own_ms(model: nn.Module, layers: Sequence[str]) -> float:
    return ms_of(use.key for use in kernels(model, IMAGE, "litert") if use.module in layers and use.key.op in WEIGHTED)


def test_a_budget_that_cannot_be_reached_says_what_can() -> None:
    model = two()
    latency = Latency(table_of(chains_of(model)))
    with pytest.raises(UsageError, match=r"within 0.0001 ms; the least that was reached is 0\.[0-9]+ ms; try: that"):
        within(make_by_svd(model), latency, model, IMAGE, 1e-4)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="a budget of .* ms was asked for"):
            within(make_by_svd(model), latency, model, IMAGE, wrong)


def test_what_can_be_reached_is_the_least_of_all_tries() -> None:
    model = two()
    latency = Latency(table_of(chains_of(model)))
    made = [build("svd", ranks={"b": rank}, even_if_larger=True).apply(model) for rank in (16, 2, *[8] * TRIES)]
    least = latency.of(made[1].model, IMAGE).latency_ms
    calls = iter(made)
    with pytest.raises(UsageError, match=f"the least that was reached is {least:.4g} ms"):
        within(lambda cost, budget: next(calls), latency, model, IMAGE, 1e-4)


def test_a_kernel_that_the_table_lacks_is_named_with_the_command_that_measures_it() -> None:
    model = two()
    keys = [key for key in chains_of(model) if key.op != "mean"]
    with pytest.raises(UsageError, match=r"does not know mean\[.*handset lut build --for MODEL --pieces svd"):
        within(make_by_svd(model), Latency(table_of(keys)), model, IMAGE, 1.0)
