"""Models go to the device once, together, under the names of their content."""

from __future__ import annotations

import dataclasses
import errno
import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.bundle import BundledFile, RuntimeBundle
from devices.errors import TransferError
from devices.host import HostTransport
from devices.install import Installed
from pipeline.deploy import DELEGATES, RUNTIME_FORMATS, Deployed, Target, case_of, deploy, pull, targets_of
from pipeline.errors import StorageError

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))


@pytest.fixture
def device(tmp_path: Path) -> Any:
    return FAKE["FakeDevice"](tmp_path / "device")


def installed(*runtimes: str, kind: str = "linux") -> Installed:
    libraries = {name: BundledFile(Path(f"/here/{name}"), f"{name}-sha", "origin") for name in runtimes}
    runner = BundledFile(Path("/here/runner"), "runner-sha", "origin")
    bundle = RuntimeBundle(kind, "x86_64", runner, libraries, dict.fromkeys(runtimes, "1.0"))
    return Installed(bundle, ("runner",), {name: f"/there/lib{name}.so" for name in runtimes})


def case(artifact: Any, device: Any, runtime: str = "litert", delegate: str = "", **settings: Any) -> Deployed:
    (target,) = targets_of([installed(runtime, **settings)], delegate)
    return case_of(artifact, target, device, name_bundle="kind" in settings)


@pytest.mark.parametrize("runtime", RUNTIME_FORMATS)
def test_a_deployed_model_is_on_the_device_and_knows_its_runtime(tmp_path: Path, device: Any, runtime: str) -> None:
    artifact = FAKE["exported"](tmp_path, "net", RUNTIME_FORMATS[runtime])
    one = case(artifact, device, runtime)
    assert deploy([one], device) == len(b"a model")
    assert one.remote_path == f"{device.workdir}/models/{'5' * 32}.{RUNTIME_FORMATS[runtime]}"
    assert Path(one.remote_path).read_bytes() == b"a model"
    assert (one.id, one.artifact, one.delegate) == (f"net.{runtime}", artifact, DELEGATES[runtime][0])
    assert (one.library, one.library_sha256, one.runtime_version) == (
        f"/there/lib{runtime}.so", f"{runtime}-sha", "1.0",
    )  # fmt: skip


def test_what_differs_between_cases_of_one_network_is_in_their_ids(tmp_path: Path, device: Any) -> None:
    artifact = FAKE["exported"](tmp_path)
    assert case(artifact, device, "tflite", "builtin").id == "net.tflite.builtin"
    assert case(artifact, device, "tflite", "builtin").label == "tflite-builtin"
    assert case(artifact, device, "tflite", "xnnpack").id == "net.tflite"
    assert case(artifact, device, "tflite", kind="android").id == "net.tflite.android"
    assert case(artifact, device, "litert", kind="android").bundle == "android"


def test_a_delegate_counts_for_the_runtimes_that_have_it() -> None:
    bundles = [installed("onnxruntime", "litert"), installed("tflite", kind="android")]
    assert targets_of(bundles, "builtin") == [
        Target(bundles[0], "onnxruntime", ""),
        Target(bundles[0], "litert", "builtin"),
        Target(bundles[1], "tflite", "builtin"),
    ]


def test_a_second_deploy_sends_nothing_and_the_first_sends_all_at_once(tmp_path: Path, device: Any) -> None:
    first = FAKE["exported"](tmp_path, "a")
    second = dataclasses.replace(FAKE["exported"](tmp_path, "b", content=b"another model"), sha256="6" * 64)
    same = dataclasses.replace(first, network="c")
    cases = [case(one, device) for one in (first, second, same)]
    assert deploy(cases, device) == len(b"a model" + b"another model")
    commands = len(device.commands)
    assert deploy(cases, device) == 0
    assert len(device.commands) == commands + 1 and len(device.pushed) == 2


def test_only_what_is_missing_is_sent(tmp_path: Path) -> None:
    device = HostTransport(tmp_path / "device")
    one = case(FAKE["exported"](tmp_path), device)
    deploy([one], device)
    Path(one.remote_path).write_bytes(b"")  # as after a full disk long ago
    assert deploy([one], device) == len(b"a model")
    assert Path(one.remote_path).read_bytes() == b"a model"


@pytest.mark.parametrize(
    ("cause", "error"),
    [(errno.ENOSPC, StorageError), (errno.EROFS, StorageError), (errno.ENOENT, TransferError), (None, TransferError)],
)
def test_a_pull_tells_a_full_disk_here_from_a_file_that_is_not_there(
    tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch, cause: int | None, error: type[Exception]
) -> None:
    def fail(remote: str, local: Path) -> None:
        raise TransferError("it did not arrive") from (None if cause is None else OSError(cause, "why"))

    monkeypatch.setattr(device, "pull", fail)
    with pytest.raises(error, match=r"cannot write .*here: why" if error is StorageError else "^it did not arrive$"):
        pull(device, "there", tmp_path / "here")
