"""What others call the layers of ShuffleNet V1 and V2, and what they shuffle otherwise.

The authors' code (megvii) shuffles with the two axes exchanged: ChannelShuffle(c / g) for our ChannelShuffle(g). V1 does it
there behind the depthwise convolution, whose weights follow the channels to where ours is. V2 takes every second channel where
a unit begins, except where a stage's first unit reads all of them; ours shuffles where a unit ends. So after the last unit of a
stage the channels are in another order, and the weights that read them follow.

torchvision's V2 gives both branches of a unit of stride 2 half of the channels, and the classifier a bias. With its weights our
network becomes that one; parameters and MACs are counted anew.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pipeline.weights.source import Pairs, Source, conv_bn, own


def _v1_megvii(module: Any) -> Pairs:
    yield from conv_bn("stem", "first_conv.0", "first_conv.1")
    for i in range(len(module.units)):
        ours, theirs = f"units.{i}", f"features.{i}"
        yield from conv_bn(f"{ours}.squeeze", f"{theirs}.branch_main_1.0", f"{theirs}.branch_main_1.1")
        yield from conv_bn(f"{ours}.depthwise", f"{theirs}.branch_main_1.3", f"{theirs}.branch_main_1.4")
        yield from conv_bn(f"{ours}.expand", f"{theirs}.branch_main_2.0", f"{theirs}.branch_main_2.1")
    yield "classifier", "classifier.0"


def _v1_exchange(module: Any) -> None:
    for unit in module.units:
        if hasattr(unit.shuffle, "groups"):
            unit.shuffle.groups = unit.depthwise[0].in_channels // unit.expand[0].groups


def _v1_follow(module: Any) -> None:
    for unit in module.units:
        groups, channels = unit.expand[0].groups, unit.depthwise[0].in_channels
        if groups > 1:
            _reorder(unit.depthwise, [i + j for j in range(groups) for i in range(0, channels, groups)])


def _reorder(depthwise: Any, order: list[int]) -> None:
    """A depthwise convolution with its normalisation, for inputs in another order: its outputs are in that order too."""
    for tensor in depthwise.state_dict().values():
        if tensor.dim():
            tensor.copy_(tensor[order])


def _v2_branches(module: Any, i: int, main: str, projection: str) -> Pairs:
    """Both implementations have the layers of a branch in one Sequential, with the ReLUs between."""
    for k, at in enumerate((0, 3, 5)):
        yield from conv_bn(f"units.{i}.main.{k}", f"{main}.{at}", f"{main}.{at + 1}")
    if hasattr(module.units[i], "projection"):
        for k, at in enumerate((0, 2)):
            yield from conv_bn(f"units.{i}.projection.{k}", f"{projection}.{at}", f"{projection}.{at + 1}")


def _v2_megvii(module: Any) -> Pairs:
    yield from conv_bn("stem", "first_conv.0", "first_conv.1")
    for i in range(len(module.units)):
        yield from _v2_branches(module, i, f"features.{i}.branch_main", f"features.{i}.branch_proj")
    yield from conv_bn("last", "conv_last.0", "conv_last.1")
    yield "classifier", "classifier.0"


def _channels(unit: Any) -> int:
    main: int = unit.main[2][0].out_channels
    return main + (unit.projection[1][0].out_channels if hasattr(unit, "projection") else main)


def _v2_exchange(module: Any) -> None:
    for unit in module.units:
        unit.shuffle.groups = _channels(unit) // 2


def _v2_reorder(module: Any) -> None:
    """What reads a whole stage finds the even channels first, then the odd ones."""
    import torch

    units = list(module.units)
    readers = [(before, unit) for before, unit in pairwise(units) if hasattr(unit, "projection")]
    with torch.no_grad():
        for before, unit in readers:
            order = _even_first(before)
            _reorder(unit.projection[0], order)
            for conv in (unit.projection[1][0], unit.main[0][0]):
                conv.weight.copy_(conv.weight[:, order])
        module.last[0].weight.copy_(module.last[0].weight[:, _even_first(units[-1])])


def _even_first(unit: Any) -> list[int]:
    channels = _channels(unit)
    return [*range(0, channels, 2), *range(1, channels, 2)]


def _v2_torchvision(module: Any) -> Pairs:
    yield from conv_bn("stem", "conv1.0", "conv1.1")
    stage, at = 1, 0
    for i, unit in enumerate(module.units):
        stage, at = (stage + 1, 0) if hasattr(unit, "projection") else (stage, at + 1)
        yield from _v2_branches(module, i, f"stage{stage}.{at}.branch2", f"stage{stage}.{at}.branch1")
    yield from conv_bn("last", "conv5.0", "conv5.1")
    yield "classifier", "fc"


def _v2_halve(module: Any) -> None:
    from torch import nn

    from pipeline.models.blocks import conv_bn as convolution

    for unit in module.units:
        if hasattr(unit, "projection"):
            half = _channels(unit) // 2
            for branch in (unit.projection, unit.main):
                if branch[-1][0].out_channels != half:
                    branch[-1] = convolution(branch[-1][0].in_channels, half)
    module.classifier = nn.Linear(module.classifier.in_features, module.classifier.out_features)


def _v2_torchvision_note(module: Any) -> str:
    return "both branches of its stride-2 units have half of the channels, and its classifier a bias: so has this network now"


SHUFFLENET_V1 = (Source("handset", own), Source("megvii", _v1_megvii, adapt=_v1_exchange, finish=_v1_follow))
SHUFFLENET_V2 = (
    Source("handset", own),
    Source("torchvision", _v2_torchvision, adapt=_v2_halve, note=_v2_torchvision_note),
    Source("megvii", _v2_megvii, adapt=_v2_exchange, finish=_v2_reorder),
)
