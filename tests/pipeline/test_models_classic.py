"""ResNets, VGGs, DenseNets, SqueezeNexts and CondenseNets: counts, explicit widths, classes, initialisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.graph import count, kernels
from pipeline.models import MODELS, build

MODULES = ("resnet", "vgg", "densenet", "squeezenext", "condensenet")
FAMILIES = [name for name, spec in MODELS.items() if spec.builder.split(":")[0].split(".")[-1] in MODULES]
IMAGE, SMALL, CAFFE = (1, 3, 224, 224), (1, 3, 32, 32), (1, 3, 227, 227)

# Written out, not made by the code under test. Order: as each family's docstring says.
WIDTHS = {
    "resnet18": [64, 64, 128, 256, 512, *[64] * 2, *[128] * 2, *[256] * 2, *[512] * 2],
    "resnet50": [64, 256, 512, 1024, 2048, *[64] * 6, *[128] * 8, *[256] * 12, *[512] * 6],
    "vgg11": [64, 128, 256, 256, *[512] * 4, 4096, 4096],
    "vgg16": [64, 64, 128, 128, 256, 256, 256, *[512] * 6, 4096, 4096],
    "vgg16_cifar": [64, 64, 128, 128, 256, 256, 256, *[512] * 6, 512],
    "vgg19_cifar": [64, 64, 128, 128, *[256] * 4, *[512] * 8],
    "densenet40": [16, *[12] * 12, 160, *[12] * 12, 304, *[12] * 12],
    "densenet121": [64, *[128, 32] * 6, 128, *[128, 32] * 12, 256, *[128, 32] * 24, 512, *[128, 32] * 16],
    "squeezenext_23": [64, 32, 64, 128, 256, 128, *[16, 8, 16, 16] * 6, *[32, 16, 32, 32] * 6, *[64, 32, 64, 64] * 8, 128, 64,
                       128, 128],
    "squeezenext_23v5": [64, 32, 64, 128, 256, 128, *[16, 8, 16, 16] * 2, *[32, 16, 32, 32] * 4, *[64, 32, 64, 64] * 14, 128,
                         64, 128, 128],
    "condensenet50_cifar10": [16, *[32, 8] * 8, *[64, 16] * 8, *[128, 32] * 8],
    "condensenet74_c8_g8": [16, *[32, 8] * 4, *[64, 16] * 6, *[128, 32] * 8, *[256, 64] * 10, *[512, 128] * 8],
}  # fmt: skip


def on_paper(name: str, **settings: Any) -> Any:
    """Built without values: a forward pass takes milliseconds."""
    with torch.device("meta"):
        return build(name, **settings).eval()


def outputs(module: nn.Module) -> list[int]:
    """Output channels of the convolutions, in the order in which they were made."""
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def forward(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = module.eval()(x)
    return result


def normalised(module: nn.Module) -> nn.Module:
    """With normalisations that differ from channel to channel."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module


@pytest.mark.parametrize(
    ("name", "settings", "shape", "params", "macs"),
    [
        ("resnet18", {}, IMAGE, 11_689_512, 1_814_073_344),
        ("resnet18", {"depth": 34}, IMAGE, 21_797_672, 3_663_761_408),
        ("resnet50", {}, IMAGE, 25_557_032, 3_857_973_248),
        ("resnet50_v1_5", {}, IMAGE, 25_557_032, 4_089_184_256),
        ("resnet50", {"depth": 101}, IMAGE, 44_549_160, 7_570_194_432),
        ("resnet50", {"depth": 152}, IMAGE, 60_192_808, 11_282_415_616),
        ("vgg11", {}, IMAGE, 132_863_336, 7_609_090_048),
        ("vgg16", {}, IMAGE, 138_357_544, 15_470_264_320),
        ("vgg19", {}, IMAGE, 143_667_240, 19_632_062_464),
        ("vgg16_cifar", {}, SMALL, 14_987_210, 313_463_808),
        ("vgg19_cifar", {}, SMALL, 20_035_018, 398_136_320),
        ("densenet40", {}, SMALL, 1_019_722, 264_812_928),
        ("densenet100_bc", {}, SMALL, 769_162, 287_929_692),
        ("densenet121", {}, IMAGE, 7_978_856, 2_834_161_664),
        ("squeezenext_g23", {}, CAFFE, 543_072, 224_191_552),
        ("squeezenext_23", {}, CAFFE, 717_280, 277_999_808),
        ("squeezenext_23", {"width_mult": 2.0}, CAFFE, 2_361_728, 742_070_464),
        ("squeezenext_23v5", {}, CAFFE, 930_016, 224_916_480),
        ("squeezenext_23v5", {"width_mult": 2.0}, CAFFE, 3_222_912, 702_592_000),
        ("condensenet50_cifar10", {}, SMALL, 214_186, 27_183_376),
        ("condensenet74_c4_g4", {}, IMAGE, 4_773_944, 516_640_576),
        ("condensenet74_c4_g4", {"learned": True}, IMAGE, 11_922_680, 1_267_904_128),
        ("condensenet74_c8_g8", {}, IMAGE, 2_935_416, 261_545_792),
        ("condensenet86_cifar10", {}, SMALL, 516_202, 62_377_888),
    ],
)
def test_published_counts(name: str, settings: dict[str, Any], shape: tuple[int, ...], params: int, macs: int) -> None:
    counts = count(on_paper(name, **settings), shape)
    assert (counts.params, counts.macs) == (params, macs)
    if not settings:
        assert (MODELS[name].params, MODELS[name].macs, MODELS[name].input_shape) == (params, macs, shape)


