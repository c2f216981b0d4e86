"""PyTorch -> TFLite, by litert_torch: the only module that imports the converter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.export.base import Exporter

if TYPE_CHECKING:
    import torch
    from torch import nn


class TfliteExporter(Exporter):
    """One flatbuffer whose image input is NHWC, so that no transpose stays between it and the first convolution.

    The output keeps torch's layout. Batch normalisation is folded first: see `pipeline.export.fold`.
    """

    format: ClassVar[str] = "tflite"

    def convert(self, program: torch.export.ExportedProgram, path: Path) -> str:
        import torch

        from pipeline.export.fold import fold_batch_norm

        # Read at import time by the libraries below; saves their telling about it, harmless elsewhere.
        os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
        import litert_torch

        module = fold_batch_norm(program.module(check_guards=False))
        shape = program.example_inputs[0][0].shape
        if len(shape) == 4:
            example, wrapped = torch.zeros(shape).permute(0, 2, 3, 1).contiguous(), channels_last(module)
        else:
            example, wrapped = torch.zeros(shape), module
        # Not .export(path), which writes from C++, where a full disk has no errno.
        path.write_bytes(litert_torch.convert(wrapped, (example,)).model_content())
        return f"litert_torch {litert_torch.__version__}"


def channels_last(module: nn.Module) -> nn.Module:
    """`module` behind an input of (n, h, w, c)."""
    from torch import Tensor, nn

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> object:
            return self.inner(x.permute(0, 3, 1, 2))

    return ChannelsLast()
