"""One way to every bundle; what was built is listed with what is wrong with it, and can be removed here and on a phone."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices import bundle_store
from devices.aar import Aar
from devices.bundle import RUNTIMES, RuntimeBundle
from devices.bundle_store import KINDS, abis, built_bundles, bundle_for, clean, clean_device, find_aars
from devices.discovery import cache_dir
from devices.errors import BundleError, DeviceError
from devices.host import HostTransport
from devices.maven import DEFAULT, Coordinates


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The makers, which only write down what they are asked for."""
    found: list[Any] = []

    def maker(name: str) -> Callable[..., Any]:
        def make(*arguments: Any) -> Any:
            found.append((name, *arguments))
            return (name, ["a note"]) if name == "android" else name

        return make

    for name in KINDS:
        monkeypatch.setattr(bundle_store, f"{name}_bundle", maker(name))
    monkeypatch.setattr(bundle_store, "open_aar", lambda path: Aar(path, "aar", "1", "0"))
    monkeypatch.setattr(bundle_store, "fetch_aar", lambda coordinates, cache, on_step: coordinates)
    monkeypatch.delenv("HANDSET_AAR", raising=False)
    return found


def test_each_kind(asked: list[Any], tmp_path: Path) -> None:
    assert bundle_for("linux", "arm64-v8a", None, [], tmp_path, print) == ("linux", [])
    assert asked.pop() == ("linux", "arm64-v8a", ["onnxruntime", "litert"], tmp_path, print)
    assert bundle_for("linux", "x86_64", ["litert"], ["ignored.aar"], tmp_path, print) == ("linux", [])
    assert asked.pop() == ("linux", "x86_64", ["litert"], tmp_path, print)
    steps: list[str] = []
    assert bundle_for("host", platform.machine(), None, [], tmp_path, steps.append) == ("host", [])
    assert asked.pop() == ("host", platform.machine(), ["onnxruntime", "litert"], tmp_path)
    assert steps == ["the runner for this machine"]
    assert bundle_for("android", "x86_64", None, ["a.aar"], tmp_path, print) == ("android", ["a note"])
    assert asked.pop() == ("android", "x86_64", [Aar(Path("a.aar"), "aar", "1", "0")], tmp_path, None, print)
    assert bundle_for("android", "x86_64", ["tflite"], ["a.aar"], tmp_path, print) == ("android", ["a note"])
    assert asked.pop()[-2] == ["tflite"]


