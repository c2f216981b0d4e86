"""How long the decompositions take: ResNet-18 by Tucker-2 with EVBMF's ranks and by ALDS; and how that grows with depth.

usage: run.py decompose [--rounds N]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TUCKER_S, ALDS_S = 10.0, 60.0
DEPTHS = ("resnet20", "resnet110")
"""Of the same layers: 19 and 109 of them."""


def decompose(folder: Path, rounds: int) -> None:
    """Seconds of each, processor time beside them: other work on the machine costs the first and not the second."""
    print(f"\ndecompose: {rounds} interleaved rounds")
    ways: dict[str, tuple[str, dict[str, Any], str, float | None]] = {
        "resnet18, Tucker-2 by EVBMF": ("tucker2", {"ranks": "evbmf"}, "resnet18", TUCKER_S),
        "resnet18, ALDS to 30 %": ("alds", {"keep": 0.3}, "resnet18", ALDS_S),
        **{f"{name}, ALDS to 30 %": ("alds", {"keep": 0.3}, name, None) for name in DEPTHS},
    }
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (method, settings, network, _) in ways.items():
            seconds[way].append(_seconds(method, settings, network))
    for way, (_, _, _, bar) in ways.items():
        wall, processor = (statistics.median(one[place] for one in seconds[way]) for place in (0, 1))
        told = "" if bar is None else f"  bar {bar:.0f} s: {'reached' if wall <= bar else 'MISSED'}"
        print(f"  {way:<30} {wall:6.1f} s, processor {processor:6.1f} s{told}")
    few, many = (statistics.median(one[1] for one in seconds[f"{name}, ALDS to 30 %"]) for name in DEPTHS)
    print(f"  5.7 times the layers take {many / few:.1f} times as long")


def _seconds(method: str, settings: dict[str, Any], name: str) -> tuple[float, float]:
    import torch

    from pipeline.compress import build
    from pipeline.models import MODELS
    from pipeline.models import build as network

    torch.manual_seed(0)
    module = network(name).eval()
    wall, processor = time.perf_counter(), time.process_time()
    build(method, **settings).apply(module, MODELS[name].input_shape)
    return time.perf_counter() - wall, time.process_time() - processor


PARTS: dict[str, Callable[[Path, int], None]] = {"decompose": decompose}
