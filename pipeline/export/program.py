"""A network as a .pt2 file, which `handset bench` and every other command takes as a MODEL."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifact import Network
from pipeline.export.base import scratch, storage, trace
from pipeline.export.quiet import quiet

if TYPE_CHECKING:
    from torch import nn


def save_program(module: nn.Module, input_shape: Sequence[int], path: Path) -> None:
    """torch.export's graph of a network in eval mode and its weights; whole or not at all.

    Args: path: ends in .pt2.

    Raises: ModelError: torch.export cannot trace it. StorageError: the file cannot be written.
    """
    import torch

    was_training = module.training
    try:
        program = trace(Network(path.stem, "python", tuple(input_shape), module=module.eval()))
        with storage(path), scratch(path) as part:
            with quiet():
                torch.export.save(program, part)
            os.replace(part, path)
    finally:
        module.train(was_training)
