"""A network of one's own, as `handset bench docs/examples/small_net.py:make` takes it."""

from torch import nn


def make() -> tuple[nn.Module, tuple[int, ...]]:
    """The module, and the shape of its input with batch 1."""
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    return module, (1, 3, 64, 64)
