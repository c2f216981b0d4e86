"""onnxruntime's profile as lines of the runner's own format, so that both runtimes are read by one parser.

Its profiler writes one JSON array: a `Node` event a kernel (`dur` in whole µs, the node's name + `_kernel_time`, its
index in the optimised graph and the shapes it saw) and a `model_run` event after the kernels of each inference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devices.errors import DeviceError

MAX_PROFILE_BYTES = 512 << 20
SUFFIX = "_kernel_time"


def profile_lines(path: Path, case: str, warmup_runs: int) -> Iterator[bytes]:
    """The kernels of each inference after the first `warmup_runs`, as `kernel_list` and `kernels` lines.

    Raises: DeviceError: the file cannot be read, is too large, no profile, or has a kernel without a time.
    """
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise DeviceError(f"{path.name} is larger than {MAX_PROFILE_BYTES >> 20} MiB and is not read")
        runs = _runs(json.loads(path.read_bytes()))
        known: list[dict[str, Any]] | None = None
        before: list[Any] | None = None
        number = 0
        for sample, events in enumerate(runs[warmup_runs:]):
            # nearly always what it was in the last inference, and then not read again
            told = [(event["name"], event["args"]) for event in events]
            if told != before:
                kernels, before = [_kernel(event) for event in events], told
                if kernels != known:
                    known, number = kernels, number + 1
                    yield _line(type="kernel_list", case=case, list=number, kernels=kernels)
            us = [int(event["dur"]) for event in events]
            yield _line(type="kernels", case=case, list=number, sample=sample, us=us)
    except OSError as error:
        raise DeviceError(f"the profile {path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DeviceError(f"{path.name} is no onnxruntime profile: {type(error).__name__} {error}") from None


def _runs(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    if not isinstance(events, list):
        raise TypeError("not a list of events")
    runs: list[list[dict[str, Any]]] = []
    current: list[dict[str, Any]] = []
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(SUFFIX):
            current.append(event)
        elif event["name"] == "model_run":
            # control flow aside, kernels are written in the order in which they began
            runs.append(sorted(current, key=lambda kernel: int(kernel["ts"])))
            current = []
    return runs


def _kernel(event: dict[str, Any]) -> dict[str, Any]:
    details = event["args"]
    return {
        "name": event["name"].removesuffix(SUFFIX),
        "index": int(details["node_index"]),
        "kind": 0,
        "op": str(details["op_name"]),
        "inputs": _shapes(details["input_type_shape"]),
        "outputs": _shapes(details["output_type_shape"]),
    }


def _shapes(types: list[dict[str, list[int]]]) -> list[list[int]]:
    return [[int(size) for size in shape] for entry in types for shape in entry.values()]


def _line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
