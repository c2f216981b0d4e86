"""A .pt2 file: the same numbers as torch, and nothing in it that is run."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError, UnsupportedOp
from pipeline.pt2 import load_program
from pipeline.spec import resolve

Change = Callable[[dict[str, bytes]], None]


def save(module: nn.Module, path: Path, shape: tuple[int, ...] = (1, 3, 8, 8), **options: Any) -> Path:
    torch.export.save(torch.export.export(module, (torch.zeros(shape),), **options), path)
    return path


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten()).eval()


@pytest.fixture
def changed(module: nn.Module, tmp_path: Path) -> Callable[[Change], Path]:
    """The module's .pt2 file after a change to its parts (name below the root -> content)."""

    def make(change: Change) -> Path:
        path = save(module, tmp_path / "net.pt2")
        parts = parts_of(path)
        change(parts)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in parts.items():
                archive.writestr(f"net/{name}", content)
        return path

    return make


def graph_change(edit: Callable[[dict[str, Any]], None]) -> Change:
    def change(parts: dict[str, bytes]) -> None:
        graph = json.loads(parts["models/model.json"])
        edit(graph)
        parts["models/model.json"] = json.dumps(graph).encode()

    return change


def test_program_computes_what_the_module_computes(module: nn.Module, tmp_path: Path) -> None:
    network = resolve(str(save(module, tmp_path / "net.pt2")))
    x = torch.randn(1, 3, 8, 8)
    assert (network.name, network.source, network.input_shape) == ("net", "pt2", (1, 3, 8, 8))
    assert network.params == sum(p.numel() for p in module.parameters())
    assert network.module is not None
    with torch.no_grad():
        assert torch.equal(network.module(x), module(x))


def test_program_can_be_exported(module: nn.Module, tmp_path: Path) -> None:
    from pipeline.export import EXPORTERS

    network = resolve(str(save(module, tmp_path / "net.pt2")))
    exported = EXPORTERS["onnx"]().export(network, tmp_path)
    assert exported.output_shape == (1, 144)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def add(name: str, content: bytes = b"") -> Change:
    return lambda parts: parts.update({name: content})


def set_target(target: str) -> Change:
    return graph_change(lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(target=target))


def use_pickle(parts: dict[str, bytes]) -> None:
    name = "data/weights/model_weights_config.json"
    config = json.loads(parts[name])
    next(iter(config["config"].values()))["use_pickle"] = True
    parts[name] = json.dumps(config).encode()


def add_expression(graph: dict[str, Any]) -> None:
    value = graph["graph_module"]["graph"]["tensor_values"]["conv2d"]
    value["sizes"][0] = {"as_expr": {"expr_str": "__import__('os').system('true')"}}


def container(graph: dict[str, Any]) -> None:
    spec = graph["graph_module"]["module_call_graph"][0]["signature"]
    spec["in_spec"] = spec["in_spec"].replace("builtins.tuple", "os.path")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (add("data/weights/model.pt"), ModelError, "'data/weights/model.pt', which is read as a pickle"),
        (add("data/constants/opaque_obj_0"), ModelError, "'data/constants/opaque_obj_0', which is read as a pickle"),
        (add("data/constants/custom_obj_0"), ModelError, "which is read as a pickle"),
        (add("data/aotinductor/model/code.so"), ModelError, "the part 'data/aotinductor/model/code.so'"),
        (use_pickle, ModelError, "a pickled weight"),
        (set_target("torch.serialization.os.system"), UnsupportedOp, "'torch.serialization.os.system'"),
        (set_target("torch.ops.aten.from_file.default"), UnsupportedOp, "'aten.from_file.default'"),
        (set_target("torch.ops.mylib.op.default"), UnsupportedOp, "'mylib.op.default'"),
        (graph_change(add_expression), ModelError, "an argument of the kind 'as_expr'"),
        (graph_change(container), ModelError, "an argument of the type 'os.path'"),
        (graph_change(lambda graph: graph.pop("graph_module")), ModelError, "no .pt2 program that torch wrote"),
        (add("models/model.json", b"[]"), ModelError, "no .pt2 program that torch wrote"),
        (add("models/model.json", b"{"), ModelError, "no .pt2 program that torch wrote"),
    ],
)
def test_parts_that_torch_would_run_are_refused(
    change: Change, error: type[Exception], message: str, changed: Callable[[Change], Path]
) -> None:
    with pytest.raises(error) as caught:
        resolve(str(changed(change)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_can_be_done_without_is_not_run(changed: Callable[[Change], Path], tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"

    def change(parts: dict[str, bytes]) -> None:
        bomb = io.BytesIO()
        torch.save(((Bomb(exploded),), {}), bomb)
        parts["data/sample_inputs/model.pt"] = bomb.getvalue()
        graph = json.loads(parts["models/model.json"])
        graph["guards_code"] = [f"open({str(exploded)!r}, 'w')"]
        parts["models/model.json"] = json.dumps(graph).encode()

    network = resolve(str(changed(change)))
    assert network.module is not None
    network.module(torch.zeros(1, 3, 8, 8))
    program, _ = load_program(tmp_path / "net.pt2")
    program.module()(torch.zeros(1, 3, 8, 8))  # with guards, if it has any
    assert not exploded.exists()
    torch.load(io.BytesIO(parts_of(tmp_path / "net.pt2")["data/sample_inputs/model.pt"]), weights_only=False)
    assert exploded.exists()  # the charge was live


def test_dynamic_axis_is_named(module: nn.Module, tmp_path: Path) -> None:
    path = save(module, tmp_path / "net.pt2", (2, 3, 8, 8), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with pytest.raises(ModelError, match=r"axis 0 of the input 'input' of net\.pt2 is dynamic"):
        resolve(str(path))


def test_batch_two_and_training_mode_are_refused(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not of batch 1"):
        resolve(str(save(module, tmp_path / "net.pt2", (2, 3, 8, 8))))
    with pytest.raises(ModelError, match="training mode"):
        resolve(str(save(module.train(), tmp_path / "net.pt2")))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_archive_cut_short_is_told(share: float, module: nn.Module, tmp_path: Path) -> None:
    path = save(module, tmp_path / "net.pt2")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"net\.pt2 is no \.pt2 archive, or cut short"):
        resolve(str(path))


def test_archive_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ModelError, match=r"no \.pt2 program that torch wrote"):
        resolve(str(path))
    torch.save({"a": 1}, path)
    with pytest.raises(ModelError):
        resolve(str(path))


def test_damaged_weight_is_told(changed: Callable[[Change], Path]) -> None:
    path = changed(lambda parts: parts.update({"data/weights/weight_0": b"\0" * 8}))
    with pytest.raises(ModelError, match=r"torch\.export cannot load net\.pt2"):
        resolve(str(path))
