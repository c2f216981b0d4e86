"""A model goes to the device once, under the name of its content."""

from __future__ import annotations

import dataclasses
import errno
import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.errors import TransferError
from devices.host import HostTransport
from pipeline.deploy import DELEGATES, RUNTIME_FORMATS, deploy, pull
from pipeline.errors import StorageError

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))


@pytest.fixture
def device(tmp_path: Path) -> Any:
    return FAKE["FakeDevice"](tmp_path / "device")


@pytest.mark.parametrize("runtime", RUNTIME_FORMATS)
def test_a_deployed_model_is_on_the_device_and_knows_its_runtime(tmp_path: Path, device: Any, runtime: str) -> None:
    artifact = FAKE["exported"](tmp_path, "net", RUNTIME_FORMATS[runtime])
    case = deploy(artifact, runtime, device, FAKE["bundle"](tmp_path))
    assert case.remote_path == f"{device.workdir}/models/{'5' * 32}.{RUNTIME_FORMATS[runtime]}"
    assert Path(case.remote_path).read_bytes() == b"a model"
    assert (case.id, case.artifact, case.delegate) == (f"net.{runtime}", artifact, DELEGATES[runtime])
    assert (case.library, case.library_sha256, case.runtime_version) == (
        str(tmp_path / f"{runtime}.so"), f"{runtime}-sha", "1.0",
    )  # fmt: skip


def test_a_second_deploy_pushes_nothing(tmp_path: Path, device: Any) -> None:
    artifact, bundle = FAKE["exported"](tmp_path), FAKE["bundle"](tmp_path)
    first = deploy(artifact, "litert", device, bundle)
    again = deploy(dataclasses.replace(artifact, network="other name"), "litert", device, bundle)
    assert again.remote_path == first.remote_path and again.id != first.id
    assert device.pushed == [first.remote_path]


def test_other_content_is_another_file(tmp_path: Path, device: Any) -> None:
    artifact, bundle = FAKE["exported"](tmp_path), FAKE["bundle"](tmp_path)
    paths = {
        deploy(one, "litert", device, bundle).remote_path
        for one in (artifact, dataclasses.replace(artifact, sha256="6" * 64))
    }
    assert len(paths) == 2 == len(device.pushed)


def test_an_empty_file_on_the_device_is_replaced(tmp_path: Path) -> None:
    device = HostTransport(tmp_path / "device")
    artifact, bundle = FAKE["exported"](tmp_path), FAKE["bundle"](tmp_path)
    path = Path(deploy(artifact, "litert", device, bundle).remote_path)
    path.write_bytes(b"")
    deploy(artifact, "litert", device, bundle)
    assert path.read_bytes() == b"a model"


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
