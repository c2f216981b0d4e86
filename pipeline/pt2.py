"""A .pt2 file (torch.export.save) without running anything that it brings.

`torch.export.load` must not see a file from elsewhere. In torch 2.13 it unpickles (`torch.load(weights_only=False)`,
also as the fall-back when weights_only=True refuses; `pickle.loads` for constants that are no tensors), loads compiled
libraries (data/aotinductor), evaluates text (guards through `exec`, shape expressions through sympy) and looks up
call targets by `getattr` from the `torch` module, where `os` is within reach.

What torch writes for a network of plain layers needs none of that: a JSON graph of aten ops and raw bytes of weights.
So the archive is taken apart here, what is expected is checked against lists of what is allowed, and a new archive,
written in memory from the checked parts, is what torch loads. Sample inputs (a pickle) are zeros of our own; guards
and metadata stay out.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, UnsupportedOp
from pipeline.export.quiet import quiet

if TYPE_CHECKING:
    import torch

_GRAPH = "models/model.json"
_CONFIGS = {
    "data/weights/": "model_weights_config.json",
    "data/constants/": "model_constants_config.json",
}
_PAYLOAD = re.compile(r"(weight|tensor)_[0-9]{1,9}")
_COPIED = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_SAMPLES = "data/sample_inputs/model.pt"
_ATEN = re.compile(r"torch\.ops\.(aten\.[A-Za-z0-9_]+\.[A-Za-z0-9_]+)")
_FORBIDDEN_OPS = ("aten.from_file",)  # maps a file of its choice into memory
# The kinds of argument that are plain data; as_expr, as_graph, as_custom_obj and their kin are not.
_ARGUMENTS = frozenset(
    {
        "as_none",
        "as_bool",
        "as_bools",
        "as_int",
        "as_ints",
        "as_float",
        "as_floats",
        "as_string",
        "as_strings",
        "as_tensor",
        "as_tensors",
        "as_optional_tensor",
        "as_optional_tensors",
        "as_scalar_type",
        "as_memory_format",
        "as_layout",
        "as_device",
    }
)
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_RESAVE = "torch.export.save(torch.export.export(module.eval(), (example,)), path) with torch 2.8 or newer"


def load_program(path: Path) -> tuple[torch.export.ExportedProgram, tuple[int, ...]]:
    """The program in the file, rebuilt from its checked parts, and the shape of its input.

    Raises:
        ModelError: no archive, cut short, of an older torch, or with a part that can run code; a dynamic axis.
        UnsupportedOp: the graph calls something else than an aten op.
        OSError: the file cannot be read.
    """
    import torch

    parts = _read_parts(path)
    graph, shape = _checked_graph(path, parts)
    samples, archive = io.BytesIO(), io.BytesIO()
    try:
        torch.save(((torch.zeros(shape),), {}), samples)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as clean:
            for name, content in parts.items():
                clean.writestr(f"model/{name}", content)
            clean.writestr(f"model/{_GRAPH}", json.dumps(graph))
            clean.writestr(f"model/{_SAMPLES}", samples.getvalue())
        archive.seek(0)
        with quiet():
            return torch.export.load(archive), shape
    except Exception as error:  # torch raises whatever its parser trips over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"torch.export cannot load {path.name}: {reason}", try_=_RESAVE) from error


def _input_shape(path: Path, graph: dict[str, Any]) -> tuple[int, ...]:
    """The shape of the one input, as the JSON graph declares it.

    Raises:
        ModelError: not exactly one tensor as input, or a dynamic axis, which is named.
    """
    specs = graph["graph_module"]["signature"]["input_specs"]
    inputs = [spec["user_input"]["arg"] for spec in specs if "user_input" in spec]
    if len(inputs) != 1 or "as_tensor" not in inputs[0]:
        raise ModelError(f"{path.name} has {len(inputs)} inputs", try_="a network with one tensor as input")
    name = inputs[0]["as_tensor"]["name"]
    shape = []
    for axis, size in enumerate(graph["graph_module"]["graph"]["tensor_values"][name]["sizes"]):
        if "as_int" not in size:
            raise ModelError(
                f"axis {axis} of the input {name!r} of {path.name} is dynamic; a latency needs a fixed shape",
                try_="torch.export.export without dynamic_shapes",
            )
        shape.append(int(size["as_int"]))
    if not shape or shape[0] != 1:
        raise ModelError(f"{path.name} takes inputs of the shape {shape}, not of batch 1", try_="an example of batch 1")
    return tuple(shape)


def _read_parts(path: Path) -> dict[str, bytes]:
    """name below the archive's root -> content, for every part that is wanted."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "version" in names or "serialized_exported_program.json" in names:
                raise ModelError(f"{path.name} is a .pt2 of torch 2.7 or older, made of pickles", try_=_RESAVE)
            if len(set(names)) != len(names):
                raise _refused(path, "two parts of the same name")
            if archive.infolist() and min(info.header_offset for info in archive.infolist()) != 0:
                # The sample inputs are an archive inside the archive, whose end is taken for the file's after a cut.
                raise zipfile.BadZipFile("the end of another archive")
            parts = {}
            for info in archive.infolist():
                name = info.filename.partition("/")[2]
                if _wanted(path, name):
                    if info.compress_type != zipfile.ZIP_STORED:
                        raise _refused(path, f"a compressed part, {name!r}")
                    parts[name] = archive.read(info)
            return parts
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path.name} is no .pt2 archive, or cut short or damaged ({size} bytes: {error})", try_=_RESAVE
        ) from error


