"""DenseNets: each layer reads what all before it in its block gave, with or without bottlenecks and compression (BC).

Reference: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3, Table 1
(ImageNet) and Table 2 (CIFAR).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Variant:
    """Args: blocks: layers of each. growth: the paper's k. compression: the paper's theta, of a transition's channels."""

    blocks: tuple[int, ...]
    growth: int
    stem: int
    bottleneck: bool
    compression: float
    imagenet: bool


# Section 3 of the paper ("Implementation Details") and Table 1. A bottleneck gives 4k channels.
VARIANTS = {
    "40": Variant((12, 12, 12), 12, 16, False, 1.0, False),
    "100_bc": Variant((16, 16, 16), 12, 24, True, 0.5, False),
    "121": Variant((6, 12, 24, 16), 32, 64, True, 0.5, True),
}
BOTTLENECK = 4


class PreActivated(nn.Module):
    """Batch normalisation, ReLU, convolution without bias: in this order (paper, section 3)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.relu(self.norm(x)))
        return y


class Layer(nn.Module):
    """The input, and behind it what a 3x3 (or a 1x1 and a 3x3) makes of it."""

    def __init__(self, *convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.convolutions(x)], 1)


class DenseNet(nn.Module):
    """Input (n, 3, h, w), 224 for "121", 32 for the others; output (n, num_classes) logits.

    Args:
        variant: "40" (k=12), "100_bc" (k=12) or "121" (k=32, BC).
        num_classes: outputs of the classifier.
        width_mult: of the growth and of the first convolution; not in the paper.
        widths: explicit output channels of all convolutions instead, in order: the first, then the layers of a block (the
            3x3; with bottlenecks the 1x1 and the 3x3) and its transition, block by block. 39, 99 and 120 numbers.

    Raises:
        UsageError: another variant, or a wrong number of widths.
    """

    def __init__(
        self,
        variant: str = "121",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UsageError(f"DenseNet was asked as {variant!r}", try_=", ".join(VARIANTS))
        chosen = VARIANTS[variant]
        expected = _widths(chosen, width_mult)
        if widths is None:
            widths = expected
        if len(widths) != len(expected):
            raise UsageError(
                f"densenet{variant} was given {len(widths)} widths",
                try_=f"give {len(expected)}: all convolutions in order, transitions too",
            )
        left = list(widths)
        channels = left.pop(0)
        self.stem = _stem(channels, chosen.imagenet)
        features: list[nn.Module] = []
        for number, count in enumerate(chosen.blocks):
            for _ in range(count):
                inner = [left.pop(0)] if chosen.bottleneck else []
                growth = left.pop(0)
                squeeze = [PreActivated(channels, inner[0], 1)] if inner else []
                features.append(Layer(*squeeze, PreActivated(inner[0] if inner else channels, growth, 3)))
                channels += growth
            if number < len(chosen.blocks) - 1:
                features += [PreActivated(channels, left[0], 1), nn.AvgPool2d(2)]
                channels = left.pop(0)
        self.features = nn.Sequential(*features)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.features(self.stem(x))))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def initialise(module: nn.Module) -> None:
    """As the authors' code for DenseNet and CondenseNet: He's by output channels; linear layers torch's, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)


def _stem(channels: int, imagenet: bool) -> nn.Sequential:
    if not imagenet:
        return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False))
    conv = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1))


def _widths(chosen: Variant, width_mult: float) -> list[int]:
    growth, channels = (max(1, round(c * width_mult)) for c in (chosen.growth, chosen.stem))
    widths = [channels]
    for number, count in enumerate(chosen.blocks):
        widths += ([BOTTLENECK * growth, growth] if chosen.bottleneck else [growth]) * count
        channels += count * growth
        if number < len(chosen.blocks) - 1:
            channels = int(channels * chosen.compression)
            widths.append(channels)
    return widths
