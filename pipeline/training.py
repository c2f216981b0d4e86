"""A plain training loop for small networks on a CPU: the same seed gives the same network on the same machine.

One thread: sums do not depend on the number of cores, and a busy machine costs its share and no more (two threads
that meet at a barrier some hundred times a step took 35 s instead of 2 when another process wanted the cores).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.datasets import Array, Labels, digits
from pipeline.models import build


def train(
    module: nn.Module,
    x: Array,
    y: Labels,
    *,
    epochs: int,
    seed: int = 0,
    lr: float = 0.05,
    batch_size: int = 64,
    weight_decay: float = 5e-4,
) -> list[float]:
    """SGD with Nesterov momentum 0.9; the learning rate follows half a cosine from `lr` to 0.

    Args:
        module: trained in place, left in eval mode.
        x, y: images (n, c, h, w) and labels (n,).
        seed: of the order of the images and of dropout; torch's global generator is left as it was.

    Returns:
        The mean cross entropy of each epoch.
    """
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    steps = epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.SGD(module.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    losses = []
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        module.train()
        for _ in range(epochs):
            total = 0.0
            for batch in torch.split(torch.randperm(len(images)), batch_size):
                loss = F.cross_entropy(module(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.item() * len(batch)
            losses.append(total / len(images))
    module.eval()
    return losses


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread inside, on as many as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def trained_digits(seed: int = 0) -> nn.Module:
    """`digits_cnn` in eval mode, trained on the digits' training split: a function of the seed alone."""
    train_x, train_y, _, _ = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build("digits_cnn")
    train(module, train_x, train_y, epochs=3, seed=seed)
    return module
