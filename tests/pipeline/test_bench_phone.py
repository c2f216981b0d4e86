"""`handset bench` on the test phone from models to page, as a user types it: what it tells, and what it leaves behind."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices.android_bundle import ENTRIES
from devices.bundle import compile_c
from devices.discovery import cache_dir, open_device
from devices.lock import device_lock, lock_key
from latency_luts import OpKey
from pipeline import cli, datasets

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
CLI, QUICK = ON["CLI"], ON["QUICK"]
ROOT: Path = CLI["ROOT"]
CONVOLUTIONS = 4
"""Of digits_cnn."""


@pytest.fixture(scope="module", autouse=True)
def bundle() -> Any:
    return ON["need"]()


@pytest.fixture(scope="module")
def folder(digits_files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = ON["place"](digits_files, tmp_path_factory.mktemp("bench"))
    return path


@pytest.fixture(scope="module")
def pixel() -> Iterator[Phone]:
    with Phone("x86_64", "pixel", cores=2) as phone:
        yield phone


@dataclass
class Done:
    """Two benches of the same: the command, then `make bench`. before, after: the phone's settings around each."""

    phone: Phone
    folder: Path
    first: tuple[int, str, str]
    document: dict[str, Any]
    second: dict[str, Any]
    carried: list[int]
    before: dict[str, str]


@pytest.fixture(scope="module")
def done(pixel: Phone, folder: Path) -> Iterator[Done]:
    before = ON["settings"](pixel)
    with Proxy(pixel.port) as proxy:
        words = ("a.onnx", "b.tflite", "--device", proxy.serial, *QUICK)
        first = CLI["run"]("bench", *words, "--json", "out.json", cwd=folder, env=ON["environment"](folder))
        assert first[0] in (0, 4), first[2]
        ON["is_tidy"](pixel, before)
        carried = [proxy.carried["to_phone"]]
        again = make_bench(folder, proxy.serial) if shutil.which("make") else None
        if again is None:
            words = (*words, "--json", "again.json")
            CLI["run"]("bench", *words, cwd=folder, env=ON["environment"](folder))
        carried.append(proxy.carried["to_phone"] - carried[0])
    second = json.loads((folder / "again.json").read_text())
    yield Done(pixel, folder, first, json.loads((folder / "out.json").read_text()), second, carried, before)


