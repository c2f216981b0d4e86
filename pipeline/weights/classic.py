"""What others call the layers of ResNet, VGG, SqueezeNet, DenseNet and CondenseNet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.weights.source import Pairs, Source, conv_bn, own


def _resnet(module: Any) -> Pairs:
    yield from conv_bn("stem", "conv1", "bn1")
    stage, at = 0, 0
    for i, block in enumerate(module.blocks):
        projected = len(list(block.shortcut.children())) > 0
        stage, at = (stage + 1, 0) if i == 0 or projected else (stage, at + 1)
        theirs = f"layer{stage}.{at}"
        for k in range(len(block.body)):
            yield from conv_bn(f"blocks.{i}.body.{k}", f"{theirs}.conv{k + 1}", f"{theirs}.bn{k + 1}")
        if projected:
            yield from conv_bn(f"blocks.{i}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    yield "classifier", "fc"


def _strides_first(module: Any) -> tuple[str, str] | None:
    """Of the two bottlenecks with the same shapes, torchvision and timm have the one that is not the paper's."""
    if any(len(block.body) == 3 and block.body[0][0].stride == (2, 2) for block in module.blocks):
        return "their bottlenecks stride in the 3x3, and not in the 1x1 before it", "resnet50_v1_5"
    return None


def _vgg(features: str, heads: tuple[str, ...]) -> Callable[[Any], Pairs]:
    """One flat Sequential of convolutions, normalisations, ReLUs and poolings, then linear layers."""

    def layers(module: Any) -> Pairs:
        at = 0
        for i, part in enumerate(module.features):
            steps = len(list(part.children()))
            for k in range(steps - 1):  # the last one is the ReLU
                yield f"features.{i}.{k}", f"{features}.{at + k}"
            at += steps or 1
        linear = [i for i, part in enumerate(module.classifier) if hasattr(part, "weight")]
        for i, theirs in zip(linear, heads, strict=False):  # of another form, which has no such map then
            yield f"classifier.{i}", theirs

    return layers


def _squeezenet(module: Any) -> Pairs:
    for ours, _ in own(module):
        yield ours, ours.replace("expand1", "expand1x1").replace("expand3", "expand3x3").replace("last", "classifier.1")


def _dense_layers(module: Any) -> Iterator[tuple[str, Any, int, int]]:
    """Name and module of each layer with its block and place, both from 1, and of each transition (place 0)."""
    block, at = 1, 0
    for i, part in enumerate(module.features):
        if hasattr(part, "convolutions"):
            at += 1
            yield f"features.{i}", part, block, at
        else:
            if hasattr(part, "conv"):
                yield f"features.{i}", part, block, 0
            else:  # the pooling, which a transition ends with
                block, at = block + 1, 0


def _densenet(
    layer: str, transition: str, stem: tuple[str, ...], end: tuple[str, str], first: int = 1
) -> Callable[[Any], Pairs]:
    """A map for an implementation that names its layers by these patterns.

    Args:
        layer: prefix of a normalisation or convolution of a layer: {block}, {at} from `first`, {kind}, {k} from 1.
        transition: the same of a transition: {block}, {kind}.
        stem: convolution and normalisation before the blocks.
        end: normalisation behind them, classifier.
    """
    kinds = ("bn", "conv") if "bn" in end[0] else ("norm", "conv")

    def layers(module: Any) -> Pairs:
        for k, theirs in enumerate(stem):
            yield f"stem.{k}", theirs
        for ours, part, block, at in _dense_layers(module):
            for own_kind, kind in zip(("norm", "conv"), kinds, strict=True):
                if not at:
                    yield f"{ours}.{own_kind}", transition.format(block=block, kind=kind)
                    continue
                for k in range(len(part.convolutions)):
                    theirs = layer.format(block=block, at=at - 1 + first, kind=kind, k=k + 1)
                    yield f"{ours}.convolutions.{k}.{own_kind}", theirs
        yield "norm", end[0]
        yield "classifier", end[1]

    return layers


def _condensenet(module: Any) -> Pairs:
    yield "stem", "features.init_conv"
    for ours, part, block, at in _dense_layers(module):
        for k in range(len(part.convolutions)):
            mine, theirs = f"{ours}.convolutions.{k}", f"features.denseblock_{block}.denselayer_{at}.conv_{k + 1}"
            if hasattr(part.convolutions[k], "index"):
                yield mine, theirs
            yield f"{mine}.norm", f"{theirs}.norm"
            yield f"{mine}.conv", f"{theirs}.conv"
    yield "norm", "features.norm_last"
    yield "classifier", "classifier"
    yield "classifier.linear", "classifier.linear"


_IMAGENET_STEM = ("features.conv0", "features.norm0")
_IMAGENET_END = ("features.norm5", "classifier")
_IMAGENET_LAYER = "features.denseblock{block}.denselayer{at}.{kind}"

RESNET = (Source("handset", own), Source("torchvision or timm", _resnet, unlike=_strides_first))
RESNET_CIFAR = (Source("handset or akamaster", own),)
VGG = (
    Source("handset", own),
    Source("torchvision", _vgg("features", ("classifier.0", "classifier.3", "classifier.6"))),
    Source("timm", _vgg("features", ("pre_logits.fc1", "pre_logits.fc2", "head.fc"))),
    Source("network slimming", _vgg("feature", ("classifier",))),
)
SQUEEZENET = (Source("handset", own), Source("torchvision", _squeezenet))
DENSENET = (
    Source("handset", own),
    Source(
        "torchvision or timm",
        _densenet(_IMAGENET_LAYER + "{k}", "features.transition{block}.{kind}", _IMAGENET_STEM, _IMAGENET_END),
    ),
    Source(  # its code renames what its file still says: an attribute's name may have no dot any more
        "torchvision's file",
        _densenet(_IMAGENET_LAYER + ".{k}", "features.transition{block}.{kind}", _IMAGENET_STEM, _IMAGENET_END),
    ),
    Source(
        "andreasveit",
        _densenet("block{block}.layer.{at}.{kind}{k}", "trans{block}.{kind}1", ("conv1",), ("bn1", "fc"), 0),
    ),
    Source("bearpaw", _densenet("dense{block}.{at}.{kind}{k}", "trans{block}.{kind}1", ("conv1",), ("bn", "fc"), 0)),
)
CONDENSENET = (Source("handset", own), Source("its authors", _condensenet))
