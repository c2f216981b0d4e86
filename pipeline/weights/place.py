"""A file's tensors into a module: which map fits, what it leaves over, and which network of the zoo would have fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import printable
from pipeline.errors import ModelError
from pipeline.models import MODELS, build
from pipeline.weights.maps import sources_of
from pipeline.weights.read import read_tensors
from pipeline.weights.source import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

UNTRAINED = "num_batches_tracked"
"""A counter that no output depends on; files of before torch 1.0 lack it."""

SHOWN = 3
PARAMS_APART = 0.05
"""A network whose parameters are farther from the file's than that share is not looked at as one that would fit."""


@dataclass(frozen=True)
class Placed:
    """What was loaded.

    Args:
        source: whose names the file has.
        filled: tensors of ours that were filled: all, but for counters of batches.
        unplaced: keys of the file that no layer of ours has a use for.
        note: what differs from the network that was trained; "" where nothing does.
    """

    source: str
    filled: int
    unplaced: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Match:
    """A map held against a file.

    Args:
        found: our key -> theirs.
        missing: ours and, in brackets, the name that it would have.
        other: theirs with its shape and ours.
        foreign: theirs, in the parts of the network that the map knows, without a place in ours: another network.
        unplaced: theirs elsewhere, without a place.
    """

    found: Mapping[str, str]
    missing: tuple[str, ...]
    other: Mapping[str, str]
    foreign: tuple[str, ...]
    unplaced: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not (self.missing or self.other or self.foreign)


def load(module: nn.Module, name: str, path: Path) -> Placed:
    """Fills all of a network's tensors from a file of torchvision's, timm's, its authors' or handset's own names.

    Args:
        module: changed in place, also in settings that the source has otherwise (see `maps`); after an error it is not to be
            used. Its parameters stay of their dtype.
        name: what messages call it.
        path: .pt, .pth, .th, .tar, .bin, .ckpt (of tensors alone) or .safetensors.

    Raises:
        ModelError: the file is none (`read.read_tensors`), is of another network or another number of classes, or has values
            that are not finite.
        StorageError: it cannot be read.
    """
    import torch

    tensors = {key: tensor for key, tensor in read_tensors(path).items() if key.rpartition(".")[2] != UNTRAINED}
    file = printable(path.name)[:80]
    source = _nearest(module, tensors)
    source.adapt(module)
    match = _matched(module, source, tensors)
    if not match.fits:
        raise _refusal(module, name, file, source, match, tensors)
    if unlike := source.unlike(module):
        what, hint = unlike
        raise ModelError(f"{file} has the names of {source.name}, which are not of {name}: {what}", try_=hint)
    if odd := [key for key in match.found.values() if not bool(torch.isfinite(tensors[key]).all())]:
        raise ModelError(f"{file} has values that are not finite in {_shown(odd)}", try_="the file of another epoch")
    state = module.state_dict()
    for ours, theirs in match.found.items():
        state[ours].copy_(tensors[theirs].reshape(state[ours].shape))
    source.finish(module)
    module.train(module.training)  # parts that were put in are of its mode too
    return Placed(source.name, len(match.found), match.unplaced, source.note(module))


def would_fit(tensors: Mapping[str, Tensor]) -> list[str]:
    """Networks of the zoo that these tensors fill, built without memory for their weights."""
    import torch

    trained = [tensor for key, tensor in tensors.items() if "running_" not in key and tensor.is_floating_point()]
    params = sum(tensor.numel() for tensor in trained)
    fitting = []
    for name, spec in MODELS.items():
        if abs(params - spec.params) > PARAMS_APART * spec.params:
            continue
        with torch.device("meta"):
            module = build(name)
            source = _nearest(module, tensors)
            source.adapt(module)
            if not source.unlike(module) and _matched(module, source, tensors).fits:
                fitting.append(name)
    return fitting


