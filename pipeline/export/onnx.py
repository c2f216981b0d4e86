"""PyTorch -> ONNX, by torch's own exporter, with names that say where in the network an op comes from."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.export.base import Exporter
from pipeline.kernels.file_op import snake_case

if TYPE_CHECKING:
    import torch

OPSET = 20
_SCOPES = "pkg.torch.onnx.name_scopes"


class OnnxExporter(Exporter):
    """One self-contained file, static shape, tensors named `input` and `output`.

    The same network gives the same bytes: torch's notes on each node, with stack traces and paths of the machine, are
    left out.
    """

    format: ClassVar[str] = "onnx"

    def convert(self, program: torch.export.ExportedProgram, path: Path) -> str:
        import torch

        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["input"],
            output_names=["output"],
            opset_version=OPSET,
            verbose=False,
        )
        model = exported.model_proto
        tidy(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
        return f"torch.onnx {torch.__version__.partition('+')[0]} opset {OPSET}"


def tidy(model: Any) -> None:
    """Names every node, and the tensor that it makes, after its layer; drops metadata. Changes the ModelProto in place.

    "features.0.0" for a layer with a weight, "layer1.0.relu" for an op inside a module, "_2" and so on where one
    module runs several.
    """
    graph = model.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    weights = {weight.name for weight in graph.initializer}
    taken = ends | weights
    renamed: dict[str, str] = {}
    for node in graph.node:
        name = _unique(_layer(node, weights), taken)
        node.name = name
        for i, output in enumerate(node.output):
            if output and output not in ends:
                renamed[output] = name if i == 0 else _unique(f"{name}.{i}", taken)
    for node in graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
    for part in (*graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""


def _layer(node: Any, weights: set[str]) -> str:
    for value in node.input:
        if value in weights and value.endswith(".weight"):
            return str(value).removesuffix(".weight")
    scopes = next((prop.value for prop in node.metadata_props if prop.key == _SCOPES), "")
    path = ast.literal_eval(scopes)[-2:-1] if scopes else []  # the last one is the op itself
    return ".".join([*filter(None, path), snake_case(node.op_type)])


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or with the first number that nobody has yet; enters it into `taken`."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
