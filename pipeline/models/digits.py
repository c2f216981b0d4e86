"""A small CNN for scikit-learn's 8x8 digits: trains in seconds on a CPU, so that accuracy can be checked anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.errors import UsageError

CHANNELS = (32, 64, 128, 128)
STRIDES = (1, 1, 2, 1)


class DigitsCnn(nn.Module):
    """Four 3x3 conv-bn-relu, global average pool, linear. Input (n, 1, 8, 8), output (n, num_classes) logits.

    Args:
        widths: output channels of the four convolutions; None: 32, 64, 128, 128 times `width_mult`.

    Raises:
        UsageError: `widths` has another length than 4.
    """

    def __init__(self, num_classes: int = 10, width_mult: float = 1.0, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        if widths is None:
            widths = [max(1, round(c * width_mult)) for c in CHANNELS]
        if len(widths) != len(CHANNELS):
            raise UsageError(f"digits_cnn was given {len(widths)} widths", try_="give 4, one a convolution")
        layers: list[nn.Module] = []
        for c_in, c_out, stride in zip((1, *widths[:-1]), widths, STRIDES, strict=True):
            layers += [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(self.features(x)).flatten(1))
        return logits
