"""Exported -> Deployed: model files on the device, under the names of their content, so that nothing is sent twice."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.errors import TransferError
from devices.install import Installed
from devices.transport import Transport
from pipeline.artifact import Exported
from pipeline.errors import StorageError
from pipeline.settings import PROFILED

RUNTIME_FORMATS = {"onnxruntime": "onnx", "litert": "tflite", "tflite": "tflite"}
"""Runtime -> the format it runs. "tflite" is TensorFlow Lite's C API, as its Android library has it."""

DELEGATES = {"onnxruntime": ("",), "litert": ("xnnpack", "builtin"), "tflite": ("xnnpack", "builtin")}
"""Runtime -> what can run its kernels, the usual one first; the empty string is the runtime itself."""

PATHS_AT_ONCE = 500

# what is used is touched: `recover.LOOK` removes what was not for a month
WHICH_ARE_MISSING = 'touch -c -- "$@" 2>/dev/null; for f; do [ -s "$f" ] || echo "${f##*/}"; done'


@dataclass(frozen=True)
class Deployed:
    """One network, ready to be timed in one runtime on one device. `id` is unique in a run and safe as a file name.

    `library` is a path on the device, `bundle` the kind of the bundle that it came with. `kernels_only`: it is run with the
    profiler only, where its latency interests nobody.
    """

    id: str
    artifact: Exported
    runtime: str
    delegate: str
    remote_path: str
    library: str
    library_sha256: str
    runtime_version: str
    bundle: str = "host"
    kernels_only: bool = False

    @property
    def timed_id(self) -> str:
        """The id under which the runner tells the samples that decide when the case is done."""
        return self.id + PROFILED if self.kernels_only else self.id

    @property
    def label(self) -> str:
        """The runtime as a person tells it from the others of a run: its delegate where that is not the usual one."""
        return self.runtime if self.delegate == DELEGATES[self.runtime][0] else f"{self.runtime}-{self.delegate}"


@dataclass(frozen=True)
class Target:
    """A runtime of one installed bundle with one delegate: what a network is measured in."""

    installed: Installed
    runtime: str
    delegate: str

    @property
    def format(self) -> str:
        return RUNTIME_FORMATS[self.runtime]


def targets_of(installed: Sequence[Installed], delegate: str = "") -> list[Target]:
    """Every runtime of every bundle, with the delegate asked for where it has that one, else with its usual one."""
    return [
        Target(one, runtime, delegate if delegate in DELEGATES[runtime] else DELEGATES[runtime][0])
        for one in installed
        for runtime in RUNTIME_FORMATS
        if runtime in one.bundle.libraries
    ]


def case_of(artifact: Exported, target: Target, device: Transport, *, name_bundle: bool) -> Deployed:
    """The case that `deploy` will make true. Args: name_bundle: whether the run has the same runtime in two bundles."""
    bundle, library = target.installed.bundle, target.installed.bundle.libraries[target.runtime]
    words = [artifact.network, target.runtime]
    if target.delegate != DELEGATES[target.runtime][0]:
        words.append(target.delegate)
    if name_bundle:
        words.append(bundle.kind)
    return Deployed(
        id=".".join(words),
        artifact=artifact,
        runtime=target.runtime,
        delegate=target.delegate,
        remote_path=f"{models_folder(device)}/{_name(artifact)}",
        library=target.installed.libraries[target.runtime],
        library_sha256=library.sha256,
        runtime_version=bundle.versions[target.runtime],
        bundle=bundle.kind,
    )


def deploy(cases: Sequence[Deployed], device: Transport) -> int:
    """Sends the artifacts that the device does not have yet, all of them in one batch; the number of bytes sent.

    Raises: devices.errors.TransferError: they did not arrive whole (a full disk, a read-only folder).
    """
    files = {_name(case.artifact): Path(case.artifact.path) for case in cases}
    absent = missing_models(files, device)
    if absent:
        device.push_many(absent, models_folder(device))
        missing_models(absent, device)  # they came with the ages of our files
    return sum(path.stat().st_size for path in absent.values())


def missing_models(files: Mapping[str, Path], device: Transport) -> dict[str, Path]:
    """Those that the device has not. A name tells the content, and a file appears whole or not at all."""
    folder, names, absent = models_folder(device), list(files), set[str]()
    for start in range(0, len(names), PATHS_AT_ONCE):
        paths = [f"{folder}/{name}" for name in names[start : start + PATHS_AT_ONCE]]
        told = device.run(["sh", "-c", WHICH_ARE_MISSING, "sh", *paths], timeout_s=60)
        if told.status != 0:
            absent.update(names[start : start + PATHS_AT_ONCE])
        absent.update(told.stdout.decode("utf-8", "replace").split())
    return {name: path for name, path in files.items() if name in absent}


def models_folder(device: Transport) -> str:
    return f"{device.workdir}/models"


def _name(artifact: Exported) -> str:
    return f"{artifact.sha256[:32]}.{artifact.format}"


@contextlib.contextmanager
def bringing_home(local: Path) -> Iterator[None]:
    """Tells a device that does not give a file from this machine's disk being full or read-only.

    Raises: StorageError: the latter, which a pull, that only reads on the device, can be told from; TransferError.
    """
    try:
        yield
    except TransferError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageError(
                f"cannot write {local}: {cause.strerror}", try_="free some space, or another folder with --reports DIR"
            ) from error
        raise


def pull(device: Transport, remote: str, local: Path) -> None:
    """Brings a file home. Raises: as `bringing_home`."""
    with bringing_home(local):
        device.pull(remote, local)
