"""Weights files: what wraps them is taken off, nothing in them is run, and what is none is told in one line."""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import save_file

from pipeline.errors import ModelError
from pipeline.weights import read
from pipeline.weights.read import read_tensors

STATE = {"conv.weight": torch.arange(6.0).view(1, 6, 1, 1), "conv.bias": torch.ones(1)}


def saved(path: Path, what: Any, **how: Any) -> Path:
    torch.save(what, path, **how)
    return path


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("key", read.NESTED)
@pytest.mark.parametrize("prefix", ["", *read.WRAPPERS, "module._orig_mod."])
def test_wrappers_are_taken_off(key: str, prefix: str, tmp_path: Path) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in STATE.items()}
    assert same(read_tensors(saved(tmp_path / "a.pth", wrapped)))
    assert same(
        read_tensors(saved(tmp_path / "b.ckpt", {key: wrapped, "epoch": 3, "best": 0.9, "optimizer": {"lr": [0.1]}}))
    )


def test_a_prefix_that_only_some_keys_have_is_theirs(tmp_path: Path) -> None:
    mixed = {"model.0.weight": torch.ones(1), "fc.weight": torch.ones(1)}
    assert read_tensors(saved(tmp_path / "a.pt", mixed)).keys() == mixed.keys()


def test_safetensors_and_the_format_of_before_torch_1_6(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_tensors(tmp_path / "a.safetensors"))
    assert same(read_tensors(saved(tmp_path / "a.pth", STATE, _use_new_zipfile_serialization=False)))


@pytest.mark.parametrize("what", [torch.nn.Linear(2, 2), {"state_dict": STATE, "args": argparse.Namespace(lr=1)}])
def test_what_would_have_to_be_unpickled_is_refused_and_named(what: Any, tmp_path: Path) -> None:
    kind = "torch.nn.modules.linear.Linear" if isinstance(what, torch.nn.Module) else "argparse.Namespace"
    with pytest.raises(
        ModelError, match=rf"^a\.pth holds a pickled {kind}, and unpickling runs code; try: .*state_dict"
    ):
        read_tensors(saved(tmp_path / "a.pth", what))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for new in (True, False):
        with pytest.raises(ModelError, match=r"holds a pickled (posix|os)\.system"):
            read_tensors(saved(tmp_path / "a.pth", {"a": Hostile()}, _use_new_zipfile_serialization=new))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", [{}, {"a": 1}, [torch.ones(1)], torch.ones(1), {3: torch.ones(1)}, "text"])
def test_a_file_without_named_tensors(what: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^a\.pt holds (no tensors by name|a \w+, not a state_dict); try: "):
        read_tensors(saved(tmp_path / "a.pt", what))


def test_tensors_that_are_not_dense_numbers_are_left_out(tmp_path: Path) -> None:
    odd = {"sparse": torch.eye(2).to_sparse(), "meta": torch.ones(2, device="meta")}
    assert same(read_tensors(saved(tmp_path / "a.pt", STATE | odd)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 9, 100, -10])
def test_a_file_that_is_cut_short(suffix: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError) as error:
        read_tensors(path)
    assert "\n" not in str(error.value) and str(error.value).isprintable()


@settings(max_examples=60, deadline=None)
@given(content=some.binary(max_size=300), suffix=some.sampled_from([".pth", ".safetensors"]))
def test_any_bytes_are_one_line(content: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_tensors(path)
    assert str(error.value).isprintable()


def test_no_file_a_folder_and_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^there is no weights file no\.pth; try: "):
        read_tensors(tmp_path / "no.pth")
    (tmp_path / "d.pth").mkdir()
    with pytest.raises(ModelError, match="there is no weights file d.pth"):
        read_tensors(tmp_path / "d.pth")
    with pytest.raises(ModelError, match=r"^a\.onnx is no weights file; try: one of \.pt, .*\.safetensors$"):
        read_tensors(tmp_path / "a.onnx")


def test_an_archive_that_would_inflate_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(1 << 20))
    (tmp_path / "a.pth").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 10_000
    monkeypatch.setattr(read, "LIMIT_BYTES", 1 << 19)
    with pytest.raises(ModelError, match=r"^a\.pth holds 0\.0 GiB, more than 0; try: "):
        read_tensors(tmp_path / "a.pth")
    save_file({"a": torch.zeros(1 << 18)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="more than"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_names_control_characters_do_not_reach_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_tensors(tmp_path / "a\x1b[2J\n.pth")
    assert str(error.value).isprintable()
