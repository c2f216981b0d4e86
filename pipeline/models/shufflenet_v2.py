"""ShuffleNetV2: half of the channels pass by each unit, the other half is worked on, and a shuffle mixes them.

Reference: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
Table 5 (the network for each width) and Table 8 (MACs, top-1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn
from pipeline.models.shufflenet_v1 import initialise

# Table 5 of the paper: width -> output channels of stages 2, 3 and 4 and of the last convolution; units in each stage.
TABLE_5 = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
REPEATS = (4, 8, 4)
STEM = 24


class Unit(nn.Module):
    """1x1 -> 3x3 depthwise (linear) -> 1x1 on one half of the channels; the other passes by (paper, Figure 3c)."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.main = _main(channels // 2, bottleneck, channels // 2, 1)
        # x[:, ::2] and x[:, 1::2], which would be the authors' code word for word, are no kernels of XNNPACK.
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return self.shuffle(torch.cat([left, self.main(right)], 1))


class DownUnit(nn.Module):
    """Stride 2: both branches read all channels; 3x3 depthwise (linear) -> 1x1 is the other one (paper, Figure 3d)."""

    def __init__(self, c_in: int, bottleneck: int, c_out: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(conv_bn(c_in, c_in, 3, 2, c_in, activation=None), conv_bn(c_in, c_in))
        self.main = _main(c_in, bottleneck, c_out - c_in, 2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(torch.cat([self.projection(x), self.main(x)], 1))


def _main(c_in: int, bottleneck: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_bn(c_in, bottleneck),
        conv_bn(bottleneck, bottleneck, 3, stride, bottleneck, activation=None),
        conv_bn(bottleneck, c_out),
    )


class ShuffleNetV2(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        num_classes: outputs of the classifier, which has no bias.
        width_mult: 0.5, 1, 1.5 or 2 are the paper's networks; another one scales the stages of 1.
        widths: explicit channels instead: the first convolution, the three stages, the last 1x1, optionally followed by the
            bottlenecks of the 16 units (5 or 21 numbers). Stages are even.

    Raises:
        UsageError: a wrong number of widths, or stages that are odd or do not grow.

    In a unit of stride 2 the projection gives as many channels as enter, the main branch the rest, as in the authors' code: the
    MACs that the paper prints are met by that. torchvision gives each branch half (144.9M at width 1), and a bias to the
    classifier.

    Differs from the authors' code: it takes every second channel at the beginning of a unit; this is the paper's shuffle at
    the end of each. Parameters and MACs are the same.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        if widths is None:
            widths = [STEM, *(TABLE_5.get(width_mult) or _scaled(width_mult))]
        if len(widths) not in (5, 5 + sum(REPEATS)):
            raise UsageError(
                f"shufflenet_v2 was given {len(widths)} widths",
                try_=f"give 5, the first convolution, the three stages and the last 1x1, or those and the {sum(REPEATS)} "
                "bottlenecks",
            )
        stem, *stages, last = widths[:5]
        if list(widths[:4]) != sorted(set(widths[:4])) or any(c % 2 for c in stages):
            raise UsageError(f"shufflenet_v2 was given the widths {list(widths)}", try_="stages that grow and are even")
        bottlenecks = list(widths[5:]) or [c // 2 for c, n in zip(stages, REPEATS, strict=True) for _ in range(n)]
        units: list[nn.Module] = []
        c_in = stem
        for c_out, repeats in zip(stages, REPEATS, strict=True):
            units.append(DownUnit(c_in, bottlenecks[len(units)], c_out))
            units += [Unit(c_out, bottleneck) for bottleneck in bottlenecks[len(units) :][: repeats - 1]]
            c_in = c_out
        self.stem = conv_bn(3, stem, 3, 2)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        self.units = nn.Sequential(*units)
        self.last = conv_bn(c_in, last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes, bias=False)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.units(self.max_pool(self.stem(x))))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def _scaled(width_mult: float) -> tuple[int, ...]:
    stages, last = TABLE_5[1.0][:3], TABLE_5[2.0 if width_mult >= 2 else 1.0][3]
    return (*(2 * round(c / 2 * width_mult) for c in stages), last)
