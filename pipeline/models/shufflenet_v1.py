"""ShuffleNet: bottlenecks of grouped 1x1 convolutions, with a channel shuffle so that the groups meet.

Reference: Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices",
CVPR 2018, Table 1 (the network for each number of groups) and Table 2 (top-1); widths 0.5 to 2 as the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn

# Table 1 of the paper: groups -> output channels of stages 2, 3 and 4. Then: units in each, channels of the first convolution.
TABLE_1 = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
REPEATS = (4, 8, 4)
STEM = 24


class Unit(nn.Module):
    """Grouped 1x1 -> shuffle -> 3x3 depthwise (linear) -> grouped 1x1 (linear) (paper, Figure 2b and 2c).

    Stride 1: relu of the sum with the input. Stride 2: the input, averaged over 3x3, gives the first c_in of c_out channels.
    """

    def __init__(self, c_in: int, bottleneck: int, c_out: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.squeeze = conv_bn(c_in, bottleneck, groups=first_groups)
        self.shuffle = nn.ChannelShuffle(groups) if groups > 1 else nn.Identity()
        self.depthwise = conv_bn(bottleneck, bottleneck, 3, stride, bottleneck, activation=None)
        self.expand = conv_bn(bottleneck, c_out - c_in if stride == 2 else c_out, groups=groups, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(self.depthwise(self.shuffle(self.squeeze(x))))
        if self.pool is None:
            return F.relu(x + y)
        main = F.relu(y)  # before the pooling, so that nothing stands between a convolution and the ReLU that it runs
        return torch.cat([self.pool(x), main], 1)


class ShuffleNetV1(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        groups: 1, 2, 3, 4 or 8; at 1 nothing is shuffled.
        num_classes: outputs of the classifier.
        classifier_bias: the authors' code, which has 3 and 8 groups alone, gives it none; implementations of the others do.
        width_mult: of all channels, to multiples that the groups divide; the first convolution stays at 24 from 1 to below 2.
        widths: explicit channels instead: the first convolution, the three stages, optionally followed by the bottlenecks of
            the 16 units (4 or 20 numbers). All are divisible by the groups, and each stage is wider than what it reads.

    Raises:
        UsageError: other groups, a wrong number of widths, or widths that cannot be grouped or do not grow.

    Differs from the authors' code: a shuffle reads as the paper says, group by group; that code exchanges the two axes.
    Parameters and MACs are the same.
    """

    def __init__(
        self,
        groups: int = 3,
        num_classes: int = 1000,
        classifier_bias: bool = False,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if groups not in TABLE_1:
            raise UsageError(f"ShuffleNet was asked with {groups} groups", try_=", ".join(map(str, TABLE_1)))
        if widths is None:
            widths = _scaled(groups, width_mult)
        if len(widths) not in (4, 4 + sum(REPEATS)):
            raise UsageError(
                f"shufflenet_v1_g{groups} was given {len(widths)} widths",
                try_=f"give 4, the first convolution and the three stages, or those and the {sum(REPEATS)} bottlenecks",
            )
        stem, *stages = widths[:4]
        bottlenecks = list(widths[4:]) or [c // 4 for c, n in zip(stages, REPEATS, strict=True) for _ in range(n)]
        grows = list(widths[:4]) == sorted(set(widths[:4]))
        if not grows or any(c % groups for c in (stem, *stages, *bottlenecks)):
            raise UsageError(
                f"shufflenet_v1_g{groups} was given the widths {list(widths)}",
                try_=f"stages that grow, and multiples of {groups} everywhere",
            )
        self.stem = conv_bn(3, stem, 3, 2)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        c_in = stem
        for c_out, repeats in zip(stages, REPEATS, strict=True):
            for i in range(repeats):
                # The first 1x1 of all is not grouped: it has few channels to read (section 3.2).
                first_groups = groups if units else 1
                units.append(Unit(c_in, bottlenecks[len(units)], c_out, 1 if i else 2, groups, first_groups))
                c_in = c_out
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes, bias=classifier_bias)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.units(self.max_pool(self.stem(x)))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def initialise(module: nn.Module) -> None:
    """As the authors' code for both ShuffleNets: N(0, 1 / input channels of a group), 0.01 in the first convolution."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for conv in convolutions:
        nn.init.normal_(conv.weight, 0.0, 0.01 if conv is convolutions[0] else 1.0 / conv.weight.shape[1])
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, 1e-4)


def _scaled(groups: int, width_mult: float) -> list[int]:
    stem = STEM if 1 <= width_mult < 2 else STEM * width_mult
    unit = 4 * groups  # so that a bottleneck, a quarter of a stage, can be grouped
    stages = [max(1, round(c * width_mult / unit)) * unit for c in TABLE_1[groups]]
    return [math.ceil(stem / groups) * groups, *stages]
