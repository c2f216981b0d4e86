"""ResNets for CIFAR-10: depth 6n+2, three stages of n basic blocks, shortcuts without parameters (option A).

Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2 and Table 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UsageError

STAGES = (16, 32, 64)


class Block(nn.Module):
    """relu(bn(conv) twice + shortcut). The shortcut takes every second pixel and fills new channels with zeros."""

    def __init__(self, c_in: int, inner: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = c_out - c_in
        self.conv1 = nn.Conv2d(c_in, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            before = self.new_channels // 2
            x = F.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return F.relu(x + y)


class ResNetCifar(nn.Module):
    """Input (n, 3, 32, 32), output (n, num_classes) logits.

    Args:
        depth: 6n + 2 with n at least 1: 20, 32, 44, 56, 110 in the paper.
        widths: explicit channels: the three stages, not falling (a shortcut adds channels, never takes any);
            optionally followed by the channels between the two convolutions of each of the 3n blocks.

    Raises:
        UsageError: a depth that is not 6n + 2, a wrong number of widths, or stages that get narrower.
    """

    def __init__(
        self, depth: int = 20, num_classes: int = 10, width_mult: float = 1.0, widths: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        repeats, rest = divmod(depth - 2, 6)
        if rest or repeats < 1:
            raise UsageError(f"a CIFAR ResNet was asked with depth {depth}", try_="6n + 2: 20, 32, 44, 56, 110")
        if widths is None:
            widths = [max(1, round(c * width_mult)) for c in STAGES]
        if len(widths) not in (3, 3 + 3 * repeats) or list(widths[:3]) != sorted(widths[:3]):
            raise UsageError(
                f"resnet{depth} was given the widths {list(widths)}",
                try_=f"3 stages that do not get narrower, optionally followed by {3 * repeats} inner widths",
            )
        stages = list(widths[:3])
        inner = list(widths[3:]) or [c for c in stages for _ in range(repeats)]
        self.conv1 = nn.Conv2d(3, stages[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stages[0])
        c_in = stages[0]
        for stage, c_out in enumerate(stages):
            blocks: list[nn.Module] = []
            for i in range(repeats):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Block(c_in, inner[stage * repeats + i], c_out, stride))
                c_in = c_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(stages[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.get_submodule("layer3")(self.get_submodule("layer2")(self.get_submodule("layer1")(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits
