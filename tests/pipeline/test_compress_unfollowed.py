"""`handset compress` of networks that torch.fx cannot trace: what can be is compressed, the rest is listed."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

from pipeline import cli
from pipeline.compression.files import again
from pipeline.compression.page import page
from pipeline.datasets import load
from pipeline.errors import ModelError, UsageError
from pipeline.evaluate import accuracy
from pipeline.spec import resolve

Document = dict[str, Any]
SHAPE = (1, 1, 8, 8)
SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    """Of each kind that a method has something for: a stem, a depthwise and a 3x3 layer, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.light = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False)
        self.body = nn.Sequential(nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.odd = nn.Parameter(torch.zeros(32, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.body(x + self.light(x)).mean((2, 3))
        return self.head(x + F.linear(x, self.odd))


class OnShapes(Plain):
    """A branch on a size, which torch.fx has no number for."""

    def forward(self, x):
        if x.shape[-1] > 100:
            x = x[..., ::2, ::2]
        for _ in range(x.shape[1]):
            x = x * 1.0
        return super().forward(x)


class OnTypes(Plain):
    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            raise TypeError("a tensor was expected")
        assert x.dim() == 4 and x.is_floating_point()
        return super().forward(x)


class OnValues(Plain):
    """The second half is skipped for some images: nothing but a run with values can tell."""

    def forward(self, x):
        x = self.stem(x)
        if x.sum() > -1.0:
            x = x + self.light(x)
        return self.head(self.body(x).mean((2, 3)))


class Pair(Plain):
    """Not one tensor: neither followed nor exported."""

    def forward(self, x):
        return super().forward(x), x


class Bare(nn.Module):
    """A forward that fails."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x):
        raise RuntimeError("no such path")


def _made(kind):
    torch.manual_seed(0)
    return kind().eval(), (1, 1, 8, 8)


def plain(): return _made(Plain)
def on_shapes(): return _made(OnShapes)
def on_types(): return _made(OnTypes)
def on_values(): return _made(OnValues)
def pair(): return _made(Pair)
def bare(): return _made(Bare)
'''


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "networks.py"
    path.write_text(SOURCE)
    return path


def made(networks: Path, name: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location("unfollowed_networks", networks)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network, _ = getattr(module, name)()
    assert isinstance(network, nn.Module)
    return network


def run(folder: Path, *words: str) -> tuple[int, Document, Path]:
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    status = cli.main(["compress", *words, "--reports", str(folder), "--json", str(out)])
    document = json.loads(out.read_text("utf-8")) if out.exists() else {"run": ""}
    return status, document, folder / document["run"]


@pytest.mark.parametrize("name", ["on_shapes", "on_types"])
def test_what_torch_fx_cannot_trace_is_compressed_and_counted_like_any_other(
    networks: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(Exception):  # noqa: B017  (whatever torch.fx says)
        fx.symbolic_trace(made(networks, name))
    status, found, folder = run(tmp_path, "svd", f"{networks}:{name}", "--budget", "50%macs", "--no-measure")
    _, plain, _ = run(tmp_path, "svd", f"{networks}:plain", "--budget", "50%macs", "--no-measure")
    assert status == 0 and found["notes"] == []
    for here, there in zip(found["points"], plain["points"], strict=True):
        assert [here[key] for key in ("params", "macs", "layers")] == [there[key] for key in ("params", "macs", "layers")]
    left, kind = found["points"][1]["left_alone"], {"on_shapes": "OnShapes", "on_types": "OnTypes"}[name]
    assert left[kind] == f"a {kind}, not a convolution or linear layer of torch.nn"
    assert resolve(str(folder / found["points"][1]["file"])).params == found["points"][1]["params"]


WORDS = ("alds:exact", "cp", "deeptwist", "deeptwist:alds", "svd:ratio", "svd:split_h", "tiled_svd", "tucker2:hosvd")


@pytest.mark.parametrize("word", WORDS)
def test_a_branch_on_values_leaves_every_method_its_layers(networks: Path, tmp_path: Path, word: str) -> None:
    tuned = ("--data", "digits", "--finetune-epochs", "1", "--every", "6")
    status, document, folder = run(tmp_path, word, f"{networks}:on_values", "--budget", "60%", "--no-measure", *tuned)
    whole, point = document["points"]
    assert status == 0 and whole["macs"] is None and point["macs"] is None
    assert point["params"] <= 0.6 * whole["params"] and point["layers"]
    assert all(one["macs_before"] is one["macs_after"] is None for one in point["layers"])
    assert "OnValues, not a convolution or linear layer" in point["left_alone"]["OnValues"]
    followed, exported = document["notes"]
    assert followed.startswith("MACs, calls of layers and predicted times are not known: OnValues fails on")
    assert exported.startswith("weights are written alone, and nothing is measured: torch.export cannot trace on_values")
    assert "not counted" in page(document)

    smaller = again(made(networks, "on_values"), point, folder).eval()
    assert sum(weight.numel() for weight in smaller.parameters()) == point["params"]
    assert accuracy(smaller, load("digits")) == pytest.approx(point["top1"]["after"], abs=1e-9)


def test_rounds_go_on_from_the_last_ones_weights(networks: Path, tmp_path: Path) -> None:
    words = ("alds", f"{networks}:on_values", "--budget", "25%", "--data", "digits", "--finetune-epochs", "1")
    status, document, folder = run(tmp_path, *words, "--rounds", "2", "--no-measure")
    _, first, second = document["points"]
    assert status == 0 and second["params"] <= document["network"]["params"] / 4 < first["params"]
    smaller = again(made(networks, "on_values"), second, folder)
    assert accuracy(smaller, load("digits")) == pytest.approx(second["top1"]["after"], abs=1e-9)
    assert cli.main(["compress", "--resume", str(folder), "--json", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text("utf-8"))["points"] == document["points"]


def test_what_cannot_be_measured_or_written_fails_after_the_rest_is_kept(
    networks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("svd", f"{networks}:on_values", "--budget", "60%")
    status, document, folder = run(tmp_path, *words)
    assert status == 1 and document["device"] is None and (folder / document["points"][1]["file"]).is_file()
    assert "nothing is measured: torch.export cannot trace" in capsys.readouterr().out
    out = tmp_path / "smaller.pt2"
    status, document, folder = run(tmp_path, *words, "--no-measure", "--out", str(out))
    assert status == 1 and not out.exists()
    assert f"{out} is not written: the network's weights are in artifacts/" in capsys.readouterr().err
    assert {path.suffix for path in (folder / "artifacts").iterdir()} == {".json", ".safetensors"}


def test_a_network_of_two_results_is_decomposed_too(networks: Path, tmp_path: Path) -> None:
    status, document, _ = run(tmp_path, "tucker2", f"{networks}:pair", "--budget", "60%", "--no-measure")
    assert status == 0 and document["points"][1]["layers"]
    assert document["notes"][0].endswith("Pair gives a tuple, not one tensor made from its input")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("on_values", "--budget", "50%macs"), "what on_values computes is not known: OnValues fails on"),
        (("on_values", "--budget", "50%,90kmacs"), "90kmacs was asked for"),
        (("bare", "--budget", "50%"), "bare fails on an input of 1x1x8x8: RuntimeError: no such path; try: another input"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    networks: Path, tmp_path: Path, words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *others = words
    assert run(tmp_path, "svd", f"{networks}:{name}", *others, "--no-measure")[0] == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and complaint in said[0] and "; try: " in said[0]
    assert not list(tmp_path.iterdir())


def test_weights_of_other_layers_are_refused(networks: Path, tmp_path: Path) -> None:
    _, document, folder = run(tmp_path, "svd", f"{networks}:on_values", "--budget", "60%", "--no-measure")
    network, point = made(networks, "on_values"), document["points"][1]
    before = copy.deepcopy(network.state_dict())
    assert again(network, point, folder)(torch.zeros(SHAPE)).shape == (1, 10)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    file = folder / point["file"]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="does not fit the layers of OnValues"):
        again(network, point, folder)
    file.write_bytes(whole)
    with pytest.raises(ModelError, match="does not fit the layers of OnValues"):
        again(network, point | {"layers": point["layers"][:1]}, folder)
    with pytest.raises(UsageError, match="cannot decompose"):
        again(made(networks, "bare"), point, folder)
    with pytest.raises(UsageError, match="x.pt2 is a network by itself; try: handset bench"):
        again(network, point | {"file": "x.pt2"}, folder)
