"""A bundle on a device: sent once, found again by its content, started by a command line that is known to start.

On the device a bundle is the folder `<workdir>/bundles/<sha256 of the bundle>`: a second bench finds every file there with
its sum and sends nothing; a file that is not what it should be is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devices.bundle import RUNNER, BundledFile, RuntimeBundle, library_name
from devices.errors import BundleError
from devices.transport import Transport

OnPush = Callable[[str, int], None]
"""Called with the name and the size of each file before it is sent."""

USAGE_STATUS = 2
"""What the runner ends with when it is started without a job: it is there and runs."""

HASH_LIMIT_S = 120.0

# touched, so that it can be seen which bundles are used
SUMS = 'cd "$1" 2>/dev/null || exit 0; touch . 2>/dev/null; shift; sha256sum -- "$@" 2>/dev/null; exit 0'


@dataclass(frozen=True)
class Installed:
    """A bundle on a device, ready to be started.

    Args:
        start: the words before the path of the job file.
        libraries: runtime -> the path of its library on the device.
        pushed_bytes: what had to be sent for it now; 0 where all was there.
    """

    bundle: RuntimeBundle
    start: tuple[str, ...]
    libraries: Mapping[str, str]
    pushed_bytes: int = 0


def install(bundle: RuntimeBundle, device: Transport, on_push: OnPush = lambda name, size: None) -> Installed:
    """Makes a bundle ready on a device, and starts its runner once to see that it starts.

    Raises: TransferError: a file does not arrive (no space, a read-only folder). BundleError: the device does not start
    the runner: a folder without the right to execute, another kind of processor. DeviceLost.
    """
    if bundle.kind == "host":
        installed = _in_place(bundle)
    else:
        folder = f"{device.workdir}/bundles/{bundle.sha256}"
        pushed = _send_missing(bundle, device, folder, on_push)
        loader = (f"{folder}/{bundle.loader}", "--library-path", folder) if bundle.loader else ()
        libraries = {runtime: f"{folder}/{library_name(runtime)}" for runtime in bundle.libraries}
        installed = Installed(bundle, (*loader, f"{folder}/{RUNNER}"), libraries, pushed)
    _try_start(installed, device)
    return installed


def _in_place(bundle: RuntimeBundle) -> Installed:
    libraries = {runtime: str(file.path) for runtime, file in bundle.libraries.items()}
    return Installed(bundle, (str(bundle.runner.path),), libraries)


def _send_missing(bundle: RuntimeBundle, device: Transport, folder: str, on_push: OnPush) -> int:
    pushed = 0
    for name, file in missing(bundle.files, device, folder).items():
        size = file.path.stat().st_size
        on_push(name, size)
        device.push(file.path, f"{folder}/{name}")
        pushed += size
    return pushed


def missing(files: Mapping[str, BundledFile], device: Transport, folder: str) -> dict[str, BundledFile]:
    """Those of `files` that the folder on the device does not hold with the same content; asked in one command."""
    told = device.run(["sh", "-c", SUMS, "sh", folder, *files], timeout_s=HASH_LIMIT_S).stdout.decode("utf-8", "replace")
    there = {name: digest for digest, _, name in (line.partition("  ") for line in told.splitlines())}
    return {name: file for name, file in files.items() if there.get(name) != file.sha256}


def _try_start(installed: Installed, device: Transport) -> None:
    ended = device.run(installed.start, timeout_s=60)
    if ended.status == USAGE_STATUS and b"usage" in ended.stderr:
        return
    said = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
    kind, abi = installed.bundle.kind, installed.bundle.abi
    # 126 with "No such file": the file is there and what would load it, Android's linker, is not
    if "Permission denied" in said or (ended.status == 126 and "No such file" not in said):
        raise BundleError(
            f"{device.name} does not let the runner be executed in {device.workdir}: {said or 'status 126'}",
            try_="a folder that is not mounted noexec",
        )
    raise BundleError(
        f"{device.name} does not start the runner of the {kind} bundle for {abi}: {said or f'status {ended.status}'}",
        try_=f"--bundle {'android' if kind == 'linux' else 'linux'}" if kind != "host" else "make clean, make install",
    )
