"""Kernels of decompositions: a table of them answers for ranks between, and `handset lut build --pieces` measures them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.cli import main
from pipeline.compress import build
from pipeline.compress.lowrank import LowRank
from pipeline.compress.replace import survey, traced
from pipeline.compress.structure import macs
from pipeline.console import Console
from pipeline.constraints import Latency
from pipeline.errors import UsageError
from pipeline.graph import kernels
from pipeline.sweep import build as building
from pipeline.sweep.grid import Grid
from pipeline.sweep.pieces import ALIGNED, METHODS, SHARES, piece_keys
from pipeline.sweep.request import BuildRequest, command_of, plan_of, planned
from pipeline.sweep.rounds import to_vary

CONTEXT: dict[str, Any] = {
    "device": "host", "soc": "EPYC", "os_build": "Debian 12", "abi": "arm64-v8a", "runtime": "litert",
    "runtime_version": "2.3.0", "runtime_sha256": "ab" * 32, "delegate": "xnnpack", "threads": 1, "cpu_mask": "0x2",
    "clocks": "not readable", "handset_version": "0.1.0", "created": "2026-11-21T12:00:00Z", "simulated": False,
}  # fmt: skip
IMAGE = (1, 3, 24, 24)
NETWORK = """
from torch import nn
def tiny():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(24, 10),
    ).eval(), (1, 3, 32, 32)
"""


class Blocks(nn.Module):
    """Layers of several widths, two of them in a residual block, one with a stride, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.a, self.b = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.Conv2d(32, 32, 3, padding=1)
        self.down, self.wide = nn.Conv2d(32, 80, 3, 2, 1), nn.Conv2d(80, 80, 3, padding=1)
        self.head = nn.Linear(80, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.b(F.relu(self.a(x))))
        return self.head(F.relu(self.wide(F.relu(self.down(x)))).mean((2, 3)))


def blocks() -> nn.Module:
    torch.manual_seed(0)
    return Blocks().eval()


def ns_of(key: OpKey) -> float:
    """An invented time with steps of 8 output channels."""
    macs = 0.0
    if key.op in ("conv2d", "linear"):
        c_out = math.ceil(key.out_channels / 8) * 8
        macs = math.prod(key.input_shape) * c_out * math.prod(key.kernel) / key.groups / math.prod(key.stride)
    return 1000 + math.prod(key.input_shape) / 8 + macs / 32


def table_of(keys: Iterable[OpKey], runtime: str) -> LatencyTable:
    entries = [Entry(k, ns_of(k), (ns_of(k) * 0.99, ns_of(k) * 1.01), (1,), (), "kernel") for k in dict.fromkeys(keys)]
    return LatencyTable(Context(**{**CONTEXT, "runtime": runtime}), tuple(entries))


