"""Which node of the exported model file each kernel of a profile is, and which nodes it runs besides.

The runtimes do not run the file's nodes one by one: onnxruntime folds and fuses first, XNNPACK while it builds. A kernel's
node, its anchor, is the convolution or the linear layer among those that it runs, else the one that makes its output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.runner import Kernel
from pipeline.kernel_times import DELEGATE_OP, INTERPRETER_OP
from pipeline.naming import align, in_order

ANCHORS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
INTERPRETED = re.compile(r"[A-Z][A-Z0-9_]*( \[.*\])?(:\d+)?")
"""How LiteRT's interpreter names an op: "CONV_2D". XNNPACK's names have small letters, or a bracket as in "ELU (NC)"."""

_BLOCKED = "com.microsoft.nchwc"
_BLOCKED_NAME = re.compile(r"(.*)_nchwc(?:_token_\d+)?")


@dataclass(frozen=True)
class Nodes:
    """`graph`: Model Explorer's name of the main graph; `anchors`: each kernel's node, or None; `fused`: anchor -> the rest."""

    graph: str
    anchors: tuple[str | None, ...]
    fused: Mapping[str, tuple[str, ...]]


def tflite_nodes(model: Path, kernels: Sequence[str]) -> Nodes:
    """Args: kernels: their names as LiteRT told them, in order. Raises: ModelError, OSError."""
    from pipeline.kernels.tflite import keys

    ops = keys(model)
    told = [
        Kernel(name, i, INTERPRETER_OP if INTERPRETED.fullmatch(name) else DELEGATE_OP)
        for i, name in enumerate(kernels)
    ]
    assigned = align(told, in_order(told, ops))
    anchors = tuple(None if op is None else str(op.index) for op in assigned)
    ran = {op.index for op in assigned if op is not None}
    fused: dict[str, tuple[str, ...]] = {}
    for op in ops:  # what runs in no kernel of its own, such as a pad, is part of the kernel that reads it
        if op.index not in ran:
            reader = next((other for other in ops if other.index in ran and set(other.reads) & set(op.writes)), None)
            if reader is not None:
                fused[str(reader.index)] = (*fused.get(str(reader.index), ()), str(op.index))
    return Nodes(_tflite_graph(model), anchors, fused)


def _tflite_graph(path: Path) -> str:
    """The first subgraph's name, else the key of its signature, else "main": as Model Explorer's adapter has it."""
    import struct

    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        name = model.Subgraphs(0).Name() or b""
        if not name:
            signatures = [model.SignatureDefs(i) for i in range(min(model.SignatureDefsLength(), 100))]
            name = next((s.SignatureKey() for s in signatures if s.SubgraphIndex() == 0), b"") or b""
        return str(name.decode("utf-8", "replace")) or "main"
    except (struct.error, IndexError, TypeError, ValueError, AttributeError):
        return "main"


def onnx_nodes(model: Path, ran: Path, kernels: Sequence[str]) -> Nodes:
    """Args: ran: the graph that onnxruntime wrote; kernels: its nodes' names in the profile. Raises: ModelError, OSError.

    What a kernel makes is a tensor of the model file; it runs the nodes from there back to what other kernels make.
    """
    from pipeline.kernels.onnx import keys

    numbers = keys(ran, dict.fromkeys(kernels, ((), ())), model)
    original, optimised = _File(_graph(model)), _graph(ran).node
    made = [original.made_by(optimised[numbers[name].index]) if name in numbers else () for name in kernels]
    ends = {tensor for tensors in made for tensor in tensors}
    anchors: list[str | None] = []
    fused: dict[str, tuple[str, ...]] = {}
    for tensors in made:
        group = sorted(original.behind(tensors, ends))
        if not group:
            anchors.append(None)
            continue
        heavy = [i for i in group if original.nodes[i].op_type in ANCHORS]
        anchor = (heavy or group)[-1]
        anchors.append(original.name(anchor))
        rest = tuple(original.name(i) for i in group if i != anchor)
        fused[original.name(anchor)] = (*fused.get(original.name(anchor), ()), *rest)
    return Nodes(original.graph, tuple(anchors), {anchor: rest for anchor, rest in fused.items() if rest})


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load_model_from_string(path.read_bytes()).graph


class _File:
    """The nodes of a model file by number, and who makes and who reads each tensor."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph.name or "<main>"
        self.nodes = list(graph.node)
        self._makers = {tensor: i for i, node in enumerate(self.nodes) for tensor in node.output if tensor}
        self._named = {node.name: i for i, node in enumerate(self.nodes) if node.name}
        self._readers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(i)

    def name(self, i: int) -> str:
        """A nameless node has the name that Model Explorer's adapter gives it."""
        return self.nodes[i].name or f"<node_{i}>"

    def made_by(self, node: Any) -> tuple[str, ...]:
        """The tensors of this file that a node of the optimised graph makes; () for a change of layout."""
        if node.op_type.startswith("Reorder"):
            return ()
        own = tuple(tensor for tensor in node.output if tensor in self._makers)
        if own:
            return own
        blocked = _BLOCKED_NAME.fullmatch(node.name) if node.domain == _BLOCKED else None
        names = [blocked.group(1), re.sub(r"_(bn|mul)$", "", blocked.group(1))] if blocked else []
        for tensor in names:
            if tensor in self._makers:
                return (self._behind_sum(tensor, node),)
        # element by element in the blocked layout: the node keeps its name, its tensors do not
        return tuple(self.nodes[self._named[node.name]].output) if node.name in self._named else ()

    def _behind_sum(self, tensor: str, node: Any) -> str:
        """A blocked convolution has its own name where an addition, and an activation behind that, is fused into it."""
        if len(node.input) < 4 or not node.input[3]:
            return tensor
        tensor = self._next(tensor, {"Add", "Sum"}) or tensor
        if any(attribute.name == "activation" for attribute in node.attribute):
            tensor = self._next(tensor, None) or tensor
        return tensor

    def _next(self, tensor: str, op_types: set[str] | None) -> str | None:
        readers = [self.nodes[i] for i in self._readers.get(tensor, ())]
        return next((str(node.output[0]) for node in readers if op_types is None or node.op_type in op_types), None)

    def behind(self, tensors: Iterable[str], ends: set[str]) -> set[int]:
        """The nodes from these tensors back to what other kernels make."""
        found: set[int] = set()
        waiting = [self._makers[tensor] for tensor in tensors if tensor in self._makers]
        while waiting:
            i = waiting.pop()
            if i not in found:
                found.add(i)
                inputs = (tensor for tensor in self.nodes[i].input if tensor not in ends)
                waiting += [self._makers[tensor] for tensor in inputs if tensor in self._makers]
        return found