def _wanted(path: Path, name: str) -> bool:
    """Whether a part is passed on. Harmless parts are left out, anything that torch would run is refused."""
    if name in _COPIED or name == _GRAPH:
        return True
    for folder, config in _CONFIGS.items():
        if name.startswith(folder):
            rest = name.removeprefix(folder)
            if rest == config or _PAYLOAD.fullmatch(rest):
                return True
            raise _refused(path, f"the part {name!r}, which is read as a pickle")
    if name.startswith("data/") and name != _SAMPLES and not name.endswith("/"):
        raise _refused(path, f"the part {name!r}")
    return False


def _checked_graph(path: Path, parts: dict[str, bytes]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Takes the JSON graph out of `parts`, checks it and the payload configs; gives it and its input's shape."""
    try:
        for folder, config in _CONFIGS.items():
            for payload in _walk(json.loads(parts[folder + config])):
                if payload.get("use_pickle"):
                    raise _refused(path, "a pickled weight")
                if "path_name" in payload and not _PAYLOAD.fullmatch(payload["path_name"]):
                    raise _refused(path, f"a weight at {payload['path_name']!r}")
        graph: dict[str, Any] = json.loads(parts.pop(_GRAPH))
        shape = _input_shape(path, graph)
        for table in _walk(graph):
            _check_table(path, table)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path.name} is no .pt2 program that torch wrote ({error!r})", try_=_RESAVE) from error
    graph["guards_code"] = []
    graph["range_constraints"] = {}
    return graph, shape


def _check_table(path: Path, table: dict[str, Any]) -> None:
    for key in table:
        if key.startswith("as_") and key not in _ARGUMENTS:
            raise _refused(path, f"an argument of the kind {key!r}")
    for key in ("in_spec", "out_spec"):
        if isinstance(table.get(key), str):
            _check_containers(path, json.loads(table[key]))
    if "target" in table and "inputs" in table:
        _check_target(path, table["target"])
        for argument in table["inputs"]:
            if argument["name"] in ("train", "training") and argument["arg"].get("as_bool"):
                raise ModelError(f"{path.name} was exported in training mode", try_=_RESAVE)
    if "metadata" in table:
        table["metadata"] = {}
    if "treespec_namedtuple_fields" in table:
        table["treespec_namedtuple_fields"] = {}


def _check_target(path: Path, target: str) -> None:
    found = _ATEN.fullmatch(target)
    if target == "_operator.getitem" or (found and not found.group(1).startswith(_FORBIDDEN_OPS)):
        return
    raise UnsupportedOp(
        f"{path.name} calls {target.removeprefix('torch.ops.')!r}, which is no aten op of torch",
        try_="plain torch layers, or file.py:function",
    )


def _check_containers(path: Path, spec: Any) -> None:
    for node in _walk(spec):
        context = json.loads(node["context"]) if node.get("context") else None
        plain = context is None or (isinstance(context, list) and all(isinstance(key, str) for key in context))
        if node.get("type") not in _CONTAINERS or not plain:
            raise _refused(path, f"an argument of the type {node.get('type')!r}")


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a JSON tree."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _walk(item)


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path.name} holds {what}; that can run code when it is read, so handset does not",
        try_="torch.export.save of a network of plain layers, or file.py:function",
    )
