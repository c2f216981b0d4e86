"""Exported -> Deployed: a model file on the device, under the name of its content, so that nothing is sent twice."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from devices.bundle import RuntimeBundle
from devices.errors import TransferError
from devices.transport import Transport
from pipeline.artifact import Exported
from pipeline.errors import StorageError

RUNTIME_FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
"""Runtime -> the format it runs."""

DELEGATES = {"onnxruntime": "", "litert": "xnnpack"}
"""Runtime -> what runs its kernels by default; the empty string is the runtime itself."""


@dataclass(frozen=True)
class Deployed:
    """One network, ready to be timed in one runtime on one device. `id` is unique in a run and safe as a file name."""

    id: str
    artifact: Exported
    runtime: str
    delegate: str
    remote_path: str
    library: str
    library_sha256: str
    runtime_version: str


def deploy(artifact: Exported, runtime: str, device: Transport, bundle: RuntimeBundle) -> Deployed:
    """Pushes the artifact unless the device has it already.

    Raises: devices.errors.TransferError: it did not arrive whole (a full disk, a read-only folder).
    """
    remote = f"{device.workdir}/models/{artifact.sha256[:32]}.{artifact.format}"
    if device.run(["test", "-s", remote], timeout_s=30).status != 0:
        device.push(Path(artifact.path), remote)
    library = bundle.libraries[runtime]
    return Deployed(
        id=f"{artifact.network}.{runtime}",
        artifact=artifact,
        runtime=runtime,
        delegate=DELEGATES[runtime],
        remote_path=remote,
        library=str(library.path),
        library_sha256=library.sha256,
        runtime_version=bundle.versions[runtime],
    )


def pull(device: Transport, remote: str, local: Path) -> None:
    """Brings a file home.

    Raises: TransferError: it did not arrive whole. StorageError: because this machine's disk is full or read-only, which
    a pull, which only reads on the device, can be told from.
    """
    try:
        device.pull(remote, local)
    except TransferError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageError(
                f"cannot write {local}: {cause.strerror}", try_="free some space, or another folder with --reports DIR"
            ) from error
        raise
