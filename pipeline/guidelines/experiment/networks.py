"""The networks of ShuffleNetV2's Tables 1 to 4 and 8, each a function of this file for `handset bench FILE:NAME`.

Weights are random, the same on every call. Convolutions have a bias, as one with its normalisation folded in; only Table 4's
have activations. Each network of Tables 1 to 4 ends in the mean over its map.

Read between the paper's lines: parallel fragments are added; channels of fragments are c / sqrt(n), where one fragment has c;
the bottleneck has c / 4 channels inside, for with c or more inside the paper's ARM speeds would be above what that chip can
multiply.
Differs from the paper: its 180 channels cannot be in 8 groups, 184 can. The mean is not in it; without one some runtimes
would end with a change of layout that costs more, and more where there are more channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from pipeline.guidelines.experiment.paper import TABLES, Variant, variants

BLOCKS = 10
SIDE = 56
SEED = 0

Made = tuple[nn.Module, tuple[int, int, int, int]]


def __getattr__(name: str) -> Callable[[], Made]:
    if name not in (found := by_name()):
        raise AttributeError(name)
    return lambda: network(found[name])


def by_name() -> dict[str, Variant]:
    """The name of each network -> where it stands."""
    return {one.name: one for table in TABLES.values() for one in variants(table)}


def network(variant: Variant) -> Made:
    """The module, in eval mode, and its input shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return _MAKERS[variant.table.name](variant)


def equal_channels(variant: Variant) -> Made:
    """Table 1: c1 -> c2 -> c1 in each block."""
    c1, c2 = (variant.scale * variant.row.settings[name] for name in ("c1", "c2"))
    return _stack([nn.Sequential(_conv(c1, c2), _conv(c2, c1)) for _ in range(BLOCKS)], c1)


def groups(variant: Variant) -> Made:
    """Table 2: a convolution in groups, whose channels are the next multiple of these."""
    count = variant.row.settings["groups"]
    channels = math.ceil(variant.scale * variant.row.settings["channels"] / count) * count
    return _stack([_conv(channels, channels, groups=count) for _ in range(BLOCKS)], channels)


def fragments(variant: Variant) -> Made:
    """Table 3: several convolutions of fewer channels in place of one."""
    count = variant.row.settings["fragments"]
    channels = round(variant.scale * variant.row.settings["channels"] / math.sqrt(count))
    convolutions = [[_conv(channels, channels) for _ in range(count)] for _ in range(BLOCKS)]
    if variant.row.settings["parallel"]:
        return _stack([Added(block) for block in convolutions], channels)
    return _stack(list(chain.from_iterable(convolutions)), channels)


def bottlenecks(variant: Variant) -> Made:
    """Table 4."""
    settings = variant.row.settings
    channels = variant.scale * settings["channels"]
    blocks = [Bottleneck(channels, relu=settings["relu"], shortcut=settings["shortcut"]) for _ in range(BLOCKS)]
    return _stack(blocks, channels)


def whole(variant: Variant) -> Made:
    """Table 8: of the zoo, at the paper's width, settled as `pipeline.spec` does it."""
    from pipeline.datasets import examples
    from pipeline.models import MODELS, build
    from pipeline.models.settle import settle

    family = variant.row.settings["family"]
    module, shape = build(family, width_mult=variant.row.settings["width_mult"]), MODELS[family].input_shape
    settle(module, examples(shape))
    return module, shape


_MAKERS: dict[str, Callable[[Variant], Made]] = {
    "g1": equal_channels,
    "g2": groups,
    "g3": fragments,
    "g4": bottlenecks,
    "table8": whole,
}


class Added(nn.Module):
    """Fragments beside each other: the sum of what each makes of the same input."""

    def __init__(self, branches: list[nn.Conv2d]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (branch(x) for branch in self.branches)
        for other in others:
            first = first + other
        return first


class Bottleneck(nn.Module):
    """ResNet's block of c channels, c / 4 inside, without a stride; ReLU and shortcut where they are asked for."""

    def __init__(self, channels: int, *, relu: bool, shortcut: bool) -> None:
        super().__init__()
        inside = channels // 4
        self.reduce = _conv(channels, inside, relu=relu)
        self.middle = _conv(inside, inside, kernel=3, relu=relu)
        self.expand = _conv(inside, channels, relu=relu)
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(self.activation(self.middle(self.activation(self.reduce(x)))))
        activated: Tensor = self.activation(x + y if self.shortcut else y)
        return activated


def _conv(c_in: int, c_out: int, *, kernel: int = 1, groups: int = 1, relu: bool = False) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups)
    # torch's own initialisation shrinks values by a third in each layer: after ten, errors relative to them say nothing
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if relu else "linear")
    return conv


def _stack(blocks: Sequence[nn.Module], channels: int) -> Made:
    module = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return module.eval(), (1, channels, SIDE, SIDE)
