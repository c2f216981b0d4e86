"""What the families share: a convolution with its normalisation and activation, and the initialisation most of them print."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def conv_bn(
    c_in: int,
    c_out: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias that keeps the size at stride 1, batch normalisation, activation (None: linear)."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *([activation()] if activation else []))


def initialise(module: nn.Module) -> None:
    """He's normal initialisation by kernel size and output channels; linear layers N(0, 0.01), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
