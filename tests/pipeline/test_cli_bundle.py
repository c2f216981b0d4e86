"""`handset bundle` as a user types it: in a process of its own, with a small AAR, and without any network."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import runpy
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from devices.adb.find import phone_at
from devices.android_bundle import ENTRIES
from devices.bundle import compile_c
from devices.bundle_lock import LOCK
from devices.discovery import cache_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

CLI = runpy.run_path(str(Path(__file__).with_name("cli_command.py")))
ABIS = ("arm64-v8a", "x86_64")
OTHER = "arm64-v8a" if platform.machine() == "x86_64" else "x86_64"
"""The ABI whose wheels have to be downloaded."""


@pytest.fixture(scope="module")
def aar(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> Path:
    """An archive with a library for both ABIs that exports what TensorFlow Lite's does, and is empty."""
    folder = tmp_path_factory.mktemp("aar")
    (folder / "source.c").write_text("".join(f"void {one}(void) {{}}\n" for one in sorted(ENTRIES["tflite"])))
    with zipfile.ZipFile(folder / "tensorflow-lite-9.9.aar", "w") as opened:
        for abi, machine in zip(ABIS, ("aarch64", "x86_64"), strict=True):
            flags = ["-nostdlib", "-shared", "-fPIC", "-s", "-fno-sanitize=all", "-Wl,-z,max-page-size=4096"]
            words = ["-target", f"{machine}-linux-gnu", *flags, str(folder / "source.c")]
            compile_c(words, folder / "lib.so", cache_dir())
            opened.write(folder / "lib.so", f"jni/{abi}/libtf.so")
    return folder / "tensorflow-lite-9.9.aar"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Environment variables: a cache of its own but for the compiler's, and no network for pip, apt, Python and Maven."""
    (cache_dir() / "zig").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "handset").mkdir(parents=True)
    (tmp_path / "cache" / "handset" / "zig").symlink_to(cache_dir() / "zig")
    (tmp_path / "bin").mkdir()
    for name, says in (("apt-get", "E: no apt here"), ("mvn", "[ERROR] no maven here")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 100\n")
        (tmp_path / "bin" / name).chmod(0o755)
    nowhere = "http://127.0.0.1:9"
    return {
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HANDSET_AAR": "",
        "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{nowhere}/simple", "PIP_RETRIES": "0", "PIP_FIND_LINKS": "",
        "https_proxy": nowhere, "http_proxy": nowhere,
    }  # fmt: skip


def bundles(home: dict[str, str]) -> list[str]:
    root = Path(home["XDG_CACHE_HOME"]) / "handset" / "bundles"
    return sorted(str(path.relative_to(root).parent.parent) for path in root.rglob(LOCK))


def half_built(home: dict[str, str]) -> list[Path]:
    return [path for path in Path(home["XDG_CACHE_HOME"]).rglob(".part-*") if "/zig/" not in str(path)]


def test_build_show_clean(aar: Path, home: dict[str, str], tmp_path: Path) -> None:
    def handset(*words: str) -> tuple[int, str, str]:
        status: tuple[int, str, str] = CLI["run"]("bundle", *words, cwd=tmp_path, env=home)
        return status

    assert handset("show") == (0, "no bundles are built; handset bundle build builds them\n", "")
    status, out, err = handset("build", "--bundle", "android", "--aar", str(aar))
    assert status == 0 and bundles(home) == [f"android-{abi}" for abi in ABIS]
    digest = hashlib.sha256(aar.read_bytes()).hexdigest()
    lines = out.splitlines()
    assert len(lines) == 6 and [line.split()[:2] for line in (lines[0], lines[3])] == [["android", abi] for abi in ABIS]
    origin = f"aar:org.tensorflow:tensorflow-lite:9.9 sha256:{digest}!jni/arm64-v8a/libtf.so"
    assert lines[2].split(None, 2)[::2] == ["libtflite.so", origin]
    assert lines[1].split()[0] == "handset-runner" and "ziglang" in lines[1]
    note = "handset: libtf.so is aligned to 4 KiB: phones with 16 KiB pages refuse it; try: --bundle linux\n"
    assert err == note, "said once for both"
    assert handset("build", "--bundle", "android", "--aar", str(aar)) == (0, out, note), "and again"

    status, out, err = handset("show", "--json", "list.json")
    assert (status, err) == (0, "") and [line.split()[:2] for line in out.splitlines()] == [
        ["android", abi] for abi in ABIS
    ]
    assert out.count("tflite 9.9") == 2
    document = json.loads((tmp_path / "list.json").read_text())
    assert (document["schema_version"], document["kind"]) == (1, "bundles")
    assert [(row["abi"], row["versions"], row["wrong"]) for row in document["bundles"]] == [
        (abi, {"tflite": "9.9"}, None) for abi in ABIS
    ]

    (library,) = Path(home["XDG_CACHE_HOME"]).rglob("android-x86_64/*/libtflite.so")
    library.write_bytes(library.read_bytes() + b"\0")
    status, out, _ = handset("show")
    assert status == 1 and "libtflite.so has" in out and out.count("tflite 9.9") == 1
    status, out, err = handset("build", "--bundle", "android", "--abi", "x86_64", "--aar", str(aar))
    assert (status, out) == (3, "") and "libtflite.so has" in CLI["error_line"](err)
    assert err.endswith("try: handset bundle clean, then handset bundle build\n")

    status, out, err = handset("clean")
    assert (status, err) == (0, "") and out.endswith(f" bytes are removed from {home['XDG_CACHE_HOME']}/handset\n")
    assert bundles(home) == [] and handset("show")[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, "ACTION"),
        (("make",), 2, "invalid choice: 'make'"),
        (("build", "--bundle", "host"), 2, "--bundle host: there is no host; try: linux, android"),
        (("build", "--bundle", ","), 2, "--bundle ,: there is no name in it"),
        (("build", "--abi", "arm64-v8a,armeabi-v7a"), 2, "there is no armeabi-v7a; try: arm64-v8a, x86_64"),
        (("build", "--bundle", "linux", "--aar", "x.aar"), 2, "--aar is for the android bundle only"),
        (("build", "--bundle", "android", "--aar", "none.aar"), 3, "none.aar is no file"),
        (("build", "--bundle", "android"), 3, "Maven cannot get org.tensorflow:tensorflow-lite:2.16.1: no maven here"),
        (("build", "--bundle", "linux", "--abi", OTHER), 3, "pip cannot download "),
        (("build", "--bundle", "linux", "--abi", platform.machine()), 3, "cannot fetch libc6-"),
        (("clean", "--device", "none"), 3, "no device named 'none'"),
        (("show", "--json", "none/list.json"), 1, "none/list.json"),
    ],
)
def test_asked_in_vain(words: tuple[str, ...], status: int, message: str, home: dict[str, str], tmp_path: Path) -> None:
    found, _, err = CLI["run"]("bundle", *words, cwd=tmp_path, env=home)
    line = CLI["error_line"](err)
    assert found == status and message in line and len(line) < 800
    assert bundles(home) == [] and half_built(home) == []


