"""How often a network is right: logits in batches, top-1."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from pipeline.datasets import Array, Dataset


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


def accuracy(module: nn.Module, dataset: Dataset, batch_size: int = 256) -> float:
    """Top-1, a share (0-1), of a network in eval mode over the test images. The mode is put back."""
    from pipeline.training import prepared

    images, was_training = torch.from_numpy(dataset.test_x), module.training
    module.eval()
    with torch.inference_mode():
        parts = [module(prepared(some, dataset)) for some in torch.split(images, batch_size)]
    module.train(was_training)
    return top1(torch.cat(parts).numpy(), dataset.test_y)
