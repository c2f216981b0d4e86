"""handset compress: a network -> trials -> files that `bench` takes -> latencies -> one document and its page."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import runfolder
from pipeline.artifact import sha256_file
from pipeline.compress import Compressed
from pipeline.compression.budget import Budget
from pipeline.compression.document import document_of, layers_of
from pipeline.compression.files import PROGRAM, write
from pipeline.compression.layer_times import layer_times
from pipeline.compression.make import Point, points
from pipeline.compression.request import KIND, Asked, plan_of
from pipeline.compression.subject import Subject, subject_of
from pipeline.console import Console
from pipeline.errors import ModelError, UsageError
from pipeline.runfolder import RunFolder
from pipeline.spec import safe_name
from pipeline.subjects import trainable

Document = dict[str, Any]
MEASURED = "measured"
"""Below the run's folder: the run of `handset bench` in which all of its networks are measured together."""


def compress(asked: Asked, console: Console) -> Document:
    """All stages; gives the document, which lies in `console.run_folder` with its page.

    A trial that cannot be made is left out and noted where there are others.

    Raises: UsageError, ModelError, DeviceError, StorageError. KeyboardInterrupt: the points that were finished are in the
    run folder.
    """
    asked.check()
    known, dataset = trainable(asked.model, asked.weights, asked.data, console)
    network, weights = known.network, known.weights
    if asked.held_out and dataset is not None:
        dataset = dataset.held_out()
    subject = subject_of(network, dataset, asked)
    told = [f"weights: {weights['file']}, SHA-256 {weights['sha256']}"] if weights else []
    folder = _folder(asked, weights["sha256"] if weights else "")
    console.run_folder = folder.path
    try:
        points_, notes = _points(subject, asked, folder, console)
    except (UsageError, ModelError):
        if asked.resume is None:  # the only trial cannot be made: there is nothing to go on with
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    files = [one["file"] for one in points_ if one["file"].endswith(PROGRAM)]
    bench = _measured(asked, files, folder, console) if asked.device and files else None
    times = {}
    if bench is not None:
        with console.stage("the layers' times") as say:
            times = layer_times({Path(file).stem: folder.path / file for file in files}, bench, say)
    told += _limits(subject, asked, points_)
    document = document_of(asked, folder, subject, points_, bench, times, [*told, *notes])
    _write(document, folder.path)
    return document


def _limits(subject: Subject, asked: Asked, points_: Sequence[Document]) -> list[str]:
    """What the results do not say, or could not be found out or written, and why."""
    said = []
    if asked.held_out and subject.dataset is not None:
        images = f"{len(subject.dataset.test_y):,} held out training images"
        said.append(f"judged by {images}, which {subject.network.name} itself may have seen: for a choice, not for a result")
    if subject.unfollowed:
        said.append(f"MACs, calls of layers and predicted times are not known: {subject.unfollowed}")
    if why := points_[0]["unexported"]:
        said.append(f"weights are written alone, and nothing is measured: {why}")
    return said


def resume_words(folder: Path) -> str:
    return shlex.join(["handset", "compress", "--resume", str(folder)])


def _write(document: Mapping[str, Any], folder: Path) -> None:
    from pipeline.compression.page import render

    runfolder.write_json(folder / runfolder.RESULT, document)
    render(document, folder / runfolder.PAGE)


def _folder(asked: Asked, weights_sha256: str) -> RunFolder:
    """Raises: UsageError: a run was begun with other weights: its points would be of another network."""
    if asked.resume is None:
        plan = plan_of(asked) | {"weights_sha256": weights_sha256}
        return runfolder.create(asked.reports, asked.device or "nowhere", plan, KIND)
    folder = runfolder.reopen(asked.resume)
    if folder.plan.get("weights_sha256", weights_sha256) != weights_sha256:
        raise UsageError(f"{asked.weights} is not the file any more that {folder.path} was begun with", try_="a new run")
    runfolder.tidy(folder.path)
    return folder


def _points(subject: Subject, asked: Asked, folder: RunFolder, console: Console) -> tuple[list[Document], list[str]]:
    """The network itself first, then each trial's rounds; those of an earlier start of this run are taken from its folder."""
    name, notes = subject.network.name, []
    found = _recalled(folder, name) or [_whole(subject, folder, name)]
    trials = list(asked.trials())
    for number, (word, budget, seed) in enumerate(trials, 1):
        stem = safe_name(f"{name}_{word}_{budget.text}_s{seed}")
        if known := _recalled(folder, stem):
            found += known
            continue
        with console.stage(f"{word} at {budget.text}, seed {seed} ({number} of {len(trials)})") as say:
            try:
                found += _trial(subject, asked, word, budget, seed, folder, stem, say)
            except (UsageError, ModelError) as error:
                if len(trials) == 1:
                    raise
                console.say(f"left out: {word} at {budget.text}: {error}")
                notes.append(f"{word} at {budget.text}, seed {seed}: {error}")
    return found, notes