def test_one_that_cannot_be_built_does_not_keep_the_others_from_it(
    aar: Path, home: dict[str, str], tmp_path: Path
) -> None:
    status, out, err = CLI["run"]("bundle", "build", "--aar", str(aar), cwd=tmp_path, env=home)
    assert status == 3 and bundles(home) == [f"android-{abi}" for abi in ABIS]
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == ["android", "android"]
    lines = err.splitlines()
    assert len(lines) == 3 and "pages" in lines[0] and all(line.startswith("handset: ") for line in lines)


def test_archives_of_the_environment(aar: Path, home: dict[str, str], tmp_path: Path) -> None:
    words = ("bundle", "build", "--bundle", "android", "--abi", "x86_64")
    status, out, _ = CLI["run"](*words, cwd=tmp_path, env={**home, "HANDSET_AAR": str(aar)})
    assert status == 0 and "tensorflow-lite:9.9" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(number: signal.Signals, home: dict[str, str], tmp_path: Path) -> None:
    began = tmp_path / "began"
    (tmp_path / "bin" / "mvn").write_text(f"#!/bin/sh\ntouch '{began}'\nexec sleep 300\n")
    process = CLI["start"]("bundle", "build", "--bundle", "android", cwd=tmp_path, env=home)
    CLI["wait_until"](began.exists, "Maven is asked")
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    assert CLI["finish"](process) == (130, "", "handset: stopped\n")
    assert bundles(home) == [] and half_built(home) == []
    assert not list((tmp_path / "cache").rglob("*.aar"))


def test_two_at_once(aar: Path, home: dict[str, str], tmp_path: Path) -> None:
    words = ("bundle", "build", "--bundle", "android", "--abi", "arm64-v8a", "--aar", str(aar))
    both = [CLI["start"](*words, cwd=tmp_path, env=home) for _ in range(2)]
    first, second = (CLI["finish"](process) for process in both)
    assert first == second and first[0] == 0
    assert bundles(home) == ["android-arm64-v8a"] and half_built(home) == []


def test_clean_a_phone(home: dict[str, str], tmp_path: Path) -> None:
    if (reason := Phone.available()) is not None:
        pytest.skip(reason)
    with Phone("x86_64", "pixel", cores=2) as phone, phone_at("127.0.0.1", phone.port, phone.serial).open() as device:
        work = device.workdir
        script = 'mkdir -p "$1/bundles/0" "$1/models" && cd "$1" && touch bundles/0/a models/m.onnx models/m.onnx.00000000.part'
        assert device.run(["sh", "-c", script, "sh", work]).status == 0
        status, out, err = CLI["run"]("bundle", "clean", "--device", phone.serial, cwd=tmp_path, env=home)
        assert (status, err) == (0, "") and out.startswith(f"{phone.serial}: {work}/bundles is removed\n")
        left = device.run(["find", work]).stdout.decode().split()
        assert sorted(left) == [work, f"{work}/models", f"{work}/models/m.onnx"]


def test_help_of_every_action(home: dict[str, str], tmp_path: Path) -> None:
    for words in ((), ("build",), ("show",), ("clean",)):
        found: Any = CLI["run"]("bundle", *words, "--help", cwd=tmp_path, env=home)
        assert found[0] == 0 and found[1].startswith(" ".join(["usage: handset bundle", *words])) and found[2] == ""
