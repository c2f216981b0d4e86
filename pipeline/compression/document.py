"""The result of a compression as one JSON document, schema version 1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.compression import published
from pipeline.compression.request import KIND, Asked, command_of
from pipeline.version import VERSION

if TYPE_CHECKING:
    from pipeline.compress import Compressed
    from pipeline.compression.layer_times import Times
    from pipeline.compression.subject import Subject
    from pipeline.runfolder import RunFolder

SCHEMA_VERSION = 1

Document = dict[str, Any]


def document_of(
    asked: Asked, folder: RunFolder, subject: Subject, points: Sequence[Document], bench: Mapping[str, Any] | None,
    times: Mapping[str, Times], notes: Sequence[str],
) -> Document:  # fmt: skip
    """Args: points: as `run` makes them, the network itself first; bench: the document of their latencies; times: of the
    layers of each.
    """
    profiles = bench["profiles"] if bench else []
    versions = {profile["runtime"]: profile.get("runtime_version", "") for profile in profiles}
    whole, tuning = points[0], asked.tuning
    network, dataset, latency = subject.network, subject.dataset, subject.latency
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "handset": VERSION,
        "run": folder.name,
        "created": folder.plan["created"],
        "command": command_of(asked),
        "network": {
            "name": network.name, "source": network.source, "input_shape": list(network.input_shape),
            "params": whole["params"], "macs": whole["macs"],
        },
        "data": dataset and {
            "name": dataset.name, "train": len(dataset.train_y), "test": len(dataset.test_y), "held_out": asked.held_out
        },
        "training": {**dataclasses.asdict(tuning), "rounds": asked.rounds} if tuning.epochs else None,
        "table": latency and {"path": asked.lut, "runtime": latency.runtime, "device": latency.table.context.device},
        "device": bench and bench["device"],
        "runtimes": [{"name": name, "version": version} for name, version in versions.items()],
        "points": [
            one
            | {
                "measured": [_measured(profile) for profile in profiles if profile["network"] == one["name"]],
                "layers": [
                    layer | {"measured": _layer(layer["layer"], times.get(whole["name"], {}), times.get(one["name"], {}))}
                    for layer in one["layers"]
                ],
            }
            for one in points
        ],
        "published": [dataclasses.asdict(one) for one in published.of(network.name)],
        "notes": list(notes),
    }  # fmt: skip


def _measured(profile: Mapping[str, Any]) -> Document:
    if profile["failed"] is not None:
        return {"runtime": profile["runtime"], "failed": profile["failed"]}
    best, verdict = profile["latency_ms"]["corrected"], profile["verdict"]
    return {
        "runtime": profile["runtime"],
        "failed": "",
        "latency_ms": best["median"],
        "interval_ms": list(best["interval"]),
        "stable": verdict["stable"],
        "reasons": list(verdict["reasons"]),
    }


def _layer(name: str, before: Times, after: Times) -> list[Document]:
    return [
        {"runtime": runtime, "ms_before": _below(before.get(runtime, {}), name), "ms_after": _below(ms, name)}
        for runtime, ms in after.items()
    ]


def layers_of(subject: Subject, compressed: Compressed) -> list[Document]:
    """What became of each layer that was replaced; with a table also its milliseconds before and after."""
    latency, example = subject.latency, subject.example
    before, after = (
        ({}, {}) if latency is None or example is None or not compressed.layers
        else (latency.per_layer(one, example) for one in (subject.module, compressed.model))
    )  # fmt: skip
    return [
        {
            "layer": one.layer,
            "ranks": list(one.ranks),
            "k": one.k,
            "relative_error": one.relative_error,
            "params_before": one.params_before,
            "params_after": one.params_after,
            "macs_before": one.macs_before,
            "macs_after": one.macs_after,
            "predicted_ms_before": _below(before, one.layer),
            "predicted_ms_after": _below(after, one.layer),
        }
        for one in compressed.layers
    ]


def _below(ms: Mapping[str, float], layer: str) -> float | None:
    """Of a layer and of what stands in its place."""
    own = [value for name, value in ms.items() if name == layer or name.startswith(f"{layer}.")]
    return sum(own) if own else None
