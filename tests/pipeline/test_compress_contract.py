"""What every compressor keeps: its input, the output's shape, itself under repetition, and both file formats."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pipeline.compress
from pipeline.artifact import Network
from pipeline.compress import COMPRESSORS, Compressed, Compressor, build
from pipeline.default_set import compressed_digits, is_digits
from pipeline.errors import UsageError
from pipeline.export import EXPORTERS
from pipeline.graph import count, count_macs

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "alds": {"keep": 0.5, "seeds": 6},
    "cp": {"ranks": {"features.3": 16, "features.6": 24}, "iterations": 5},
    "deeptwist": {"method": "svd", "keep": 0.5, "every": 3},
    "svd": {"keep": 0.4, "unit": "macs"},
    "tiled_svd": {"keep": 0.5, "grid": (4, 2)},
    "tucker2": {"ranks": {"features.3": (16, 12), "features.9": (32, 32)}},
}
"""Method -> settings that make the digits network smaller."""

IDENTITY: Mapping[str, Mapping[str, Any]] = {
    "alds": {"keep": 1.0},
    "cp": {"energy": 0.9, "layers": []},
    "deeptwist": {"keep": 1.0},
    "svd": {"keep": 1.0},
    "tiled_svd": {"energy": 0.9, "layers": []},
    "tucker2": {"ranks": {}},
}
"""Method -> settings that change nothing."""

FULL: Mapping[str, Mapping[str, Any]] = {
    "alds": {"ranks": {"features.3": (2, 64), "linear": (4, 10)}, "even_if_larger": True},
    "cp": {"ranks": {"features.3": 288}, "even_if_larger": True},
    "deeptwist": {"ranks": {"features.3": (64, 32)}, "even_if_larger": True},
    "svd": {"energy": 1.0, "folding": "split_h", "even_if_larger": True},
    "tiled_svd": {"energy": 1.0, "grid": (5, 4), "even_if_larger": True},
    "tucker2": {"ranks": {"features.3": (64, 32), "features.9": (128, 128)}, "even_if_larger": True},
}
"""Method -> settings that rewrite layers and lose nothing."""

EXPORTED: Mapping[str, Mapping[str, Any]] = {
    "alds": {"ranks": {"0": (2, 2), "2": (1, 2), "5": (3, 2)}},
    "cp": {"ranks": {"0": 3}, "iterations": 5},
    "deeptwist": {"method": "alds", "ranks": {"0": (2, 2), "2": (1, 2)}},
    "svd": {"energy": 0.3, "folding": "split_w"},
    "tiled_svd": {"energy": 0.5, "grid": (3, 2)},
    "tucker2": {"energy": 0.3},
}
"""Method -> settings for a small network with a grouped convolution and a linear layer."""

SHAPE = (1, 1, 8, 8)


def small_network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(6, 12, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, 5),
        ).eval()
    return Network("small", "python", (1, 6, 8, 8), module=module)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_method_in_the_folder_is_listed_under_its_name() -> None:
    found = set()
    for module in pkgutil.iter_modules(pipeline.compress.__path__):
        members = vars(importlib.import_module(f"pipeline.compress.{module.name}")).values()
        found |= {
            one for one in members if isinstance(one, type) and issubclass(one, Compressor) and one.__dict__.get("name")
        }
    assert found == set(COMPRESSORS.values())
    assert all(method.name == name for name, method in COMPRESSORS.items())


def test_an_unknown_method_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no compression method 'tucker3'; try: alds, cp, deeptwist, svd, tiled_svd, tucker2"):
        build("tucker3")


@pytest.fixture(scope="module")
def made() -> dict[str, Compressed]:
    """Each method's smaller network, made once."""
    return {}


