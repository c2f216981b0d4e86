"""A compression's document made of numbers: deterministic, realistic, bare or hostile where asked.

`sample()` has three methods on ResNet-20 at three budgets with three seeds, two runtimes and published numbers, `bare()` the
same without data, training, table and device, `hostile()` the whole with names that attack a page.
"""

from __future__ import annotations

import random
from typing import Any

Document = dict[str, Any]

PARAMS, MACS = 272_474, 40_813_184
RUNTIMES = {"litert": 1.90, "onnxruntime": 1.40}
OWN_TOP1 = 0.925
LOST_POINTS = {"alds": (0.1, 0.6, 4.8), "svd": (0.5, 1.9, 9.7), "tucker": (0.3, 1.2, 6.9)}
"""For each budget, after fine-tuning."""
BUDGETS = {"50 %": 0.5, "25 %": 0.25, "10 %": 0.1}
HOSTILE = (
    "<script>alert('name')</script>",
    "long_" + "x" * 300,
    "abc\u202egnp.exe\u202c\u200b שלום",
    '"><img src=x onerror=alert(1)> {{ 7*7 }}',
)


def sample() -> Document:
    chance = random.Random(0)
    points = [_point(chance, "", "", 1.0, 0, 0.0)]
    for method, lost in LOST_POINTS.items():
        for (budget, share), points_lost in zip(BUDGETS.items(), lost, strict=True):
            points += [_point(chance, method, budget, share, seed, points_lost) for seed in range(3)]
    return {
        "schema_version": 1,
        "kind": "compress",
        "handset": "0.1.0",
        "run": "2026-12-02-101500-pixel-compress",
        "created": "2026-12-02T10:15:00Z",
        "command": "handset compress alds,svd,tucker resnet20 --budget 50%,25%,10% --seeds 3 --data cifar10:cifar",
        "network": {
            "name": "resnet20", "source": "zoo", "input_shape": [1, 3, 32, 32], "params": PARAMS, "macs": MACS,
        },
        "data": {"name": "cifar10", "train": 50000, "test": 10000},
        "training": {"epochs": 10, "lr": 0.05, "schedule": "cosine", "batch_size": 128, "weight_decay": 5e-4},
        "table": {"path": "latency_luts/tables/pixel/litert-float32-t1.parquet", "runtime": "litert", "device": "pixel"},
        "device": {"name": "pixel", "model": "Pixel 9", "simulated": False, "threads": 1},
        "runtimes": [{"name": "litert", "version": "2.1.4"}, {"name": "onnxruntime", "version": "1.31.1"}],
        "points": points,
        "published": [
            {"method": "ALDS", "network": "resnet20", "delta_top1": -0.47, "params_removed": 0.749, "macs_removed": 0.679,
             "reference": "Nobody et al., A paper with a long title: towards a line that is broken in a narrow table, 2026"},
            {"method": "X", "network": "resnet20", "delta_top1": -0.55, "params_removed": 0.399, "macs_removed": 0.329,
             "reference": "the same"},
            {"method": "Y", "network": "resnet20", "delta_top1": -0.42, "params_removed": 0.437, "macs_removed": None,
             "reference": "the same"},
        ],
        "notes": ["the learning rate falls to zero"],
    }  # fmt: skip


def _point(chance: random.Random, method: str, budget: str, share: float, seed: int, lost: float) -> Document:
    after = round(OWN_TOP1 - lost / 100 + (chance.uniform(-0.003, 0.003) if method else 0), 4)
    layers = [_layer(name, channels, size, share) for name, channels, size in _convolutions()] if method else []
    return {
        "name": "resnet20",
        "method": method,
        "budget": budget,
        "seed": seed,
        "round": 0,
        "params": round(PARAMS * share) + (seed if method else 0),
        "macs": round(MACS * share**0.8),
        "top1": {"before": round(after - 3.5 * lost / 100, 4), "after": after if method else None},
        "loss": [round(1.2 * 0.6**epoch, 4) for epoch in range(10)] if method else [],
        "predicted_ms": round(RUNTIMES["litert"] * (0.3 + 0.7 * share), 4),
        "coverage": 0.97,
        "measured": [_measured(chance, runtime, share, method) for runtime in RUNTIMES],
        "layers": layers,
        "left_alone": {"fc": "its rank would have to be full"} if method else {},
        "file": f"artifacts/resnet20_{method}_{share * 100:.0f}_s{seed}.pt2" if method else "artifacts/resnet20.pt2",
        "sha256": f"{seed + 10 * len(method):064x}",
        "seconds": 12.3,
    }


