"""Exported -> Deployed: a model file on the device, under the name of its content, so that nothing is sent twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devices.bundle import RuntimeBundle
from devices.transport import Transport
from pipeline.artifact import Exported

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
