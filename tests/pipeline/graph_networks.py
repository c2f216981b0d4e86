"""Small networks that hold what CNNs are made of: `NETWORKS[name]` builds one, `SHAPES` says its input where it is not 32x32.

Kept small in number: every one is exported twice and run in each runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[..., nn.Module]
Seq = nn.Sequential


def block(c_in: int, c_out: int, k: int = 3, s: int = 1, g: int = 1, act: Make | None = nn.ReLU, d: int = 1) -> Seq:
    """Convolution without bias, normalisation, activation."""
    conv = nn.Conv2d(c_in, c_out, k, s, k // 2 * d, d, g, bias=False)
    return Seq(conv, nn.BatchNorm2d(c_out), *([act()] if act else []))


def head(channels: int) -> Seq:
    return Seq(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Apply(nn.Module):
    """A function of the module, whose layers are the keywords, and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Squeeze(nn.Module):
    """Squeeze and excitation with convolutions."""

    def __init__(self, channels: int, gate: Make = nn.Hardsigmoid) -> None:
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), gate()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(F.relu(self.down(self.pool(x)))))


class Inverted(nn.Module):
    def __init__(self, c_in: int, c_out: int, k: int, s: int, expand: int, act: Make, se: Make | None = None) -> None:
        super().__init__()
        hidden = c_in * expand
        inner = [block(hidden, hidden, k, s, hidden, act), *([se(hidden)] if se else [])]
        self.body = Seq(block(c_in, hidden, 1, act=act), *inner, block(hidden, c_out, 1, act=None))
        self.shortcut = s == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.shortcut else y


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, s: int, act: Callable[[Tensor], Tensor] | None = F.relu) -> None:
        super().__init__()
        self.a, self.b, self.act = block(c_in, c_out, 3, s), block(c_out, c_out, act=None), act
        self.short = block(c_in, c_out, 1, s, act=None) if s != 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x)) + self.short(x)
        return self.act(y) if self.act else y


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shuffle_unit(channels: int) -> nn.Module:
    """ShuffleNetV2's: half of the channels pass by."""
    half = channels // 2
    body = Seq(block(half, half, 1), block(half, half, 3, 1, half, None), block(half, half, 1))

    def forward(self: Any, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return shuffle(torch.cat([left, self.body(right)], 1), 2)

    return Apply(forward, body=body)


def shuffle_down(c_in: int, c_out: int) -> nn.Module:
    half = c_out // 2
    left = Seq(block(c_in, c_in, 3, 2, c_in, None), block(c_in, half, 1))
    right = Seq(block(c_in, half, 1), block(half, half, 3, 2, half, None), block(half, half, 1))
    return Apply(lambda m, x: shuffle(torch.cat([m.left(x), m.right(x)], 1), 2), left=left, right=right)


def dense(channels: int, growth: int, count: int) -> nn.Module:
    layers = nn.ModuleList(block(channels + i * growth, growth) for i in range(count))

    def forward(self: Any, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x

    return Apply(forward, layers=layers)


def excite(channels: int) -> nn.Module:
    """Squeeze and excitation with linear layers, and a mean that keeps no axis."""
    layers = {"a": nn.Linear(channels, 4), "b": nn.Linear(4, channels)}
    return Apply(
        lambda m, x: x * torch.sigmoid(m.b(F.relu(m.a(x.mean((2, 3)))))).view(x.shape[0], channels, 1, 1), **layers
    )


def pre_activated(c_in: int, c_out: int) -> nn.Module:
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return Apply(lambda m, x: m.conv(F.relu(m.norm(x))), norm=nn.BatchNorm2d(c_in), conv=conv)


def _silu() -> nn.Module:
    return nn.SiLU()


def _sigmoid_gate(channels: int) -> nn.Module:
    return Squeeze(channels, nn.Sigmoid)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "odd_channels": lambda: Seq(block(3, 20, 3, 2), block(20, 37, 3, 2), block(37, 33, 1), block(33, 24), head(24)),
    "depthwise": lambda: Seq(
        block(3, 24, 3, 2), block(24, 24, 5, 2, 24), block(24, 24, 7, 1, 24), block(24, 24, 3, 2, 24, nn.Hardswish), head(24)
    ),
    "few_channels": lambda: Seq(
        block(3, 6), block(6, 6, 3, 1, 6), block(6, 12, 1), block(12, 12, 3, 2, 12), block(12, 4, 1), block(4, 16, 5), head(16)
    ),
    "dilated": lambda: Seq(
        block(3, 16, 3, 2), block(16, 16, d=2), block(16, 16, g=16, d=2), block(16, 32, 3, 2, d=2), head(32)
    ),
    "grouped": lambda: Seq(
        block(3, 32, 3, 2), block(32, 32, g=2), block(32, 32, g=4), block(32, 64, 1, g=2), block(64, 48, 3, 2, 4), head(48)
    ),
    "depth_multiplier": lambda: Seq(block(3, 16, 3, 2), block(16, 32, g=16), block(32, 32, 1), head(32)),
    "kernel_shapes": lambda: Seq(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 2, 2), nn.Conv2d(16, 16, (1, 5), padding=(0, 2)), nn.ReLU6(),
        nn.Conv2d(16, 16, (5, 1), (2, 1), padding=(2, 0)), nn.Conv2d(16, 16, 3, padding="same"), head(16),
    ),
    "biases": lambda: Seq(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.ReLU6(),
        nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 16, 1, bias=False), head(16),
    ),
    "inverted_residuals": lambda: Seq(
        block(3, 16, 3, 2, act=nn.ReLU6), Inverted(16, 16, 3, 1, 6, nn.ReLU6), Inverted(16, 24, 3, 2, 6, nn.ReLU6),
        Inverted(24, 24, 5, 1, 3, nn.ReLU6), block(24, 64, 1, act=nn.ReLU6), head(64),
    ),
    "hard_swish_excite": lambda: Seq(
        block(3, 16, 3, 2, act=nn.Hardswish), Inverted(16, 16, 3, 1, 4, nn.Hardswish, Squeeze),
        Inverted(16, 24, 5, 2, 3, nn.ReLU, Squeeze), block(24, 48, 1, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(48, 32), nn.Hardswish(), nn.Dropout(), nn.Linear(32, 10),
    ),
    "silu_excite": lambda: Seq(
        block(3, 16, 3, 2, act=_silu), Inverted(16, 16, 3, 1, 1, _silu, _sigmoid_gate),
        Inverted(16, 24, 3, 2, 6, _silu, _sigmoid_gate), block(24, 64, 1, act=_silu), head(64),
    ),
    "linear_excite": lambda: Seq(block(3, 16, 3, 2), excite(16), block(16, 32), excite(32), head(32)),
    "hand_made_activations": lambda: Seq(
        block(3, 16, 3, 2, act=None), Apply(lambda m, x: x * F.relu6(x + 3.0) / 6.0), block(16, 16, act=None),
        Apply(lambda m, x: x * (F.relu6(x + 3.0) / 6.0)), block(16, 16, act=None), Apply(lambda m, x: x * torch.sigmoid(x)),
        head(16),
    ),
    "shuffle_v2": lambda: Seq(
        block(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1), shuffle_down(16, 64), shuffle_unit(64), block(64, 64, 1), head(64)
    ),
    "shuffle_v2_odd": lambda: Seq(
        block(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1), shuffle_down(24, 48), shuffle_unit(48), shuffle_unit(48), head(48)
    ),
    "shuffle_groups": lambda: Seq(
        block(3, 24, 3, 2), block(24, 48, 1, g=3), nn.ChannelShuffle(3), block(48, 48, g=48, act=None), block(48, 24, 1, g=3),
        head(24),
    ),
    "dense": lambda: Seq(block(3, 16, 3, 2), dense(16, 16, 3), block(64, 32, 1), nn.AvgPool2d(2), dense(32, 12, 2), head(56)),
    "dense_pre_activated": lambda: Seq(
        block(3, 16, 3, 2), Apply(lambda m, x: torch.cat([x, m.conv(x)], 1), conv=pre_activated(16, 16)),
        pre_activated(32, 16), nn.AvgPool2d(2), nn.BatchNorm2d(16), nn.ReLU(), head(16),
    ),
    "fire": lambda: Seq(
        block(3, 16, 3, 2), nn.MaxPool2d(3, 2),
        Apply(
            lambda m, x: torch.cat([F.relu(m.one(y := F.relu(m.small(x)))), F.relu(m.three(y))], 1),
            small=nn.Conv2d(16, 16, 1), one=nn.Conv2d(16, 32, 1), three=nn.Conv2d(16, 32, 3, padding=1),
        ),
        nn.Conv2d(64, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
    "inception": lambda: Seq(
        block(3, 16, 3, 2),
        Apply(
            lambda m, x: torch.cat([m.a(x), m.b(x), F.max_pool2d(x, 3, 1, 1), m.c(F.avg_pool2d(x, 3, 1, 1))], 1),
            a=block(16, 16, 1), b=block(16, 24), c=block(16, 8, 1),
        ),
        Apply(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=block(64, 16, 3, 2), b=block(64, 32, 3, 2)), block(48, 16, 1),
        head(16),
    ),
    "residuals": lambda: Seq(
        block(3, 16, 3, 2), Residual(16, 16, 1, None), Residual(16, 16, 1, F.hardswish), Residual(16, 32, 2),
        Residual(32, 32, 1, F.silu), Residual(32, 32, 1, F.relu6), Residual(32, 32, 1, F.leaky_relu), head(32),
    ),
    "sums": lambda: Seq(
        block(3, 16, 3, 2), Apply(lambda m, x: m.a(x) + m.b(x) + x, a=block(16, 16), b=block(16, 16, 1, act=None)),
        Apply(lambda m, x: F.relu(m.a(x) + m.b(x)), a=block(16, 16, act=None), b=block(16, 16, 1, act=None)),
        Apply(lambda m, x: (lambda y: F.relu(y) + m.d(y))(m.c(x)), c=block(16, 16, act=None), d=block(16, 16, 1)), head(16),
    ),
    "normalised_first": lambda: Seq(
        nn.MaxPool2d(2), nn.BatchNorm2d(3), nn.Conv2d(3, 16, 1), nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 20, 3), nn.ReLU(), nn.BatchNorm2d(20), nn.Conv2d(20, 16, 1), head(16),
    ),
    "pools": lambda: Seq(
        block(3, 16), nn.AvgPool2d(3, 2, 1), block(16, 20), nn.MaxPool2d(2), block(20, 16), nn.AvgPool2d(2, 2),
        nn.MaxPool2d(3, 1, 1), nn.Hardswish(), nn.MaxPool2d(2, ceil_mode=True), head(16),
    ),
    "average_pools": lambda: Seq(
        block(3, 16, 3, 2), nn.AvgPool2d(3, 1, 1, count_include_pad=False), block(16, 16, act=None), nn.AvgPool2d(2),
        nn.ReLU(), block(16, 16), nn.AdaptiveAvgPool2d(4), block(16, 16, 1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 10),
    ),
    "pads": lambda: Seq(
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(16, 16, 3, 2, groups=16),
        nn.ReLU(), nn.ZeroPad2d((1, 2, 1, 2)), nn.MaxPool2d(3, 2), head(16),
    ),
    "classifying_convolution": lambda: Seq(
        block(3, 16, 3, 2), block(16, 32, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 48, 1), nn.Hardswish(), nn.Dropout(),
        nn.Conv2d(48, 10, 1), nn.Flatten(),
    ),
    "flattened": lambda: Seq(
        block(1, 16, 5, 2), nn.MaxPool2d(2), block(16, 32), nn.Flatten(), nn.Linear(32 * 49, 20), nn.ReLU(), nn.Linear(20, 10)
    ),
    "linear_layers": lambda: Seq(
        block(3, 16, 3, 2), head(16), nn.ReLU6(), nn.Linear(10, 20), nn.Hardswish(), nn.Linear(20, 20, bias=False),
        nn.Sigmoid(), nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.LeakyReLU(0.2), nn.Linear(8, 10),
        nn.Softmax(1),
    ),
    "activations": lambda: Seq(
        block(3, 16), block(16, 16, act=nn.ReLU6), block(16, 16, act=lambda: nn.LeakyReLU(0.1)), block(16, 16, act=_silu),
        block(16, 16, act=nn.Hardswish), block(16, 16, act=nn.Sigmoid), block(16, 16, act=nn.Hardsigmoid),
        block(16, 16, act=nn.Tanh), block(16, 16, act=nn.GELU), head(16),
    ),
    "constants": lambda: Seq(
        block(3, 16, 3, 2), Apply(lambda m, x: x * m.scale.view(1, -1, 1, 1) + 1.0, scale=nn.Parameter(torch.rand(16))),
        block(16, 16), Apply(lambda m, x: x * 0.5), head(16),
    ),
    "folded_constants": lambda: Seq(
        nn.Conv2d(3, 16, 3), Apply(lambda m, x: x * 0.5), nn.ReLU(), nn.Conv2d(16, 16, 3),
        Apply(lambda m, x: x * m.scale, scale=nn.Parameter(torch.rand(1, 16, 1, 1))), nn.ReLU(), block(16, 16), head(16),
    ),
    "split": lambda: Seq(
        block(3, 32, 3, 2),
        Apply(
            lambda m, x: torch.cat([m.a((p := x.split([16, 16], 1))[0]), m.b(p[1])], 1), a=block(16, 16), b=block(16, 16, 5)
        ),
        Apply(lambda m, x: torch.cat([m.a(x[:, :8]), x[:, 8:]], 1), a=block(8, 8, g=8)), Apply(lambda m, x: x[:, :, ::2, ::2]),
        block(32, 16), head(16),
    ),
    "pyramid": lambda: Apply(
        lambda m, x: m.out(m.side(y := m.one(x)) + F.interpolate(m.deep(m.two(y)), scale_factor=2)),
        one=block(3, 16, 3, 2), two=block(16, 32, 3, 2), side=nn.Conv2d(16, 24, 1), deep=nn.Conv2d(32, 24, 1),
        out=nn.Conv2d(24, 24, 3, padding=1),
    ),
    "bilinear": lambda: Seq(
        block(3, 16, 3, 2), nn.Upsample(scale_factor=2, mode="bilinear"), block(16, 8, 1), nn.Upsample(size=(50, 50)), head(8)
    ),
    "tokens": lambda: Seq(
        block(3, 16, 3, 2), nn.AvgPool2d(4), block(16, 16),
        Apply(lambda m, x: m.mix(x.flatten(2).transpose(1, 2)).mean(1), mix=nn.Linear(16, 12)), nn.Linear(12, 10),
    ),
}  # fmt: skip

SHAPES = {
    "depthwise": (1, 3, 37, 33), "few_channels": (1, 3, 17, 29), "average_pools": (1, 3, 34, 34), "flattened": (1, 1, 28, 28),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network in eval mode, as if it had been trained; and its input's shape."""
    return as_trained(NETWORKS[name]), SHAPES.get(name, (1, 3, 32, 32))


def as_trained(make: Callable[[], nn.Module]) -> nn.Module:
    """No normalisation is neutral, which a converter would leave out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias, 0, 0.3)
    return module
