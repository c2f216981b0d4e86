"""The mobile families: counts at every published width, explicit widths, and what makes each family itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.graph import count, kernels
from pipeline.models import MODELS, build
from pipeline.models.mobilenet_v1 import AMC_HALF_FLOPS

IMAGE = (1, 3, 224, 224)

# Written out, not made by the code under test. Order: as each family's docstring says.
WIDTHS = {
    "mobilenet_v1": [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024],
    "mobilenet_v3_large": [16, 16, 64, 24, 72, 24, 72, 40, 120, 40, 120, 40, 240, 80, 200, 80, 184, 80, 184, 80, 480, 112, 672,
                           112, 672, 160, 960, 160, 960, 160, 960, 1280],
    "mobilenet_v3_small": [16, 16, 72, 24, 88, 24, 96, 40, 240, 40, 240, 40, 120, 48, 144, 48, 288, 96, 576, 96, 576, 96, 576,
                           1024],
    "mnasnet_a1": [32, 16, 96, 24, 144, 24, 72, 40, 120, 40, 120, 40, 240, 80, 480, 80, 480, 80, 480, 80, 480, 112, 672, 112,
                   672, 160, 960, 160, 960, 160, 960, 320, 1280],
    "mnasnet_b1": [32, 16, 48, 24, 72, 24, 72, 24, 72, 40, 120, 40, 120, 40, 240, 80, 480, 80, 480, 80, 480, 96, 576, 96, 576,
                   192, 1152, 192, 1152, 192, 1152, 192, 1152, 320, 1280],
    "shufflenet_v1_g3": [24, 240, 480, 960, *[60] * 4, *[120] * 8, *[240] * 4],
    "shufflenet_v1_g8": [24, 384, 768, 1536],
    "shufflenet_v2": [24, 116, 232, 464, 1024, *[58] * 4, *[116] * 8, *[232] * 4],
    "squeezenet_1_0": [96, 16, 64, 64, 16, 64, 64, 32, 128, 128, 32, 128, 128, 48, 192, 192, 48, 192, 192, 64, 256, 256, 64,
                       256, 256],
    "squeezenet_1_1": [64, 16, 64, 64, 16, 64, 64, 32, 128, 128, 32, 128, 128, 48, 192, 192, 48, 192, 192, 64, 256, 256, 64,
                       256, 256],
}  # fmt: skip
PREFIXES = ("mobilenet_v1", "mobilenet_v3", "mnasnet", "shufflenet", "squeezenet_")
FAMILIES = [name for name in MODELS if name.startswith(PREFIXES)]


def on_paper(name: str, **settings: Any) -> nn.Module:
    """Built without values: a forward pass takes milliseconds."""
    with torch.device("meta"):
        return build(name, **settings).eval()


def convolutions(module: nn.Module, depthwise: bool = False) -> list[nn.Conv2d]:
    """In order, without those of squeeze-and-excitation."""
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)}
    kept = [layer for name, layer in found.items() if not name.endswith((".down", ".up"))]
    return [layer for layer in kept if (layer.groups == layer.in_channels) is depthwise]


@pytest.mark.parametrize(
    ("name", "settings", "params", "macs"),
    [
        ("mobilenet_v1", {"width_mult": 0.25}, 470_072, 41_030_272),
        ("mobilenet_v1", {"width_mult": 0.5}, 1_331_592, 149_497_088),
        ("mobilenet_v1", {"width_mult": 0.75}, 2_585_560, 325_400_448),
        ("mobilenet_v1", {}, 4_231_976, 568_740_352),
        ("mobilenet_v1", {"widths": AMC_HALF_FLOPS}, 2_408_232, 293_870_000),
        ("mobilenet_v3_large", {}, 5_483_032, 216_589_760),
        ("mobilenet_v3_small", {}, 2_542_856, 56_510_400),
        ("mnasnet_a1", {}, 3_887_038, 311_579_072),
        ("mnasnet_b1", {"width_mult": 0.5}, 2_218_512, 104_455_968),
        ("mnasnet_b1", {"width_mult": 0.75}, 3_170_208, 215_493_104),
        ("mnasnet_b1", {}, 4_383_312, 314_415_872),
        ("mnasnet_b1", {"width_mult": 1.3}, 6_282_256, 526_362_432),
        ("shufflenet_v1_g1", {}, 1_531_936, 143_078_976),
        ("shufflenet_v1_g2", {}, 1_733_848, 140_836_512),
        ("shufflenet_v1_g3", {"width_mult": 0.5}, 717_324, 37_589_856),
        ("shufflenet_v1_g3", {}, 1_864_728, 137_460_672),
        ("shufflenet_v1_g3", {"width_mult": 1.5}, 3_441_168, 292_443_552),
        ("shufflenet_v1_g3", {"width_mult": 2.0}, 5_449_776, 524_045_184),
        ("shufflenet_v1_g4", {}, 1_968_344, 134_339_776),
        ("shufflenet_v1_g8", {"width_mult": 0.5}, 1_010_448, 40_469_760),
        ("shufflenet_v1_g8", {}, 2_433_768, 138_365_952),
        ("shufflenet_v1_g8", {"width_mult": 1.5}, 4_268_952, 290_188_800),
        ("shufflenet_v1_g8", {"width_mult": 2.0}, 6_521_232, 521_942_016),
        ("shufflenet_v2", {"width_mult": 0.5}, 1_365_792, 40_476_448),
        ("shufflenet_v2", {}, 2_278_760, 145_814_296),
        ("shufflenet_v2", {"width_mult": 1.5}, 3_506_720, 298_970_656),
        ("shufflenet_v2", {"width_mult": 2.0}, 7_402_600, 590_783_000),
        ("squeezenet_1_0", {}, 1_248_424, 818_924_576),
        ("squeezenet_1_1", {}, 1_235_496, 349_151_936),
    ],
)
def test_counts_at_the_published_widths(name: str, settings: dict[str, Any], params: int, macs: int) -> None:
    counts = count(on_paper(name, **settings), IMAGE)
    assert (counts.params, counts.macs) == (params, macs)
    if not settings:
        assert (MODELS[name].params, MODELS[name].macs) == (params, macs)


# The papers print these rounded: 155M and 4.0M, 44M and 2.0M (MobileNetV3, Table 3), 209M and 3.9M, 2.0M (the authors' page).
@pytest.mark.parametrize(
    ("name", "width_mult", "params_m", "macs_m"),
    [
        ("mobilenet_v3_large", 0.75, 4.0, 155),
        ("mobilenet_v3_small", 0.75, 2.0, 43),
        ("mobilenet_v3_large_minimalistic", 1.0, 3.9, 209),
        ("mobilenet_v3_small_minimalistic", 1.0, 2.0, 52),
    ],
)
def test_counts_that_are_published_rounded(name: str, width_mult: float, params_m: float, macs_m: int) -> None:
    counts = count(on_paper(name, width_mult=width_mult), IMAGE)
    assert (round(counts.params / 1e6, 1), round(counts.macs / 1e6)) == (params_m, macs_m)


@pytest.mark.parametrize("name", WIDTHS)
def test_explicit_widths_equal_to_the_default_give_the_same_shapes(name: str) -> None:
    default = {key: value.shape for key, value in on_paper(name).state_dict().items()}
    assert {key: value.shape for key, value in on_paper(name, widths=WIDTHS[name]).state_dict().items()} == default


@pytest.mark.parametrize(
    "name", ["mobilenet_v1", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet_a1", "mnasnet_b1"]
)
def test_any_widths_go_where_the_order_says(name: str) -> None:
    widths = [9 + 2 * i for i in range(len(WIDTHS[name]))]
    module = on_paper(name, widths=widths)
    linear = [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_channels for layer in convolutions(module)] + linear == [*widths, 1000]
    assert module(torch.zeros(IMAGE, device="meta")).shape == (1, 1000)


def test_any_widths_of_a_squeezenet() -> None:
    widths = list(range(5, 30))
    module = on_paper("squeezenet_1_1", widths=widths)
    assert [layer.out_channels for layer in convolutions(module)] == [*widths, 1000]


def test_any_widths_of_a_shufflenet_v1() -> None:
    bottlenecks = [6 * i for i in range(1, 17)]
    module = on_paper("shufflenet_v1_g3", widths=[6, 12, 27, 33, *bottlenecks])
    assert [layer.out_channels for layer in convolutions(module, depthwise=True)] == bottlenecks
    expanded = [layer.out_channels for layer in convolutions(module)][2::2]
    assert expanded == [6, *[12] * 3, 15, *[27] * 7, 6, *[33] * 3]


def test_any_widths_of_a_shufflenet_v2() -> None:
    bottlenecks = list(range(101, 117))
    module = on_paper("shufflenet_v2", widths=[7, 12, 26, 30, 41, *bottlenecks])
    assert sorted(layer.out_channels for layer in convolutions(module, depthwise=True)) == [7, 12, 26, *bottlenecks]
    assert convolutions(module)[-1].out_channels == 41
    assert module(torch.zeros(IMAGE, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_wrong_number_of_widths(name: str) -> None:
    least = {"shufflenet_v1_g3": 4, "shufflenet_v2": 5}.get(name, len(WIDTHS[name]))
    with pytest.raises(UsageError, match=f"^{name} was given 2 widths; try: give {least}\\b"):
        build(name, widths=[16, 16])
    with pytest.raises(UsageError, match=f"{len(WIDTHS[name]) + 1} widths"):
        build(name, widths=[*WIDTHS[name], 48])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mobilenet_v3_large", {"variant": "medium"}, "'medium'; try: large or small"),
        ("mnasnet_a1", {"variant": "c1"}, "'c1'; try: a1 or b1"),
        ("shufflenet_v1_g3", {"groups": 5}, "5 groups; try: 1, 2, 3, 4, 8"),
        ("shufflenet_v1_g3", {"widths": [24, 240, 481, 960]}, "stages that grow, and multiples of 3"),
        ("shufflenet_v1_g3", {"widths": [24, 240, 240, 960]}, "stages that grow, and multiples of 3"),
        ("shufflenet_v1_g8", {"widths": [24, 384, 768, 1536, *[8] * 15, 9]}, "multiples of 8"),
        ("shufflenet_v2", {"widths": [24, 117, 232, 464, 1024]}, "stages that grow and are even"),
        ("shufflenet_v2", {"widths": [24, 116, 116, 464, 1024]}, "stages that grow and are even"),
        ("squeezenet_1_0", {"version": "1.2"}, "'1.2'; try: 1.0 or 1.1"),
        ("squeezenet_1_0", {"bypass": "all"}, "'all'; try: none, simple, complex"),
        (
            "squeezenet_1_0",
            {"bypass": "simple", "widths": [96, *[16, 64, 64] * 7, 16, 64, 63]},
            "fire9 was asked to add 128",
        ),
    ],
)
def test_wrong_settings_are_told_in_one_line(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_classes_and_resolution(name: str) -> None:
    assert on_paper(name, num_classes=7)(torch.zeros(2, 3, 96, 160, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_are_known_in_each_runtime(name: str) -> None:
    module = on_paper(name)
    layers = sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in module.modules())
    for runtime in ("onnxruntime", "litert"):
        uses = kernels(module, IMAGE, runtime)
        assert sum(use.key.op in ("conv2d", "linear") for use in uses) >= layers
        assert sum(use.macs for use in uses) == MODELS[name].macs
        if "shuffle" not in name:
            assert "transpose" not in {use.key.op for use in uses}


def test_an_untrained_network_repeats_under_one_seed() -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(build("shufflenet_v2", width_mult=0.5).eval()(torch.ones(1, 3, 64, 64)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("name", "settings", "sums"),
    [
        ("mobilenet_v1", {}, 0),
        ("mobilenet_v3_large", {}, 10),
        ("mobilenet_v3_small", {}, 6),
        ("mnasnet_a1", {}, 9),
        ("mnasnet_b1", {}, 10),
        # 80 and 96 both become 24: one more. 32 and 16 both become 8: the separable convolution still has none.
        ("mnasnet_b1", {"width_mult": 0.25}, 11),
        ("shufflenet_v1_g3", {}, 13),
        ("shufflenet_v2", {}, 0),
        ("squeezenet_1_0", {}, 0),
        ("squeezenet_1_0", {"bypass": "simple"}, 4),
        ("squeezenet_1_1", {"bypass": "complex"}, 8),
    ],
)
def test_shortcuts_stand_where_the_papers_have_them(name: str, settings: dict[str, Any], sums: int) -> None:
    assert count(on_paper(name, **settings), IMAGE).uncounted.get("add", 0) == sums


def test_minimalistic_has_neither_5x5_nor_hard_swish_nor_excitation() -> None:
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        full, minimal = on_paper(name), on_paper(name + "_minimalistic")
        kinds = {type(layer).__name__ for layer in minimal.modules()}
        assert {"Hardswish", "SqueezeExcite", "Hardsigmoid"} & kinds == set()
        assert {layer.kernel_size for layer in convolutions(minimal, depthwise=True)} == {(3, 3)}
        assert {layer.kernel_size for layer in convolutions(full, depthwise=True)} == {(3, 3), (5, 5)}


def test_squeezed_channels_are_a_quarter_of_what_each_paper_takes() -> None:
    def squeezed(name: str) -> list[int]:
        return [layer.out_channels for key, layer in on_paper(name).named_modules() if key.endswith(".down")]

    assert squeezed("mnasnet_a1") == [6, 10, 10, 20, 28, 28, 40, 40]
    assert squeezed("mnasnet_b1") == []
    assert squeezed("mobilenet_v3_large") == [24, 32, 32, 120, 168, 168, 240, 240]
    assert squeezed("mobilenet_v3_small") == [8, 24, 64, 64, 32, 40, 72, 144, 144]


def without(module: nn.Module, part: str) -> nn.Module:
    """`module` with the scale and shift of a part's last normalisation at 0: its ReLU gives 0."""
    norms = [layer for layer in module.get_submodule(part).modules() if isinstance(layer, nn.BatchNorm2d)]
    nn.init.zeros_(norms[-1].weight)
    nn.init.zeros_(norms[-1].bias)
    return module.eval()


