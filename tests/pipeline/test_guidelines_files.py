"""`handset guidelines` of model files: the same findings as of the torch network, by the names of the file's nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn

from latency_luts import Context, Entry, LatencyTable
from pipeline import cli
from pipeline.artifact import Network
from pipeline.errors import ModelError, UsageError
from pipeline.export import EXPORTERS
from pipeline.export.base import trace
from pipeline.export.quiet import quiet
from pipeline.fusion import from_file, from_onnx, from_tflite, tracing
from pipeline.graph import kernels, kernels_of
from pipeline.guidelines import Finding, check, check_file
from pipeline.kernels.tflite import keys
from pipeline.models import build

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
READERS: dict[str, Callable[[Path], Any]] = {"onnx": from_onnx.read, "tflite": from_tflite.read}
SHAPE = (1, 3, 64, 64)


class Mixed(nn.Module):
    """What exporters take apart or fold: a normalisation before its convolution, gates, pools that pad, a shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 64, 1, groups=2)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.down, self.up = nn.Conv2d(64, 4, 1), nn.Conv2d(4, 64, 1)
        self.classifier = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.stem(x)))
        x = nn.functional.channel_shuffle(self.wide(torch.relu(x)), 2)
        y = nn.functional.hardswish(self.depthwise(nn.functional.silu(x)))
        gate = self.up(torch.relu(self.down(nn.functional.adaptive_avg_pool2d(y, 1))))
        y = nn.functional.max_pool2d(x + y * nn.functional.hardsigmoid(gate), 3, 2, 1)
        z = nn.functional.avg_pool2d(x[:, :32], 3, 2, 1)
        y = torch.cat([y, z], 1)[:, :, ::2]
        return self.classifier(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def as_trained(module: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in module.eval().modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean, layer.running_var = (
                    torch.randn(layer.num_features),
                    torch.rand(layer.num_features) + 0.5,
                )
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
    return module


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: build("mobilenet_v2", width_mult=0.25, num_classes=10),
    "shufflenet_v1": lambda: build("shufflenet_v1_g3", width_mult=0.5, num_classes=10),
    "mixed": Mixed,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(network, format) -> the torch module and its file, converted once."""
    folder, modules = tmp_path_factory.mktemp("files"), dict[str, nn.Module]()

    def make(name: str, form: str) -> tuple[nn.Module, Path]:
        module = modules.setdefault(name, as_trained(NETWORKS[name]()))
        path = folder / f"{name}.{form}"
        if not path.exists():
            with quiet():
                EXPORTERS[form]().convert(trace(Network(name, "python", SHAPE, module=module)), path)
        return module, path

    return make


def numbers(findings: list[Finding]) -> Counter[tuple[object, ...]]:
    return Counter((each.rule, each.measured, each.bound, each.quantity, each.suggestion) for each in findings)


@pytest.mark.parametrize("form", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_has_the_findings_and_the_kernels_of_its_network(name: str, form: str, made: Any) -> None:
    module, path = made(name, form)
    expected = check(module, SHAPE)
    assert expected and numbers(check_file(path)) == numbers(expected)
    told = [str(use.key) for use in kernels(module, SHAPE, RUNTIMES[form])]
    assert [str(use.key) for use in kernels_of(READERS[form](path), RUNTIMES[form])] == told


@pytest.mark.parametrize("form", EXPORTERS)
def test_what_an_exporter_took_apart_is_one_op_again(form: str, made: Any) -> None:
    module, path = made("mixed", form)
    ops = Counter({"flatten": "reshape"}.get(node.op, node.op) for node in tracing.trace(module, SHAPE).nodes)
    assert Counter(node.op for node in READERS[form](path).nodes) == ops


def test_findings_name_the_nodes_of_the_file(made: Any) -> None:
    module, path = made("shufflenet_v1", "onnx")
    nodes = {node.name for node in onnx.load(path).graph.node}
    grouped = [each for each in check_file(path) if each.rule == "g2"]
    assert grouped and {each.where for each in grouped} <= nodes
    assert {each.where for each in grouped} == {each.where for each in check(module, SHAPE) if each.rule == "g2"}
    _, path = made("shufflenet_v1", "tflite")
    ops = {op.name: op for op in keys(path)}
    for each in (each for each in check_file(path) if each.rule == "g2"):
        key = ops[each.where].key
        assert key is not None and key.groups == 3


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_table_says_what_a_rewrite_saves_there(form: str, made: Any) -> None:
    module, path = made("mobilenet_v2", form)
    context = Context(
        device="host", soc="EPYC", os_build="Debian 12", abi="arm64-v8a", runtime=RUNTIMES[form], runtime_version="2",
        runtime_sha256="ab" * 32, delegate="", threads=1, cpu_mask="0x2", clocks="", handset_version="0.1.0",
        created="2026-11-21T12:00:00Z", simulated=False,
    )  # fmt: skip
    known = {use.key for use in kernels(module, SHAPE, RUNTIMES[form], abi="arm64-v8a")}
    entries = [Entry(key, 1e5, (1e5, 1e5), (100_000,), (), "kernel") for key in sorted(known, key=str)]
    table = LatencyTable(context, tuple(entries))
    expected = Counter((each.rule, each.saving_ms, each.note) for each in check(module, SHAPE, table))
    assert Counter((each.rule, each.saving_ms, each.note) for each in check_file(path, table)) == expected
    other = LatencyTable(Context(**{**vars(context), "runtime": "litert" if form == "onnx" else "onnxruntime"}), ())
    with pytest.raises(UsageError, match="does not run such files; try: a table of"):
        check_file(path, other)


def test_names_without_dots_are_told_from_the_first_to_the_last(tmp_path: Path) -> None:
    weights = [helper.make_tensor(f"w{i}", TensorProto.FLOAT, (8, 8, 1, 1), [0.0] * 64) for i in range(8)]
    nodes = [helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=f"conv{i}") for i in range(8)]
    nodes.append(helper.make_node("Add", ["t0", "t8"], ["y"], name="sum"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 4, 4]) for name in ("t0", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)), tmp_path / "net.onnx")
    (found,) = check_file(tmp_path / "net.onnx")
    assert (found.rule, found.where, found.measured) == ("g3", "sum", 8)


def test_an_op_that_torch_has_no_word_for_is_passed_by(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (144, 24, 1, 1), [0.0] * 24 * 144)
    nodes = [
        helper.make_node("LRN", ["x"], ["a"], name="norm", size=3),
        helper.make_node("Conv", ["a", "w"], ["y"], name="/features/expand"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 28, 28]) for name, c in (("x", 24), ("y", 144))
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])), tmp_path / "net.onnx")
    (found,) = check_file(tmp_path / "net.onnx")
    assert (found.rule, found.where, found.measured) == ("g1", "/features/expand", 28 * 28 * 168 + 24 * 144)


# what comes from strangers


def told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = cli.main(["guidelines", *argv])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("form", EXPORTERS)
def test_the_command_takes_files(form: str, made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = made("mobilenet_v2", form)
    status, out, err = told([str(path)], capsys)
    assert (status, err) == (0, "")
    assert re.match(rf".*mobilenet_v2\.{form}: \d+ findings, \d+ of G1", out)


@pytest.mark.parametrize("form", EXPORTERS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_one_line(
    form: str, share: float, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = made("mobilenet_v2", form)[1].read_bytes()
    (tmp_path / f"net.{form}").write_bytes(content[: int(share * len(content))])
    status, out, err = told([str(tmp_path / f"net.{form}")], capsys)
    assert (status, out) == (2, "") and err.startswith("handset: ") and err.count("\n") == 1


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_foreign_file_is_one_line(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"net.{form}").write_bytes(Path(__file__).read_bytes())
    status, out, err = told([str(tmp_path / f"net.{form}")], capsys)
    assert (status, out) == (2, "") and err.count("\n") == 1


@pytest.mark.parametrize("form", EXPORTERS)
def test_a_huge_file_is_not_read(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / f"net.{form}").open("wb") as file:
        file.truncate(5 << 30)  # no block of it is on the disk
    status, out, err = told([str(tmp_path / f"net.{form}")], capsys)
    assert (status, out) == (2, "") and "has 5,120 MiB" in err and err.count("\n") == 1


def test_a_file_of_too_many_ops_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    monkeypatch.setattr(from_file, "MAX_NODES", 3)
    for form in EXPORTERS:
        with pytest.raises(ModelError, match=r"has \d+ ops, and at most 3 are looked at"):
            check_file(made("mobilenet_v2", form)[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), form=st.sampled_from(list(EXPORTERS)))
def test_a_damaged_byte_gives_findings_or_one_line(
    place: float, value: int, form: str, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(made("mixed", form)[1].read_bytes())
    content[int(place * len(content))] = value
    (tmp_path / f"net.{form}").write_bytes(content)
    status, _, err = told([str(tmp_path / f"net.{form}")], capsys)
    assert status in (0, 2) and (status == 0 or err.count("\n") == 1)