@pytest.mark.parametrize("name", COMPRESSORS)
class TestContract:
    @pytest.fixture
    def network(self, digits_network: Any) -> nn.Module:
        module: nn.Module = digits_network.module
        return module

    @pytest.fixture
    def images(self) -> torch.Tensor:
        return torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def compressed(self, name: str, network: nn.Module, made: dict[str, Compressed]) -> Compressed:
        if name not in made:
            made[name] = build(name, **SETTINGS[name]).apply(network, SHAPE)
        return made[name]

    def test_the_input_is_left_bit_for_bit_as_it_was(self, name: str, network: nn.Module) -> None:
        before = copy.deepcopy(network.state_dict())
        modules = [(path, type(module)) for path, module in network.named_modules()]
        smaller = build(name, **SETTINGS[name]).apply(network, SHAPE).model
        after = network.state_dict()
        assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
        assert [(path, type(module)) for path, module in network.named_modules()] == modules
        storages = {tensor.data_ptr() for tensor in network.state_dict().values()}
        assert storages.isdisjoint(tensor.data_ptr() for tensor in smaller.state_dict().values())

    def test_the_output_keeps_its_shape_and_mode(self, compressed: Compressed, images: torch.Tensor) -> None:
        assert compressed.model(images).shape == (4, 10)
        assert not any(module.training for module in compressed.model.modules())

    def test_a_network_in_training_stays_in_training(self, name: str, network: nn.Module) -> None:
        training = copy.deepcopy(network).train()
        assert all(module.training for module in build(name, **SETTINGS[name]).apply(training, SHAPE).model.modules())

    def test_it_repeats_exactly(self, name: str, network: nn.Module, compressed: Compressed) -> None:
        again = build(name, **SETTINGS[name]).apply(network, SHAPE)
        one, other = compressed.model.state_dict(), again.model.state_dict()
        assert list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)
        assert again.layers == compressed.layers

    def test_no_compression_is_the_identity(self, name: str, network: nn.Module, images: torch.Tensor) -> None:
        same = build(name, **IDENTITY[name]).apply(network)
        assert torch.equal(same.model(images), network(images))
        assert same.params_before == same.params_after and same.layers == ()

    def test_nothing_is_lost_where_nothing_is_cut(self, name: str, network: nn.Module, images: torch.Tensor) -> None:
        full = build(name, **FULL[name]).apply(network)
        expected = network(images)
        assert (full.model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert all(layer.relative_error < 1e-6 for layer in full.layers)

    def test_its_state_survives_a_round_trip(
        self, compressed: Compressed, images: torch.Tensor, tmp_path: Path
    ) -> None:
        torch.save(compressed.model.state_dict(), tmp_path / "state.pt")
        blank = copy.deepcopy(compressed.model)
        for parameter in blank.parameters():
            nn.init.zeros_(parameter)
        blank.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert torch.equal(blank(images), compressed.model(images))

    def test_what_it_counts_is_so(self, name: str, network: nn.Module, compressed: Compressed) -> None:
        assert compressed.method == name and compressed.settings.items() >= SETTINGS[name].items()
        assert compressed.params_before == params(network) > compressed.params_after == params(compressed.model)
        saved = 0
        for layer in compressed.layers:
            assert layer.params_before == params(network.get_submodule(layer.layer))
            assert layer.params_after == params(compressed.model.get_submodule(layer.layer))
            assert 0 < layer.relative_error < 1
            saved += layer.params_before - layer.params_after
        assert saved == compressed.params_before - compressed.params_after
        macs = [count(one, SHAPE).macs for one in (network, compressed.model)]
        assert [compressed.macs_before, compressed.macs_after] == macs == [count_macs(network, SHAPE), macs[1]]
        assert macs[1] < macs[0]
        changes = [(layer.macs_before or 0) - (layer.macs_after or 0) for layer in compressed.layers]
        assert sum(changes) == macs[0] - macs[1]

    def test_every_layer_is_replaced_or_has_a_reason(self, network: nn.Module, compressed: Compressed) -> None:
        weighted = {path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
        replaced = {layer.layer for layer in compressed.layers}
        assert replaced | set(compressed.left_alone) == weighted and replaced.isdisjoint(compressed.left_alone)
        assert all(compressed.left_alone.values())

    @pytest.mark.parametrize("unit", ["params", "macs"])
    def test_it_obeys_its_budget_and_leaves_little_of_it(self, name: str, network: nn.Module, unit: str) -> None:
        quickly = {"iterations": 1} if name == "cp" else {}
        found = build(name, keep=0.6, unit=unit, **quickly).apply(network, SHAPE)
        before, after = (
            (found.params_before, found.params_after) if unit == "params" else (found.macs_before, found.macs_after)
        )
        assert 0.5 * before < after <= 0.6 * before

    def test_a_budget_that_cannot_be_met_says_what_can(self, name: str, network: nn.Module) -> None:
        with pytest.raises(
            UsageError, match="a budget of 100 params cannot be met: the smallest reachable is"
        ) as raised:
            build(name, budget=100).apply(network)
        assert "\n" not in str(raised.value)
        smallest = float(raised.value.try_.split()[0])
        found = build(name, budget=smallest).apply(network)
        assert found.params_after == smallest

    def test_a_layer_that_is_not_finite_is_named(self, name: str, network: nn.Module) -> None:
        broken = copy.deepcopy(network)
        broken.get_parameter("features.3.weight").data[0, 0, 0, 0] = float("nan")
        with pytest.raises(UsageError, match="layer 'features.3' holds NaN or infinity"):
            build(name, **{**SETTINGS[name], "ranks": None, "keep": 0.5}).apply(broken, SHAPE)

    def test_drawing_from_the_processs_generator_goes_on_as_if_nothing_was(self, name: str, network: nn.Module) -> None:
        state = torch.get_rng_state()
        build(name, **SETTINGS[name]).apply(network, SHAPE)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("format", EXPORTERS)
    def test_it_exports_and_agrees(self, name: str, format: str, tmp_path: Path) -> None:
        whole = small_network()
        assert whole.module is not None
        compressed = build(name, **{**EXPORTED[name], "even_if_larger": True}).apply(whole.module, whole.input_shape)
        assert compressed.layers
        exported = EXPORTERS[format]().export(dataclasses.replace(whole, module=compressed.model), tmp_path)
        assert exported.parity is not None and exported.parity.worst_error <= exported.parity.tolerance <= 1e-3


@pytest.mark.parametrize("format", EXPORTERS)
def test_the_compressed_digits_network_exports_and_agrees(digits_network: Any, tmp_path: Path, format: str) -> None:
    smaller, compression = compressed_digits(digits_network)
    assert smaller.module is not None and smaller.params is not None
    assert smaller.name == "digits_cnn_tucker2" and is_digits(smaller)
    exported = EXPORTERS[format]().export(smaller, tmp_path)
    assert exported.parity is not None and exported.parity.worst_error <= exported.parity.tolerance <= 1e-3
    assert smaller.params == params(smaller.module) < digits_network.params
    (layer,) = compression["layers"]
    assert compression["method"] == "tucker2" and layer["layer"] == "features.9" and layer["ranks"] == [32, 32]
    assert layer["params_before"] - layer["params_after"] == digits_network.params - smaller.params


def test_the_nouns_are_frozen(digits_network: Any) -> None:
    compressed = build("tucker2", ranks={}).apply(digits_network.module)
    with pytest.raises(dataclasses.FrozenInstanceError):
        compressed.params_after = 0  # type: ignore[misc]