def forward(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(x)
    return result


def test_a_shufflenet_v1_unit_adds_its_input_or_puts_its_average_first() -> None:
    units = build("shufflenet_v1_g3").get_submodule("units")
    x = torch.rand(1, 240, 8, 8)
    assert torch.equal(forward(without(units.get_submodule("1"), "expand"), x), x)
    y = forward(without(units.get_submodule("4"), "expand"), x)
    assert torch.equal(y[:, :240], nn.functional.avg_pool2d(x, 3, 2, 1)) and not y[:, 240:].any()
    assert [units.get_submodule(f"{i}.squeeze.0").groups for i in (0, 1, 4)] == [1, 3, 3]


def test_a_shufflenet_v2_unit_lets_the_first_half_pass_and_interleaves() -> None:
    unit = build("shufflenet_v2").get_submodule("units.1")
    x = torch.rand(1, 116, 8, 8)
    y = forward(without(unit, "main"), x)
    assert torch.equal(y[:, ::2], x[:, :58]) and not y[:, 1::2].any()


def test_shuffles_read_across_the_groups() -> None:
    shuffle = build("shufflenet_v1_g3").get_submodule("units.1.shuffle")
    channels = torch.arange(12.0).view(1, 12, 1, 1)
    assert shuffle(channels).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert isinstance(build("shufflenet_v1_g1").get_submodule("units.1.shuffle"), nn.Identity)


def test_bypasses_of_a_squeezenet() -> None:
    simple, complex_ = build("squeezenet_1_0", bypass="simple"), build("squeezenet_1_0", bypass="complex")
    assert count(simple, IMAGE).params == 1_248_424
    one_by_one = 96 * 128 + 128 + 128 * 256 + 256 + 256 * 384 + 384 + 384 * 512 + 512
    assert count(complex_, IMAGE).params == 1_248_424 + one_by_one
    fire3, x = simple.get_submodule("features.4"), torch.rand(1, 128, 8, 8)
    with_bypass = forward(fire3, x)
    fire3.bypass = None
    assert torch.equal(with_bypass, forward(fire3, x) + x)


def test_initialisation_as_published() -> None:
    torch.manual_seed(0)

    def weight(name: str, key: str) -> Tensor:
        return build(name).get_parameter(key)

    assert weight("mobilenet_v1", "features.13.1.0.weight").std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)
    assert weight("mnasnet_a1", "classifier.1.weight").abs().max().item() == pytest.approx(1000**-0.5, rel=1e-3)
    assert weight("shufflenet_v1_g3", "units.1.expand.0.weight").std().item() == pytest.approx(1 / 20, rel=0.05)
    assert weight("shufflenet_v2", "stem.0.weight").std().item() == pytest.approx(0.01, rel=0.1)
    assert weight("shufflenet_v2", "stem.1.bias").unique().tolist() == pytest.approx([1e-4])
    assert weight("squeezenet_1_0", "last.weight").std().item() == pytest.approx(0.01, rel=0.02)
    assert weight("squeezenet_1_0", "features.0.weight").abs().max().item() == pytest.approx((3 / 147) ** 0.5, rel=0.01)
    norms = [layer for layer in build("mobilenet_v3_small").modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
