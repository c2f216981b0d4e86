"""What a launch wrote on the device -> one file in the run folder: its samples, its profiles, why its cases failed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from devices.errors import DeviceError, TransferError
from devices.ort_profile import profile_lines
from devices.runner import CaseResult, parse_results, read_lines
from devices.transport import CommandResult, Transport
from pipeline.deploy import bringing_home
from pipeline.errors import StorageError
from pipeline.settings import PROFILED

RESULTS = "results.jsonl"
MAX_LOG_BYTES = 64 << 10
MAX_FOLDER_BYTES = 1 << 30
"""Of all files of a launch but graphs: some three times what the longest of them writes, and what one command may put out."""
GRAPH_SHARE = 1.5
"""A graph that onnxruntime wrote down has the model's weights, padded to its layout: at most so many times the model."""
FILES_A_JOB = 4
"""A log; with onnxruntime's profiler also the profile and the graph."""

LAST_WORDS = re.compile(
    r"error|unresolved|unsupported|not (?:found|registered|supported|implemented)|fail", re.IGNORECASE
)
"""Lines of a runtime's log that may tell why a case failed."""


def runs_folder(device: Transport, run: str) -> str:
    """Where the launches of a run lie on the device. Args: run: a name safe as a file name."""
    return f"{device.workdir}/runs/{run}"


def logs_of(cases: Iterable[str]) -> dict[str, str]:
    """Each case, without and with the profiler -> the name of its log in its launch's folder."""
    return {name: f"{name}.log" for case in cases for name in (case, case + PROFILED)}


def graph_file(folder: Path, case: str) -> Path:
    """Where a run keeps the graph that onnxruntime really runs for a case."""
    return folder / f"{case}.optimized.onnx"


def collect(device: Transport, scratch: str, path: Path, logs: Mapping[str, str], models_bytes: int = 0) -> None:
    """Brings a launch home: results, profiles as lines of the same file, graphs beside it, the reasons of failures.

    Args:
        logs: case -> the name of its log in `scratch`; there are no other cases.
        models_bytes: of all models whose graphs it may have written down.

    Raises: TransferError: there are no results. DeviceError: they are damaged, or of other cases. StorageError, DeviceLost.
    """
    brought = path.with_suffix(".brought")
    shutil.rmtree(brought, ignore_errors=True)
    try:
        with bringing_home(path):
            max_files = 16 + FILES_A_JOB * len(logs)
            max_bytes = MAX_FOLDER_BYTES + int(GRAPH_SHARE * models_bytes)
            device.pull_folder(scratch, brought, max_bytes=max_bytes, max_files=max_files)
        results = brought / RESULTS
        if not results.is_file():
            raise TransferError(f"the runner left no results in {scratch}")
        parsed = parse_results(read_lines(str(results)))
        # names of files are made of their ids
        if strange := [case for case in parsed.cases if case not in logs]:
            raise DeviceError(f"the runner's results are of a case that it was not asked for: {strange[0][:80]!a}")
        with storage_of(path), results.open("ab") as file:
            if parsed.torn:
                _drop_torn_line(results)
            for case in parsed.cases.values():
                if case.profile:
                    _add_profile(case, brought, file, path.parent)
                if case.failed and (words := last_words(brought / logs[case.id])):
                    line = {"type": "failed", "case": case.id, "signal": 0, "why": f"{case.failed}; {words}"}
                    file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            results.replace(path)
    finally:
        shutil.rmtree(brought, ignore_errors=True)


def _add_profile(case: CaseResult, brought: Path, file: BinaryIO, folder: Path) -> None:
    # the name only: a path from a device is not followed
    profile = brought / case.profile.rpartition("/")[2]
    if not profile.is_file():
        raise TransferError(f"the profile of {case.id} did not come with its results")
    warmup = sum(len(block.sample_ns) for block in case.blocks if block.warmup)
    for line in profile_lines(profile, case.id, warmup):
        file.write(line)
    graph, kept = brought / f"{case.id}.onnx", graph_file(folder, case.id.removesuffix(PROFILED))
    if graph.is_file() and not kept.exists():
        graph.replace(kept)


def ended_badly(ended: CommandResult) -> DeviceError:
    """A runner that could not do its work: its last words, which are an error's one line."""
    said = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:500] or "it said nothing"
    try_ = "free space on the device (df)" if "No space left" in said else ""
    return DeviceError(f"the runner ended with status {ended.status}: {said}", try_=try_)


def last_words(log: Path) -> str:
    """The line of a runtime's log that may tell why a case failed: which op it does not have, for one. Empty: none."""
    with contextlib.suppress(OSError), log.open("rb") as text:
        text.seek(max(0, log.stat().st_size - MAX_LOG_BYTES))
        for line in text.read(MAX_LOG_BYTES).decode("utf-8", "replace").splitlines():
            if LAST_WORDS.search(line):
                return line.strip()[:400]
    return ""


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)


@contextlib.contextmanager
def storage_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", try_="free some space, or another folder with --reports DIR"
        ) from error
