"""Libraries out of wheels: pip itself gets them, from a folder of wheels of our own making."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devices import wheels
from devices.bundle import RUNTIMES, find_library
from devices.errors import BundleError
from devices.wheels import download, fetch_library, read_wheel

OTHER = "aarch64" if platform.machine() == "x86_64" else "x86_64"
LIBRARY = b"\x7fELF a library" * 1000
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


def wheel(folder: Path, version: str = "1.2.3", tag: str = f"manylinux_2_28_{OTHER}", **files: bytes) -> Path:
    name, info = f"tiny_runtime-{version}-{PYTHON}-{PYTHON}-{tag}.whl", f"tiny_runtime-{version}.dist-info"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-runtime\nVersion: {version}\n")
        opened.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {PYTHON}-{PYTHON}-{tag}\n")
        opened.writestr(f"{info}/RECORD", "")
        for path, content in (files or {"tiny/libtiny.so.1": LIBRARY, "tiny/other.so": b"other"}).items():
            opened.writestr(path, content)
    return folder / name


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows, and a runtime whose wheels may lie in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setitem(RUNTIMES, "tiny", ("tiny-runtime", "tiny/libtiny.so."))
    monkeypatch.setattr(wheels, "installed_version", lambda runtime: "1.2.3")
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.parametrize("tag", ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"])
def test_library_for_another_processor(tag: str, index: Path, scratch: Path) -> None:
    made = wheel(index, tag=f"{tag}_{OTHER}")
    wheel(index, "1.2.4")
    wheel(index, tag=f"manylinux_2_28_{platform.machine()}")
    steps: list[str] = []
    found = fetch_library("tiny", OTHER, scratch, steps.append)
    assert found.path == scratch / "libtiny.so" and found.path.read_bytes() == LIBRARY
    assert found.sha256 == hashlib.sha256(LIBRARY).hexdigest()
    assert found.origin == f"pypi:tiny-runtime==1.2.3:{made.name}!tiny/libtiny.so.1"
    assert steps == [f"tiny-runtime 1.2.3 for {OTHER} from PyPI"]
    assert list((scratch / "tiny").iterdir()) == [], "the wheel is not kept"


def test_own_processor_takes_what_is_installed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(*_: object) -> Path:
        raise AssertionError("pip was called")

    monkeypatch.setattr(wheels, "download", no_pip)
    if platform.libc_ver()[0] == "glibc":
        assert fetch_library("litert", platform.machine(), scratch, lambda text: None) == find_library("litert")
    for what, value in (("libc_ver", ("", "")), ("machine", "arm64"), ("machine", OTHER)):
        with monkeypatch.context() as patch, pytest.raises(AssertionError, match="pip was called"):
            patch.setattr(platform, what, lambda value=value: value)
            fetch_library(
                "litert", "x86_64" if what == "libc_ver" else platform.uname().machine, scratch, lambda text: None
            )


@pytest.mark.parametrize("tag", [f"manylinux_2_29_{OTHER}", f"musllinux_1_2_{OTHER}", "win_amd64", "macosx_11_0_arm64"])
def test_no_wheel_that_fits(tag: str, index: Path, scratch: Path) -> None:
    wheel(index, tag=tag)
    with pytest.raises(BundleError) as caught:
        fetch_library("tiny", OTHER, scratch, lambda text: None)
    assert str(caught.value) == (
        f"pip cannot download tiny-runtime==1.2.3 for {OTHER}: No matching distribution found for tiny-runtime==1.2.3; "
        "try: a network that reaches PyPI"
    )


def test_no_network(index: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        BundleError, match=r"^pip cannot download tiny-runtime==1\.2\.3 for .*: .*; try: a network"
    ) as caught:
        download("tiny-runtime", "1.2.3", OTHER, scratch / "tiny")
    assert len(str(caught.value)) < 450 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'ERROR: first' >&2; echo 'ERROR: the last' >&2; echo hint >&2; exit 1", "aarch64: the last;"),
        ("echo; echo No module named pip >&2; exit 1", "aarch64: No module named pip;"),
        ("exit 3", "aarch64: status 3, 0 wheels;"),
        ("exit 0", "aarch64: status 0, 0 wheels;"),
        ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "aarch64: x{300};"),
    ],
)
def test_last_words(script: str, message: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch / "python").write_text(f"#!/bin/sh\n{script}\n")
    (scratch / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(scratch / "python"))
    with pytest.raises(BundleError, match=message):
        download("a", "1", "aarch64", scratch / "a")


def test_pip_that_hangs(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (scratch / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(scratch / "python"))
    monkeypatch.setattr(wheels, "PIP_LIMIT_S", 0.2)
    with pytest.raises(BundleError, match="pip did not download a==1 for aarch64 within 0 s"):
        download("a", "1", "aarch64", scratch / "a")


def test_runtime_that_is_not_installed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "tvm", ("no-such-distribution", "tvm/lib"))
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(BundleError, match="runtime tvm needs the package no-such-distribution"):
        fetch_library("tvm", OTHER, scratch, lambda text: None)


PREFIX = "tiny/libtiny.so."


@pytest.mark.parametrize("percent", [0, 1, 50, 99])
def test_wheel_that_was_cut(percent: int, tmp_path: Path) -> None:
    made = wheel(tmp_path)
    os.truncate(made, made.stat().st_size * percent // 100)
    with pytest.raises(BundleError, match=r"tiny_runtime-1\.2\.3.*\.whl is damaged: "):
        read_wheel(made, PREFIX)


def test_wheel_whose_library_was_changed(tmp_path: Path) -> None:
    made = wheel(tmp_path)
    content = made.read_bytes()
    with zipfile.ZipFile(made) as opened:
        info = opened.getinfo("tiny/libtiny.so.1")
    place = info.header_offset + 30 + len(info.filename) + 10
    made.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(BundleError, match="is damaged: "):
        read_wheel(made, PREFIX)


def test_wheel_with_other_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match=r"holds 0 libraries tiny/libtiny\.so\.\* in 4 files, not one"):
        read_wheel(wheel(tmp_path, **{"tiny/lib.so": b""}), PREFIX)
    with pytest.raises(BundleError, match="holds 2 libraries"):
        read_wheel(wheel(tmp_path, **{PREFIX + "1": b"", PREFIX + "2": b""}), PREFIX)
    made = wheel(tmp_path, **{PREFIX + "1": bytes(2 << 20)})
    assert read_wheel(made, PREFIX) == (PREFIX + "1", bytes(2 << 20))
    monkeypatch.setattr(wheels, "MAX_LIBRARY_BYTES", 1 << 20)
    with pytest.raises(BundleError, match=r"libtiny\.so\.1 is larger than 1 MiB"):
        read_wheel(made, PREFIX)
    monkeypatch.setattr(wheels, "MAX_ENTRIES", 3)
    with pytest.raises(BundleError, match="in 4 files"):
        read_wheel(made, PREFIX)
    monkeypatch.setattr(wheels, "MAX_WHEEL_BYTES", 100)
    with pytest.raises(BundleError, match="is larger than 0 MiB and is not read"):
        read_wheel(made, PREFIX)
    with pytest.raises(BundleError, match=r"none\.whl is damaged: "):
        read_wheel(tmp_path / "none.whl", PREFIX)
