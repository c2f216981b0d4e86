"""What a MODEL argument becomes, and one line for every one that cannot become anything."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import HandsetError, ModelError, UsageError
from pipeline.models import MODELS
from pipeline.spec import resolve, safe_name


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_zoo_names_give_the_same_network_every_time(name: str) -> None:
    torch.manual_seed(1)
    first = resolve(name)
    torch.manual_seed(2)
    second = resolve(name)
    assert (first.name, first.source, first.input_shape) == (name, "zoo", MODELS[name].input_shape)
    assert first.params == MODELS[name].params
    assert first.module is not None and second.module is not None and not first.module.training
    for key, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[key])


def test_digits_come_trained(digits_network: Any) -> None:
    assert digits_network.source == "zoo" and digits_network.params == MODELS["digits_cnn"].params


def test_model_files(digits_files: dict[str, Any]) -> None:
    for source, exported in digits_files.items():
        network = resolve(str(exported.path))
        assert (network.name, network.source, network.path) == ("digits_cnn", source, exported.path)
        assert network.input_shape == exported.input_shape
        assert network.module is None and network.params is None


CODE = """
import torch
import neighbour
def module(): return torch.nn.Linear(3, 4).train()
def pair(): return torch.nn.Conv2d(1, 2, 3), [1, 1, 9, 9]
def number(): return 3
def broken(): raise RuntimeError("first\\nsecond")
def leaves(): raise SystemExit(7)
def needs(x): return x
def batch(): return torch.nn.Linear(3, 4), (2, 3)
def text(): return torch.nn.Linear(3, 4), "1,3"
value = 3
"""


@pytest.fixture
def python_file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("")
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


def test_python_functions(python_file: Path) -> None:
    path_before = list(sys.path)
    plain, pair = resolve(f"{python_file}:module"), resolve(f"{python_file}:pair")
    assert (plain.name, plain.source, plain.input_shape, plain.params) == ("module", "python", (1, 3, 224, 224), 16)
    assert pair.input_shape == (1, 1, 9, 9)
    assert plain.module is not None and not plain.module.training
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (":number", "nets.py:number returned a int"),
        (":broken", "nets.py:broken raised RuntimeError: first;"),
        (":leaves", "nets.py:leaves raised SystemExit: 7"),
        (":needs", "nets.py:needs raised TypeError"),
        (":batch", "nets.py:batch returned the input shape (2, 3)"),
        (":text", "nets.py:text returned the input shape 1,3"),
        (":value", "nets.py has no function 'value'"),
        (":missing", "nets.py has no function 'missing'"),
        ("", "does not say which function"),
    ],
)
def test_python_function_that_gives_no_network(python_file: Path, function: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(f"{python_file}{function}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_python_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text("import no_such_module_anywhere")
    modules = set(sys.modules)
    with pytest.raises(UsageError, match=r"nets\.py cannot be imported: ModuleNotFoundError"):
        resolve(f"{path}:make")
    assert not {name for name in set(sys.modules) - modules if name.startswith("handset_model")}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".bin", ".PT"])
def test_pickles_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / f"net{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"is a pickle, which runs code .*\.pt2"):
        resolve(str(path))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mobilenet", UsageError, "mobilenet_v2, mobilenet_v1, mobilenet_v3_small, or `handset models`"),
        ("resnet2", UsageError, "resnet20"),
        ("", UsageError, "there is no network ''"),
        ("a\nb", UsageError, r"there is no network 'a\nb'"),
        ("no.onnx", ModelError, "there is no file 'no.onnx'"),
        ("no.pt2", ModelError, "there is no file 'no.pt2'"),
        ("no.py:make", ModelError, "there is no file 'no.py'"),
        ("folder.onnx", ModelError, "is a folder"),
        ("notes.txt", ModelError, "no kind of model file"),
        ("x\0y.onnx", ModelError, r"there is no file 'x\x00y.onnx'"),
    ],
)
def test_nothing_that_can_be_a_network(
    text: str, error: type[HandsetError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    Path("notes.txt").write_text("")
    with pytest.raises(error) as caught:
        resolve(text)
    assert type(caught.value) is error
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("stem", ["my net", "a'b\"c;rm -rf", "-rf", "..", "名前", "net$(id)", "x" * 200])
def test_hostile_file_names_become_safe_ones(stem: str, digits_files: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.onnx"
    path.write_bytes(digits_files["onnx"].path.read_bytes())
    network = resolve(str(path))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", network.name)
    assert network.path == path


@given(st.text(), st.text())
def test_safe_names_are_safe_and_stay_apart(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", safe_name(one))
    assert (safe_name(one) == safe_name(other)) == (one == other)