def make_bench(folder: Path, device: str) -> subprocess.CompletedProcess[str]:
    """`make bench` with this interpreter's environment in the place of .venv, which make would install."""
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "handset").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pipeline "$@"\n')
    (binaries / "handset").chmod(0o755)
    arguments = shlex.join([*QUICK, "--json", str(folder / "again.json"), "--reports", str(folder / "reports")])
    models = f"{folder / 'a.onnx'} {folder / 'b.tflite'}"
    command = ["make", "-C", str(ROOT), "bench", "-o", ".venv/.installed", f"BIN={binaries}", f"DEVICE={device}"]
    command += [f"MODELS={models}", f"ARGS={arguments}"]
    variables = {**ON["environment"](folder), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


def test_both_runtimes_are_measured_with_all_their_kernels(done: Done) -> None:
    document = done.document
    assert document["complete"] is True
    assert [(p["network"], p["runtime"]) for p in document["profiles"]] == [("a", "onnxruntime"), ("b", "litert")]
    for profile in document["profiles"]:
        assert profile["failed"] is None and profile["latency_ms"]["median"] > 0 and profile["samples_ns"]
        assert sum(k["latency_ms"]["corrected"]["median"] for k in profile["kernels"]) > 0
        keys = [OpKey.parse(kernel["key"]).op for kernel in profile["kernels"] if kernel["key"]]
        assert keys.count("conv2d") == CONVOLUTIONS and "linear" in keys, keys
        assert profile["numerics"]["agrees"] is True, profile["numerics"]
    assert done.first[0] == (0 if all(p["verdict"]["stable"] for p in document["profiles"]) else 4)


def test_what_the_phone_was_like_is_told(done: Done) -> None:
    conditions = done.document["device_conditions"]
    assert [one["state"] for one in conditions["set"]] == ["set"] * 4
    assert conditions["boot_ids"] == [done.phone.boot_id]
    trace = conditions["trace"]
    assert trace[0]["launch"] == 0 and trace[-1]["at_s"] > trace[0]["at_s"] == 0.0
    noted = [point for point in trace if "battery_level" in point]
    assert len(noted) == 2 and noted[0]["skin_c"] == pytest.approx(31.1, abs=0.1) and noted[0]["battery_level"] == 88
    watched = [point for point in trace if "battery_level" not in point]
    assert len(watched) >= 3 and all(set(point["clock_khz"]) == {"0", "1"} for point in watched)
    assert done.document["settings"]["cpu_mask"] == 2, "the biggest core"


def test_every_file_on_the_phone_has_its_origin_and_its_sum(done: Done, bundle: Any) -> None:
    (one,) = done.document["bundles"]
    assert (one["kind"], one["abi"], one["sha256"]) == ("linux", "x86_64", bundle.sha256)
    assert set(one["versions"]) == {"onnxruntime", "litert"} and set(one["files"]) == set(bundle.files)
    for name, file in bundle.files.items():
        assert one["files"][name] == {"sha256": file.sha256, "origin": file.origin} and file.origin
        on_phone = done.phone.root / ON["WORKDIR"] / "bundles" / bundle.sha256 / name
        assert on_phone.stat().st_size == file.path.stat().st_size
    assert one["pushed_bytes"] == sum(file.path.stat().st_size for file in bundle.files.values())


def test_a_simulated_phone_gets_no_table_and_its_page_says_so(done: Done) -> None:
    (run, _) = ON["run_folders"](done.folder)
    assert done.document["device"]["simulated"] is True and done.document["tables"] == {}
    assert list(run.glob("*.parquet")) == [] and json.loads((run / "result.json").read_text()) == done.document
    page = (run / "index.html").read_text()
    assert "SIMULATED" in page and "<script" not in page and "Pixel 9" in page
    assert done.first[1].startswith("SIMULATED: ")
    assert CLI["half_written"](done.folder) == []


def test_nothing_but_notices_without_a_terminal(done: Done) -> None:
    assert done.first[2].splitlines() == [
        "handset: a is a .onnx file: not measured in litert",
        "handset: b is a .tflite file: not measured in onnxruntime",
    ]


def test_a_second_bench_sends_nothing_again_and_make_bench_is_the_same(done: Done) -> None:
    assert done.second["bundles"][0]["pushed_bytes"] == 0
    assert {p["network"]: p["artifact"]["sha256"] for p in done.second["profiles"]} == {
        p["network"]: p["artifact"]["sha256"] for p in done.document["profiles"]
    }
    assert done.carried[0] > 40_000_000 and done.carried[1] < 500_000, done.carried
    ON["is_tidy"](done.phone, done.before)


def test_the_delegate_that_was_asked_for(pixel: Phone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = ("a.onnx", "b.tflite", "--device", pixel.serial, "--delegate", "builtin", "--json", "builtin.json", *QUICK)
    status, _, err = ON["bench"](*words)
    assert status in (0, 4), err
    onnx, litert = ON["document"](folder / "builtin.json")["profiles"]
    assert (onnx["runtime"], litert["runtime"], litert["delegate"]) == ("onnxruntime", "litert", "builtin")
    assert litert["numerics"]["agrees"] is True
    keys = {kernel["name"]: kernel["key"] for kernel in litert["kernels"]}
    assert "FULLY_CONNECTED" in keys and "CONV_2D" in keys, "the interpreter's own names"
    convolutions = [k for k in litert["kernels"] if k["name"].endswith("CONV_2D")]
    assert [OpKey.parse(one["key"]).op for one in convolutions] == ["conv2d"] * CONVOLUTIONS


def test_an_arm64_phone_answers_as_torch(
    cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_network: Any
) -> None:
    ON["need"]("arm64-v8a")
    CLI["export_once"](cache_home, monkeypatch)
    *training, images, labels = datasets.digits()
    some = (*training, images[:30], labels[:30])  # qemu takes 30 ms for one
    monkeypatch.setattr(datasets, "digits", lambda: some)
    monkeypatch.chdir(tmp_path)
    with Phone("arm64", "pixel", cores=2) as phone:
        before = ON["settings"](phone)
        words = ("digits_cnn", "--device", phone.serial, "--json", "out.json", *QUICK)
        status, _, err = ON["bench"](*words)
        assert status in (0, 4), err
        ON["is_tidy"](phone, before)
    found = ON["document"](tmp_path / "out.json")
    assert found["bundles"][0]["abi"] == found["device"]["abi"] == "arm64-v8a"
    assert [profile["runtime"] for profile in found["profiles"]] == ["onnxruntime", "litert"]
    for profile in found["profiles"]:
        numerics = profile["numerics"]
        assert numerics["agrees"] is True and numerics["reference"] == "torch" and numerics["inputs"] == 30, numerics
        assert numerics["accuracy"]["device"] == numerics["accuracy"]["reference"] > 0.9
        assert profile["kernels"] and profile["samples_ns"]


@pytest.fixture(scope="module")
def server(pixel: Phone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real adb server that has the phone, and ends with the tests."""
    adbutils = pytest.importorskip("adbutils")
    from devices.adb.server import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "ADB_MDNS": "0"}
    environment.pop("ADB_SERVER_SOCKET", None)
    argv = [adbutils.adb_path(), "-P", str(port), "server", "nodaemon"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                assert process.poll() is None and time.monotonic() < deadline, "the adb server does not listen"
                time.sleep(0.02)
            assert "connected" in Client(("127.0.0.1", port), 10).connect(pixel.serial)
            yield port
        finally:
            process.kill()


def test_through_an_adb_server(
    pixel: Phone, server: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
    monkeypatch.chdir(tmp_path)
    before = ON["settings"](pixel)
    words = (str(folder / "a.onnx"), "--runtime", "onnxruntime", "--device", pixel.serial, "--json", "out.json", *QUICK)
    status, _, err = ON["bench"](*words)
    assert status in (0, 4) and err == []
    assert ON["document"](tmp_path / "out.json")["profiles"][0]["kernels"]
    ON["is_tidy"](pixel, before)


def test_a_phone_is_one_device_under_all_its_names(
    pixel: Phone, server: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Proxy(pixel.port) as proxy, open_device(proxy.serial) as direct:
        assert lock_key(direct) == f"boot-{pixel.boot_id}"
        with device_lock(direct.name, cache_dir() / "locks", wait_s=0, on_wait=pytest.fail, key=lock_key(direct)):
            monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server))
            status, _, err = ON["bench"](str(folder / "a.onnx"), "--device", pixel.serial, "--wait", "0")
            assert status == 3 and len(err) == 1
            assert err[0].startswith(f"device {pixel.serial} is held by another bench (process {os.getpid()}); try: ")
            monkeypatch.setattr("pipeline.bundle_command.WAIT_S", 0.0)
            assert cli.main(["bundle", "clean", "--device", pixel.serial]) == 3
    assert (pixel.root / ON["WORKDIR"] / "bundles").exists() and ON["run_folders"](tmp_path) == []


def test_the_lock_of_a_phone_that_does_not_say_its_boot(pixel: Phone) -> None:
    path = pixel.state / "proc/sys/kernel/random/boot_id"
    boot_id = path.read_text()
    try:
        with open_device(pixel.serial) as device:
            for text in ("", "../../x\n", "a" * 36):
                path.write_text(text)
                assert lock_key(device) == pixel.serial
    finally:
        path.write_text(boot_id)


def test_a_phone_without_androids_linker_is_told_the_other_bundle(
    pixel: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container with adbd in it; a real phone has /system/bin/linker64."""
    (tmp_path / "source.c").write_text("".join(f"void {one}(void) {{}}\n" for one in sorted(ENTRIES["tflite"])))
    flags = ["-nostdlib", "-shared", "-fPIC", "-s", "-fno-sanitize=all", "-Wl,-z,max-page-size=16384"]
    compile_c(["-target", "x86_64-linux-gnu", *flags, str(tmp_path / "source.c")], tmp_path / "lib.so", cache_dir())
    with zipfile.ZipFile(tmp_path / "tensorflow-lite-9.9.aar", "w") as opened:
        opened.write(tmp_path / "lib.so", "jni/x86_64/libtf.so")
    monkeypatch.chdir(tmp_path)
    aar = ("--bundle", "android", "--aar", "tensorflow-lite-9.9.aar")
    status, _, err = ON["bench"]("resnet20", "--device", pixel.serial, *aar)
    assert status == 3 and len(err) == 1
    assert "does not start the runner of the android bundle for x86_64" in err[0]
    assert err[0].endswith("try: --bundle linux") and ON["run_folders"](tmp_path) == []
