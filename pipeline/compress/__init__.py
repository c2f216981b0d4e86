"""How a network changes, given settings. Nothing here ever asks a device."""

from __future__ import annotations

from typing import Any

from pipeline.compress.alds import Alds
from pipeline.compress.base import Compressed, Compressor, LayerDecision
from pipeline.compress.cp import Cp
from pipeline.compress.deeptwist import DeepTwist
from pipeline.compress.svd import Svd
from pipeline.compress.tiled import TiledSvd
from pipeline.compress.tucker import Tucker2
from pipeline.errors import UsageError

COMPRESSORS: dict[str, type[Compressor]] = {
    "alds": Alds, "cp": Cp, "deeptwist": DeepTwist, "svd": Svd, "tiled_svd": TiledSvd, "tucker2": Tucker2
}  # fmt: skip

__all__ = ["COMPRESSORS", "Compressed", "Compressor", "LayerDecision", "build"]


def build(name: str, **settings: Any) -> Compressor:
    """A compressor by name. Raises: UsageError: there is none of that name."""
    if name not in COMPRESSORS:
        raise UsageError(f"there is no compression method {name!r}", try_=", ".join(sorted(COMPRESSORS)))
    return COMPRESSORS[name](**settings)
