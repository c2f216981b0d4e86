"""What every exporter must do, and what happens to those that fail half-way."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.artifact import Network, sha256_file
from pipeline.errors import CheckFailed, ModelError, StorageError, UnsupportedOp, UsageError
from pipeline.export import EXPORTERS, Exporter, check_file, parity
from pipeline.spec import resolve
from pipeline.tflite_file import read


@torch.library.custom_op("handset_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def network_of(function: Callable[[torch.Tensor], Any], name: str = "net") -> Network:
    return Network(name, "python", (1, 3, 8, 8), module=Function(function).eval())


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("format_name", EXPORTERS)
class TestExporter:
    def exporter(self, format_name: str, **settings: Any) -> Exporter:
        return EXPORTERS[format_name](**settings)

    def test_says_what_it_wrote(self, format_name: str, digits_files: dict[str, Any]) -> None:
        exported = digits_files[format_name]
        assert exported.path.name == f"digits_cnn.{format_name}"
        assert exported.network == "digits_cnn" and exported.format == format_name
        assert exported.sha256 == sha256_file(exported.path) and exported.bytes == exported.path.stat().st_size
        assert exported.input_shape == {"onnx": (1, 1, 8, 8), "tflite": (1, 8, 8, 1)}[format_name]
        assert exported.output_shape == (1, 10)
        assert exported.converter.split()[0] in ("torch.onnx", "litert_torch")
        assert set(names_in(exported.path.parent)) <= {"digits_cnn.onnx", "digits_cnn.tflite"}

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_agrees_with_torch(
        self,
        format_name: str,
        seed: int,
        small_network: Callable[..., Any],
        small_files: dict[str, Any],
        tmp_path: Path,
    ) -> None:
        exporter = self.exporter(format_name)
        exported = exporter.export(small_network(seed), tmp_path) if seed else small_files[format_name]
        assert exported.parity is not None
        assert list(exported.parity.errors) == ["china", "flower", "seed0", "seed1", "seed2"]
        assert exported.parity.worst_error == max(exported.parity.errors.values())
        # Far below the tolerance: with a wrong padding or a lost activation it is 1e-2 and more.
        assert exported.parity.worst_error < 1e-5 < exported.parity.tolerance

    def test_gives_the_same_bytes_again_in_silence(
        self,
        format_name: str,
        small_network: Callable[..., Any],
        small_files: dict[str, Any],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        again = self.exporter(format_name).export(small_network(0), tmp_path)
        assert again.path.read_bytes() == small_files[format_name].path.read_bytes()
        assert capfd.readouterr() == ("", "")

    def test_file_tells_nothing_of_this_machine(self, format_name: str, small_files: dict[str, Any]) -> None:
        content = small_files[format_name].path.read_bytes()
        assert str(Path.cwd()).encode() not in content and b".py" not in content

    def test_unsupported_op_is_named(self, format_name: str, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedOp, match=r"net uses handset_test[.:]+twice"):
            self.exporter(format_name).export(network_of(twice), tmp_path)
        assert names_in(tmp_path) == []

    def test_difference_above_the_tolerance_is_an_error_with_the_numbers(
        self, format_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honest = parity.runner
        monkeypatch.setattr(parity, "runner", lambda path: lambda x: honest(path)(x) * np.float32(1.001))
        with pytest.raises(CheckFailed, match=r"1\.0e-03 .* tolerance 1e-04 \(china 1\.0e-03, flower .*seed2"):
            self.exporter(format_name).export(network_of(torch.relu), tmp_path)
        assert names_in(tmp_path) == []

    @pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_failure_half_way_leaves_the_old_file_and_nothing_else(
        self, format_name: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = tmp_path / f"net.{format_name}"
        old.write_text("old")

        def half(self: Exporter, program: Any, path: Path) -> str:
            path.write_bytes(b"half")
            raise failure

        monkeypatch.setattr(EXPORTERS[format_name], "convert", half)
        expected = StorageError if isinstance(failure, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            self.exporter(format_name).export(network_of(torch.relu), tmp_path)
        assert names_in(tmp_path) == [old.name] and old.read_text() == "old"
        if expected is StorageError:
            assert f"cannot write {old}: No space left on device" in str(caught.value)

    def test_folder_that_cannot_be_made(self, format_name: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot write"):
            self.exporter(format_name).export(network_of(torch.relu), tmp_path / "file" / "folder")

    def test_users_file_is_handed_on_and_not_converted(
        self, format_name: str, small_files: dict[str, Any], tmp_path: Path
    ) -> None:
        network = resolve(str(small_files[format_name].path))
        exported = self.exporter(format_name).export(network, tmp_path)
        assert exported.path == small_files[format_name].path and exported.parity is None
        other = resolve(str(small_files["tflite" if format_name == "onnx" else "onnx"].path))
        with pytest.raises(UsageError, match="cannot become"):
            self.exporter(format_name).export(other, tmp_path)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: x @ torch.ones(9, 2), "net fails on an input of 1x3x8x8: RuntimeError"),
            (lambda x: (x, x), "net gives a tuple, not one tensor"),
            (lambda x: x + 1 if x.sum() > 0 else x, "torch.export cannot trace net"),
        ],
    )
    def test_network_that_cannot_be_exported(
        self, format_name: str, function: Callable[..., Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            self.exporter(format_name).export(network_of(function), tmp_path)
        assert "\n" not in str(caught.value)


def test_input_that_fits_into_no_memory_is_told(tmp_path: Path) -> None:
    network = Network("net", "python", (1, 3, 10**6, 10**6), module=Function(torch.relu))
    with pytest.raises(ModelError, match="net fails on an input of 1x3x1000000x1000000"):
        EXPORTERS["onnx"]().export(network, tmp_path)


def test_mobilenet_v2_has_no_transpose_and_agrees(tmp_path: Path) -> None:
    exported = EXPORTERS["tflite"]().export(resolve("mobilenet_v2"), tmp_path)
    ops = [operator.op for operator in read(exported.path).operators]
    assert {op: ops.count(op) for op in sorted(set(ops))} == {
        "ADD": 10, "CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "FULLY_CONNECTED": 1, "MEAN": 1, "PAD": 5,
    }  # fmt: skip
    assert exported.parity is not None and exported.parity.worst_error < 5e-5


def test_onnx_nodes_are_named_after_layers(small_files: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(small_files["onnx"].path)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem", "depthwise", "point", "mix", "grouped", "linear", "softmax"} <= set(names)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["input", "output"]


def test_layer_called_input_does_not_clash(tmp_path: Path) -> None:
    module = nn.Sequential()
    module.add_module("input", nn.Conv2d(3, 4, 1))
    module.add_module("output", nn.Conv2d(4, 2, 1))
    exported = EXPORTERS["onnx"]().export(Network("net", "python", (1, 3, 8, 8), module=module.eval()), tmp_path)
    assert check_file(exported.path).output_shape == (1, 2, 8, 8)


def test_network_that_amplifies_rounding_is_judged_by_torchs_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of large numbers that cancel: torch in float32 is off by 3e-5, and a file may be by four times that."""
    network = network_of(lambda x: (x + 1000.0) - 1000.0)
    honest, factor = parity.runner, [1.0]
    monkeypatch.setattr(parity, "runner", lambda path: lambda x: honest(path)(x) * np.float32(factor[0]))
    path = EXPORTERS["onnx"]().export(network, tmp_path).path
    assert parity.check(network, path, 1e-5).tolerance == 1e-5  # nothing to be excused
    factor[0] = 1.00003
    found = parity.check(network, path, 1e-5)
    assert 2.9e-5 < found.worst_error < found.tolerance < 2e-4
    factor[0] = 1.001
    with pytest.raises(CheckFailed, match="above the tolerance"):
        parity.check(network, path, 1e-5)
    factor[0] = 1.00003
    with pytest.raises(CheckFailed, match="above the tolerance 1e-05"):
        parity.check(network_of(torch.relu), EXPORTERS["onnx"]().export(network_of(torch.relu), tmp_path).path, 1e-5)


def test_relative_error() -> None:
    ones = np.ones((1, 4), np.float32)
    assert parity.relative_error(ones * 3, ones * 2) == 0.5
    assert parity.relative_error(ones * 0, ones * 0) == 0.0
    for actual, expected in [(ones, ones * 0), (ones * np.nan, ones), (ones, ones * np.inf), (ones, ones[:, :3])]:
        assert parity.relative_error(actual, expected) == float("inf")