# Of normalisations, which the SqueezeNext paper counts with the MACs: 282M, 228M, 749M and 708M.
@pytest.mark.parametrize(
    ("name", "width_mult", "elements"),
    [
        ("squeezenext_g23", 1.0, 3_990_960),
        ("squeezenext_23", 1.0, 3_990_960),
        ("squeezenext_23", 2.0, 7_187_104),
        ("squeezenext_23v5", 1.0, 3_101_504),
        ("squeezenext_23v5", 2.0, 5_393_920),
        ("condensenet50_cifar10", 1.0, 1_291_264),
        ("condensenet74_c8_g8", 1.0, 11_014_416),
    ],
)
def test_normalised_elements(name: str, width_mult: float, elements: int) -> None:
    module, found = on_paper(name, width_mult=width_mult), 0

    def add(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal found
        found += output.numel()

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(add)
    module(torch.zeros(MODELS[name].input_shape, device="meta"))
    assert found == elements


@pytest.mark.parametrize("name", WIDTHS)
def test_explicit_widths_equal_to_the_default_give_the_same_shapes(name: str) -> None:
    default = {key: value.shape for key, value in on_paper(name).state_dict().items()}
    assert {key: value.shape for key, value in on_paper(name, widths=WIDTHS[name]).state_dict().items()} == default


@pytest.mark.parametrize("name", ["densenet40", "densenet121", "vgg16_cifar", "condensenet50_cifar10"])
def test_any_widths_go_where_the_order_says(name: str) -> None:
    widths = [4 * (3 + i % 7) for i in range(len(WIDTHS[name]))]
    module = on_paper(name, widths=widths)
    assert outputs(module) == widths[: len(outputs(module))]
    logits = module(torch.zeros(MODELS[name].input_shape, device="meta"))
    assert logits.shape == (1, MODELS[name].settings.get("num_classes", 1000))


def test_any_widths_of_a_resnet() -> None:
    inner = list(range(101, 133))
    module = on_paper("resnet50", widths=[7, 20, 30, 40, 50, *inner])
    assert [n for n in outputs(module) if n > 100] == inner
    assert outputs(module)[:5] == [7, 101, 102, 20, 20]
    assert module(torch.zeros(IMAGE, device="meta")).shape == (1, 1000)
    basic = on_paper("resnet18", widths=[7, 20, 30, 40, 50, *range(101, 109)])
    assert [n for n in outputs(basic) if n > 100] == list(range(101, 109))


def test_any_widths_of_a_squeezenext() -> None:
    inner = [2 * n for n in range(101, 185)]
    module = on_paper("squeezenext_g23", widths=[6, 10, 12, 14, 16, 9, *inner])
    assert [n for n in outputs(module) if n > 100] == inner
    assert outputs(module)[:2] == [6, 10] and outputs(module)[-1] == 9
    assert module(torch.zeros(CAFFE, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_wrong_number_of_widths(name: str) -> None:
    for count_ in (2, len(WIDTHS[name]) + 1):
        with pytest.raises(UsageError, match=f"was given {count_} widths; try: give \\d+") as caught:
            build(name, widths=[16] * count_)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet18", {"depth": 20}, "depth 20; try: 18, 34, 50, 101, 152"),
        ("resnet50", {"strided": "5x5"}, "'5x5'; try: 1x1 or 3x3"),
        ("vgg16", {"depth": 13}, "depth 13; try: 11, 16, 19"),
        ("vgg16", {"form": "cifar"}, "'cifar'; try: imagenet, cifar_li, cifar_liu"),
        ("densenet121", {"variant": "122"}, "'122'; try: 40, 100_bc, 121"),
        ("squeezenext_23", {"version": "23v6"}, "'23v6'; try: 23, 23v5, g23"),
        ("squeezenext_g23", {"widths": [64, 32, 64, 129, 256, 128]}, "multiples of 2"),
        ("condensenet74_c4_g4", {"variant": "75"}, "'75'; try: 50_cifar, 86_cifar, 74"),
        ("condensenet50_cifar10", {"widths": [16, *[32, 8] * 23, 30, 8]}, "multiples of 4"),
        ("condensenet50_cifar10", {"widths": [18, *[32, 8] * 24]}, "of 4 in what each layer reads"),
        ("condensenet50_cifar10", {"groups": 4, "condensation": 3}, "of 3 in what each layer reads"),
    ],
)
def test_wrong_settings_are_told_in_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    if settings.get("condensation"):
        settings = {**settings, "widths": WIDTHS[name]}
    with pytest.raises(UsageError) as caught:
        build(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vgg11", "vgg16_cifar"])
def test_a_vgg_with_hidden_layers_reads_one_size(name: str) -> None:
    with pytest.raises(RuntimeError):
        on_paper(name)(torch.zeros(1, 3, 96, 160, device="meta"))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "vgg19_cifar", "densenet40", "densenet121", "squeezenext_23v5", "condensenet50_cifar10"],
)
def test_classes_and_resolution(name: str) -> None:
    assert on_paper(name, num_classes=7)(torch.zeros(2, 3, 96, 160, device="meta")).shape == (2, 7)


