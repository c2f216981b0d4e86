"""MobileNetV1: depthwise separable convolutions in one straight line.

Reference: Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, "MobileNets: Efficient Convolutional Neural
Networks for Mobile Vision Applications", arXiv 1704.04861, Table 1 (the network) and Table 6 (the width multiplier).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn, initialise

# Table 1 of the paper: output channels of the first convolution, then channels and stride of the 13 separable ones.
STEM = 32
TABLE_1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),  # the table prints s2, which would take 7x7 to 4x4: its output rows say 7x7
)
AMC_HALF_FLOPS = (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)
"""`widths` of the network that AMC found for half of the FLOPs (He et al., ECCV 2018): 70.5 % top-1 after fine-tuning. It is
published with 285M MACs, has 293.87M by plain counting, and 2.41M parameters."""


def _separable(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """3x3 depthwise and 1x1, each with normalisation and ReLU (paper, Figure 3)."""
    return nn.Sequential(conv_bn(c_in, c_in, 3, stride, groups=c_in), conv_bn(c_in, c_out))


class MobileNetV1(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        num_classes: outputs of the classifier.
        width_mult: the paper's width multiplier: 1, 0.75, 0.5, 0.25; channels are cut to whole ones, at least 8.
        widths: explicit output channels instead: the first convolution, the 13 separable ones (14 numbers).

    Raises:
        UsageError: `widths` has another length than 14.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        if widths is None:
            widths = [max(8, int(c * width_mult)) for c in (STEM, *(c for c, _ in TABLE_1))]
        if len(widths) != 1 + len(TABLE_1):
            raise UsageError(
                f"mobilenet_v1 was given {len(widths)} widths",
                try_="give 14: the first convolution and the 13 separable ones",
            )
        features: list[nn.Module] = [conv_bn(3, widths[0], 3, 2)]
        for c_in, c_out, (_, stride) in zip(widths[:-1], widths[1:], TABLE_1, strict=True):
            features.append(_separable(c_in, c_out, stride))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits
