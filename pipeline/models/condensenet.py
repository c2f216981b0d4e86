"""CondenseNet: a DenseNet whose 1x1 convolutions learn, while training, which inputs each of their groups reads.

Trained, a 1x1 reads all inputs under a mask that grows in C - 1 stages (`learned=True`, `set_progress`). Converted, it is an
index layer, that picks and copies channels, and an ordinary group convolution: what is deployed and what the papers count.

Reference: Huang, Liu, van der Maaten, Weinberger, "CondenseNet: An Efficient DenseNet using Learned Group Convolutions", CVPR
2018, sections 3 and 4; what it leaves open is taken from the authors' code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.densenet import Layer, PreActivated, initialise


@dataclass(frozen=True)
class Variant:
    """Args: blocks: layers of each. growth: channels that a layer of each gives. stride: of the first convolution."""

    blocks: tuple[int, ...]
    growth: tuple[int, ...]
    stride: int


# Section 4 of the paper and the authors' README: the growth doubles with each block.
VARIANTS = {
    "50_cifar": Variant((8, 8, 8), (8, 16, 32), 1),
    "86_cifar": Variant((14, 14, 14), (8, 16, 32), 1),
    "74": Variant((4, 6, 8, 10, 8), (8, 16, 32, 64, 128), 2),
}
BOTTLENECK = 4


def grouped(weight: Tensor, groups: int) -> Tensor:
    """(c_out, c_in, 1, 1) seen as (c_out / groups, groups, c_in): output o is of group o mod `groups`."""
    return weight.view(-1, groups, weight.shape[1])


class LearnedGroupConv(nn.Module):
    """Normalisation, ReLU, 1x1 convolution under a mask (paper, section 3.1).

    Args: condensation: the paper's C: 1 / C of the inputs are left to each group after C - 1 stages.
    """

    mask: Tensor
    stage: Tensor

    def __init__(self, c_in: int, c_out: int, groups: int, condensation: int) -> None:
        super().__init__()
        self.groups, self.condensation = groups, condensation
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.register_buffer("mask", torch.ones(c_out, c_in, 1, 1))
        self.register_buffer("stage", torch.zeros((), dtype=torch.long))

    def condense_to(self, stage: int) -> None:
        """Stage by stage, each group loses the 1 / C of the inputs with the smallest sum of absolute weights."""
        while int(self.stage) < stage:
            mask = grouped(self.mask, self.groups)
            importance = grouped(self.conv.weight.detach().abs(), self.groups).sum(0)  # (groups, c_in)
            importance[mask[0] == 0] = math.inf  # lost already
            lost = importance.argsort(1)[:, : mask.shape[2] // self.condensation]
            mask.scatter_(2, lost.expand(len(mask), -1, -1), 0.0)
            self.stage += 1

    def group_lasso(self) -> Tensor:
        """Sum over groups and inputs of the root of the squared weights' sum; 0 after the last stage."""
        squared = grouped(self.conv.weight * self.mask, self.groups).square().sum(0)
        return squared.clamp(min=1e-6).sqrt().sum() * float(self.stage < self.condensation - 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.norm(x)), self.conv.weight * self.mask)


class CondensedConv(nn.Module):
    """Index layer, normalisation, ReLU, 1x1 group convolution, shuffle (paper, Figure 4, right)."""

    index: Tensor

    def __init__(self, c_in: int, c_out: int, groups: int, condensation: int) -> None:
        super().__init__()
        picked = groups * (c_in // condensation)
        # Untrained, group g reads every C-th input from g mod C on, so that all inputs are read.
        index = torch.cat([torch.arange(group % condensation, c_in, condensation) for group in range(groups)])
        self.register_buffer("index", index)
        self.norm = nn.BatchNorm2d(picked)
        self.conv = nn.Conv2d(picked, c_out, 1, groups=groups, bias=False)
        self.shuffle = nn.ChannelShuffle(groups)

    @classmethod
    @torch.no_grad()
    def of(cls, learned: LearnedGroupConv) -> CondensedConv:
        """What a learned group convolution computes that went through all its stages."""
        c_out, c_in = learned.conv.weight.shape[:2]
        made = cls(c_in, c_out, learned.groups, learned.condensation).to(learned.conv.weight)
        made.index.copy_(grouped(learned.mask, learned.groups)[0].nonzero()[:, 1])  # group by group, each in order
        weights = grouped(learned.conv.weight, learned.groups).transpose(0, 1)  # (groups, c_out / groups, c_in)
        picks = made.index.view(learned.groups, 1, -1).expand(-1, weights.shape[1], -1)
        made.conv.weight.copy_(weights.gather(2, picks).reshape(made.conv.weight.shape))
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(made.norm, name).copy_(getattr(learned.norm, name)[made.index])
        return made

    def forward(self, x: Tensor) -> Tensor:
        picked = x.index_select(1, self.index)
        y: Tensor = self.shuffle(self.conv(F.relu(self.norm(picked))))
        return y


class CondensedLinear(nn.Module):
    """A linear layer that reads half of the features: at conversion those with the largest sum of absolute weights."""

    index: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(0, features // 2 * 2, 2))
        self.linear = nn.Linear(features // 2, num_classes)

    @classmethod
    @torch.no_grad()
    def of(cls, learned: nn.Linear) -> CondensedLinear:
        made = cls(learned.in_features, learned.out_features).to(learned.weight)
        made.index.copy_(learned.weight.abs().sum(0).topk(len(made.index)).indices.sort().values)
        made.linear.weight.copy_(learned.weight[:, made.index])
        made.linear.bias.copy_(learned.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.index_select(1, self.index))
        return y


class CondenseNet(nn.Module):
    """Input (n, 3, h, w), 224 for "74", 32 for CIFAR; output (n, num_classes) logits.

    Args:
        variant: "74" (ImageNet), "50_cifar" or "86_cifar".
        groups: G, of the 1x1 and of the 3x3 convolutions.
        condensation: C; 0: as many as groups, as all published networks.
        learned: the dense network that is trained, instead of the converted one.
        num_classes: outputs of the classifier.
        width_mult: of the growth, to multiples of both C and G; not in the paper.
        widths: explicit channels instead: the first convolution, then the 1x1 and the 3x3 of each layer (49, 73 or 85
            numbers). The layers' are multiples of the groups, and what each layer reads is one of C.

    Raises:
        UsageError: another variant, a wrong number of widths, or widths that cannot be grouped or condensed.
    """

    def __init__(
        self,
        variant: str = "74",
        groups: int = 4,
        condensation: int = 0,
        learned: bool = False,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UsageError(f"CondenseNet was asked as {variant!r}", try_=", ".join(VARIANTS))
        chosen, factor = VARIANTS[variant], condensation or groups
        if widths is None:
            unit = math.lcm(groups, factor)
            growth = [max(1, round(k * width_mult / unit)) * unit for k in chosen.growth]
            pairs = [(BOTTLENECK * k, k) for k, count in zip(growth, chosen.blocks, strict=True) for _ in range(count)]
            widths = [2 * growth[0], *(c for both in pairs for c in both)]
        if len(widths) != 1 + 2 * sum(chosen.blocks):
            raise UsageError(
                f"condensenet{variant} was given {len(widths)} widths",
                try_=f"give {1 + 2 * sum(chosen.blocks)}: the first convolution, then the 1x1 and the 3x3 of each layer",
            )
        channels, left = widths[0], list(widths[1:])
        reads = [channels + sum(widths[2 : 2 * i + 1 : 2]) for i in range(sum(chosen.blocks))]
        if any(c % groups for c in left) or any(c % factor for c in reads):
            raise UsageError(
                f"condensenet{variant} was given the widths {list(widths)}",
                try_=f"multiples of {groups}, and of {factor} in what each layer reads",
            )
        kind = LearnedGroupConv if learned else CondensedConv
        self.stem = nn.Conv2d(3, channels, 3, chosen.stride, 1, bias=False)
        features: list[nn.Module] = []
        for number, count in enumerate(chosen.blocks):
            for _ in range(count):
                inner, growth_ = left.pop(0), left.pop(0)
                squeeze = kind(channels, inner, groups, factor)
                features.append(Layer(squeeze, PreActivated(inner, growth_, 3, groups)))
                channels += growth_
            if number < len(chosen.blocks) - 1:
                features.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*features)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes) if learned else CondensedLinear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.features(self.stem(x))))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits

    def set_progress(self, progress: float) -> None:
        """Tell a learned network how much of its training is over, 0 to 1: the C - 1 stages end at the half (section 3.2)."""
        for layer in self._learned():
            stages = layer.condensation - 1
            layer.condense_to(min(stages, int(2 * stages * progress)))

    def group_lasso(self) -> Tensor:
        """The regulariser of a learned network, to be weighted and added to its loss: 1e-5 for ImageNet (section 3.2)."""
        return torch.stack([layer.group_lasso() for layer in self._learned()]).sum()

    def convert(self) -> CondenseNet:
        """A converted copy of a learned network. Its convolutions compute the same; its classifier reads half the features.

        Raises: UsageError: it is converted already, or its last stage is not reached.
        """
        if not self._learned():
            raise UsageError("a CondenseNet was to be converted that is converted already", try_="learned=True")
        for layer in self._learned():
            stage, last = int(layer.stage), layer.condensation - 1
            if stage < last:
                raise UsageError(
                    f"a CondenseNet was to be converted after {stage} of {last} condensing stages",
                    try_="set_progress(0.5)",
                )
        converted = copy.deepcopy(self)
        for name, part in list(converted.named_modules()):
            if isinstance(part, LearnedGroupConv):
                converted.set_submodule(name, CondensedConv.of(part))
        if isinstance(converted.classifier, nn.Linear):
            converted.classifier = CondensedLinear.of(converted.classifier)
        return converted.train(self.training)

    def _learned(self) -> list[LearnedGroupConv]:
        return [layer for layer in self.modules() if isinstance(layer, LearnedGroupConv)]
