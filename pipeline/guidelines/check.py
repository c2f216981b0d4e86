"""A network against all four guidelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.guidelines.elementwise import few_elementwise
from pipeline.guidelines.finding import Finding
from pipeline.guidelines.fragments import few_fragments
from pipeline.guidelines.pointwise import equal_channels, few_groups
from pipeline.guidelines.pricing import Prices
from pipeline.guidelines.structure import fuse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latency_luts import LatencyTable
    from pipeline.fusion.ir import Graph


def check(model: nn.Module, example: Tensor | Sequence[int], table: LatencyTable | None = None) -> list[Finding]:
    """Where a network does not follow ShuffleNetV2's guidelines, what would save most first, then what exceeds most.

    Nothing is exported, nothing is computed. With a table each finding says what its rewrite would save on that device:
    kernels of the place against those of the rewrite, both from the table. Savings of G1, G2 and G3 at one place are of
    rewrites that exclude each other, and do not add up; those of G1 and G4 are of different kernels, and do.

    Args:
        example: as of `pipeline.graph.kernels`.
        table: of a runtime that `pipeline.graph.kernels` knows.

    Raises:
        ModelError: the network fails on that input.
        UsageError, UnsupportedOp: with a table, as of `pipeline.graph.kernels`.
    """
    from pipeline.fusion.tracing import trace

    shape = tuple(int(size) for size in getattr(example, "shape", example))
    return _findings(lambda: trace(model, shape), table)


def check_file(path: Path, table: LatencyTable | None = None) -> list[Finding]:
    """The same for a .onnx or .tflite file: each finding names the file's nodes.

    What an exporter folded or took apart is put together again, so that a file has the findings of the network that it was
    exported from.

    Args: table: of a runtime that runs such files.

    Raises:
        ModelError: no such model, damaged, or too large.
        UsageError: a table of a runtime that does not run such files.
        UnsupportedOp: with a table, as of `pipeline.graph.kernels`.
        OSError: the file cannot be read.
    """
    from pipeline.fusion import from_onnx, from_tflite

    runtimes = ("onnxruntime",) if path.suffix == ".onnx" else ("litert", "tflite")
    if table is not None and table.context.runtime not in runtimes:
        raise UsageError(
            f"{path.name} was asked with a table of {table.context.runtime}, which does not run such files",
            try_=f"a table of {' or '.join(runtimes)}",
        )
    return _findings(lambda: (from_onnx if path.suffix == ".onnx" else from_tflite).read(path), table)


def _findings(read: Callable[[], Graph], table: LatencyTable | None) -> list[Finding]:
    """Args: read: gives the graph anew each time; what looks at it uses it up."""
    from pipeline.graph import kernels_of

    prices = None
    if table is not None:
        prices = Prices(table, kernels_of(read(), table.context.runtime, abi=table.context.abi))
    graph = read()
    fuse(graph)
    rules = (equal_channels, few_groups, few_fragments, few_elementwise)
    return sorted((finding for rule in rules for finding in rule(graph, prices)), key=_order)


def _order(finding: Finding) -> tuple[bool, float, float]:
    unknown = finding.saving_ms is None
    return unknown, -(finding.saving_ms or 0.0), -finding.excess
