"""Random CNNs that no table was built from: `networks(count, seed)` draws them from `FAMILIES`.

Each family keeps what makes it one (its block, its downsampling, its head) and draws the rest: depths, widths, kernel sizes,
expansions, groups, resolution, number of classes. Most widths are multiples of 8, a few of 4 or of nothing, as after pruning.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MACS = (20_000_000, 1_000_000_000)
"""Of a network: a smaller or a larger one is drawn again. Some 0.5 to 30 ms on one core of a server."""
MAX_PARAMS = 16_000_000
DRAWS = 1000
IMAGENET_SIZES = (96, 112, 128, 144, 160, 176, 192, 208, 224)
CIFAR_SIZES = (32, 40, 48, 64)

Act = Callable[[], nn.Module]
Seq = nn.Sequential


@dataclass(frozen=True)
class HeldOut:
    """Args: name: unique for a seed. module: in eval mode. input_shape: (1, 3, height, width)."""

    name: str
    family: str
    module: nn.Module
    input_shape: tuple[int, ...]


class Draw(random.Random):
    """The choices of one network."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.divisor = self.choice((8, 8, 8, 8, 8, 16, 16, 16, 4, 1))
        self.width = self.uniform(0.4, 1.3)
        self.classes = self.choice((10, 100, 1000))

    def channels(self, usual: float, multiple_of: int = 1) -> int:
        """About `usual` times the network's width."""
        step = multiple_of * max(1, self.divisor // multiple_of)
        return step * max(1, round(usual * self.width * self.uniform(0.75, 1.3) / step))

    def small(self, share: float = 0.5) -> tuple[bool, int]:
        """Whether the network is one for small images, and the resolution."""
        small = self.random() < share
        return small, self.choice(CIFAR_SIZES if small else IMAGENET_SIZES)


def block(c_in: int, c_out: int, k: int = 1, s: int = 1, g: int = 1, act: Act | None = nn.ReLU) -> Seq:
    """Convolution, normalisation, activation."""
    conv = nn.Conv2d(c_in, c_out, k, s, k // 2, 1, g, bias=False)
    return Seq(conv, nn.BatchNorm2d(c_out), *([act()] if act else []))


def head(channels: int, classes: int) -> Seq:
    return Seq(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Apply(nn.Module):
    """A function of the module, whose layers are the keywords, and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def branches(*layers: nn.Module) -> nn.Module:
    """Their outputs side by side."""
    return Apply(lambda m, x: torch.cat([layer(x) for layer in m.layers], 1), layers=nn.ModuleList(layers))


def residual(body: nn.Module, short: nn.Module | None = None, act: Act | None = None) -> nn.Module:
    after = act() if act else nn.Identity()
    return Apply(lambda m, x: m.after(m.body(x) + m.short(x)), body=body, short=short or nn.Identity(), after=after)


def excite(channels: int, inner: int, gate: Act = nn.Hardsigmoid) -> nn.Module:
    """Squeeze and excitation."""
    layers = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, channels, 1), gate()
    return Apply(lambda m, x: x * m.scale(x), scale=Seq(*layers))


def shuffle(groups: int) -> nn.Module:
    def shuffled(_: nn.Module, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)

    return Apply(shuffled)


def inverted(
    c_in: int, c_out: int, k: int, s: int, expand: float, act: Act, se: int = 0, gate: Act = nn.Hardsigmoid
) -> nn.Module:
    """MobileNetV2's block; `se`: the inner width of its squeeze and excitation, 0 for none."""
    hidden = round(c_in * expand)
    layers: list[nn.Module] = [] if hidden == c_in else [block(c_in, hidden, act=act)]
    layers += [block(hidden, hidden, k, s, hidden, act), *([excite(hidden, se, gate)] if se else [])]
    body = Seq(*layers, block(hidden, c_out, act=None))
    return residual(body) if s == 1 and c_in == c_out else body


Made = tuple[nn.Module, int]
"""A network and its resolution."""


def mobilenet_v1(draw: Draw) -> Made:
    small, size = draw.small(0.2)
    act, c = draw.choice((nn.ReLU, nn.ReLU6)), draw.channels(32)
    layers: list[nn.Module] = [block(3, c, 3, 1 if small else 2, act=act)]
    for stage, usual in enumerate((64, 128, 256, 512, 1024)):
        for number in range(draw.randint(1, 6 if usual == 512 else 2)):
            out, stride = draw.channels(usual), 2 if stage and number == 0 else 1
            layers += [block(c, c, draw.choice((3, 3, 3, 5)), stride, c, act), block(c, out, act=act)]
            c = out
    return Seq(*layers, head(c, draw.classes)), size


def _mobile(
    draw: Draw, act: Act, kernels: Sequence[int], expands: Sequence[float], se_share: float, last: Sequence[int]
) -> Made:
    """Stages of inverted residuals behind a strided convolution."""
    small, size = draw.small(0.15)
    c = draw.channels(24)
    layers: list[nn.Module] = [block(3, c, 3, 1 if small else 2, act=act)]
    for stage, usual in enumerate((16, 24, 40, 80, 112, 192)):
        stride, k, se = 2 if stage in (1, 2, 3, 5) else 1, draw.choice(kernels), draw.random() < se_share
        out, expand, late = draw.channels(usual), draw.choice(expands) if stage else 1, nn.ReLU if stage < 2 else act
        for number in range(draw.randint(1, 4) if stage else 1):
            inner = max(8, round(c * expand / draw.choice((4, 8, 16)) / 8) * 8) if se else 0
            gate = nn.Hardsigmoid if act is nn.Hardswish else nn.Sigmoid
            layers.append(
                inverted(c, out, k, stride if number == 0 else 1, expand, late if se_share else act, inner, gate)
            )
            c = out
    wide = draw.channels(draw.choice(last))
    layers.append(block(c, wide, act=act))
    if act is nn.Hardswish:
        more = draw.channels(1024)
        tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, more), act(), nn.Linear(more, draw.classes)
        return Seq(*layers, *tail), size
    return Seq(*layers, head(wide, draw.classes)), size


def mobilenet_v2(draw: Draw) -> Made:
    return _mobile(draw, nn.ReLU6, (3,), (3, 4, 6), 0, (640, 1280))


def mobilenet_v3(draw: Draw) -> Made:
    return _mobile(draw, nn.Hardswish, (3, 5), (2.5, 3, 4, 6), 0.6, (576, 960))


def mnasnet(draw: Draw) -> Made:
    return _mobile(draw, nn.ReLU, (3, 5, 7), (3, 4, 6), 0.3, (640, 1280))


def shufflenet_v1(draw: Draw) -> Made:
    groups = draw.choice((2, 3, 4, 8))
    c = draw.channels(24, groups)
    layers: list[nn.Module] = [block(3, c, 3, 2), nn.MaxPool2d(3, 2, 1)]
    out = draw.channels(240, 4 * groups)
    for stage, depth in enumerate((draw.randint(2, 4), draw.randint(3, 8), draw.randint(2, 4))):
        inner = out // 4
        for number in range(depth):
            first, s = number == 0, 2 if number == 0 else 1
            reduce = block(c, inner, g=1 if first and stage == 0 else groups)  # few channels come from the stem
            expand = block(inner, out - c if first else out, g=groups, act=None)
            body = Seq(reduce, shuffle(groups), block(inner, inner, 3, s, inner, None), expand)
            pooled = branches(nn.AvgPool2d(3, 2, 1), body)
            layers.append(Seq(pooled, nn.ReLU()) if first else residual(body, act=nn.ReLU))
            c = out
        out = 2 * c
    return Seq(*layers, head(c, draw.classes)), draw.choice(IMAGENET_SIZES)


def shufflenet_v2(draw: Draw) -> Made:
    k, c = draw.choice((3, 3, 5)), draw.channels(24)
    layers: list[nn.Module] = [block(3, c, 3, 2), nn.MaxPool2d(3, 2, 1)]
    out = draw.channels(160, 2)
    for depth in (draw.randint(2, 4), draw.randint(3, 8), draw.randint(2, 4)):
        half = out // 2
        left = Seq(block(c, c, k, 2, c, None), block(c, half))
        right = Seq(block(c, half), block(half, half, k, 2, half, None), block(half, half))
        layers += [branches(left, right), shuffle(2)]
        for _ in range(depth - 1):
            body = Seq(block(half, half), block(half, half, k, 1, half, None), block(half, half))
            layers += [Apply(_half_passes_by, body=body), shuffle(2)]
        c, out = 2 * half, 4 * half
    wide = draw.channels(1024)
    return Seq(*layers, block(c, wide), head(wide, draw.classes)), draw.choice(IMAGENET_SIZES)


def _half_passes_by(module: Any, x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat([left, module.body(right)], 1)


def _stem(draw: Draw, small: bool, c: int) -> list[nn.Module]:
    if small:
        return [block(3, c, 3)]
    k = draw.choice((3, 5, 7))
    return [block(3, c, k, 2), nn.MaxPool2d(3, 2, 1)]


def resnet(draw: Draw) -> Made:
    """Basic blocks, for small images with three stages or for ImageNet's with four."""
    small, size = draw.small()
    c = draw.channels(20 if small else 48)
    layers = _stem(draw, small, c)
    usual = c
    for stage in range(3 if small else 4):
        out = c if stage == 0 else draw.channels(usual * 2**stage / draw.width)
        for number in range(draw.randint(1, 5 if small else 2)):
            s = 2 if stage and number == 0 else 1
            short = block(c, out, 1, s, act=None) if s == 2 or c != out else None
            layers.append(residual(Seq(block(c, out, 3, s), block(out, out, 3, act=None)), short, nn.ReLU))
            c = out
    return Seq(*layers, head(c, draw.classes)), size


def resnext(draw: Draw) -> Made:
    """Bottlenecks, with and without groups."""
    small, size = draw.small(0.3)
    groups, c = draw.choice((1, 1, 4, 8, 32)), draw.channels(32)
    layers = _stem(draw, small, c)
    usual = draw.choice((24, 32, 48))
    for stage in range(3 if small else 4):
        inner = draw.channels(usual * 2**stage, groups)
        out = inner * draw.choice((2, 4))
        for number in range(draw.randint(1, 3)):
            s = 2 if stage and number == 0 else 1
            short = block(c, out, 1, s, act=None) if s == 2 or c != out else None
            body = Seq(block(c, inner), block(inner, inner, 3, s, groups), block(inner, out, act=None))
            layers.append(residual(body, short, nn.ReLU))
            c = out
    return Seq(*layers, head(c, draw.classes)), size


def vgg(draw: Draw) -> Made:
    small, size = draw.small()
    c = 3
    layers: list[nn.Module] = []
    widths = (48, 96, 160, 256, 256) if small else (20, 40, 80, 160, 192)
    for usual in widths[: 3 + draw.randint(0, 1) if small else 5]:
        for _ in range(draw.randint(1, 3)):
            out = draw.channels(usual)
            k = 3 if c == 3 or draw.random() < 0.85 else draw.choice((1, 5))
            layers.append(
                block(c, out, k) if draw.random() < 0.8 else Seq(nn.Conv2d(c, out, k, padding=k // 2), nn.ReLU())
            )
            c = out
        layers.append(nn.MaxPool2d(2))
        size = size if small else size - size % 32
    if draw.random() < 0.5:
        return Seq(*layers, head(c, draw.classes)), size
    side, wide = size >> sum(isinstance(layer, nn.MaxPool2d) for layer in layers), draw.channels(768)
    tail = nn.Flatten(), nn.Linear(c * side * side, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU()
    return Seq(*layers, *tail, nn.Linear(wide, draw.classes)), size


def squeezenet(draw: Draw) -> Made:
    c = draw.channels(64)
    layers: list[nn.Module] = [nn.Conv2d(3, c, draw.choice((3, 5, 7)), 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for stage, usual in enumerate((64, 128, 192, 256)):
        for _ in range(draw.randint(1, 3)):
            small, one, three = draw.channels(usual / 3), draw.channels(usual), draw.channels(usual)
            wide = Seq(nn.Conv2d(small, three, 3, padding=1), nn.ReLU())
            layers += [Seq(nn.Conv2d(c, small, 1), nn.ReLU()), branches(Seq(nn.Conv2d(small, one, 1), nn.ReLU()), wide)]
            c = one + three
        layers += [nn.MaxPool2d(3, 2)] if stage < 2 else []
    tail = nn.Conv2d(c, draw.classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Seq(*layers, *tail), draw.choice(IMAGENET_SIZES)


def densenet(draw: Draw) -> Made:
    """Convolutions are normalised and activated after they ran, not before as in the paper: then each is one kernel."""
    small, size = draw.small()
    growth, narrow = draw.channels(24), draw.random() < 0.7
    c = 2 * growth
    layers = _stem(draw, small, c)
    stages = 3 if small else 4
    for stage in range(stages):
        for _ in range(draw.randint(2, 6)):
            grown = Seq(block(c, 4 * growth), block(4 * growth, growth, 3)) if narrow else block(c, growth, 3)
            layers.append(branches(nn.Identity(), grown))
            c += growth
        if stage < stages - 1:
            layers += [block(c, c // 2), nn.AvgPool2d(2)]
            c //= 2
    return Seq(*layers, head(c, draw.classes)), size


def inception(draw: Draw) -> Made:
    small, size = draw.small(0.3)
    c = draw.channels(48)
    layers: list[nn.Module] = _stem(draw, small, c)
    if not small:
        c, before = draw.channels(128), c
        layers += [block(before, c, 3), nn.MaxPool2d(3, 2, 1)]
    for stage, usual in enumerate((64, 112, 176)):
        for _ in range(draw.randint(1, 3)):
            a, b, d, e = (draw.channels(usual * share) for share in (1, 1.3, 0.4, 0.5))
            b_in, d_in = draw.channels(usual * 0.8), draw.channels(usual * 0.2)
            wide = block(d_in, d, 5) if draw.random() < 0.5 else Seq(block(d_in, d, 3), block(d, d, 3))
            pool = nn.MaxPool2d(3, 1, 1) if draw.random() < 0.6 else nn.AvgPool2d(3, 1, 1)
            towers = Seq(block(c, b_in), block(b_in, b, 3)), Seq(block(c, d_in), wide), Seq(pool, block(c, e))
            layers.append(branches(block(c, a), *towers))
            c = a + b + d + e
        layers += [nn.MaxPool2d(3, 2, 1)] if stage < 2 else []
    return Seq(*layers, head(c, draw.classes)), size


FAMILIES: dict[str, Callable[[Draw], Made]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "mnasnet": mnasnet,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "resnet": resnet,
    "resnext": resnext,
    "vgg": vgg,
    "squeezenet": squeezenet,
    "densenet": densenet,
    "inception": inception,
}


def family_list() -> list[str]:
    return list(FAMILIES)


def networks(count: int, seed: int = 0) -> list[HeldOut]:
    """So many networks, the families in turn. Each depends on the seed and its number alone, not on `count`."""
    return [network(number, seed) for number in range(count)]


def network(number: int, seed: int = 0) -> HeldOut:
    """The network of that number; weights from the seed, and normalisations that are not neutral."""
    from pipeline.graph import count as count_of

    family = family_list()[number % len(FAMILIES)]
    for attempt in range(DRAWS):
        text = f"{seed}-{number}-{attempt}"
        with torch.device("meta"):
            module, size = FAMILIES[family](Draw(text))
        shape = (1, 3, size, size)
        counts = count_of(module, shape)
        if MACS[0] <= counts.macs <= MACS[1] and counts.params <= MAX_PARAMS:
            break
    else:
        raise RuntimeError(f"no {family} of {MACS[0]} to {MACS[1]} multiply-accumulates in {DRAWS} draws")
    module, size = FAMILIES[family](Draw(text))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * seed + number)
        _fill(module)
    return HeldOut(f"{family}_{number:03d}", family, module.eval(), shape)


def _fill(module: nn.Module) -> None:
    """Weights that keep the scale of what passes, and shifts, so that nothing fades to denormal numbers."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0, 0.1)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.7, 1.4)
            nn.init.uniform_(layer.weight, 0.7, 1.2)
            nn.init.normal_(layer.bias, 0, 0.1)
