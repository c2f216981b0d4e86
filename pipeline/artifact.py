"""The nouns that travel from stage to stage. Each is frozen, knows its file's SHA-256 and what made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """What a MODEL argument on the command line became.

    `module` is in eval mode and None where the source is a .onnx or .tflite file, which has `path` instead.
    `input_shape` is NCHW with batch 1 for a module, and as the file declares it for a file.
    """

    name: str
    source: str
    input_shape: tuple[int, ...]
    module: nn.Module | None = None
    path: Path | None = None
    params: int | None = None


@dataclass(frozen=True)
class Parity:
    """How far an exported file's outputs are from torch's: max |y - y_torch| / max |y_torch|, over all inputs."""

    tolerance: float
    worst_error: float
    errors: Mapping[str, float]


@dataclass(frozen=True)
class Exported:
    """One model file. `parity` is None only where the user gave the file and there is no torch module to compare."""

    network: str
    format: str
    path: Path
    sha256: str
    bytes: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    converter: str
    parity: Parity | None = None


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
