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


MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        "digits_cnn": ModelSpec(
            "pipeline.models.digits:DigitsCnn",
            (1, 1, 8, 8),
            241_898,
            4_738_304,
            None,
            "this project; nothing published",
            trained="pipeline.training:trained_digits",
        ),
        "mobilenet_v2": ModelSpec(
            "pipeline.models.mobilenet_v2:MobileNetV2",
            (1, 3, 224, 224),
            3_504_872,
            300_774_272,
            72.0,
            "Sandler et al., CVPR 2018, Table 4 (prints 3.4M, cut off, and 300M)",
        ),
        "resnet20": _resnet(20, 269_722, 40_551_040, 91.25),
        "resnet32": _resnet(32, 464_154, 68_862_592, 92.49),
        "resnet44": _resnet(44, 658_586, 97_174_144, 92.83),
        "resnet56": _resnet(56, 853_018, 125_485_696, 93.03),
        "resnet110": _resnet(110, 1_727_962, 252_887_680, 93.57),
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
