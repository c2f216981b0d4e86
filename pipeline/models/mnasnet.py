"""MnasNet A1 and B1: what the search found with and without squeeze-and-excitation in its space.

Reference: Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le, "MnasNet: Platform-Aware Neural Architecture Search for
Mobile", CVPR 2019, Figure 7 (A1), Tables 1 and 2 (parameters, MACs, top-1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn, initialise
from pipeline.models.mobilenet_v2 import make_divisible

# Expansion t, kernel k, squeeze ratio, output channels c, repeats n, stride s of the first repeat. Before them: a 3x3
# convolution of stride 2 to 32 channels and a separable one to 16 without a shortcut.
STAGES = {
    "a1": (
        (6, 3, 0.0, 24, 2, 2),
        (3, 5, 0.25, 40, 3, 2),
        (6, 3, 0.0, 80, 4, 2),
        (6, 3, 0.25, 112, 2, 1),
        (6, 5, 0.25, 160, 3, 2),
        (6, 3, 0.0, 320, 1, 1),
    ),
    "b1": (
        (3, 3, 0.0, 24, 3, 2),
        (3, 5, 0.0, 40, 3, 2),
        (6, 5, 0.0, 80, 3, 2),
        (6, 3, 0.0, 96, 2, 1),
        (6, 5, 0.0, 192, 4, 2),
        (6, 3, 0.0, 320, 1, 1),
    ),
}
STEM, SEPARABLE, LAST = 32, 16, 1280


class SqueezeExcite(nn.Module):
    """x * gate(1x1(relu(1x1(mean of x)))), with biases (Hu, Shen, Sun, CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), gate()
        self.down, self.up = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.up(F.relu(self.down(self.pool(x)))))
        return x * scale


class MBConv(nn.Module):
    """1x1 expand -> depthwise -> squeeze-and-excite -> 1x1 project (linear); a shortcut where shape allows (Figure 7b)."""

    def __init__(self, c_in: int, expanded: int, c_out: int, kernel: int, stride: int, squeeze: float) -> None:
        super().__init__()
        self.use_shortcut = stride == 1 and c_in == c_out
        # A quarter of what enters the block, not of what was expanded: the parameters of the paper are met by that alone.
        excite = [SqueezeExcite(expanded, max(1, int(c_in * squeeze)), nn.Sigmoid)] if squeeze else []
        self.conv = nn.Sequential(
            conv_bn(c_in, expanded),
            conv_bn(expanded, expanded, kernel, stride, groups=expanded),
            *excite,
            conv_bn(expanded, c_out, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_shortcut else y


class MnasNet(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        variant: "a1" or "b1".
        num_classes: outputs of the classifier.
        width_mult: of all channels but the last 1x1's, which stays at 1280.
        widths: explicit channels instead: the first convolution, the separable one, expanded and output channels of each
            MBConv, the last 1x1 (33 numbers for A1, 35 for B1).

    Raises:
        UsageError: another variant, or a wrong number of widths.
    """

    def __init__(
        self,
        variant: str = "b1",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if variant not in STAGES:
            raise UsageError(f"MnasNet was asked as {variant!r}", try_=" or ".join(STAGES))
        stages = STAGES[variant]
        if widths is None:
            widths = _scaled(variant, width_mult)
        repeats = sum(n for *_, n, _ in stages)
        if len(widths) != 3 + 2 * repeats:
            raise UsageError(
                f"mnasnet_{variant} was given {len(widths)} widths",
                try_=f"give {3 + 2 * repeats}: the first convolution, the separable one, expanded and output channels of each "
                f"of the {repeats} blocks, the last 1x1 convolution",
            )
        stem, c_in, *blocks, last = widths
        features: list[nn.Module] = [
            conv_bn(3, stem, 3, 2),
            nn.Sequential(conv_bn(stem, stem, 3, groups=stem), conv_bn(stem, c_in, activation=None)),
        ]
        settings = [(k, s if i == 0 else 1, squeeze) for _, k, squeeze, _, n, s in stages for i in range(n)]
        for expanded, c_out, setting in zip(blocks[::2], blocks[1::2], settings, strict=True):
            features.append(MBConv(c_in, expanded, c_out, *setting))
            c_in = c_out
        features.append(conv_bn(c_in, last))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' code: convolutions by He, the linear layer uniform by its outputs, a slow normalisation."""
        initialise(self)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -(layer.out_features**-0.5), layer.out_features**-0.5)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = 1e-3, 0.01

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def _scaled(variant: str, width_mult: float) -> list[int]:
    widths = [make_divisible(STEM * width_mult), make_divisible(SEPARABLE * width_mult)]
    c_in = widths[-1]
    for expansion, _, _, channels, repeats, _ in STAGES[variant]:
        c_out = make_divisible(channels * width_mult)
        for _ in range(repeats):
            widths += [c_in * expansion, c_out]
            c_in = c_out
    return [*widths, LAST]
