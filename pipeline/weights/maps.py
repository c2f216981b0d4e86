"""Which maps there are, by the class that builds the network.

SqueezeNext has none but its own names: its authors published Caffe files, and the PyTorch implementations (pytorchcv and
others) have the separable pair of every second unit the other way round, which no renaming brings back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pipeline.weights import classic, mobile, shuffle
from pipeline.weights.source import Source, own

OWN = (Source("its own", own),)

SOURCES: Mapping[str, tuple[Source, ...]] = MappingProxyType(
    {
        "pipeline.models.condensenet:CondenseNet": classic.CONDENSENET,
        "pipeline.models.densenet:DenseNet": classic.DENSENET,
        "pipeline.models.mnasnet:MnasNet": mobile.MNASNET,
        "pipeline.models.mobilenet_v1:MobileNetV1": mobile.MOBILENET_V1,
        "pipeline.models.mobilenet_v2:MobileNetV2": mobile.MOBILENET_V2,
        "pipeline.models.mobilenet_v3:MobileNetV3": mobile.MOBILENET_V3,
        "pipeline.models.resnet:ResNet": classic.RESNET,
        "pipeline.models.resnet_cifar:ResNetCifar": classic.RESNET_CIFAR,
        "pipeline.models.shufflenet_v1:ShuffleNetV1": shuffle.SHUFFLENET_V1,
        "pipeline.models.shufflenet_v2:ShuffleNetV2": shuffle.SHUFFLENET_V2,
        "pipeline.models.squeezenet:SqueezeNet": classic.SQUEEZENET,
        "pipeline.models.vgg:Vgg": classic.VGG,
    }
)


def sources_of(module: Any) -> tuple[Source, ...]:
    """The maps for a network; its own names alone where it is of no family of the zoo, or of one that nobody else has."""
    kind = type(module)
    return SOURCES.get(f"{kind.__module__}:{kind.__qualname__}", OWN)