def between(method: LowRank, model: nn.Module, share: float) -> dict[str, tuple[int, ...]]:
    """Ranks about a share of full rank of every layer that has some, with channels that 4 divides, whether measured or not."""
    found = {}
    for name, target in survey(model).targets.items():
        into, out = (int(share * channels) // ALIGNED * ALIGNED for channels in (target.c_in, target.c_out))
        ranks = {"tucker2": (out, max(into - 4, 4)), "alds": (2, out // 2), "cp": (out + 4,)}.get(method.name, (out,))
        if not method.why_not(target) and target.c_in > 3:
            found[name] = ranks
    return found


@pytest.mark.parametrize(("runtime", "block"), [("litert", 0), ("onnxruntime", 16), ("onnxruntime", 0)])
@pytest.mark.parametrize("name", ["svd", "tucker2", "alds", "cp"])
def test_ranks_between_are_answered(name: str, runtime: str, block: int) -> None:
    model = blocks()
    known = [use.key for use in kernels(model, IMAGE, runtime, block=block)]
    table = table_of([*known, *piece_keys(model, IMAGE, runtime, [name], block=block)], runtime)
    method = build(name, ranks={})
    assert isinstance(method, LowRank)
    kinds: set[str] = set()
    for share in (0.3, 0.45, 0.7):
        ranks = between(method, model, share)
        settings = {"tucker2": {"method": "hosvd"}, "cp": {"iterations": 1}}.get(name, {})
        made = build(name, ranks=ranks, even_if_larger=True, **settings).apply(model).model
        answer = Latency(table, block=block).of(made, IMAGE)
        assert answer.missing == (), (share, ranks)
        assert answer.latency_ms == pytest.approx(
            sum(ns_of(use.key) for use in kernels(made, IMAGE, runtime, block=block)) / 1e6, rel=0.1
        )
        kinds.update(answer.kinds)
        assert 0 < answer.coverage <= 1
    assert kinds == {"measured", "interpolated"}


@pytest.mark.parametrize(("runtime", "block"), [("litert", 0), ("onnxruntime", 16)])
def test_each_aligned_option_that_saves_operations_has_a_price(runtime: str, block: int) -> None:
    model = blocks()
    known = [use.key for use in kernels(model, IMAGE, runtime, block=block)]
    table = table_of([*known, *piece_keys(model, IMAGE, runtime, ["tucker2"], block=block)], runtime)
    cost, method = Latency(table, block=block).cost(model, IMAGE, step=4), build("tucker2", ranks={})
    assert isinstance(method, LowRank)
    for name in ("a", "down", "wide"):
        target = survey(model, traced(model, IMAGE)).targets[name]
        whole, calls = macs([target.whole], target.calls or ()), target.calls or ()
        for rank_out in range(8, target.c_out + 1, 4):
            choices = [method.choice(target, (rank_out, rank_in)) for rank_in in range(8, target.c_in + 1, 4)]
            smaller = [choice for choice in choices if macs(choice.pieces, calls) < whole]
            for choice in smaller[::3] + smaller[-1:]:
                assert cost(target, choice) < math.inf, (name, choice.ranks)


def test_pieces_are_the_kernels_of_decompositions_each_once() -> None:
    model = blocks()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keys = piece_keys(model, IMAGE, "litert", ["svd"], [0.5, 1.0])
    assert len(keys) == len(set(keys))
    made = build("svd", ranks={"head": (16,)}, even_if_larger=True).apply(model).model
    chained = {use.key for use in kernels(made, IMAGE, "litert") if use.module.startswith("head")}
    assert chained and chained <= set(piece_keys(model, IMAGE, "litert", ["svd"]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.get_submodule("head"), nn.Linear)
    linear = [key.out_channels for key in keys if key.op == "linear" and key.input_shape == (1, 80)]
    assert linear == [12, 28], "half of the rank that saves nothing, as an odd multiple of 4, and that rank"


def test_only_ranks_up_to_what_saves_operations_are_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 1), nn.ReLU()).eval()
    keys = [key for key in piece_keys(model, (1, 32, 8, 8), "litert", ["svd"]) if key.op == "conv2d"]
    ranks = {key.out_channels for key in keys if key.activation == "none"}
    assert ranks == {4, 8, 12, 16}, "at 16 there are as many as in the layer"


def test_one_channel_a_part_is_left_to_others() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()).eval()
    keys = piece_keys(model, (1, 8, 8, 8), "litert", ["alds"])
    assert {key.groups for key in keys if key.op == "conv2d"} == {1, 2, 4}, "and not 8, which would be depthwise"


def test_layers_that_cannot_be_priced_have_no_pieces() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU()).eval()
    own = {use.key for use in kernels(model, (1, 8, 8, 8), "onnxruntime", block=0)}
    assert set(piece_keys(model, (1, 8, 8, 8), "onnxruntime", ["svd"], block=0)) <= own


def test_fewer_channels_than_a_block_are_reordered_at_each_number_that_aligns() -> None:
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).eval()
    keys = piece_keys(model, (1, 64, 6, 6), "onnxruntime", ["svd"], block=16)
    assert {key.input_shape[1] for key in keys if key.op == "reorder_out"} == {4, 8, 12, 64}
    assert {key.input_shape[1] for key in keys if key.op == "conv2d" and key.input_shape[1] < 16} == {4}