@pytest.mark.parametrize(
    ("kind", "abi", "runtimes", "message"),
    [
        ("apple", "arm64-v8a", None, "there is no bundle 'apple'; there are host, linux, android"),
        ("linux", "armeabi-v7a", None, "there is no linux bundle for armeabi-v7a; there is for arm64-v8a, x86_64"),
        ("android", "armeabi-v7a", None, "there is no android bundle for armeabi-v7a; there is for arm64-v8a, x86_64"),
        ("host", "z80", None, f"there is no host bundle for z80; there is for {platform.machine()}"),
        ("linux", "x86_64", ["litert", "tflite"], "the linux bundle has no runtime tflite; it has onnxruntime, litert"),
        ("host", platform.machine(), ["tflite"], "the host bundle has no runtime tflite; it has onnxruntime, litert"),
        ("android", "x86_64", ["tvm"], "the android bundle has no runtime tvm; it has tflite, litert, onnxruntime"),
    ],
)
def test_what_there_is_not(
    kind: str, abi: str, runtimes: list[str] | None, message: str, asked: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as caught:
        bundle_for(kind, abi, runtimes, [], tmp_path)
    assert str(caught.value) == message and asked == []


def test_which_archives(asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a:b:1").write_text("a file of that name")
    monkeypatch.chdir(tmp_path)
    assert find_aars(["a.aar", "g:a:1", "a:b:1"], tmp_path) == [
        Aar(Path("a.aar"), "aar", "1", "0"), Coordinates("g", "a", "1"), Aar(Path("a:b:1"), "aar", "1", "0"),
    ]  # fmt: skip
    (default,) = find_aars([], tmp_path)
    assert str(default) == DEFAULT
    monkeypatch.setenv("HANDSET_AAR", f"/x/one.aar{os.pathsep}{os.pathsep}two.aar")
    assert [aar.path for aar in find_aars([], tmp_path)] == [Path("/x/one.aar"), Path("two.aar")]
    assert [aar.path for aar in find_aars(["three.aar"], tmp_path)] == [Path("three.aar")]


def test_no_archive_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.aar is no file of at most 512 MiB; try: the path of an \.aar file"):
        find_aars([str(tmp_path / "none.aar")], tmp_path)


def test_real_host_bundle(cache_home: Path) -> None:
    made, notes = bundle_for("host", platform.machine(), None, [], cache_dir())
    assert set(made.libraries) == set(RUNTIMES) and notes == [] and (made.support, made.loader) == ({}, "")
    assert abis("host") == (platform.machine(),)


# What is there.


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two built bundles and the rest of a cache."""
    import runpy

    lock = runpy.run_path(str(Path(__file__).with_name("test_devices_bundle_lock.py")))
    lock["kept"](tmp_path / "cache")
    lock["kept"](tmp_path / "cache", recipe="b")
    for name in ("maven", "aar", "runner", "runner-android", "work", "zig"):
        (tmp_path / "cache" / name).mkdir()
        (tmp_path / "cache" / name / "file").write_bytes(b"x" * 100)
    return tmp_path / "cache"


def test_list(cache: Path) -> None:
    (cache / "bundles" / "linux-x86_64" / ".part-abc").mkdir()
    first, second = built_bundles(cache)
    assert (first.kind, first.abi, first.wrong) == ("linux", "x86_64", "")
    assert isinstance(first.bundle, RuntimeBundle) and first.folder == first.bundle.runner.path.parent
    assert first.size_bytes == sum(path.stat().st_size for path in first.folder.iterdir())
    (second.folder / "libc.so.6").write_bytes(b"changed")
    assert built_bundles(cache)[0].wrong == ""
    wrong = built_bundles(cache)[1]
    assert wrong.bundle is None and "libc.so.6 has 7 bytes, not 0" in wrong.wrong
    (cache / "bundles" / "stray").write_text("")
    (cache / "bundles" / "linux-x86_64" / "odd").write_text("")
    assert len(built_bundles(cache)) == 3
    assert built_bundles(cache / "none") == []


def test_clean(cache: Path) -> None:
    (cache / "bundles" / "linux-x86_64" / ".part-abc").mkdir()
    (cache / "bundles" / "linux-x86_64" / ".part-abc" / "x").write_bytes(b"x" * 1000)
    expected = 400 + 1000 + sum(built.size_bytes for built in built_bundles(cache))
    assert clean(cache) == expected
    assert sorted(path.name for path in cache.iterdir()) == ["work", "zig"], "what was deployed stays"
    assert clean(cache) == 0
    (cache / "bundles").write_text("no folder")
    with pytest.raises(BundleError, match=r"cannot remove .*/bundles: Not a directory; try: rm -r "):
        clean(cache)


def test_clean_follows_no_link(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (cache / "maven" / "link").symlink_to(tmp_path / "mine")
    clean(cache)
    assert (tmp_path / "mine" / "file").exists()


def test_clean_device(tmp_path: Path) -> None:
    device = HostTransport(tmp_path / "it's work")
    clean_device(device)
    work = Path(device.workdir)
    for name in ("bundles/0123/libc.so.6", "models/a.onnx", "models/a.onnx.0a1b2c3d.part", "results"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("x")
    clean_device(device)
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()) == [
        "models/a.onnx",
        "results",
    ]
    assert not (work / "bundles").exists()


def test_clean_device_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostTransport(tmp_path / "work")
    monkeypatch.setattr(bundle_store, "CLEAN", "echo no >&2; echo way >&2; exit 1")
    with pytest.raises(DeviceError, match=rf"cannot remove {device.workdir}/bundles on host: no way"):
        clean_device(device)
