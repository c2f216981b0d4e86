"""ResNets for ImageNet: basic blocks (18, 34) or bottlenecks (50, 101, 152), projections where the shape changes.

Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1 (the networks), option B.
The CIFAR ones are in `resnet_cifar`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn

# Table 1 of the paper: depth -> blocks of conv2_x to conv5_x. Then: the channels inside of their blocks, which a bottleneck
# gives out four times as wide, and those of the first convolution.
TABLE_1 = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = (64, 128, 256, 512)
STEM = 64
BOTTLENECKS = frozenset({50, 101, 152})
EXPANSION = 4
STRIDED = ("1x1", "3x3")


class Block(nn.Module):
    """relu(body + shortcut); the shortcut is a 1x1 convolution where stride or channels differ (paper, Figures 2 and 5)."""

    def __init__(self, body: nn.Sequential, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = body
        changes = stride != 1 or c_in != c_out
        self.shortcut = conv_bn(c_in, c_out, 1, stride, activation=None) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _basic(c_in: int, inner: Sequence[int], c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv_bn(c_in, inner[0], 3, stride), conv_bn(inner[0], c_out, 3, activation=None))


def _bottleneck(c_in: int, inner: Sequence[int], c_out: int, stride: int, strided: str) -> nn.Sequential:
    first, second = (stride, 1) if strided == "1x1" else (1, stride)
    return nn.Sequential(
        conv_bn(c_in, inner[0], 1, first),
        conv_bn(inner[0], inner[1], 3, second),
        conv_bn(inner[1], c_out, activation=None),
    )


class ResNet(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        depth: 18, 34, 50, 101 or 152.
        strided: which convolution of a bottleneck halves the image: "1x1" as the paper, "3x3" as most implementations
            ("v1.5"), with more MACs and a better top-1. Basic blocks have no choice.
        num_classes: outputs of the classifier.
        width_mult: of all channels; not in the paper.
        widths: explicit channels instead: the first convolution, what the four stages give out (5 numbers); optionally
            followed by the channels inside of each block: one number a basic block, two a bottleneck.

    Raises:
        UsageError: another depth or place of the stride, or a wrong number of widths.
    """

    def __init__(
        self,
        depth: int = 50,
        strided: str = "1x1",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if depth not in TABLE_1:
            raise UsageError(f"an ImageNet ResNet was asked with depth {depth}", try_=", ".join(map(str, TABLE_1)))
        if strided not in STRIDED:
            raise UsageError(f"resnet{depth} was asked with its stride in the {strided!r}", try_=" or ".join(STRIDED))
        repeats = TABLE_1[depth]
        inside, expansion = (2, EXPANSION) if depth in BOTTLENECKS else (1, 1)
        if widths is None:
            inner = [max(1, round(c * width_mult)) for c in STAGES]
            widths = [max(1, round(STEM * width_mult)), *(c * expansion for c in inner)]
        if len(widths) not in (5, 5 + inside * sum(repeats)):
            raise UsageError(
                f"resnet{depth} was given {len(widths)} widths",
                try_=f"give 5, the first convolution and the four stages, or those and the {inside * sum(repeats)} inside",
            )
        c_in, *stages = widths[:5]
        every = [max(1, c // expansion) for c, n in zip(stages, repeats, strict=True) for _ in range(n * inside)]
        left = list(widths[5:]) or every
        self.stem = conv_bn(3, c_in, 7, 2)
        self.max_pool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        for stage, (c_out, count) in enumerate(zip(stages, repeats, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                inner, left = left[:inside], left[inside:]
                if depth in BOTTLENECKS:
                    body = _bottleneck(c_in, inner, c_out, stride, strided)
                else:
                    body = _basic(c_in, inner, c_out, stride)
                blocks.append(Block(body, c_in, c_out, stride))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """As the paper's reference 13 (He et al., ICCV 2015): by what a filter reads; N(0, 0.01) in the classifier."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.max_pool(self.stem(x)))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits
