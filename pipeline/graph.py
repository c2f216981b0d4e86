"""Counting a network: multiply-accumulates of its convolutions and linear layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass: convolution and linear layers only, without bias.

    A convolution: c_out * h_out * w_out * (c_in / groups) * k_h * k_w; a linear layer: rows * in * out. Layers that
    are called twice count twice. Functional calls (`F.conv2d`) are not seen.
    """
    import torch
    from torch import nn

    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(add) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            module(torch.zeros(input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return total
