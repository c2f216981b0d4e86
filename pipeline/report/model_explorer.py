"""A run as node data for Google's Model Explorer: each node of the model that ran, coloured by the time it took.

For each network in each runtime there are four files under `RUN/model_explorer/`: latency_ms, share_percent, gmacs_per_s,
and kernel, which says in words what ran a node. Model Explorer shows each as a column and as a colouring of its own.

A file is `{graph: {"name", "results": {node: {"value"}}, "gradient"}}`, the `ModelNodeData` of Model Explorer's
`node_data_builder.py`. Its built-in adapter for .tflite names a node by the number of its operator, and a graph as the file
does. The adapter for .onnx (the package model-explorer-onnx) names both as the file does. Fields that it does not know
are left alone, so a result also says which nodes were fused into it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import sha256_file
from pipeline.errors import CheckFailed, HandsetError, StorageError
from pipeline.report.document import read
from pipeline.report.nodes import Nodes, onnx_nodes, tflite_nodes
from pipeline.report.text import LONGEST_TEXT, shorten
from pipeline.report.views import Kernel, Profile
from pipeline.runfolder import write_text

FOLDER = "model_explorer"
GRADIENT = ({"stop": 0, "bgColor": "#ffffff"}, {"stop": 0.25, "bgColor": "#ffe08a"}, {"stop": 1, "bgColor": "#e5484d"})


@dataclass(frozen=True)
class Written:
    """The files of one network in one runtime, or why there are none.

    Args:
        model: the model file that they belong to; None where `why` says what is missing.
        without_node_ms: kernel -> ms, of kernels that are no node of that file, such as a change of layout.
    """

    network: str
    runtime: str
    model: Path | None
    files: tuple[Path, ...] = ()
    nodes: int = 0
    nodes_ms: float = 0.0
    without_node_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    why: str = ""


@dataclass
class _Node:
    """What one node of the file took, of one kernel or several."""

    ms: float = 0.0
    share: float = 0.0
    macs: float = 0.0
    kernels: list[str] = dataclasses.field(default_factory=list)


def write(result: Mapping[str, Any], run: Path) -> list[Written]:
    """Writes the node data of every network in every runtime into `run`, the folder that the document came from.

    Raises:
        UsageError: the document is no bench result.
        CheckFailed: there is no network whose kernels could be put on its file's nodes.
        StorageError: a file cannot be written.
    """
    bench = read(result)
    # the views have clean names for people; a node is found by the name that the file has
    names = [[str(row["name"]) for row in profile.get("kernels") or ()] for profile in result["profiles"]]
    taken: set[str] = set()
    mark = " (SIMULATED)" if bench.simulated else ""
    found = [_profile(profile, own, run, taken, mark) for profile, own in zip(bench.profiles, names, strict=True)]
    if not any(one.model for one in found):
        why = next((f": {one.network} in {one.runtime}: {one.why}" for one in found), "")
        raise CheckFailed(f"no kernels of {shorten(bench.run, 80)} can be put on a model{shorten(why, 300)}")
    return found


def _profile(profile: Profile, names: Sequence[str], run: Path, taken: set[str], mark: str) -> Written:
    try:
        model, nodes = _nodes(profile, names, run)
    except (HandsetError, OSError) as error:
        return Written(profile.network, profile.label, None, why=str(error))
    by_node: dict[str, _Node] = {}
    without: dict[str, float] = {}
    for kernel, node in zip(profile.measured.kernels if profile.measured else [], nodes.anchors, strict=True):
        ms = (kernel.corrected or kernel.plain).median
        if node is None or len(node) > LONGEST_TEXT:
            name = shorten(kernel.name, 200)
            without[name] = without.get(name, 0.0) + ms
            continue
        _add(by_node.setdefault(node, _Node()), kernel, ms)
    files = tuple(_files(_stem(profile, taken), nodes, by_node, without, run / FOLDER, mark))
    total = sum(node.ms for node in by_node.values())
    return Written(profile.network, profile.label, model, files, len(by_node), total, without)


def _add(node: _Node, kernel: Kernel, ms: float) -> None:
    node.ms += ms
    node.share += kernel.share
    node.macs += kernel.macs or 0.0
    node.kernels.append(shorten(kernel.runtime_kernel or kernel.name, 200))


def _nodes(profile: Profile, names: Sequence[str], run: Path) -> tuple[Path, Nodes]:
    """The model file and its nodes. Raises: HandsetError: with the reason why there are none. OSError."""
    if profile.failed:
        raise CheckFailed(profile.failed)
    if profile.measured is None or not profile.measured.kernels:
        raise CheckFailed(profile.measured.kernels_missing if profile.measured else "no kernels")
    if profile.artifact is None:
        raise CheckFailed("the document names no model file")
    model = run / "artifacts" / Path(profile.artifact.file).name
    if not model.is_file():
        raise CheckFailed(f"{model} is not there")
    if sha256_file(model) != profile.artifact.sha256:
        raise CheckFailed(f"{model} is not the file that was measured")
    if model.suffix == ".tflite":
        return model, tflite_nodes(model, names)
    candidates = [f"{profile.network}.{profile.runtime}", f"{profile.network}.{profile.runtime}.{profile.bundle}"]
    graphs = [run / f"{Path(case).name}.optimized.onnx" for case in reversed(candidates)]
    ran = next((graph for graph in graphs if graph.is_file()), None)
    if ran is None:
        raise CheckFailed(f"{graphs[-1]} is not there: what {profile.runtime} ran cannot be told")
    return model, onnx_nodes(model, ran, names)


def _stem(profile: Profile, taken: set[str]) -> str:
    """A name for files, of any name of a network; no two are the same."""
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{profile.network}-{profile.label}")[:100].lstrip(".-") or "network"
    stem = next(name for i in range(1, len(taken) + 2) if (name := words if i == 1 else f"{words}-{i}") not in taken)
    taken.add(stem)
    return stem


def _files(
    stem: str, nodes: Nodes, by_node: Mapping[str, _Node], without: Mapping[str, float], folder: Path, mark: str
) -> Iterator[Path]:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}", try_="another folder") from error
    about = {"without_node_ms": without}
    fused = {node: [*nodes.fused.get(node, ())] for node in by_node}
    metrics: dict[str, dict[str, float]] = {  # rounded, because every digit is shown
        "latency_ms": {node: round(own.ms, 6) for node, own in by_node.items()},
        "share_percent": {node: round(100 * own.share, 3) for node, own in by_node.items()},
        "gmacs_per_s": {
            node: round(own.macs / own.ms / 1e6, 3) for node, own in by_node.items() if own.macs and own.ms > 0
        },
    }
    for metric, values in metrics.items():
        results = {node: {"value": value, "fused": fused[node]} for node, value in values.items()}
        data = {"name": metric + mark, "results": results, "gradient": GRADIENT, **about}
        yield _file(folder / f"{stem}.{metric}.json", nodes.graph, data)
    words = {node: {"value": " + ".join(own.kernels[:4])} for node, own in by_node.items()}
    for node, others in fused.items():
        words |= {other: {"value": f"in {shorten(node, 200)}"} for other in others if other not in by_node}
    yield _file(folder / f"{stem}.kernel.json", nodes.graph, {"name": f"kernel{mark}", "results": words, **about})


def _file(path: Path, graph: str, data: Mapping[str, object]) -> Path:
    write_text(path, json.dumps({graph: data}, indent=1, allow_nan=False) + "\n")
    return path
