"""Running statistics for a network that nobody trained, so that its outputs have a sane scale.

With published initialisations and batch normalisation's initial statistics (mean 0, variance 1) activations shrink
layer by layer: MobileNetV2's logits come out at 3e-9, where a relative error between two runtimes says nothing.
One forward pass over photographs and noise gives every normalisation the statistics of what it really sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from pipeline.datasets import Array


def settle(module: nn.Module, inputs: Mapping[str, Array]) -> None:
    """Sets the running statistics of all batch normalisations from one batch; leaves the module in eval mode.

    Args:
        module: changed in place; nothing but running means and variances changes. Other layers run in eval mode, so
            dropout stays quiet and the result depends on weights and inputs alone.
        inputs: arrays of batch 1 and one shape.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average: after one batch, that batch's statistics
        norm.train()
    try:
        with torch.no_grad():
            module(torch.from_numpy(np.concatenate(list(inputs.values()))))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