# Not CondenseNet: which kernels an index layer becomes is not known without exporting it.
@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("condensenet")])
def test_kernels_are_known_in_each_runtime(name: str) -> None:
    module = on_paper(name)
    layers = sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules())
    for runtime in ("onnxruntime", "litert"):
        uses = kernels(module, MODELS[name].input_shape, runtime)
        assert sum(use.key.op in ("conv2d", "linear") for use in uses) >= layers
        # onnxruntime runs a normalisation in front of a convolution as a depthwise 1x1, where it works in blocks
        depthwise = [use for use in uses if use.key.groups == use.key.out_channels > 0 and use.key.op == "conv2d"]
        assert not depthwise or name.startswith("densenet")
        assert sum(use.macs for use in uses) - sum(use.macs for use in depthwise) == MODELS[name].macs


def test_initialisation_as_published() -> None:
    torch.manual_seed(0)

    def weight(name: str, key: str) -> Tensor:
        return build(name).get_parameter(key)

    assert weight("resnet18", "blocks.7.body.1.0.weight").std().item() == pytest.approx((2 / 4608) ** 0.5, rel=0.02)
    assert weight("resnet18", "classifier.weight").std().item() == pytest.approx(0.01, rel=0.02)
    vgg = build("vgg11", width_mult=0.25)
    assert vgg.get_parameter("features.8.0.weight").abs().max().item() == pytest.approx((6 / 2304) ** 0.5, rel=0.01)
    assert not vgg.get_parameter("features.8.0.bias").any()
    assert weight("vgg16_cifar", "features.4.0.weight").std().item() == pytest.approx((2 / 1152) ** 0.5, rel=0.03)
    assert weight("densenet40", "features.12.conv.weight").std().item() == pytest.approx((2 / 160) ** 0.5, rel=0.03)
    assert weight("squeezenext_23", "stem.0.weight").abs().max().item() == pytest.approx((3 / 147) ** 0.5, rel=0.01)
    assert weight("squeezenext_23", "classifier.weight").abs().max().item() == pytest.approx((3 / 128) ** 0.5, rel=0.01)
    grouped = weight("condensenet50_cifar10", "features.25.convolutions.1.conv.weight")
    assert grouped.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.05)
