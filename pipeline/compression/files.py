"""A compressed network as a file: a .pt2 that `handset bench` takes; of one that torch.export cannot follow, its weights.

Weights alone are no network: `again` puts them into the layers that the result document tells of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.compress import build
from pipeline.compression.methods import given_ranks, settings_of
from pipeline.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import nn

PROGRAM, WEIGHTS = ".pt2", ".safetensors"


def write(module: nn.Module, input_shape: Sequence[int], folder: Path, name: str) -> tuple[Path, str]:
    """The file, and why it is no .pt2; empty where it is one. Raises: StorageError: it cannot be written."""
    from pipeline.export.program import save_program

    path = folder / f"{name}{PROGRAM}"
    try:
        save_program(module, input_shape, path)
        return path, ""
    except ModelError as error:
        return _weights(module, path.with_suffix(WEIGHTS)), error.message


def _weights(module: nn.Module, path: Path) -> Path:
    from safetensors.torch import save_model

    from pipeline.export.base import scratch, storage

    with storage(path), scratch(path) as part:
        save_model(module, str(part))
        os.replace(part, path)
    return path


def again(module: nn.Module, point: Mapping[str, Any], folder: Path) -> nn.Module:
    """The network of a point whose file holds weights alone: the layers of `module` replaced, and the weights in them.

    Args: module: the network as it was; point: of the document's `points`; folder: of the run.

    Raises: UsageError: the point is of another network, or its file is a network by itself. ModelError: the file does not
    fit the layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    path = folder / point["file"]
    if path.suffix != WEIGHTS:
        raise UsageError(f"{path.name} is a network by itself", try_=f"handset bench {path}")
    name, settings = settings_of(point["method"])
    if name == "deeptwist":
        name = settings.pop("method")
    ranks = {one["layer"]: given_ranks(name, one["k"], one["ranks"]) for one in point["layers"]}
    smaller = build(name, ranks=ranks, even_if_larger=True, **settings).apply(module).model
    try:
        load_model(smaller, str(path))
    except (SafetensorError, RuntimeError, ValueError) as error:
        what = f"{path.name} does not fit the layers of {type(module).__name__}: {str(error).splitlines()[0][:200]}"
        raise ModelError(what, try_="the network that was compressed") from error
    return smaller