def test_what_an_activation_becomes_behind_groups_is_known_after_any_other_method() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16)).eval()
    both, svd, alds = (set(piece_keys(model, (1, 32), "litert", some)) for some in (["svd", "alds"], ["svd"], ["alds"]))
    assert both == svd | alds
    assert any(key.op == "activation" for key in alds) and not any(key.op == "activation" for key in svd)


@pytest.mark.parametrize(
    ("methods", "shares", "said"),
    [
        (["svd", "prune"], SHARES, "no pieces of the method 'prune'; try: alds, cp, svd, tucker2"),
        (["svd"], [0.5, 1.5], "at the share 1.5 of full rank"),
        (["svd"], [0.0], "at the share 0 of full rank"),
    ],
)
def test_what_has_no_pieces_is_said(methods: list[str], shares: Sequence[float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        piece_keys(blocks(), IMAGE, "litert", methods, shares)


def test_every_method_of_pieces_is_a_compressor() -> None:
    assert list(METHODS) == sorted(METHODS) and all(build(name, ranks={}).name == name for name in METHODS)


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(NETWORK)
    return f"{path}:tiny"


def about() -> Any:
    return type("About", (), {"kind": "host", "model": "m", "os": "o", "abi": "a"})()


def test_a_build_measures_pieces_and_varies_only_what_networks_have(network: str, tmp_path: Path) -> None:
    asked = OpKey("linear", (1, 7), 7, dtype="float32")
    request = BuildRequest((network,), "host", "litert", tmp_path, kernels=(asked,), pieces=("svd",), grid=Grid())
    own, related = building._kernels(request, "arm64-v8a", Console())
    plain, _ = building._kernels(BuildRequest((network,), "host", "litert", tmp_path, kernels=(asked,)), "arm64-v8a", Console())
    assert {key: own[key] for key in plain} == plain and any(names == ("tiny",) for names in plain.values())
    pieces = own.keys() - plain.keys()
    assert len(pieces) > 20 and all(own[key] == () for key in pieces)
    assert set(to_vary(request, own)) == plain.keys() and related == []


def test_the_command_line_asks_for_pieces(network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[BuildRequest] = []

    def caught(request: BuildRequest, console: Console) -> Any:
        seen.append(request)
        raise UsageError("far enough")

    monkeypatch.setattr(building, "build", caught)
    assert main(["lut", "build", "--runtime", "litert", "--for", network, "--pieces", "svd, tucker2,svd"]) == 2
    assert seen[0].pieces == ("svd", "tucker2")
    again = planned(json.loads(json.dumps(plan_of(seen[0], about()))), tmp_path / "run")
    assert again.pieces == ("svd", "tucker2") and "--pieces svd,tucker2" in command_of(again)


def test_a_plan_from_before_there_were_pieces_has_none(tmp_path: Path) -> None:
    plan = plan_of(BuildRequest(("resnet20",), "host", "litert", tmp_path), about())
    assert plan.pop("pieces") == [] and planned(plan, tmp_path).pieces == ()
    assert "--pieces" not in command_of(planned(plan, tmp_path))
    for wrong in (3, [3], "svd"):
        with pytest.raises(UsageError, match="is damaged"):
            planned(plan | {"pieces": wrong}, tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--for", "no_such", "--runtime", "litert", "--pieces", "svd,prune"], "no pieces of the method 'prune'"),
        (["--runtime", "litert", "--pieces", "svd"], "pieces of no network"),
        (["--resume", "{tmp}", "--pieces", "svd"], "--resume goes on with what that build was asked"),
    ],
)
def test_pieces_that_cannot_be_measured_are_said(
    words: list[str], said: str, tmp_path: Path, cache_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = tmp_path / "reports"
    assert main(["lut", "build", *(word.format(tmp=tmp_path) for word in words), "--reports", str(reports)]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1 and not reports.exists()
