"""What a table build says of itself: the result document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latency_luts import LatencyTable, OpKey
from pipeline import runfolder
from pipeline.sweep import again, sampling
from pipeline.sweep.reading import Measured
from pipeline.sweep.request import KIND, command_of
from pipeline.sweep.state import Build
from pipeline.version import VERSION


def document_of(
    build: Build, table: LatencyTable, measured: Measured, missing: Mapping[OpKey, str], notes: Sequence[str]
) -> dict[str, Any]:
    """Args: measured, missing: of all that was asked for; notes: of the bundles' installation."""
    halves = [(e.interval_ns[1] - e.interval_ns[0]) / 2 / e.latency_ns_median for e in table if e.latency_ns_median]
    wanted, overhead = build.request.settings.interval, measured.overhead
    label = build.context.runtime + (f"-{build.context.delegate}" if build.request.delegate else "")
    name = f"{label}-float32-t{build.context.threads}.parquet"
    return {
        "schema_version": runfolder.SCHEMA_VERSION,
        "kind": KIND,
        "handset": VERSION,
        "run": build.folder.name,
        "created": build.folder.plan["created"],
        "command": command_of(build.request),
        "table": name,
        "models": list(build.request.models),
        "kernels": {"networks": len(build.own), "measured": len(table)},
        "bundles": build.bundles,
        "seconds": sum(build.seconds.values()),
        "seconds_by_purpose": build.seconds,
        "interval": {"asked": wanted, "share_within": sum(half <= wanted for half in halves) / max(1, len(halves))},
        "error": sampling.error_of(table),
        "warmth": [point._asdict() for point in table.warmth],
        "rounds": [{"kernels": count, "error": error} for count, error in build.history],
        "profiler_ns": {"taken_off": overhead.ns, "low": overhead.low_ns, "high": overhead.high_ns, "chains": overhead.chains},
        "missing": [{"key": str(key), "why": why} for key, why in missing.items()],
        "notes": [*notes, *again.notes(build.done)],
    }
