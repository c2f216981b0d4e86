"""SqueezeNet 1.0 and 1.1: fire modules, alone or with one of two kinds of bypass.

Reference: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size", arXiv 1602.07360, Table 1 (the network), Figure 2 and Table 3 (bypasses). 1.1: the authors' repository.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError

# Table 1 of the paper, fire2 to fire9: 1x1 filters that squeeze, 1x1 and 3x3 filters that expand.
TABLE_1 = (
    (16, 64, 64),
    (16, 64, 64),
    (32, 128, 128),
    (32, 128, 128),
    (48, 192, 192),
    (48, 192, 192),
    (64, 256, 256),
    (64, 256, 256),
)
# Version -> channels and kernel of the first convolution; the fires that a max pooling comes after, beside the one after it.
VERSIONS = {"1.0": (96, 7, (4, 8)), "1.1": (64, 3, (3, 5))}
BYPASSES = ("none", "simple", "complex")


class Fire(nn.Module):
    """relu(1x1), then relu(1x1) and relu(3x3) of it side by side (paper, Figure 1), plus what passes by.

    `bypass`: "none"; "identity" adds the input; "convolution" a 1x1 of it.
    """

    def __init__(self, c_in: int, squeeze: int, expand1: int, expand3: int, bypass: str) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand1, 1)
        self.expand3 = nn.Conv2d(squeeze, expand3, 3, padding=1)
        self.bypass: nn.Module | None = None
        if bypass == "identity":
            self.bypass = nn.Identity()
        elif bypass == "convolution":
            self.bypass = nn.Conv2d(c_in, expand1 + expand3, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.squeeze(x))
        y = torch.cat([F.relu(self.expand1(squeezed)), F.relu(self.expand3(squeezed))], 1)
        return y if self.bypass is None else y + self.bypass(x)


class SqueezeNet(nn.Module):
    """Input (n, 3, h, w), 224 in the paper (the 111x111 of its Table 1 need 227); output (n, num_classes) scores.

    The scores are not negative: the last convolution has a ReLU, and the pooling comes after it.

    Args:
        version: "1.0", or "1.1" with a smaller first convolution and earlier pooling: 2.4x fewer MACs.
        bypass: "none"; "simple": fire3, 5, 7, 9 add their input; "complex": those, and a 1x1 convolution of it elsewhere.
        num_classes: outputs of the last convolution.
        width_mult: of all channels; not in the paper.
        widths: explicit channels instead: the first convolution, then squeeze, 1x1 expand and 3x3 expand filters of each of
            the 8 fires (25 numbers).

    Raises:
        UsageError: another version or bypass, a wrong number of widths, or a bypass between different numbers of channels.

    Differs from the paper: Table 3 prints 7.7 MB for the complex bypass; the 1x1 convolutions of Figure 2 make it 1.59M
    parameters, 6.4 MB.
    """

    def __init__(
        self,
        version: str = "1.0",
        bypass: str = "none",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if version not in VERSIONS:
            raise UsageError(f"SqueezeNet was asked as {version!r}", try_=" or ".join(VERSIONS))
        if bypass not in BYPASSES:
            raise UsageError(f"SqueezeNet was asked with the bypass {bypass!r}", try_=", ".join(BYPASSES))
        stem, kernel, pooled = VERSIONS[version]
        if widths is None:
            widths = [max(1, round(c * width_mult)) for c in (stem, *(c for fire in TABLE_1 for c in fire))]
        if len(widths) != 1 + 3 * len(TABLE_1):
            raise UsageError(
                f"squeezenet_{version.replace('.', '_')} was given {len(widths)} widths",
                try_="give 25: the first convolution, then squeeze, 1x1 and 3x3 expand of each of the 8 fires",
            )
        features: list[nn.Module] = [nn.Conv2d(3, widths[0], kernel, 2), nn.ReLU(), _max_pool()]
        c_in = widths[0]
        for number, (squeeze, expand1, expand3) in enumerate(
            zip(widths[1::3], widths[2::3], widths[3::3], strict=True), start=2
        ):
            way = "none"
            if bypass != "none" and number % 2:
                way = "identity"
            elif bypass == "complex":
                way = "convolution"
            if way == "identity" and c_in != expand1 + expand3:
                raise UsageError(
                    f"SqueezeNet's fire{number} was asked to add {c_in} channels to {expand1 + expand3}",
                    try_='widths that agree there, or bypass="none"',
                )
            features.append(Fire(c_in, squeeze, expand1, expand3, way))
            c_in = expand1 + expand3
            if number in pooled:
                features.append(_max_pool())
        self.features = nn.Sequential(*features)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Conv2d(c_in, num_classes, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self._initialise()

    def _initialise(self) -> None:
        """As the authors' Caffe files: xavier (uniform by what a filter reads), N(0, 0.01) in the last; biases 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                bound = math.sqrt(3 / layer.weight[0].numel())
                nn.init.uniform_(layer.weight, -bound, bound)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.last.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.pool(F.relu(self.last(self.dropout(self.features(x))))).flatten(1)
        return scores


def _max_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
