"""The zoo: networks with published parameters and MACs beside each, one file a family.

Importing this package loads no torch; `build` imports the family's module. MACs are those of convolutions and
linear layers for batch 1 at `input_shape`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MODELS", "ModelSpec", "build"]


@dataclass(frozen=True)
class ModelSpec:
    """One network of the zoo.

    Args:
        builder: "package.module:Class", so that listing the zoo imports no torch.
        input_shape: NCHW with batch 1.
        params, macs: recomputed by a test; `reference` prints them rounded.
        top1: published top-1 in percent, None where nobody published one.
        reference: where the network and the numbers come from.
        settings: keywords that make this member of its family.
        trained: "package.module:function" that gives it trained, in seconds; "" where nothing small can.
    """

    builder: str
    input_shape: tuple[int, int, int, int]
    params: int
    macs: int
    top1: float | None
    reference: str
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    trained: str = ""


_HE = "He et al., CVPR 2016, section 4.2, Table 6 (top-1 is 100 - the printed error)"


def _resnet(depth: int, params: int, macs: int, top1: float) -> ModelSpec:
    settings = MappingProxyType({"depth": depth})
    return ModelSpec("pipeline.models.resnet_cifar:ResNetCifar", (1, 3, 32, 32), params, macs, top1, _HE, settings)


_TAN = "Tan et al., CVPR 2019"
_HOWARD = "Howard et al., ICCV 2019, Table 3"
_MINIMALISTIC = "the authors' TensorFlow model page, minimalistic"


_HE_2 = "He et al., CVPR 2016, Table 1"
_SIMONYAN = "Simonyan and Zisserman, ICLR 2015, Tables 1 to 3"
_ERROR = "top-1 is 100 - the printed error"


def _imagenet(builder: str, params: int, macs: int, top1: float | None, reference: str, **settings: Any) -> ModelSpec:
    frozen = MappingProxyType(settings)
    return ModelSpec(f"pipeline.models.{builder}", (1, 3, 224, 224), params, macs, top1, reference, frozen)


def _mobilenet_v3(
    variant: str, params: int, macs: int, top1: float, reference: str, minimalistic: bool = False
) -> ModelSpec:
    settings = {"variant": variant, "minimalistic": minimalistic}
    return _imagenet("mobilenet_v3:MobileNetV3", params, macs, top1, reference, **settings)


def _shufflenet_v1(groups: int, params: int, macs: int, top1: float, printed: str, bias: bool = False) -> ModelSpec:
    reference = f"Zhang et al., CVPR 2018, Tables 1 and 2 (print {printed}; top-1 is 100 - the printed error)"
    if bias:
        reference += "; parameters as pytorchcv, whose classifier has a bias"
    settings = {"groups": groups, "classifier_bias": bias}
    return _imagenet("shufflenet_v1:ShuffleNetV1", params, macs, top1, reference, **settings)


def _cifar(builder: str, params: int, macs: int, top1: float | None, reference: str, **settings: Any) -> ModelSpec:
    frozen = MappingProxyType({"num_classes": 10, **settings})
    return ModelSpec(f"pipeline.models.{builder}", (1, 3, 32, 32), params, macs, top1, reference, frozen)


def _condensenet(groups: int, params: int, macs: int, top1: float, printed: str) -> ModelSpec:
    reference = f"Huang et al., CVPR 2018 ({printed}: the authors also count ReLUs and pooling; {_ERROR})"
    return _imagenet("condensenet:CondenseNet", params, macs, top1, reference, variant="74", groups=groups)


def _condensenet_cifar(layers: int, params: int, macs: int, top1: float, printed: str) -> ModelSpec:
    reference = f"the authors' repository ({printed}, with ReLUs, pooling and the whole classifier; {_ERROR})"
    return _cifar("condensenet:CondenseNet", params, macs, top1, reference, variant=f"{layers}_cifar")


def _squeezenext(version: str, params: int, macs: int, top1: float, printed: str) -> ModelSpec:
    reference = f"Gholami et al., CVPR Workshops 2018, {printed}, with batch normalisation)"
    settings = MappingProxyType({"version": version})
    shape = (1, 3, 227, 227)
    return ModelSpec("pipeline.models.squeezenext:SqueezeNext", shape, params, macs, top1, reference, settings)


MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        "condensenet50_cifar10": _condensenet_cifar(50, 214_186, 27_183_376, 93.78, "prints 0.22M and 28.6M"),
        "condensenet74_c4_g4": _condensenet(4, 4_773_944, 516_640_576, 73.8, "prints 4.8M and 529M"),
        "condensenet74_c8_g8": _condensenet(8, 2_935_416, 261_545_792, 71.0, "prints 2.9M and 274M"),
        "condensenet86_cifar10": _condensenet_cifar(
            86, 516_202, 62_377_888, 94.94, "prints 0.52M and 65.8M; the paper an error of 5.00"
        ),
        "densenet40": _cifar(
            "densenet:DenseNet",
            1_019_722,
            264_812_928,
            94.76,
            f"Huang et al., CVPR 2017, Table 2, k=12, C10+ (prints 1.0M; {_ERROR})",
            variant="40",
        ),
        "densenet100_bc": _cifar(
            "densenet:DenseNet",
            769_162,
            287_929_692,
            95.49,
            f"Huang et al., CVPR 2017, Table 2, BC, k=12, C10+ (prints 0.8M; {_ERROR})",
            variant="100_bc",
        ),
        "densenet121": _imagenet(
            "densenet:DenseNet",
            7_978_856,
            2_834_161_664,
            74.98,
            f"Huang et al., CVPR 2017, Tables 1 and 3, one crop ({_ERROR})",
            variant="121",
        ),
        "digits_cnn": ModelSpec(
            "pipeline.models.digits:DigitsCnn",
            (1, 1, 8, 8),
            241_898,
            4_738_304,
            None,
            "this project; nothing published",
            trained="pipeline.training:trained_digits",
        ),
        "mnasnet_a1": _imagenet(
            "mnasnet:MnasNet", 3_887_038, 311_579_072, 75.2, f"{_TAN}, Table 1 (prints 3.9M and 312M)", variant="a1"
        ),
        "mnasnet_b1": _imagenet(
            "mnasnet:MnasNet", 4_383_312, 314_415_872, 74.5, f"{_TAN}, Table 2 (prints 4.4M and 315M)", variant="b1"
        ),
        "mobilenet_v1": _imagenet(
            "mobilenet_v1:MobileNetV1",
            4_231_976,
            568_740_352,
            70.6,
            "Howard et al., arXiv 1704.04861, Table 6 (prints 4.2M and 569M)",
        ),
        "mobilenet_v2": _imagenet(
            "mobilenet_v2:MobileNetV2",
            3_504_872,
            300_774_272,
            72.0,
            "Sandler et al., CVPR 2018, Table 4 (prints 3.4M, cut off, and 300M)",
        ),
        "mobilenet_v3_large": _mobilenet_v3(
            "large", 5_483_032, 216_589_760, 75.2, f"{_HOWARD} (prints 5.4M, cut off, and 219M; the authors' page 217M)"
        ),
        "mobilenet_v3_large_minimalistic": _mobilenet_v3(
            "large", 3_924_288, 209_136_704, 72.3, f"{_MINIMALISTIC} (prints 3.9M and 209M)", minimalistic=True
        ),
        "mobilenet_v3_small": _mobilenet_v3(
            "small", 2_542_856, 56_510_400, 67.4, f"{_HOWARD} (prints 2.5M and 56M; an early version 66M)"
        ),
        "mobilenet_v3_small_minimalistic": _mobilenet_v3(
            "small",
            2_044_736,
            52_288_448,
            61.9,
            f"{_MINIMALISTIC} (prints 2.0M, and 65M beside the 66M of the early version)",
            minimalistic=True,
        ),
        "resnet18": _imagenet(
            "resnet:ResNet",
            11_689_512,
            1_814_073_344,
            69.76,
            f"{_HE_2} (prints 1.8e9); top-1 of one crop: torchvision",
            depth=18,
        ),
        "resnet20": _resnet(20, 269_722, 40_551_040, 91.25),
        "resnet32": _resnet(32, 464_154, 68_862_592, 92.49),
        "resnet44": _resnet(44, 658_586, 97_174_144, 92.83),
        "resnet50": _imagenet(
            "resnet:ResNet",
            25_557_032,
            3_857_973_248,
            75.3,
            f"{_HE_2} (prints 3.8e9, cut off); top-1 of one crop: the authors' repository",
            depth=50,
        ),
        "resnet50_v1_5": _imagenet(
            "resnet:ResNet",
            25_557_032,
            4_089_184_256,
            76.13,
            f"{_HE_2}, the stride moved into the 3x3; top-1 of one crop: torchvision",
            depth=50,
            strided="3x3",
        ),
        "resnet56": _resnet(56, 853_018, 125_485_696, 93.03),
        "resnet110": _resnet(110, 1_727_962, 252_887_680, 93.57),
        "shufflenet_v1_g1": _shufflenet_v1(1, 1_531_936, 143_078_976, 66.4, "143M", bias=True),
        "shufflenet_v1_g2": _shufflenet_v1(2, 1_733_848, 140_836_512, 67.3, "140M", bias=True),
        "shufflenet_v1_g3": _shufflenet_v1(3, 1_864_728, 137_460_672, 67.4, "137M; Table 5 140M"),
        "shufflenet_v1_g4": _shufflenet_v1(4, 1_968_344, 134_339_776, 67.2, "133M", bias=True),
        "shufflenet_v1_g8": _shufflenet_v1(8, 2_433_768, 138_365_952, 67.6, "137M"),
        "shufflenet_v2": _imagenet(
            "shufflenet_v2:ShuffleNetV2",
            2_278_760,
            145_814_296,
            69.4,
            "Ma et al., ECCV 2018, Tables 5 and 8 (print 2.3M and 146M; top-1 is 100 - the printed error)",
        ),
        "squeezenet_1_0": _imagenet(
            "squeezenet:SqueezeNet",
            1_248_424,
            818_924_576,
            57.5,
            "Iandola et al., arXiv 1602.07360, Tables 1 and 2 (print 1,248,424 parameters and no MACs)",
            version="1.0",
        ),
        "squeezenet_1_1": _imagenet(
            "squeezenet:SqueezeNet",
            1_235_496,
            349_151_936,
            None,
            "the authors' repository (prints 1.24M, 2.4x less computation than 1.0, and no lower accuracy)",
            version="1.1",
        ),
        "squeezenext_23": _squeezenext(
            "23", 717_280, 277_999_808, 59.05, "Tables 1 and 3 (print 0.72M and, at 227x227, 282M"
        ),
        "squeezenext_23v5": _squeezenext(
            "23v5", 930_016, 224_916_480, 59.24, "Table 3 (prints 0.94M and, at 227x227, 228M"
        ),
        "squeezenext_g23": _squeezenext("g23", 543_072, 224_191_552, 57.16, "Table 1 (prints 0.54M; 221M MACs"),
        "vgg11": _imagenet(
            "vgg:Vgg", 132_863_336, 7_609_090_048, 70.4, f"{_SIMONYAN} (prints 133M; {_ERROR})", depth=11
        ),
        "vgg11_cifar": _cifar(
            "vgg:Vgg",
            9_228_362,
            152_769_536,
            None,
            "configuration A in the form of vgg19_cifar",
            depth=11,
            form="cifar_liu",
        ),
        "vgg16": _imagenet(
            "vgg:Vgg", 138_357_544, 15_470_264_320, 74.4, f"{_SIMONYAN} (prints 138M; {_ERROR})", depth=16
        ),
        "vgg16_cifar": _cifar(
            "vgg:Vgg",
            14_987_210,
            313_463_808,
            93.25,
            f"Li et al., ICLR 2017, Tables 1 and 2 (print 1.5e7 and 3.13e8; {_ERROR})",
            depth=16,
            form="cifar_li",
        ),
        "vgg19": _imagenet(
            "vgg:Vgg", 143_667_240, 19_632_062_464, 74.5, f"{_SIMONYAN} (prints 144M; {_ERROR})", depth=19
        ),
        "vgg19_cifar": _cifar(
            "vgg:Vgg",
            20_035_018,
            398_136_320,
            93.66,
            f"Liu et al., ICCV 2017, Table 1 (prints 20.04M and 7.97e8 FLOPs, two each MAC; {_ERROR})",
            depth=19,
            form="cifar_liu",
        ),
    }
)


def build(
    name: str,
    num_classes: int | None = None,
    width_mult: float = 1.0,
    widths: Sequence[int] | None = None,
    **settings: Any,
) -> nn.Module:
    """A network of the zoo, freshly initialised from torch's global generator, in training mode.

    Args:
        num_classes: None: the network's own (1000 for ImageNet, 10 for the small ones).
        width_mult: the family's width multiplier, above 0.
        widths: explicit channels instead; each family says in which order.
        settings: further keywords of the family.

    Raises:
        UsageError: there is no such network, or it cannot have these widths.
    """
    spec = MODELS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.6)
        hint = f"{', '.join(near)}, or `handset models` for the list" if near else "`handset models` for the list"
        raise UsageError(f"there is no network {name!r} in the zoo", try_=hint)
    if not width_mult > 0:
        raise UsageError(f"{name} was asked with width_mult={width_mult}", try_="a number above 0, such as 0.5")
    module_name, _, class_name = spec.builder.partition(":")
    builder = getattr(importlib.import_module(module_name), class_name)
    if num_classes is not None:
        settings["num_classes"] = num_classes
    module: nn.Module = builder(width_mult=width_mult, widths=widths, **{**spec.settings, **settings})
    return module
