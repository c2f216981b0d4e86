"""MobileNetV2: inverted residuals with linear bottlenecks.

Reference: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018, Table 2 (the network) and Table 4 (parameters, MACs, top-1).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.errors import UsageError

# Table 2 of the paper: expansion t, output channels c, repeats n, stride s of the first repeat.
TABLE_2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels` that takes away at most 10 % of them."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _conv_bn_relu6(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 expand -> 3x3 depthwise -> 1x1 project (linear); a shortcut where shape allows (paper, Figure 4)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.use_shortcut = stride == 1 and c_in == c_out
        expand = [_conv_bn_relu6(c_in, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_shortcut else y


class MobileNetV2(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        num_classes: outputs of the classifier.
        width_mult: the paper's width multiplier; the last 1x1 is never made narrower than 1280.
        widths: explicit output channels instead: stem, the 17 blocks, last 1x1 (19 numbers).

    Raises:
        UsageError: `widths` has another length than 19.
    """

    def __init__(self, num_classes: int = 1000, width_mult: float = 1.0, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        if widths is None:
            blocks = [make_divisible(c * width_mult) for _, c, n, _ in TABLE_2 for _ in range(n)]
            widths = [make_divisible(STEM * width_mult), *blocks, make_divisible(LAST * max(1.0, width_mult))]
        if len(widths) != 19:
            raise UsageError(
                f"mobilenet_v2 was given {len(widths)} widths",
                try_="give 19: the stem, the 17 blocks and the last 1x1 convolution",
            )
        strides = [s if i == 0 else 1 for _, _, n, s in TABLE_2 for i in range(n)]
        expansions = [t for t, _, n, _ in TABLE_2 for _ in range(n)]
        features: list[nn.Module] = [_conv_bn_relu6(3, widths[0], 3, 2)]
        for c_in, c_out, stride, expansion in zip(widths[:17], widths[1:18], strides, expansions, strict=True):
            features.append(InvertedResidual(c_in, c_out, stride, expansion))
        features.append(_conv_bn_relu6(widths[17], widths[18], 1))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[18], num_classes))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        # AdaptiveAvgPool2d and flatten, not mean((2, 3)): the latter leaves a TRANSPOSE in a TFLite file.
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits
