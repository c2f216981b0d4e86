"""The linux bundle from parts of our own making: that they fit each other, and what decides that one is built again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices import linux_bundle as module
from devices.bundle import GLIBC, RUNTIMES, BundledFile, RuntimeBundle, compile_c, file_sha256, library_name
from devices.bundle_lock import LOCK
from devices.discovery import cache_dir
from devices.elf import read_elf_file
from devices.errors import BundleError
from devices.linux_bundle import ABIS, check_fit, linux_bundle

C_LIBRARY = ("libc.so.6", "libm.so.6")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> dict[str, Path]:
    """Libraries for arm64 that are empty but for what they ask for, and one for x86_64."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "nothing.c").write_text("int nothing;\n")
    made: dict[str, Path] = {}

    def library(name: str, *needs: str, machine: str = "aarch64", file: str = "") -> None:
        output = folder / (file or f"{machine}-{name}")
        flags = ["-nostdlib", "-shared", "-fPIC", "-fno-sanitize=all", f"-Wl,-soname,{name}", "-Wl,--no-as-needed"]
        words = [str(folder / "nothing.c"), *(str(made[need]) for need in needs)]
        compile_c(["-target", f"{machine}-linux-gnu.{GLIBC}", *flags, *words], output, cache_dir())
        made[file or name] = output

    library("ld-linux-aarch64.so.1")
    library("libc.so.6", "ld-linux-aarch64.so.1")
    library("libm.so.6", "libc.so.6")
    for name in ("libdl.so.2", "libpthread.so.0", "libodd.so.3"):
        library(name)
    for runtime in RUNTIMES:
        library(library_name(runtime), "libc.so.6", "libm.so.6")
    library("libneeds.so", "libodd.so.3", "libc.so.6", file="needs")
    library("libx86.so", machine="x86_64", file="x86")
    return made


@pytest.fixture
def sources(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the fetchers give: runtime -> a library, and the C library; both count how often they are asked."""
    names = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0")
    given: dict[str, Any] = {runtime: parts[library_name(runtime)] for runtime in RUNTIMES}
    given |= {"support": {name: parts[name] for name in names}, "asked": [], "version": "1.0"}

    def bundled(path: Path) -> BundledFile:
        return BundledFile(path, file_sha256(path), f"test:{path.name}")

    def fetch_library(runtime: str, machine: str, scratch: Path, on_step: Callable[[str], None]) -> BundledFile:
        given["asked"].append((runtime, machine))
        return bundled(given[runtime])

    def fetch_c_library(abi: str, scratch: Path, on_step: Callable[[str], None]) -> dict[str, BundledFile]:
        given["asked"].append(abi)
        return {name: bundled(path) for name, path in given["support"].items()}

    monkeypatch.setattr(module, "fetch_library", fetch_library)
    monkeypatch.setattr(module, "fetch_c_library", fetch_c_library)
    monkeypatch.setattr(module, "installed_version", lambda runtime: given["version"])
    return given


@pytest.fixture
def build(sources: dict[str, Any], tmp_path: Path) -> Callable[..., RuntimeBundle]:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache_dir() / "zig").mkdir(parents=True, exist_ok=True)
    (cache / "zig").symlink_to(cache_dir() / "zig")

    def run(*runtimes: str, abi: str = "arm64-v8a") -> RuntimeBundle:
        return linux_bundle(abi, runtimes or tuple(RUNTIMES), cache)

    return run


def test_bundle(build: Callable[..., RuntimeBundle], sources: dict[str, Any]) -> None:
    made = build()
    assert (made.kind, made.abi, made.loader) == ("linux", "arm64-v8a", "ld-linux-aarch64.so.1")
    assert set(made.files) == {"handset-runner", "libonnxruntime.so", "liblitert.so", *sources["support"]}
    assert made.versions == {"litert": "1.0", "onnxruntime": "1.0"}
    for name, file in made.files.items():
        assert file.path.name == name and file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    runner = read_elf_file(made.runner.path)
    assert runner.abi == "arm64-v8a" and runner.interpreter == "/lib/ld-linux-aarch64.so.1"
    assert made.runner.origin.endswith(f"aarch64-linux-gnu.{GLIBC}")
    assert sources["asked"] == [("litert", "aarch64"), ("onnxruntime", "aarch64"), "arm64-v8a"]


def test_nothing_is_fetched_a_second_time(build: Callable[..., RuntimeBundle], sources: dict[str, Any]) -> None:
    first = build("litert", "onnxruntime")
    del sources["asked"][:]
    assert build("onnxruntime", "litert", "litert") == first and sources["asked"] == [], "in whatever order"


@pytest.mark.parametrize("what", ["runtimes", "version", "pins", "runner", "compiler"])
def test_what_decides_that_it_is_built_again(
    what: str,
    build: Callable[..., RuntimeBundle],
    sources: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, runtimes = build(), tuple(RUNTIMES)
    if what == "runtimes":
        runtimes = ("litert",)
    elif what == "version":
        sources["version"] = "1.1"
    elif what == "pins":
        (tmp_path / "pins").write_text("others")
        monkeypatch.setattr(module, "PINS", tmp_path / "pins")
    elif what == "runner":
        monkeypatch.setattr(module, "runner_recipe", lambda machine: "another")
    else:
        import devices.bundle

        monkeypatch.setattr(devices.bundle, "C_FLAGS", (*devices.bundle.C_FLAGS, "-DOTHER"))
    second = build(*runtimes)
    assert second.runner.path.parent != first.runner.path.parent
    assert set(second.libraries) == set(runtimes)
    assert first.runner.path.exists(), "the old one stays"


def test_another_abi_or_runtime(build: Callable[..., RuntimeBundle], sources: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="there is no linux bundle for armeabi-v7a; there is for arm64-v8a, x86_64"):
        build(abi="armeabi-v7a")
    with pytest.raises(BundleError, match="the linux bundle has no runtime tflite; it has onnxruntime, litert"):
        build("litert", "tflite")
    assert sources["asked"] == []


def test_library_for_another_processor(
    build: Callable[..., RuntimeBundle], sources: dict[str, Any], parts: dict[str, Path], tmp_path: Path
) -> None:
    sources["litert"] = parts["x86"]
    with pytest.raises(BundleError, match=r"liblitert\.so \(test:x86\) is for x86_64, not arm64-v8a"):
        build()
    assert not list((tmp_path / "cache" / "bundles").rglob(LOCK))


def test_library_that_needs_another(
    build: Callable[..., RuntimeBundle], sources: dict[str, Any], parts: dict[str, Path]
) -> None:
    sources["litert"] = parts["needs"]
    with pytest.raises(
        BundleError, match=r"liblitert\.so \(test:needs\) needs libodd\.so\.3, which the linux bundle does not have"
    ):
        build()
    sources["support"]["libodd.so.3"] = parts["libodd.so.3"]
    assert "libodd.so.3" in build().files


def test_loader_is_one_of_the_files(
    build: Callable[..., RuntimeBundle], sources: dict[str, Any], parts: dict[str, Path]
) -> None:
    del sources["support"]["ld-linux-aarch64.so.1"]
    with pytest.raises(BundleError, match=r"needs ld-linux-aarch64\.so\.1"):
        build()


def test_damaged_library(build: Callable[..., RuntimeBundle], sources: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(sources["litert"].read_bytes()[:100])
    sources["litert"] = tmp_path / "cut"
    with pytest.raises(BundleError, match="is not an ELF file that can be used"):
        build()


@pytest.mark.parametrize("name", ["handset-runner", "liblitert.so", "libc.so.6", LOCK])
def test_tampered(name: str, build: Callable[..., RuntimeBundle], sources: dict[str, Any]) -> None:
    path = build().runner.path.with_name(name)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(
        BundleError, match=rf"is refused: {name} .*try: handset bundle clean, then handset bundle build"
    ):
        build()


def test_all_that_fits(parts: dict[str, Path]) -> None:
    assert set(ABIS) == {"arm64-v8a", "x86_64"}
    check_fit("arm64-v8a", {})
    check_fit("x86_64", {"x": BundledFile(parts["x86"], "", "")})