def _trial(
    subject: Subject, asked: Asked, word: str, budget: Budget, seed: int, folder: RunFolder, stem: str, say: Any
) -> list[Document]:
    made = []
    begun = time.monotonic()
    for point in points(subject, asked, word, budget, seed, say):
        name = f"{stem}_r{point.round}" if point.round else stem
        made.append(
            _saved(subject, point.compressed, folder, name)
            | {"method": word, "budget": budget.text, "seed": seed, "round": point.round, "seconds": _since(begun)}
            | _accuracies(point)
        )
        begun = time.monotonic()
    # all rounds or none: a run that goes on cannot begin in the middle of a trial
    runfolder.write_json(folder.artifacts / f"{stem}.json", {"points": made})
    return made


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


def _accuracies(point: Point) -> Document:
    top1 = None if point.before is None else {"before": point.before, "after": point.after}
    return {"top1": top1, "loss": list(point.loss)}


def _whole(subject: Subject, folder: RunFolder, name: str) -> Document:
    from pipeline.compress.replace import params_of
    from pipeline.evaluate import accuracy
    from pipeline.graph import count

    module, begun = subject.module, time.monotonic()
    params = params_of(module)
    macs = None if subject.example is None else count(module, subject.example).macs
    top1 = None if subject.dataset is None else {"before": accuracy(module, subject.dataset), "after": None}
    as_it_is = Compressed(module, "", {}, params, params, (), macs, macs)
    point = _saved(subject, as_it_is, folder, name) | {
        "method": "", "budget": "", "seed": 0, "round": 0, "top1": top1, "loss": [], "seconds": _since(begun)
    }  # fmt: skip
    runfolder.write_json(folder.artifacts / f"{name}.json", {"points": [point]})
    return point


def _saved(subject: Subject, compressed: Compressed, folder: RunFolder, name: str) -> Document:
    """What is known of a network and does not change any more; its file lies in the run folder."""
    path, unexported = write(compressed.model, subject.network.input_shape, folder.artifacts, name)
    latency, example = subject.latency, subject.example
    answer = None if latency is None or example is None else latency.of(compressed.model, example)
    return {
        "name": name,
        "params": compressed.params_after,
        "macs": compressed.macs_after,
        "predicted_ms": None if answer is None else answer.latency_ms,
        "coverage": None if answer is None else answer.coverage,
        "layers": layers_of(subject, compressed),
        "left_alone": dict(compressed.left_alone),
        "file": os.path.relpath(path, folder.path),
        "sha256": sha256_file(path),
        "unexported": unexported,
    }


def _recalled(folder: RunFolder, stem: str) -> list[Document]:
    """The points of a trial that was finished, where their files are still what they were; else none."""
    try:
        found = json.loads((folder.artifacts / f"{stem}.json").read_text("utf-8"))["points"]
        same = all(sha256_file(folder.path / one["file"]) == one["sha256"] for one in found)
        return list(found) if same else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _measured(asked: Asked, files: list[str], folder: RunFolder, console: Console) -> Document:
    """The result of `handset bench` of all these files, in one run and so in interleaved launches."""
    from pipeline.bench import bench
    from pipeline.request import Request, planned
    from pipeline.resume import instead_of_bench
    from pipeline.settings import Settings

    reports = folder.path / MEASURED
    begun = sorted(one for one in reports.glob("*") if (one / runfolder.PLAN).is_file())
    done = begun[-1] / runfolder.RESULT if begun else None
    if done is not None and done.is_file():
        document: Document = json.loads(done.read_text("utf-8"))
        return document
    usual = Settings()
    launch_s = min(usual.launch_s, asked.measure_s / usual.launches)
    settings = dataclasses.replace(
        usual, budget_s=asked.measure_s, launch_s=launch_s, kernels_s=min(usual.kernels_s, launch_s)
    )
    request = Request(tuple(str(folder.path / file) for file in files), asked.device, asked.runtimes, settings, reports)
    if begun:
        request = planned(runfolder.reopen(begun[-1]).plan, begun[-1])
    try:
        with instead_of_bench(console, lambda _: resume_words(folder.path)):
            return bench(request, console)
    finally:
        console.run_folder = folder.path
