"""Networks as others publish them, with random weights and statistics: whole functions, so that outputs can be compared.

torchvision's and timm's are theirs. The rest is written out as functions of a state_dict with their authors' keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]


def torchvision_models() -> Any:
    """torchvision's operators are compiled for one build of torch. Beside another (CPU for CUDA) it cannot even be imported,
    unless somebody says what they look like; its classifiers use none of them.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # what it defines is gone with it
        import torchvision
    return torchvision.models


_KEPT: list[Any] = []


def timm_model(name: str) -> nn.Module:
    torchvision_models()  # timm imports it
    import timm

    model: nn.Module = timm.create_model(name)
    return model


def randomised(module: nn.Module) -> nn.Module:
    """Random statistics and scales too, such that activations keep their size; in eval mode."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None and layer.running_var is not None
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1)
    return module.eval()


def state_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> State:
    """Random convolutions, linear layers and normalisations (a shape of one number) of a network given by its layers."""
    state: State = {}
    for name, shape in shapes:
        if len(shape) > 1:
            state[f"{name}.weight"] = torch.randn(shape) * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        else:
            state[f"{name}.weight"], state[f"{name}.bias"] = torch.rand(shape) + 0.5, torch.randn(shape) * 0.1
            state[f"{name}.running_mean"], state[f"{name}.running_var"] = (
                torch.randn(shape) * 0.1,
                torch.rand(shape) + 0.5,
            )
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias)


def _conv(state: State, conv: str, norm: str, x: Tensor, **settings: Any) -> Tensor:
    weight = state[f"{conv}.weight"]
    return _norm(state, norm, F.conv2d(x, weight, padding=weight.shape[-1] // 2, **settings))


SHUFFLENET_STAGES = (4, 8, 4)


def megvii_v1(stages: tuple[int, ...], groups: int, classes: int) -> State:
    shapes: list[tuple[str, tuple[int, ...]]] = [("first_conv.0", (24, 3, 3, 3)), ("first_conv.1", (24,))]
    c_in, i = 24, 0
    for c_out, count in zip(stages, SHUFFLENET_STAGES, strict=True):
        for at in range(count):
            mid, out, reads = c_out // 4, c_out if at else c_out - c_in, c_in // (groups if i else 1)
            first, second = f"features.{i}.branch_main_1", f"features.{i}.branch_main_2"
            shapes += [(f"{first}.0", (mid, reads, 1, 1)), (f"{first}.1", (mid,))]
            shapes += [(f"{first}.3", (mid, 1, 3, 3)), (f"{first}.4", (mid,))]
            shapes += [(f"{second}.0", (out, mid // groups, 1, 1)), (f"{second}.1", (out,))]
            c_in, i = c_out, i + 1
    return state_of([*shapes, ("classifier.0", (classes, c_in))])


def run_megvii_v1(state: State, groups: int, x: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(_conv(state, "first_conv.0", "first_conv.1", x, stride=2)), 3, 2, 1)
    i = 0
    for count in SHUFFLENET_STAGES:
        for at in range(count):
            first, second, stride = f"features.{i}.branch_main_1", f"features.{i}.branch_main_2", 1 if at else 2
            y = F.relu(_conv(state, f"{first}.0", f"{first}.1", x, groups=groups if i else 1))
            y = _conv(state, f"{first}.3", f"{first}.4", y, stride=stride, groups=y.shape[1])
            n, c, h, w = y.shape
            y = y.reshape(n, c // groups, groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
            y = _conv(state, f"{second}.0", f"{second}.1", y, groups=groups)
            x = F.relu(x + y) if at else torch.cat([F.avg_pool2d(x, 3, 2, 1), F.relu(y)], 1)
            i += 1
    return x.mean((2, 3)) @ state["classifier.0.weight"].T


def megvii_v2(stages: tuple[int, ...], last: int, classes: int) -> State:
    shapes: list[tuple[str, tuple[int, ...]]] = [("first_conv.0", (24, 3, 3, 3)), ("first_conv.1", (24,))]
    c_in, i = 24, 0
    for c_out, count in zip(stages, SHUFFLENET_STAGES, strict=True):
        for at in range(count):
            reads, mid = c_out // 2 if at else c_in, c_out // 2
            out = c_out - reads
            main, proj = f"features.{i}.branch_main", f"features.{i}.branch_proj"
            shapes += [(f"{main}.0", (mid, reads, 1, 1)), (f"{main}.1", (mid,)), (f"{main}.3", (mid, 1, 3, 3))]
            shapes += [(f"{main}.4", (mid,)), (f"{main}.5", (out, mid, 1, 1)), (f"{main}.6", (out,))]
            if not at:
                shapes += [(f"{proj}.0", (c_in, 1, 3, 3)), (f"{proj}.1", (c_in,))]
                shapes += [(f"{proj}.2", (c_in, c_in, 1, 1)), (f"{proj}.3", (c_in,))]
            c_in, i = c_out, i + 1
    shapes += [("conv_last.0", (last, c_in, 1, 1)), ("conv_last.1", (last,)), ("classifier.0", (classes, last))]
    return state_of(shapes)


def run_megvii_v2(state: State, x: Tensor) -> Tensor:
    x = F.max_pool2d(F.relu(_conv(state, "first_conv.0", "first_conv.1", x, stride=2)), 3, 2, 1)
    i = 0
    for count in SHUFFLENET_STAGES:
        for at in range(count):
            main, proj, stride = f"features.{i}.branch_main", f"features.{i}.branch_proj", 1 if at else 2
            passing, y = (x[:, ::2], x[:, 1::2]) if at else (x, x)
            if not at:
                passing = _conv(state, f"{proj}.0", f"{proj}.1", passing, stride=2, groups=x.shape[1])
                passing = F.relu(_conv(state, f"{proj}.2", f"{proj}.3", passing))
            y = F.relu(_conv(state, f"{main}.0", f"{main}.1", y))
            y = _conv(state, f"{main}.3", f"{main}.4", y, stride=stride, groups=y.shape[1])
            x = torch.cat([passing, F.relu(_conv(state, f"{main}.5", f"{main}.6", y))], 1)
            i += 1
    x = F.relu(_conv(state, "conv_last.0", "conv_last.1", x))
    return x.mean((2, 3)) @ state["classifier.0.weight"].T


def _pre(state: State, norm: str, conv: str, x: Tensor, **settings: Any) -> Tensor:
    weight = state[f"{conv}.weight"]
    return F.conv2d(F.relu(_norm(state, norm, x)), weight, padding=weight.shape[-1] // 2, **settings)


def densenet_bc(layer: str, first: int, end: tuple[str, str], counts: tuple[int, ...], growth: int) -> State:
    """`layer`: the prefix of a layer, with {block} and {at} from `first`."""
    shapes: list[tuple[str, tuple[int, ...]]] = [("conv1", (2 * growth, 3, 3, 3))]
    channels = 2 * growth
    for block, count in enumerate(counts, start=1):
        for at in range(count):
            name = layer.format(block=block, at=at + first)
            shapes += [(f"{name}.bn1", (channels,)), (f"{name}.conv1", (4 * growth, channels, 1, 1))]
            shapes += [(f"{name}.bn2", (4 * growth,)), (f"{name}.conv2", (growth, 4 * growth, 3, 3))]
            channels += growth
        if block < len(counts):
            half = channels // 2
            shapes += [(f"trans{block}.bn1", (channels,)), (f"trans{block}.conv1", (half, channels, 1, 1))]
            channels = half
    state = state_of([*shapes, (end[0], (channels,)), (end[1], (10, channels))])
    return state | {f"{end[1]}.bias": torch.randn(10)}


def run_densenet_bc(
    state: State, layer: str, first: int, end: tuple[str, str], counts: tuple[int, ...], x: Tensor
) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for block, count in enumerate(counts, start=1):
        for at in range(count):
            name = layer.format(block=block, at=at + first)
            y = _pre(state, f"{name}.bn2", f"{name}.conv2", _pre(state, f"{name}.bn1", f"{name}.conv1", x))
            x = torch.cat([x, y], 1)
        if block < len(counts):
            x = F.avg_pool2d(_pre(state, f"trans{block}.bn1", f"trans{block}.conv1", x), 2)
    features = F.relu(_norm(state, end[0], x)).mean((2, 3))
    return F.linear(features, state[f"{end[1]}.weight"], state[f"{end[1]}.bias"])


def condensenet(blocks: tuple[int, ...], growths: tuple[int, ...], groups: int) -> State:
    """Converted, as the authors' code writes it: each group's inputs in ascending order, the classifier's in any."""
    channels = 2 * growths[0]
    state = state_of([("features.init_conv", (channels, 3, 3, 3))])
    for block, (count, growth) in enumerate(zip(blocks, growths, strict=True), start=1):
        for at in range(1, count + 1):
            name, inner = f"features.denseblock_{block}.denselayer_{at}", 4 * growth
            picks = [torch.randperm(channels)[: channels // groups].sort().values for _ in range(groups)]
            state[f"{name}.conv_1.index"] = torch.cat(picks)
            state |= state_of(
                [
                    (f"{name}.conv_1.norm", (channels // groups * groups,)),
                    (f"{name}.conv_1.conv", (inner, channels // groups, 1, 1)),
                    (f"{name}.conv_2.norm", (inner,)),
                    (f"{name}.conv_2.conv", (growth, inner // groups, 3, 3)),
                ]
            )
            channels += growth
    state |= state_of([("features.norm_last", (channels,)), ("classifier.linear", (10, channels // 2))])
    return state | {
        "classifier.linear.bias": torch.randn(10),
        "classifier.index": torch.randperm(channels)[: channels // 2],
    }


def run_condensenet(state: State, blocks: tuple[int, ...], groups: int, stride: int, x: Tensor) -> Tensor:
    x = F.conv2d(x, state["features.init_conv.weight"], stride=stride, padding=1)
    for block, count in enumerate(blocks, start=1):
        for at in range(1, count + 1):
            name = f"features.denseblock_{block}.denselayer_{at}"
            y = x[:, state[f"{name}.conv_1.index"]]
            y = _pre(state, f"{name}.conv_1.norm", f"{name}.conv_1.conv", y, groups=groups)
            n, c, h, w = y.shape
            y = y.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
            x = torch.cat([x, _pre(state, f"{name}.conv_2.norm", f"{name}.conv_2.conv", y, groups=groups)], 1)
        if block < len(blocks):
            x = F.avg_pool2d(x, 2)
    x = F.relu(_norm(state, "features.norm_last", x)).mean((2, 3))[:, state["classifier.index"]]
    return F.linear(x, state["classifier.linear.weight"], state["classifier.linear.bias"])


def run_slimming_vgg(state: State, plan: Iterable[int | str], x: Tensor) -> Tensor:
    """`plan`: channels and "M" for poolings, as in their code; keys feature.{0, 1, 3, 4, ...}."""
    at = 0
    for step in plan:
        if step == "M":
            x, at = F.max_pool2d(x, 2), at + 1
        else:
            x, at = F.relu(_conv(state, f"feature.{at}", f"feature.{at + 1}", x)), at + 3
    x = F.avg_pool2d(x, 2).flatten(1)
    return F.linear(x, state["classifier.weight"], state["classifier.bias"])


def slimming_vgg(plan: Iterable[int | str]) -> State:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    at, c_in = 0, 3
    for step in plan:
        if isinstance(step, str):
            at += 1
        else:
            shapes += [(f"feature.{at}", (step, c_in, 3, 3)), (f"feature.{at + 1}", (step,))]
            at, c_in = at + 3, step
    return state_of([*shapes, ("classifier", (10, c_in))]) | {"classifier.bias": torch.randn(10)}


def amc_v1(widths: tuple[int, ...]) -> nn.Module:
    """MobileNetV1 with the keys of AMC's authors: conv1.{0,1}, features.i.{0,1,3,4}, classifier.1."""
    from pipeline.models.mobilenet_v1 import TABLE_1

    def conv(c_in: int, c_out: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
        made = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [made, nn.BatchNorm2d(c_out), nn.ReLU()]

    network = nn.Sequential()
    network.add_module("conv1", nn.Sequential(*conv(3, widths[0], 3, 2)))
    blocks = [
        nn.Sequential(*conv(c_in, c_in, 3, stride, c_in), *conv(c_in, c_out, 1, 1))
        for c_in, c_out, (_, stride) in zip(widths, widths[1:], TABLE_1, strict=False)
    ]
    network.add_module("features", nn.Sequential(*blocks))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Sequential(nn.Dropout(0.2), nn.Linear(widths[-1], 1000)))
    return network
