"""Bundles as ONNX models for onnxruntime, written directly.

onnxruntime decides where convolutions and what follows them run in its blocked layout; it decides here as in a network,
because what writes a kernel's input is a convolution too. It runs the branches from the last one of the file to the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency_luts import OpKey
from pipeline.errors import ModelError
from pipeline.sweep.bundle import BundlePlan, ordered
from pipeline.sweep.onnx_graph import Graph, flat, shrunk
from pipeline.sweep.onnx_ops import conv2d, write_kernel

_READ = frozenset({"reshape"})
"""Kernels that have a consumer always: in a network they only rename their input, but what leaves a model is copied."""
_READ_FLAT = frozenset({"transpose"})
"""Kernels that a reshape reads, as in a shuffle of channels: onnxruntime would move a transpose behind any other reader, and
what leaves a model is written to memory that is new each time, which took 2.7 times as long."""

_REORDERS = {"ReorderInput": "input", "ReorderOutput": "output"}


def write_bundle(
    keys: Sequence[OpKey], path: Path, *, producers: bool = True, consumers: bool = True, order_seed: int = 0,
    random_order: bool = False,
) -> BundlePlan:  # fmt: skip
    """One model with all these kernels; see `bundle.ordered` for their order.

    Args: producers, consumers: also where onnxruntime's own reorders before and behind a convolution would do.

    Raises: UnsupportedOp: a key that cannot be written, or too many of them. OSError.
    """
    graph, branches = Graph(), ordered(keys, order_seed, random_order=random_order)
    places: dict[int, str] = {}
    for number, key in reversed(list(enumerate(branches))):
        name = f"k{number}"
        last, places[number] = write_kernel(graph, key, name, producers=producers)
        # a hardswish that leaves the model is not fused into its convolution
        read = consumers or key.op in _READ or key.activation == "hardswish"
        if key.op in _READ_FLAT:
            last = flat(graph, f"{name}_flat", last)
        if read:
            last = shrunk(graph, f"{name}_mean", last)
        graph.outputs.append(last)
    content = graph.serialized()
    path.write_bytes(content)
    found = tuple(places[number] for number in range(len(branches)))
    return BundlePlan(tuple(branches), found, len(content), producers, consumers)


def write_chain(keys: Sequence[OpKey], path: Path) -> int:
    """A model of convolutions that follow each other; its size in bytes. Raises: OSError."""
    graph = Graph()
    last = graph.input("input", keys[0].input_shape)
    for number, key in enumerate(keys):
        last, _ = conv2d(graph, key, f"k{number}", last)
    graph.outputs.append(last)
    return path.write_bytes(graph.serialized())


def reorder_places(optimised: Path) -> Mapping[str, str]:
    """Reorder node of the model that onnxruntime wrote -> the tensor of ours that it reads (in) or makes (out).

    Their names tell nothing, unlike those of other nodes, which `pipeline.kernels.onnx` traces back to ours.

    Raises: ModelError: no ONNX model. OSError.
    """
    import onnx

    places: dict[str, str] = {}
    try:
        nodes = onnx.load_model_from_string(optimised.read_bytes()).graph.node
    except Exception as error:  # protobuf's own, which has no stubs
        raise ModelError(f"{optimised.name} is no ONNX model ({error})") from error
    for node in nodes:
        side = _REORDERS.get(node.op_type)
        if side is not None:
            values: Any = node.input if side == "input" else node.output
            places[node.name] = values[0]
    return places
