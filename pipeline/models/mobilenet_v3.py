"""MobileNetV3 large and small, and their minimalistic versions.

Reference: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, "Searching for MobileNetV3",
ICCV 2019, Tables 1 and 2 (the networks) and Table 3 (parameters, MACs, top-1). Minimalistic: the authors' TensorFlow models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn, initialise
from pipeline.models.mnasnet import SqueezeExcite
from pipeline.models.mobilenet_v2 import make_divisible

# Tables 1 and 2 of the paper: kernel, expanded channels, output channels, squeeze-and-excite, hard-swish, stride.
TABLE_1 = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
TABLE_2 = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
# Below the tables: the first convolution, the 1x1 before the pooling, the one after it.
VARIANTS = {"large": (TABLE_1, 16, 960, 1280), "small": (TABLE_2, 16, 576, 1024)}


class Block(nn.Module):
    """1x1 expand -> depthwise -> squeeze-and-excite -> 1x1 project (linear); a shortcut where shape allows (Figure 4).

    `expanded` None: no expansion, as in the first block.
    """

    def __init__(
        self,
        c_in: int,
        expanded: int | None,
        c_out: int,
        kernel: int,
        stride: int,
        excite: bool,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.use_shortcut = stride == 1 and c_in == c_out
        hidden = c_in if expanded is None else expanded
        self.conv = nn.Sequential(
            *([] if expanded is None else [conv_bn(c_in, hidden, activation=activation)]),
            conv_bn(hidden, hidden, kernel, stride, hidden, activation),
            *([SqueezeExcite(hidden, make_divisible(hidden / 4), nn.Hardsigmoid)] if excite else []),
            conv_bn(hidden, c_out, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_shortcut else y


class MobileNetV3(nn.Module):
    """Input (n, 3, h, w), h and w multiples of 32 (224 in the paper); output (n, num_classes) logits.

    Args:
        variant: "large" or "small".
        minimalistic: 3x3 for 5x5, ReLU for hard-swish, no squeeze-and-excitation: for hardware that has none of them.
        num_classes: outputs of the classifier.
        width_mult: of all channels but those of the hidden linear layer, which is never made narrower.
        widths: explicit channels instead: the first convolution, the output of the first block (which does not expand),
            expanded and output channels of each further block, the last 1x1 convolution, the hidden linear layer (32
            numbers for large, 24 for small).

    Raises:
        UsageError: another variant, or a wrong number of widths.

    Differs from the paper: Table 2 marks the small network's 1x1 before the pooling with squeeze-and-excitation; it has none
    here, as in the authors' code and all implementations, and 2.5M parameters only without it.
    """

    def __init__(
        self,
        variant: str = "large",
        minimalistic: bool = False,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UsageError(f"MobileNetV3 was asked as {variant!r}", try_=" or ".join(VARIANTS))
        table, *_ = VARIANTS[variant]
        if widths is None:
            widths = _scaled(variant, width_mult)
        if len(widths) != 2 * len(table) + 2:
            raise UsageError(
                f"mobilenet_v3_{variant} was given {len(widths)} widths",
                try_=f"give {2 * len(table) + 2}: the first convolution, the first block's output, expanded and output "
                f"channels of {len(table) - 1} blocks, the last 1x1 convolution, the hidden linear layer",
            )
        stem, first, *blocks, last, hidden = widths
        hard_swish = nn.ReLU if minimalistic else nn.Hardswish
        features: list[nn.Module] = [conv_bn(3, stem, 3, 2, activation=hard_swish)]
        c_in = stem
        pairs = [(None, first), *zip(blocks[::2], blocks[1::2], strict=True)]
        for (expanded, c_out), (kernel, _, _, excite, swish, stride) in zip(pairs, table, strict=True):
            kernel, excite = (3, False) if minimalistic else (kernel, excite)
            activation = hard_swish if swish else nn.ReLU
            features.append(Block(c_in, expanded, c_out, kernel, stride, excite, activation))
            c_in = c_out
        features.append(conv_bn(c_in, last, activation=hard_swish))
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(last, hidden), hard_swish(), nn.Dropout(0.2), nn.Linear(hidden, num_classes)
        )
        initialise(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = 1e-3, 0.01

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


def _scaled(variant: str, width_mult: float) -> list[int]:
    """The ratio of expanded to input channels is the table's, so that channels that were rounded up keep it."""
    table, stem, last, hidden = VARIANTS[variant]
    widths = [make_divisible(stem * width_mult), make_divisible(table[0][2] * width_mult)]
    before, c_in = table[0][2], widths[-1]
    for _, expanded, channels, *_ in table[1:]:
        c_out = make_divisible(channels * width_mult)
        widths += [make_divisible(c_in * expanded / before), c_out]
        before, c_in = channels, c_out
    return [*widths, make_divisible(last * width_mult), make_divisible(hidden * max(1.0, width_mult))]
