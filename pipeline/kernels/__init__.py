"""What a model file will run: its ops in execution order, each with the key under which a latency table files it."""

from __future__ import annotations

from pipeline.kernels.file_op import FileOp

__all__ = ["FileOp"]
