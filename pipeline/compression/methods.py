"""The words for methods on the command line, and what each asks of `pipeline.compress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UsageError

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "alds": ("alds", {}),
    "alds:code": ("alds", {"bound": "code"}),
    "alds:exact": ("alds", {"search": "exact"}),
    "cp": ("cp", {}),
    "deeptwist": ("deeptwist", {"method": "tucker2"}),
    "deeptwist:alds": ("deeptwist", {"method": "alds"}),
    "deeptwist:cp": ("deeptwist", {"method": "cp"}),
    "deeptwist:svd": ("deeptwist", {"method": "svd"}),
    "deeptwist:tiled_svd": ("deeptwist", {"method": "tiled_svd"}),
    "svd": ("svd", {}),
    "svd:decode": ("svd", {"folding": "decode"}),
    "svd:ratio": ("svd", {"allocation": "ratio"}),
    "svd:split_h": ("svd", {"folding": "split_h"}),
    "svd:split_w": ("svd", {"folding": "split_w"}),
    "tiled_svd": ("tiled_svd", {}),
    "tucker2": ("tucker2", {}),
    "tucker2:hosvd": ("tucker2", {"method": "hosvd"}),
}
"""Word -> the compressor's name and its settings."""


def settings_of(word: str) -> tuple[str, dict[str, Any]]:
    """Raises: UsageError: there is no such method."""
    if word not in METHODS:
        raise UsageError(f"there is no compression method {word[:60]!r}", try_=", ".join(METHODS))
    name, settings = METHODS[word]
    return name, dict(settings)


def given_ranks(name: str, k: int, ranks: Sequence[int]) -> tuple[int, ...]:
    """What a layer was given, as a compressor takes it in `ranks`."""
    return (k, *ranks) if name == "alds" else tuple(ranks)
