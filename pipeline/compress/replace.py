"""Layers of a network and what takes their place. Modules are replaced, not nodes of a graph: no tracer has to see them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.structure import Piece, Target
from pipeline.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.counting import Counts
    from pipeline.fusion.ir import Graph

SHOWN = 8
FINITE = "weights of a training that did not diverge"
FUNCTIONAL = "a functional call, which has no module to replace"


@dataclass(frozen=True)
class Survey:
    """What of a network can be decomposed.

    Args:
        targets: by the first name of each layer.
        modules: the same names.
        aliases: any other name of a target -> its first name.
        left_alone: whatever else has a weight of two dimensions or more -> why it cannot be replaced.
    """

    targets: Mapping[str, Target]
    modules: Mapping[str, nn.Module]
    aliases: Mapping[str, str]
    left_alone: Mapping[str, str]

    def resolved(self, name: str, method: str) -> str:
        """The first name of a target. Raises: UsageError: it is none, and why."""
        first = self.aliases.get(name, name)
        if first in self.targets:
            return first
        why = self.left_alone.get(name, "there is no convolution or linear layer of that name")
        raise UsageError(f"{method} cannot decompose {name!r}: {why}", try_=", ".join(list(self.targets)[:SHOWN]))


def copied(model: nn.Module) -> nn.Module:
    """Raises: ModelError: it holds something that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the user's module holds
        what = f"{type(model).__name__} cannot be copied: {type(error).__name__} {error}"
        raise ModelError(what.splitlines()[0][:300], try_="a module without hooks and computed weights") from error


def survey(model: nn.Module, graph: Graph | None = None) -> Survey:
    """The convolutions and linear layers of a network, each once however many names it has.

    Args: graph: the traced network, for the sizes that its layers see and for functional calls.
    """
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for weight in module.parameters(recurse=False):
            owners.setdefault(id(weight), []).append(name)
    calls = _calls(graph)
    targets: dict[str, Target] = {}
    modules: dict[str, nn.Module] = {}
    aliases: dict[str, str] = {}
    left_alone: dict[str, str] = {}
    for name, module in model.named_modules():
        if all(weight.ndim < 2 for weight in module.parameters(recurse=False)):
            continue
        if why := _why_not(name, module, owners):
            left_alone[name or type(module).__name__] = why
            continue
        weight = module.get_parameter("weight")
        seen = tuple(calls.get(id(weight), ())) if graph is not None else None
        targets[name], modules[name] = _target(name, module, seen), module
        aliases |= dict.fromkeys(names[id(module)], name)
    if graph is not None:
        known = {id(weight) for weight in model.parameters()}
        for node in graph.nodes:
            if node.op in ("conv2d", "linear", "conv_transpose2d") and node.weight_id not in known:
                left_alone.setdefault(node.module or type(model).__name__, FUNCTIONAL)
    return Survey(targets, modules, aliases, left_alone)


def _why_not(name: str, module: nn.Module, owners: Mapping[int, Sequence[str]]) -> str:
    from torch import nn

    if type(module) not in (nn.Conv2d, nn.Linear):  # a subclass may use its weight in another way
        return f"a {type(module).__name__}, not a convolution or linear layer of torch.nn"
    if not name:
        return "the network is this one layer"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks, which a replacement would lose"
    for weight in module.parameters(recurse=False):
        if others := [owner for owner in owners[id(weight)] if owner != name]:
            return f"it shares a weight with {others[0]!r}"
    if "weight" not in dict(module.named_parameters(recurse=False)):
        return "its weight is computed, not a parameter"
    return ""


def _calls(graph: Graph | None) -> dict[int, list[tuple[int, int, int]]]:
    """id of a weight -> (images, height, width) of the input of each call."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for node in graph.nodes if graph is not None else ():
        shape = node.inputs[0].shape if node.inputs else ()
        if node.op == "conv2d" and len(shape) >= 3:
            images = shape[0] if len(shape) == 4 else 1
            found.setdefault(node.weight_id, []).append((images, shape[-2], shape[-1]))
        elif node.op == "linear":
            found.setdefault(node.weight_id, []).append((1, math.prod(shape[:-1]), 1))
    return found


def _target(name: str, module: nn.Module, calls: tuple[tuple[int, int, int], ...] | None) -> Target:
    layer: Any = module
    bias = layer.bias is not None
    if not hasattr(layer, "groups"):
        return Target(name, "linear", Piece(layer.in_features, layer.out_features, bias=bias), calls=calls)
    whole = Piece(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups,
        bias,
    )  # fmt: skip
    return Target(name, "conv2d", whole, layer.padding_mode, calls)


def check_finite(modules: Mapping[str, nn.Module]) -> None:
    """Raises: UsageError: a layer holds NaN or infinity, by its name."""
    import torch

    for name, module in modules.items():
        if not all(torch.isfinite(weight).all() for weight in module.parameters()):
            raise UsageError(f"layer {name!r} holds NaN or infinity and cannot be decomposed", try_=FINITE)


def swap(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Puts each layer's replacement wherever the layer is in a network: under every name, in one walk."""
    for parent in list(model.modules()):
        # not named_children, which gives a module once that has two names in one parent
        for name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])


def traced(model: nn.Module, example: Tensor | Sequence[int]) -> Graph:
    """Raises: ModelError: it fails on that input, or depends on values."""
    from pipeline.fusion.tracing import trace

    return trace(model, tuple(int(size) for size in getattr(example, "shape", example)))


def counts(model: nn.Module, graph: Graph) -> Counts:
    """As `pipeline.graph.count`."""
    from pipeline.counting import count_graph

    return count_graph(graph, params_of(model))


def params_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def without(survey: Survey, reasons: Mapping[str, str]) -> Survey:
    """A survey that leaves more layers alone."""
    kept: Iterable[str] = [name for name in survey.targets if name not in reasons]
    return dataclasses.replace(
        survey,
        targets={name: survey.targets[name] for name in kept},
        modules={name: survey.modules[name] for name in kept},
        left_alone={**survey.left_alone, **reasons},
    )
