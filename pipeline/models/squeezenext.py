"""SqueezeNext: units of five small convolutions, the 3x3 of which is a 3x1 and a 1x3.

Reference: Gholami, Kwon, Wu, Tai, Yue, Jin, Zhao, Keutzer, "SqueezeNext: Hardware-Aware Neural Network Design", CVPR Workshops
2018, Figures 2 and 3, Tables 1 to 3; what they leave open is taken from the authors' Caffe files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError

# Version -> kernel of the first convolution, units of the four stages, groups, and whether the main branch of a stage's
# first unit reads its projection. Then: channels of the stages, of the first convolution and of the last one.
VERSIONS = {
    "23": (7, (6, 6, 8, 1), 1, False),
    "23v5": (5, (2, 4, 14, 1), 1, True),
    "g23": (7, (6, 6, 8, 1), 2, False),
}
STAGES = (32, 64, 128, 256)
STEM, LAST = 64, 128


def _conv(c_in: int, c_out: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Every convolution has normalisation and ReLU behind it, the last of a unit and the projections too."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


class Unit(nn.Module):
    """relu(1x1 -> 1x1 -> 3x1 -> 1x3 -> 1x1, plus the shortcut), the pair the other way round where `turned`.

    The first 1x1 and the pair have `groups`. The shortcut of the first unit of a stage is a 1x1 (`projected`; paper, Figure
    3); with `chained` the main branch reads that, and does not stride itself.
    """

    def __init__(
        self,
        c_in: int,
        inner: Sequence[int],
        c_out: int,
        stride: int,
        groups: int,
        *,
        projected: bool,
        turned: bool,
        chained: bool,
    ) -> None:
        super().__init__()
        self.chained = chained and projected
        self.shortcut = _conv(c_in, c_out, stride=stride) if projected else nn.Identity()
        if self.chained:
            c_in, stride = c_out, 1
        first, second = ((1, 3), (3, 1)) if turned else ((3, 1), (1, 3))
        self.main = nn.Sequential(
            _conv(c_in, inner[0], stride=stride, groups=groups),
            _conv(inner[0], inner[1]),
            _conv(inner[1], inner[2], first, groups=groups),
            _conv(inner[2], inner[3], second, groups=groups),
            _conv(inner[3], c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        short = self.shortcut(x)
        return F.relu(short + self.main(short if self.chained else x))


class SqueezeNext(nn.Module):
    """Input (n, 3, h, w), 227 in the paper, where no image is padded; output (n, num_classes) logits.

    Args:
        version: "23"; "23v5" with a 5x5 first convolution and the units moved to where they cost least time; "g23" with two
            groups in the first 1x1 and the separable pair.
        num_classes: outputs of the classifier, which has no bias.
        width_mult: the paper's: 1 or 2, of the stages alone; the first and the last convolution keep 64 and 128.
        widths: explicit channels instead: the first convolution, the four stages, the last 1x1; optionally followed by the
            four inner convolutions of each of the 21 units (6 or 90 numbers). With groups those, and the stages, are even.

    Raises:
        UsageError: another version, a wrong number of widths, or widths that cannot be grouped.
    """

    def __init__(
        self,
        version: str = "23",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if version not in VERSIONS:
            raise UsageError(f"SqueezeNext was asked as {version!r}", try_=", ".join(VERSIONS))
        kernel, repeats, groups, chained = VERSIONS[version]
        units = sum(repeats)
        if widths is None:
            unit = 4 * groups  # so that a half and a quarter of a stage can be grouped
            widths = [STEM, *(max(1, round(c * width_mult / unit)) * unit for c in STAGES), LAST]
        if len(widths) not in (6, 6 + 4 * units):
            raise UsageError(
                f"squeezenext_{version} was given {len(widths)} widths",
                try_=f"give 6, the first convolution, four stages and the last one, or those and the {4 * units} inner ones",
            )
        c_in, *stages, last = widths[:6]
        every = [part for c, n in zip(stages, repeats, strict=True) for _ in range(n) for part in _inner(c)]
        inner = list(widths[6:]) or every
        if any(c % groups for c in (c_in, *stages, *inner)):
            raise UsageError(
                f"squeezenext_{version} was given the widths {list(widths)}",
                try_=f"multiples of {groups} but for the last",
            )
        stem = nn.Conv2d(3, c_in, kernel, 2, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(c_in), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        made: list[nn.Module] = []
        for stage, (c_out, count) in enumerate(zip(stages, repeats, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                mine, inner = inner[:4], inner[4:]
                flags = {"projected": i == 0, "turned": i % 2 == 1, "chained": chained}
                made.append(Unit(c_in, mine, c_out, stride, groups, **flags))
                c_in = c_out
        self.units = nn.Sequential(*made)
        self.last = _conv(c_in, last)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' Caffe files: xavier, uniform by what a filter reads."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                bound = math.sqrt(3 / layer.weight[0].numel())
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.units(self.stem(x)))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def _inner(channels: int) -> tuple[int, int, int, int]:
    half, quarter = max(1, channels // 2), max(1, channels // 4)
    return half, quarter, half, half
