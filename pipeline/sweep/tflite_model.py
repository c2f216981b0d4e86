"""Bundles as TFLite models, written directly. XNNPACK runs the branches one after the other, in the order of the file.

Nothing is reordered here between kernels, so that what writes a kernel's input and what reads its output must be there: bare
kernels find their inputs cold, which in a network only the first layer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latency_luts import OpKey
from pipeline.kernels.file_op import snake_case
from pipeline.sweep.bundle import BundlePlan, ordered
from pipeline.sweep.tflite_graph import Graph, nhwc, shrunk
from pipeline.sweep.tflite_ops import conv2d, is_interpreted, second_operand, write_kernel, write_source

AHEAD = 3
"""The second operand of an addition, a shortcut in most networks, was written so many branches before it is read."""


def write_bundle(
    keys: Sequence[OpKey], path: Path, *, producers: bool = True, consumers: bool = True, order_seed: int = 0,
    random_order: bool = False,
) -> BundlePlan:  # fmt: skip
    """One model with all these kernels; see `bundle.ordered` for their order.

    Raises: UnsupportedOp: a key that cannot be written, or too many of them. OSError.
    """
    graph, branches = Graph(), ordered(keys, order_seed, random_order=random_order)
    branches.sort(key=is_interpreted)  # stable
    own = sum(map(is_interpreted, branches))
    places: list[str] = []
    others = [second_operand(graph, key) for key in branches[:AHEAD]]
    for number, key in enumerate(branches[: len(branches) - own]):
        others += [second_operand(graph, later) for later in branches[number + AHEAD : number + AHEAD + 1]]
        last, operator = write_kernel(graph, key, write_source(graph, key, producers), others[number])
        graph.outputs.append(shrunk(graph, last) if consumers else last)
        places.append(f"{snake_case(graph.ops[operator])}_{operator}")
    # XNNPACK's part of the file ends before the interpreter's begins: so it stays one part, in the order of the file
    interpreted = branches[len(branches) - own :]
    sources = [write_source(graph, key, producers) for key in interpreted]
    for key, source in zip(interpreted, sources, strict=True):
        last, operator = write_kernel(graph, key, source, None)
        graph.outputs.append(last)
        places.append(f"{snake_case(graph.ops[operator])}_{operator}")
    content = graph.serialized()
    path.write_bytes(content)
    return BundlePlan(tuple(branches), tuple(places), len(content), producers, consumers)


def write_chain(keys: Sequence[OpKey], path: Path) -> int:
    """A model of convolutions that follow each other; its size in bytes. Raises: OSError."""
    graph = Graph()
    last = graph.input(nhwc(keys[0].input_shape), shared=False)
    for key in keys:
        last, _ = conv2d(graph, key, last)
    graph.outputs.append(last)
    return path.write_bytes(graph.serialized())
