"""The canary's reference for a case: what the canary takes beside it when little disturbs it, kept from run to run.

Noise-corrected latencies are what they would be with a canary of this reference. Were it taken anew in every run, a
run in a slow hour would be scaled to that hour: in a trial over 12 groups of launches of MobileNetV2 the corrected median then
varied by 1.5 % (standard deviation), with one reference for all by 0.8 %.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

RESET_BELOW = 0.7
"""A run whose own canary is that much faster shows that the reference was taken on a badly disturbed machine."""


@dataclass(frozen=True)
class Reference:
    """`origin`: "first" (taken by this run), "kept" (from an earlier one) or "reset" (this run was clearly quieter)."""

    ns: float
    origin: str


def settle_reference(folder: Path, device: str, case: str, measured_ns: float) -> Reference:
    """The reference to scale to, given this run's own quiet canary; kept in `folder` for the next run.

    Args:
        case: everything that the canary's time depends on (canary, runner, model, runtime, cores), as one text.
        measured_ns: this run's own; 0 where no canary was timed.

    A reference that cannot be read or written is no error: the run then uses its own.
    """
    if measured_ns <= 0:
        return Reference(0.0, "none")
    digest = hashlib.sha256(case.encode()).hexdigest()[:24]
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', device)[:60]}-{digest}.json"
    kept = _read(path)
    if kept is not None and measured_ns >= RESET_BELOW * kept:
        return Reference(kept, "kept")
    _write(path, measured_ns)
    return Reference(measured_ns, "first" if kept is None else "reset")


def _read(path: Path) -> float | None:
    try:
        value = json.loads(path.read_text("ascii"))["reference_ns"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    good = isinstance(value, (int, float)) and 0 < value < 1e9  # which a NaN is not
    return float(value) if good else None


def _write(path: Path, reference_ns: float) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent)
    except OSError:
        return
    with contextlib.suppress(OSError):
        with os.fdopen(handle, "w") as file:
            json.dump({"reference_ns": reference_ns}, file)
        os.replace(part, path)
        return
    with contextlib.suppress(OSError):
        os.unlink(part)
