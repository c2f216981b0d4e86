"""The zoo: published numbers recomputed, widths, state_dict keys, and statistics that fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pipeline.models
from pipeline.datasets import examples
from pipeline.errors import UsageError
from pipeline.models import MODELS, build
from pipeline.models.mobilenet_v2 import make_divisible
from pipeline.models.settle import settle


def count(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Parameters, and MACs of convolutions and linear layers by forward hooks: output elements x weights per output."""
    macs = 0

    def add(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    with torch.no_grad():
        module.eval()(torch.zeros(shape, device=next(module.parameters()).device))
    return sum(parameter.numel() for parameter in module.parameters()), macs


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_that_the_list_states(name: str) -> None:
    spec = MODELS[name]
    with torch.device("meta"):
        module = build(name)
    assert count(module, spec.input_shape) == (spec.params, spec.macs)


# Sandler et al. count width 1.4 as 6.9M; every implementation has 6.11M, with a last layer of 1792.
@pytest.mark.parametrize(
    ("width_mult", "params", "macs"),
    [(0.35, 1_677_128, 59_285_808), (0.5, 1_968_680, 97_131_840), (1.4, 6_108_776, 582_195_824)],
)
def test_width_multiplier_of_mobilenet_v2(width_mult: float, params: int, macs: int) -> None:
    assert count(build("mobilenet_v2", width_mult=width_mult), (1, 3, 224, 224)) == (params, macs)


@pytest.mark.parametrize("name", ["digits_cnn", "mobilenet_v2", "resnet20", "resnet110"])
def test_explicit_widths_equal_to_the_default_give_the_same_shapes(name: str) -> None:
    default = {key: tuple(value.shape) for key, value in build(name).state_dict().items()}
    widths = {
        "digits_cnn": [32, 64, 128, 128],
        "mobilenet_v2": [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320, 1280],
    }.get(name, [16, 32, 64])
    assert {key: tuple(value.shape) for key, value in build(name, widths=widths).state_dict().items()} == default


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mobilenet_v2", {"widths": [8]}, "mobilenet_v2 was given 1 widths; try: give 19"),
        ("digits_cnn", {"widths": [8]}, "digits_cnn was given 1 widths"),
        ("resnet20", {"widths": [32, 16, 64]}, "resnet20 was given the widths"),
        ("resnet20", {"depth": 21}, "depth 21"),
        ("resnet20", {"width_mult": 0}, "width_mult=0"),
        ("mobilenet", {}, "mobilenet_v2"),
        ("?", {}, "handset models"),
    ],
)
def test_wrong_settings_are_told_in_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_number_of_classes() -> None:
    assert build("resnet20", num_classes=3).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert build("digits_cnn").eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_inner_widths_of_a_resnet() -> None:
    module = build("resnet20", widths=[16, 32, 64, *range(1, 10)])
    inner = [module.get_parameter(f"layer{stage}.{i}.conv1.weight").shape[0] for stage in (1, 2, 3) for i in range(3)]
    assert inner == list(range(1, 10))


def test_state_dict_keys_of_a_resnet() -> None:
    keys = {key.rpartition(".")[0] for key in build("resnet20").state_dict()}
    blocks = {
        f"layer{stage}.{i}.{part}" for stage in (1, 2, 3) for i in range(3) for part in ("conv1", "bn1", "conv2", "bn2")
    }
    assert keys == {"conv1", "bn1", "linear"} | blocks


def test_option_a_shortcut_takes_every_second_pixel_and_adds_zero_channels() -> None:
    block = build("resnet20").get_submodule("layer2.0").eval()
    nn.init.zeros_(block.get_parameter("bn2.weight"))  # the residual branch gives 0: what is left is the shortcut
    x = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


@pytest.mark.parametrize(
    ("channels", "expected"), [(3, 8), (12, 16), (16 * 0.35, 8), (32 * 1.4, 48), (22.4, 24), (8.9, 16)]
)
def test_make_divisible_never_takes_more_than_a_tenth(channels: float, expected: int) -> None:
    assert make_divisible(channels) == expected
    assert make_divisible(channels) >= 0.9 * channels


def test_settled_networks_have_outputs_of_a_sane_scale_and_the_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    module, inputs = build("mobilenet_v2"), examples((1, 3, 224, 224))
    before = torch.random.get_rng_state()
    settle(module, inputs)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not module.training
    with torch.no_grad():
        for x in inputs.values():
            assert 0.05 < module(torch.from_numpy(x)).abs().max() < 50


def test_settled_statistics_are_those_of_the_batch() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    inputs = examples((1, 3, 9, 9))
    settle(module, inputs)
    with torch.no_grad():
        y = torch.cat([module[0](torch.from_numpy(x)) for x in inputs.values()])
    assert torch.allclose(module[1].running_mean, y.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(module[1].running_var, y.var((0, 2, 3)), rtol=1e-5)
    assert module[1].momentum == 0.1


def test_every_family_is_listed() -> None:
    no_family = {"__init__", "blocks", "settle"}
    files = {path.stem for path in Path(pipeline.models.__file__).parent.glob("*.py")} - no_family
    assert files == {spec.builder.partition(":")[0].rpartition(".")[2] for spec in MODELS.values()}


def test_names_and_kinds_are_known_without_torch() -> None:
    code = (
        "import sys, pipeline.models, pipeline.spec, pipeline.export, pipeline.datasets, pipeline.kernels.onnx, "
        "pipeline.kernels.tflite\n"
        "print(sorted({'torch', 'onnx', 'sklearn', 'litert_torch', 'ai_edge_litert', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
