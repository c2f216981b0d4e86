"""ResNets, VGGs, DenseNets, SqueezeNexts and CondenseNets: counts, explicit widths, and what makes each family itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.graph import count, kernels
from pipeline.models import MODELS, build
from pipeline.models.condensenet import CondensedConv, CondensedLinear, CondenseNet, LearnedGroupConv

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


@pytest.mark.parametrize(
    ("name", "op", "times"),
    [
        ("resnet18", "add", 8),
        ("resnet50", "add", 16),
        ("squeezenext_23", "add", 21),
        ("squeezenext_23v5", "add", 21),
        ("densenet40", "cat", 36),
        ("densenet121", "cat", 58),
        ("densenet121", "avg_pool2d", 3),
        ("vgg16", "max_pool2d", 5),
        ("vgg19_cifar", "max_pool2d", 4),
        ("condensenet74_c4_g4", "index_select", 37),
        ("condensenet74_c4_g4", "channel_shuffle", 36),
    ],
)
def test_what_connects_the_layers(name: str, op: str, times: int) -> None:
    assert count(on_paper(name), MODELS[name].input_shape).uncounted.get(op, 0) == times


def test_where_the_stride_of_a_bottleneck_is() -> None:
    def strides(name: str) -> list[tuple[int, ...]]:
        body = on_paper(name).get_submodule("blocks.3.body")
        return [layer.stride for layer in body.modules() if isinstance(layer, nn.Conv2d)]

    assert strides("resnet50") == [(2, 2), (1, 1), (1, 1)]
    assert strides("resnet50_v1_5") == [(1, 1), (2, 2), (1, 1)]


def test_a_resnet_projects_where_the_shape_changes_alone() -> None:
    def projected(name: str) -> list[int]:
        blocks = on_paper(name).blocks
        return [i for i, block in enumerate(blocks) if not isinstance(block.shortcut, nn.Identity)]

    assert projected("resnet18") == [2, 4, 6]
    assert projected("resnet50") == [0, 3, 7, 13]


def test_a_dense_layer_puts_what_it_makes_behind_what_it_reads() -> None:
    layer = normalised(build("densenet40")).get_submodule("features.0").eval()
    x = torch.rand(1, 16, 4, 4)
    y = forward(layer, x)
    made = layer.get_submodule("convolutions.0")
    expected = made.conv(F.relu(made.norm(x)))  # type: ignore[operator]
    assert torch.equal(y, torch.cat([x, expected], 1))


def test_a_squeezenext_alternates_its_separable_pair_in_each_stage() -> None:
    for name in ("squeezenext_23", "squeezenext_23v5", "squeezenext_g23"):
        pairs = [(unit.main[2][0].kernel_size, unit.main[3][0].kernel_size) for unit in on_paper(name).units]
        assert pairs == [((3, 1), (1, 3)), ((1, 3), (3, 1))] * 10 + [((3, 1), (1, 3))]


def test_a_squeezenext_has_two_groups_in_the_first_1x1_and_the_pair() -> None:
    unit = on_paper("squeezenext_g23").units[6]
    assert [layer[0].groups for layer in unit.main] == [2, 1, 2, 2, 1]
    assert unit.shortcut[0].groups == 1


def test_a_squeezenext_projects_the_first_unit_of_a_stage_also_between_equal_widths() -> None:
    units = on_paper("squeezenext_23", width_mult=2.0).units  # 64 channels before the first unit and after it
    assert [i for i, unit in enumerate(units) if not isinstance(unit.shortcut, nn.Identity)] == [0, 6, 12, 20]


def test_the_main_branch_of_v5_reads_the_projection() -> None:
    plain, chained = on_paper("squeezenext_23").units[6], on_paper("squeezenext_23v5").units[2]
    assert (plain.main[0][0].in_channels, plain.main[0][0].stride) == (32, (2, 2))
    assert (chained.main[0][0].in_channels, chained.main[0][0].stride) == (64, (1, 1))
    unit = normalised(build("squeezenext_23v5")).get_submodule("units.2").eval()
    x = torch.rand(1, 32, 8, 8)
    with torch.no_grad():
        short = unit.get_submodule("shortcut")(x)
        assert torch.equal(unit(x), F.relu(short + unit.get_submodule("main")(short)))


def learned(**settings: Any) -> CondenseNet:
    torch.manual_seed(0)
    module = normalised(build("condensenet50_cifar10", learned=True, **settings))
    assert isinstance(module, CondenseNet)
    return module


def layers_of(module: nn.Module) -> list[LearnedGroupConv]:
    return [layer for layer in module.modules() if isinstance(layer, LearnedGroupConv)]


@pytest.mark.parametrize(
    ("progress", "kept"), [(0.0, 1.0), (0.16, 1.0), (0.17, 0.75), (0.34, 0.5), (0.5, 0.25), (1.0, 0.25)]
)
def test_condensing_takes_a_quarter_a_stage_in_the_first_half_of_training(progress: float, kept: float) -> None:
    module = learned()
    module.set_progress(progress)
    assert {layer.mask.mean().item() for layer in layers_of(module)} == {kept}


def test_a_group_loses_its_least_important_inputs_whole() -> None:
    layer = LearnedGroupConv(8, 6, groups=2, condensation=4)
    nn.init.constant_(layer.conv.weight, 1.0)
    with torch.no_grad():
        layer.conv.weight[0::2, [1, 5]] = 0.1  # outputs 0, 2, 4 are the first group
        layer.conv.weight[1::2, [0, 7]] = -0.1
    layer.condense_to(1)
    assert (layer.mask[0::2, :, 0, 0] == 0).nonzero()[:, 1].tolist() == [1, 5] * 3
    assert (layer.mask[1::2, :, 0, 0] == 0).nonzero()[:, 1].tolist() == [0, 7] * 3


def test_what_is_lost_stays_lost_and_stages_reached_at_once_are_all_gone_through() -> None:
    slowly, at_once = learned(), learned()
    before = torch.ones(())
    for progress in (0.2, 0.4, 0.5):
        slowly.set_progress(progress)
        assert not (layers_of(slowly)[5].mask * (1 - before)).any()
        before = layers_of(slowly)[5].mask.clone()
    slowly.set_progress(0.1)
    at_once.set_progress(0.5)
    for one, other in zip(layers_of(slowly), layers_of(at_once), strict=True):
        assert torch.equal(one.mask, other.mask)


def test_gradients_do_not_reach_what_is_masked() -> None:
    layer = LearnedGroupConv(8, 8, groups=4, condensation=4)
    layer.condense_to(3)
    layer(torch.rand(2, 8, 3, 3)).sum().backward()
    assert layer.conv.weight.grad is not None
    assert torch.equal(layer.conv.weight.grad != 0, layer.mask != 0)


def test_group_lasso_is_the_norm_of_each_group_and_input_until_the_last_stage() -> None:
    layer = LearnedGroupConv(4, 4, groups=2, condensation=2)
    with torch.no_grad():
        layer.conv.weight[:] = torch.tensor([3.0, 5.0, 4.0, 12.0]).view(4, 1, 1, 1)  # groups of (3, 4) and of (5, 12)
    assert layer.group_lasso().item() == pytest.approx(4 * (5 + 13))
    layer.condense_to(1)
    assert layer.group_lasso().item() == 0


@pytest.mark.parametrize("groups", [4, 8])
def test_a_converted_network_computes_the_same(groups: int) -> None:
    module = learned(groups=groups, **({"widths": [16, *[32, 8] * 24]} if groups == 8 else {}))
    module.set_progress(0.5)
    features = module.classifier.in_features
    assert isinstance(features, int)
    used = torch.randperm(features)[: features // 2]
    with torch.no_grad():  # the half that the classifier reads, so that nothing is lost
        weight = torch.zeros_like(module.classifier.weight)  # type: ignore[arg-type]
        weight[:, used] = torch.randn(10, len(used))
        module.classifier.weight.copy_(weight)  # type: ignore[operator, union-attr]
    converted = module.convert()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(forward(module, x), forward(converted, x), atol=1e-4)
    assert not layers_of(converted) and isinstance(converted.classifier, CondensedLinear)
    assert converted.classifier.index.tolist() == sorted(used.tolist())


def test_a_converted_network_has_the_shapes_of_the_listed_one_and_the_learned_one_is_left() -> None:
    module = learned()
    module.set_progress(0.5)
    converted = {key: value.shape for key, value in module.convert().state_dict().items()}
    assert converted == {key: value.shape for key, value in on_paper("condensenet50_cifar10").state_dict().items()}
    assert len(layers_of(module)) == 24


def test_converting_too_early_or_twice_is_refused() -> None:
    module = learned()
    module.set_progress(0.4)
    with pytest.raises(UsageError, match=r"after 2 of 3 condensing stages; try: set_progress\(0.5\)"):
        module.convert()
    with pytest.raises(UsageError, match="converted already"):
        on_paper("condensenet50_cifar10").convert()


def test_every_input_is_read_where_nothing_was_learned() -> None:
    for layer in build("condensenet50_cifar10").modules():
        if isinstance(layer, CondensedConv):
            assert sorted(layer.index.tolist()) == list(range(len(layer.index)))


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