def _nearest(module: Any, tensors: Iterable[str]) -> Source:
    """The map with the most layers in the file; the first of equals."""
    theirs = {key.rpartition(".")[0] for key in tensors}
    return max(sources_of(module), key=lambda source: sum(layer in theirs for _, layer in source.layers(module)))


def _matched(module: Any, source: Source, tensors: Mapping[str, Tensor]) -> Match:
    layers = dict(source.layers(module))
    found: dict[str, str] = {}
    missing: list[str] = []
    other: dict[str, str] = {}
    for ours, tensor in module.state_dict().items():
        layer, _, leaf = ours.rpartition(".")
        if leaf == UNTRAINED:
            continue
        theirs = f"{layers[layer]}.{leaf}".removeprefix(".") if layer in layers else ""
        if theirs not in tensors:
            missing.append(ours if theirs in ("", ours) else f"{ours} ({theirs})")
        elif not _is_alike(tensors[theirs], tensor):
            other[theirs] = f"{_kind(tensors[theirs])}, not {_kind(tensor)}"
        else:
            found[ours] = theirs
    used = {*found.values(), *other}
    left = [key for key in tensors if key not in used]
    parts = {layer.partition(".")[0] for layer in layers.values()}
    foreign = [key for key in left if tensors[key].numel() > 1 and key.partition(".")[0] in parts]
    return Match(found, tuple(missing), other, tuple(foreign), tuple(key for key in left if key not in foreign))


def _is_alike(theirs: Tensor, ours: Tensor) -> bool:
    """The same numbers in the same order: a linear layer may be written as a convolution over all of its input."""
    if theirs.is_floating_point() != ours.is_floating_point() or theirs.is_complex():
        return False
    if theirs.dim() == 4 and ours.dim() == 2:
        return theirs.flatten(1).shape == ours.shape
    return theirs.shape == ours.shape


def _kind(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape[:6])) or "a scalar"
    return shape if tensor.is_floating_point() else f"{shape} of {str(tensor.dtype).removeprefix('torch.')}"


def _refusal(
    module: Any, name: str, file: str, source: Source, match: Match, tensors: Mapping[str, Tensor]
) -> ModelError:
    if classes := _other_classes(module, source, match, tensors):
        theirs, ours = classes
        what = f"{file} has a classifier for {theirs:,} classes, {name} has one for {ours:,}"
        hint = f"file.py:function that returns pipeline.models.build({name!r}, num_classes={theirs})"
        return ModelError(what, try_=hint if name in MODELS else f"that network with {theirs} classes")
    total = len(match.found) + len(match.missing) + len(match.other)
    what = f"{file} fills {len(match.found)} of the {total} tensors of {name} by the names of {source.name}"
    if match.missing:
        what += f"; missing: {_shown(match.missing)}"
    if match.other:
        what += f"; of another shape: {_shown([f'{key} is {why}' for key, why in match.other.items()])}"
    if match.foreign:
        what += f"; without a place: {_shown(match.foreign)}"
    fitting = [one for one in would_fit(tensors) if one != name]
    hint = f"{' or '.join(fitting)}, which it fits" if fitting else "the network that it is of: none of the zoo"
    return ModelError(what, try_=hint)


def _other_classes(module: Any, source: Source, match: Match, tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Classes of the file and of ours, where nothing but those differs."""
    ours, theirs = list(source.layers(module))[-1]
    weight = f"{theirs}.weight"
    if match.missing or match.foreign or weight not in match.other or {*match.other} - {weight, f"{theirs}.bias"}:
        return None
    expected, found = module.state_dict()[f"{ours}.weight"].shape, tensors[weight].shape
    if expected[1:].numel() != found[1:].numel() or expected[0] == found[0]:
        return None
    return found[0], expected[0]


def _shown(keys: Iterable[str]) -> str:
    """A file's keys may hold anything: the first few, of bounded length, in printable characters."""
    every = [printable(key[:100]) for key in keys]
    more = f" and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
