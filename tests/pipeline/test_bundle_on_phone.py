"""The linux bundle on the test phone, end to end: built, sent, started, and the digits network answers as on the host."""

from __future__ import annotations

import platform
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.adb.find import phone_at
from devices.bundle import RuntimeBundle
from devices.bundle_store import bundle_for
from devices.discovery import cache_dir
from devices.errors import BundleError
from devices.host import HostTransport
from devices.install import Installed, install
from devices.runner import Case, format_job, parse_results, read_lines
from devices.transport import Transport

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

ON = runpy.run_path(str(Path(__file__).with_name("phone_bench.py")))
FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
ABIS, linux_bundle = ON["ABIS"], ON["need"]


@pytest.fixture(scope="module", params=sorted(ABIS))
def phone(request: pytest.FixtureRequest) -> Iterator[tuple[str, Transport]]:
    abi = request.param
    if (reason := Phone.available(ABIS[abi])) is not None:
        pytest.skip(reason)
    with Phone(ABIS[abi], "pixel", cores=2) as phone, phone_at("127.0.0.1", phone.port, phone.serial).open() as device:
        yield abi, device


def answers(installed: Installed, device: Transport, exported: dict[str, Any], local: Path) -> dict[str, np.ndarray]:
    """runtime -> what the network answers there to five digits, (5, 10)."""
    from pipeline.datasets import digits

    images = digits()[2][:5].astype("<f4")
    folder, cases = f"{device.workdir}/answers", []
    for runtime, library in installed.libraries.items():
        model = exported[FORMATS[runtime]]
        given = images.transpose(0, 2, 3, 1) if runtime == "litert" else images
        (local / f"{runtime}.input").write_bytes(np.ascontiguousarray(given).tobytes())
        device.push(local / f"{runtime}.input", f"{folder}/{runtime}.input")
        device.push(Path(model.path), f"{folder}/model.{model.format}")
        cases.append(
            Case(
                id=runtime, model=f"{folder}/model.{model.format}", runtime=runtime, library=library,
                delegate="xnnpack" if runtime == "litert" else "", log=f"{folder}/{runtime}.log",
                input=f"{folder}/{runtime}.input", output=f"{folder}/{runtime}.output",
            )
        )  # fmt: skip
    (local / "job").write_text(format_job(cases, f"{folder}/results", canary=False))
    device.push(local / "job", f"{folder}/job")
    ended = device.run([*installed.start, f"{folder}/job"], timeout_s=300)
    assert ended.status == 0, ended.stderr
    device.pull(f"{folder}/results", local / "results")
    results = parse_results(read_lines(str(local / "results"))).cases
    assert {name: case.failed for name, case in results.items()} == dict.fromkeys(installed.libraries)
    found = {}
    for runtime in installed.libraries:
        device.pull(f"{folder}/{runtime}.output", local / f"{runtime}.output")
        found[runtime] = np.fromfile(local / f"{runtime}.output", "<f4").reshape(5, -1)
    return found


@pytest.fixture(scope="module")
def on_the_host(digits_files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("host")
    device = HostTransport(folder / "work")
    bundle, _ = bundle_for("host", platform.machine(), None, [], cache_dir())
    return answers(install(bundle, device), device, digits_files, folder)


def test_the_phone_answers_as_the_host(
    phone: tuple[str, Transport], digits_files: dict[str, Any], on_the_host: dict[str, np.ndarray], tmp_path: Path
) -> None:
    abi, device = phone
    bundle = linux_bundle(abi)
    installed = install(bundle, device)
    assert installed.pushed_bytes == sum(file.path.stat().st_size for file in bundle.files.values())
    assert set(installed.libraries) == {"onnxruntime", "litert"}
    found = answers(installed, device, digits_files, tmp_path)
    for runtime, expected in on_the_host.items():
        assert expected.shape == (5, 10) and np.ptp(expected) > 1
        np.testing.assert_allclose(found[runtime], expected, rtol=1e-4, atol=1e-4)
    assert install(bundle, device).pushed_bytes == 0, "all of it is there"


def test_a_file_that_was_changed_on_the_phone_is_sent_again(phone: tuple[str, Transport]) -> None:
    abi, device = phone
    bundle = linux_bundle(abi)
    installed = install(bundle, device)
    folder = installed.start[0].rpartition("/")[0]
    assert device.run(["sh", "-c", 'echo x >> "$1/librt.so.1"; rm "$1/libdl.so.2"', "sh", folder]).status == 0
    again = install(bundle, device)
    expected = [bundle.files[name].path.stat().st_size for name in ("librt.so.1", "libdl.so.2")]
    assert again.pushed_bytes == sum(expected)


def test_the_android_bundle_does_not_start_where_its_linker_is_not(
    phone: tuple[str, Transport], tmp_path: Path
) -> None:
    """The test phone has no linker64 of Android's; a real one has."""
    from devices.android_bundle import build_android_runner

    abi, device = phone
    bundle = RuntimeBundle("android", abi, build_android_runner(abi, cache_dir()), {}, {})
    with pytest.raises(
        BundleError, match=rf"does not start the runner of the android bundle for {abi}: .*try: --bundle linux"
    ):
        install(bundle, device)
