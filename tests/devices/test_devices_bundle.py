"""Libraries are found where the wheels lie; the runner is built once for each state of its source."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devices import bundle
from devices.bundle import RUNTIMES, build_runner, find_library, host_bundle
from devices.discovery import cache_dir
from devices.errors import BundleError

ABI = platform.machine()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_home: Path) -> Path:
    """A runner of one line in place of ours; the compiler's own cache is shared."""
    native = tmp_path / "package" / "native"
    native.mkdir(parents=True)
    (native / "main.c").write_text('#include "text.h"\nint main(void) { return STATUS; }\n')
    (native / "text.h").write_text("#define STATUS 3\n")
    (native / "README").write_text("not a source")
    monkeypatch.setattr(bundle, "__file__", str(native.parent / "bundle.py"))
    (tmp_path / "cache").mkdir()
    (cache_dir() / "zig").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "zig").symlink_to(cache_dir() / "zig")
    return native


def no_compiler(*_: Any, **__: Any) -> Any:
    raise AssertionError("the compiler was called")


@pytest.mark.parametrize("runtime", sorted(RUNTIMES))
def test_library_is_the_wheels(runtime: str) -> None:
    found = find_library(runtime)
    distribution, prefix = RUNTIMES[runtime]
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert found.origin.startswith(f"pypi:{distribution}=={importlib.metadata.version(distribution)}:{prefix}")
    (entry,) = [file for file in importlib.metadata.files(distribution) or [] if str(file).startswith(prefix)]
    assert entry.hash is not None and entry.hash.mode == "sha256"
    assert base64.urlsafe_b64decode(entry.hash.value + "==").hex() == found.sha256, "as the wheel says"


def test_bundle_of_this_machine(runner: Path) -> None:
    made = host_bundle(ABI, sorted(RUNTIMES), cache_dir())
    assert made.abi == ABI and made.runner.path == runner
    assert set(made.libraries) == set(made.versions) == set(RUNTIMES)
    assert made.runner.sha256 == hashlib.sha256(runner.read_bytes()).hexdigest()
    assert os.access(runner, os.X_OK)
    assert host_bundle(ABI, [], cache_dir()).libraries == {}


def test_missing_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RUNTIMES, "tvm", ("no-such-distribution", "tvm/lib"))
    with pytest.raises(BundleError, match="runtime tvm needs the package no-such-distribution.*make install"):
        host_bundle(ABI, ["tvm"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("prefix", "count"), [("pytest/no-such-library", "holds 0"), ("_pytest/", "holds [0-9]{2,}")])
def test_package_without_its_one_library(prefix: str, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "pytest", ("pytest", prefix))
    with pytest.raises(BundleError, match=f"{count} libraries"):
        find_library("pytest")


def test_library_that_was_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Gone(importlib.metadata.PackagePath):
        def locate(self) -> Path:
            return tmp_path / "gone.so"

    monkeypatch.setattr(importlib.metadata, "files", lambda _: [Gone("onnxruntime/capi/libonnxruntime.so.1")])
    with pytest.raises(BundleError, match=r"cannot read .*gone\.so of onnxruntime"):
        find_library("onnxruntime")


def test_second_build_does_not_compile(runner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_compiler)
    assert build_runner(ABI, cache_dir()).path == runner


def test_compiler_leaves_only_the_runner(runner: Path) -> None:
    assert [path.name for path in runner.parent.iterdir()] == [runner.name]


def test_sources_and_flags_decide_what_is_built(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_runner(ABI, tmp_path / "cache")
    assert subprocess.run([first.path], check=False).returncode == 3
    (sources / "README").write_text("changed")
    assert build_runner(ABI, tmp_path / "cache") == first
    (sources / "text.h").write_text("#define STATUS 4\n")
    second = build_runner(ABI, tmp_path / "cache")
    assert second.path != first.path and second.sha256 != first.sha256
    assert subprocess.run([second.path], check=False).returncode == 4
    (sources / "text.h").write_text("#define STATUS 3\n")
    monkeypatch.setattr(subprocess, "run", no_compiler)
    assert build_runner(ABI, tmp_path / "cache") == first, "the old one is still there"
    monkeypatch.setattr(bundle, "C_FLAGS", (*bundle.C_FLAGS, "-DX"))
    with pytest.raises(AssertionError, match="compiler was called"):
        build_runner(ABI, tmp_path / "cache")


def test_same_source_gives_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    first = build_runner(ABI, tmp_path / "cache")
    first.path.unlink()
    assert build_runner(ABI, tmp_path / "cache") == first


def test_source_that_does_not_compile(sources: Path, tmp_path: Path) -> None:
    (sources / "main.c").write_text("int main(void) { return missing_name; }\n")
    with pytest.raises(BundleError, match=r"the runner does not compile: [\s\S]*missing_name"):
        build_runner(ABI, tmp_path / "cache")
    assert list((tmp_path / "cache" / "runner").iterdir()) == []


def test_unknown_abi(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the runner does not compile"):
        build_runner("z80", tmp_path / "cache")


@pytest.mark.parametrize("cache", ["/proc/none", "/dev/null"])
def test_cache_that_cannot_be_written(cache: str) -> None:
    with pytest.raises(BundleError, match=f"cannot build the runner in {cache}/runner"):
        build_runner(ABI, Path(cache))


def test_no_compiler_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(BundleError, match="ziglang, which is not here.*make install"):
        build_runner(ABI, tmp_path)


def test_runner_of_the_other_abi_is_built_here(cache_home: Path) -> None:
    """What a phone needs is built on any machine."""
    other = "aarch64" if ABI == "x86_64" else "x86_64"
    made = build_runner(other, cache_dir())
    machine = {"aarch64": 183, "x86_64": 62}[other]
    header = made.path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == machine
    made.path.unlink()