def _measured(chance: random.Random, runtime: str, share: float, method: str) -> Document:
    overhead = {"": 0.0, "alds": 0.28, "svd": 0.24, "tucker": 0.36}[method]
    ms = RUNTIMES[runtime] * (overhead + (1 - 0.25 * (runtime == "onnxruntime")) * share**0.8 + 0.1)
    ms *= chance.uniform(0.99, 1.01)
    return {
        "runtime": runtime, "failed": "", "latency_ms": ms, "interval_ms": [0.985 * ms, 1.02 * ms], "stable": True,
        "reasons": [],
    }  # fmt: skip


def _convolutions() -> list[tuple[str, int, int]]:
    stages = ((1, 16, 32), (2, 32, 16), (3, 64, 8))
    return [
        (f"layer{stage}.{block}.conv{conv}", channels, size)
        for stage, channels, size in stages
        for block in range(3)
        for conv in (1, 2)
    ]


def _layer(name: str, channels: int, size: int, share: float) -> Document:
    before = 9 * channels * channels
    rank = max(1, round(0.9 * channels * share))
    after = rank * 10 * channels
    return {
        "layer": name, "ranks": [rank], "k": 1 + (channels == 64), "relative_error": round(0.4 * (1 - share), 4),
        "params_before": before, "params_after": after, "macs_before": before * size**2, "macs_after": after * size**2,
        "predicted_ms_before": before * size**2 / 25e6, "predicted_ms_after": after * size**2 / 18e6,
        "measured": [
            {"runtime": "litert", "ms_before": before * size**2 / 24e6, "ms_after": after * size**2 / 16e6},
            {"runtime": "onnxruntime", "ms_before": before * size**2 / 20e6, "ms_after": None},
        ],
    }  # fmt: skip


def bare() -> Document:
    """Weights alone: nothing was trained, tested, predicted or measured, and MACs were not counted."""
    made = sample() | {"data": None, "training": None, "table": None, "device": None, "runtimes": [], "published": []}
    made["network"] |= {"macs": None}
    for point in made["points"]:
        point |= {"macs": None, "top1": None, "loss": [], "predicted_ms": None, "coverage": None, "measured": []}
        for layer in point["layers"]:
            layer |= dict.fromkeys(("macs_before", "macs_after", "predicted_ms_before", "predicted_ms_after"))
    return made


def hostile() -> Document:
    script, long, turned, broken = HOSTILE
    made = sample() | {"run": script, "command": broken, "created": turned, "notes": [script, long * 5, broken]}
    made["network"] |= {"name": script, "source": long}
    made["device"] |= {"name": long, "model": broken, "simulated": True}
    renamed = {"": "", "alds": script, "svd": long, "tucker": turned}
    for point in made["points"]:
        point |= {"method": renamed[point["method"]], "budget": point["budget"] and broken + point["budget"]}
        point |= {"file": long, "left_alone": {script: broken, long: turned}}
        for layer in point["layers"]:
            layer["layer"] += long
        point["measured"][0] |= {"runtime": script, "stable": False, "reasons": [broken]}
        point["measured"][1] |= {"runtime": long, "failed": broken}
    made["runtimes"] = [{"name": script, "version": broken}, {"name": long, "version": turned}]
    for one in made["published"]:
        one |= {"method": broken, "network": long, "reference": script * 20}
    return made
