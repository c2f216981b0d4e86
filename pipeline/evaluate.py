"""How often a network is right: logits in batches, top-1."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from pipeline.datasets import Array


def torch_logits(module: nn.Module, x: Array, batch_size: int = 256) -> Array:
    """The outputs (n, classes) of a network in eval mode for images (n, c, h, w). The mode is put back."""
    was_training = module.training
    if was_training:
        module.eval()
    with torch.inference_mode():
        parts = [module(torch.from_numpy(x[i : i + batch_size])) for i in range(0, len(x), batch_size)]
    if was_training:
        module.train()
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def top1(logits: ArrayLike, labels: ArrayLike) -> float:
    """The share (0-1) of rows whose largest logit is at the label. Not-a-number logits are wrong, not lucky."""
    scores = np.asarray(logits)
    right = (scores.argmax(1) == np.asarray(labels)) & ~np.isnan(scores).any(1)
    return float(right.mean())
