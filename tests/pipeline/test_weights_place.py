"""Weights of another network are refused with what would fit; what has no place is told; nothing is filled half."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models import MODELS, build
from pipeline.weights import load
from pipeline.weights.maps import SOURCES, sources_of
from pipeline.weights.place import would_fit

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet20() -> State:
    return build("resnet20").state_dict()


def refusal(state: State, name: str, folder: Path, module: nn.Module | None = None) -> str:
    torch.save(state, folder / "w.pth")
    with pytest.raises(ModelError) as error:
        load(module or build(name), name, folder / "w.pth")
    assert error.value.exit_status == 2 and str(error.value).isprintable() and len(str(error.value)) < 900
    return str(error.value)


def test_another_network_is_named(resnet20: State, tmp_path: Path) -> None:
    told = refusal(resnet20, "resnet32", tmp_path)
    assert told.startswith(
        "w.pth fills 97 of the 157 tensors of resnet32 by the names of handset or akamaster; missing: "
    )
    assert "layer1.3.conv1.weight, layer1.3.bn1.weight, layer1.3.bn1.bias and 57 more" in told
    assert told.endswith("; try: resnet20, which it fits")


def test_another_family_is_named(tmp_path: Path) -> None:
    told = refusal(build("mobilenet_v2").state_dict(), "mobilenet_v3_large", tmp_path)
    assert told.endswith("; try: mobilenet_v2, which it fits")


def test_both_networks_that_a_file_fits_are_named(tmp_path: Path) -> None:
    """The two ResNet-50 differ in strides alone, which a file of ours does not tell."""
    told = refusal(build("resnet50").state_dict(), "resnet18", tmp_path)
    assert told.endswith("; try: resnet50 or resnet50_v1_5, which it fits")


def test_nothing_of_the_zoo(tmp_path: Path) -> None:
    told = refusal({"encoder.0.weight": torch.ones(3, 3)}, "resnet20", tmp_path)
    assert told.startswith("w.pth fills 0 of the 97 tensors of resnet20")
    assert told.endswith("; try: the network that it is of: none of the zoo")


def test_looking_for_what_would_fit_is_quick() -> None:
    state = build("shufflenet_v2").state_dict()
    begun = time.process_time()
    assert would_fit(state) == ["shufflenet_v2"]
    assert time.process_time() - begun < 5


def test_a_bigger_network_with_the_same_layers_is_another(resnet20: State, tmp_path: Path) -> None:
    """Option B: shortcuts with a convolution. All of ours would be filled, and the outputs be wrong."""
    extra = {"layer2.0.downsample.0.weight": torch.ones(32, 16, 1, 1), "layer2.0.downsample.1.bias": torch.ones(32)}
    told = refusal(resnet20 | extra, "resnet20", tmp_path)
    assert "fills 97 of the 97" in told
    assert "without a place: layer2.0.downsample.0.weight, layer2.0.downsample.1.bias" in told


def test_what_belongs_to_no_part_of_the_network_is_told(resnet20: State, tmp_path: Path) -> None:
    extra = {"ema.decay": torch.ones(7), "layer1.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    torch.save(resnet20 | extra, tmp_path / "w.pth")
    module = build("resnet20")
    placed = load(module, "resnet20", tmp_path / "w.pth")
    assert placed.unplaced == ("ema.decay", "layer1.total_ops", "total_params")
    assert placed.filled == 97 and placed.note == ""
    assert all(
        torch.equal(module.state_dict()[key], tensor) for key, tensor in resnet20.items() if "tracked" not in key
    )


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "shufflenet_v2", "squeezenet_1_1"])
def test_another_number_of_classes(name: str, tmp_path: Path) -> None:
    ours = build(name).state_dict()[[key for key in build(name).state_dict() if key.endswith("weight")][-1]].shape[0]
    told = refusal(build(name, num_classes=7).state_dict(), name, tmp_path)
    assert told == (
        f"w.pth has a classifier for 7 classes, {name} has one for {ours:,}; "
        f"try: file.py:function that returns pipeline.models.build('{name}', num_classes=7)"
    )
    assert load(build(name, num_classes=7), name, tmp_path / "w.pth").unplaced == ()


def test_other_widths(tmp_path: Path) -> None:
    told = refusal(build("resnet20", width_mult=0.5).state_dict(), "resnet20", tmp_path)
    assert "of another shape: conv1.weight is 8x3x3x3, not 16x3x3x3, " in told
    assert load(build("resnet20", width_mult=0.5), "mine", tmp_path / "w.pth").filled == 97


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite(wrong: float, resnet20: State, tmp_path: Path) -> None:
    spoiled = resnet20 | {"bn1.running_var": torch.full((16,), wrong)}
    assert "has values that are not finite in bn1.running_var; try: " in refusal(spoiled, "resnet20", tmp_path)


def test_whole_numbers_are_no_weights(resnet20: State, tmp_path: Path) -> None:
    rounded = {key: tensor.to(torch.int8) for key, tensor in resnet20.items()}
    assert "conv1.weight is 16x3x3x3 of int8, not 16x3x3x3" in refusal(rounded, "resnet20", tmp_path)


def test_half_precision_and_files_without_counters(resnet20: State, tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in resnet20.items() if not key.endswith("num_batches_tracked")}
    torch.save(half, tmp_path / "w.pth")
    module = build("resnet20")
    assert load(module, "resnet20", tmp_path / "w.pth").filled == 97
    weight = module.get_parameter("conv1.weight")
    assert weight.dtype == torch.float32 and torch.equal(weight, half["conv1.weight"].float())


def test_keys_of_a_file_may_hold_anything(tmp_path: Path) -> None:
    hostile = {f"layer1.\x1b[2J\n{'x' * 1000}{i}": torch.ones(2) for i in range(50)}
    assert "and 47 more" in refusal(build("resnet20").state_dict() | hostile, "resnet20", tmp_path)


def test_a_network_of_the_users_own(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.conv = nn.Conv2d(3, 4, 1)

    state = Own().state_dict() | {"scale": torch.rand(3)}
    torch.save(state, tmp_path / "w.pth")
    module = Own()
    assert load(module, "own", tmp_path / "w.pth").filled == 3
    assert torch.equal(module.scale, state["scale"])
    assert "missing: conv.weight, conv.bias" in refusal({"scale": torch.ones(3)}, "own", tmp_path, Own())


ONE_OF_EACH = (
    "condensenet50_cifar10", "densenet121", "densenet100_bc", "mnasnet_a1", "mnasnet_b1", "mobilenet_v1", "mobilenet_v2",
    "mobilenet_v3_large", "mobilenet_v3_small_minimalistic", "resnet18", "resnet50", "resnet20", "shufflenet_v1_g1",
    "shufflenet_v1_g3", "shufflenet_v2", "squeezenet_1_0", "vgg11", "vgg11_cifar",
)  # fmt: skip


def test_every_map_covers_a_network_of_the_zoo_and_names_layers_once() -> None:
    """Each source of each class has all layers of some network of the zoo, and never two of ours for one of theirs."""
    covering: set[tuple[str, str]] = set()
    with torch.device("meta"):
        modules = [build(name) for name in ONE_OF_EACH]
    for module in modules:
        kind = f"{type(module).__module__}:{type(module).__qualname__}"
        ours = {key.rpartition(".")[0] for key in module.state_dict()}
        for source in sources_of(module):
            pairs = list(source.layers(module))
            assert len({theirs for _, theirs in pairs}) == len({mine for mine, _ in pairs}) == len(pairs)
            if ours <= {mine for mine, _ in pairs}:
                covering.add((kind, source.name))
    assert covering >= {(kind, source.name) for kind, sources in SOURCES.items() for source in sources}
    assert set(SOURCES) <= {spec.builder for spec in MODELS.values()}


def test_a_batch_of_ours_with_the_weights_of_another_gives_anothers_outputs(tmp_path: Path) -> None:
    one, other = build("digits_cnn").eval(), build("digits_cnn").eval()
    x: Any = torch.rand(2, 1, 8, 8)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    with torch.no_grad():
        assert not torch.equal(one(x), other(x))
        load(one, "digits_cnn", tmp_path / "w.pth")
        assert torch.equal(one(x), other(x))
