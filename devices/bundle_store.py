"""One way to every bundle, and what has been built of them."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.aar import Aar, open_aar
from devices.android_bundle import ENTRIES, TARGETS, android_bundle
from devices.bundle import RUNTIMES, OnStep, RuntimeBundle, host_bundle
from devices.bundle_lock import PART, load
from devices.errors import BundleError, DeviceError
from devices.linux_bundle import ABIS, linux_bundle
from devices.maven import DEFAULT, fetch_aar, parse_coordinates
from devices.transport import Transport

KINDS = ("host", "linux", "android")

FOLDERS = ("bundles", "maven", "aar", "runner", "runner-android")
"""What `clean` removes of the cache: all that a bundle is made of."""

CLEAN_LIMIT_S = 120.0
CLEAN = 'cd "$1" 2>/dev/null || exit 0; rm -rf -- bundles && find . -type f -name "*.part" -exec rm -f -- {} +'


def bundle_for(
    kind: str,
    abi: str,
    runtimes: Sequence[str] | None,
    aars: Sequence[str],
    cache: Path,
    on_step: OnStep = lambda text: None,
) -> tuple[RuntimeBundle, list[str]]:
    """The bundle of a kind, built where it is not yet, and what the user should be told about it.

    Args:
        kind: one of KINDS.
        abi: Android's name; for "host" this machine's own.
        runtimes: None takes all that the kind has.
        aars: paths or group:artifact:version, for "android" only; none are $HANDSET_AAR's paths, else `maven.DEFAULT`.
        on_step: called before each step that may take seconds.

    Raises: BundleError: there is no such bundle, or it cannot be built; the message says which there are.
    """
    if kind not in KINDS:
        raise BundleError(f"there is no bundle {kind!r}; there are {', '.join(KINDS)}")
    if abi not in abis(kind):
        raise BundleError(f"there is no {kind} bundle for {abi}; there is for {', '.join(abis(kind))}")
    known = tuple(ENTRIES) if kind == "android" else tuple(RUNTIMES)
    unknown = [runtime for runtime in runtimes or () if runtime not in known]
    if unknown:
        raise BundleError(f"the {kind} bundle has no runtime {unknown[0]}; it has {', '.join(known)}")
    if kind == "android":
        return android_bundle(abi, find_aars(aars, cache, on_step), cache, runtimes, on_step)
    wanted = list(RUNTIMES if runtimes is None else runtimes)
    if kind == "linux":
        return linux_bundle(abi, wanted, cache, on_step), []
    on_step("the runner for this machine")
    return host_bundle(abi, wanted, cache), []


def abis(kind: str) -> tuple[str, ...]:
    """The ABIs that a kind of bundle can be built for."""
    return {"host": (platform.machine(),), "linux": tuple(ABIS), "android": tuple(TARGETS)}[kind]


def find_aars(given: Sequence[str], cache: Path, on_step: OnStep = lambda text: None) -> list[Aar]:
    """The archives that are meant. Raises: BundleError: one is neither a file nor to be had from Maven."""
    texts = list(given) or [path for path in os.environ.get("HANDSET_AAR", "").split(os.pathsep) if path] or [DEFAULT]
    found = []
    for text in texts:
        coordinates = parse_coordinates(text)
        if coordinates is not None and not Path(text).exists():
            found.append(fetch_aar(coordinates, cache, on_step))
        else:
            found.append(open_aar(Path(text)))
    return found


@dataclass(frozen=True)
class Built:
    """A bundle that lies in the cache. `wrong` says why it is refused; empty where it is intact."""

    kind: str
    abi: str
    folder: Path
    size_bytes: int
    bundle: RuntimeBundle | None
    wrong: str


def built_bundles(cache: Path) -> list[Built]:
    """All bundles in the cache, each file of them checked, the intact and the damaged."""
    found = []
    for folder in sorted((cache / "bundles").glob("*/*")):
        if folder.name.startswith(PART):
            continue
        bundle, wrong = None, ""
        try:
            bundle = load(folder)
        except BundleError as error:
            wrong = str(error)
        kind, _, abi = folder.parent.name.partition("-")
        found.append(Built(kind, abi, folder, _size_bytes(folder), bundle, wrong))
    return found


def clean(cache: Path) -> int:
    """Removes all bundles, and what they were made of, from the cache. Returns: the bytes that were removed.

    Raises: BundleError: something cannot be removed.
    """
    removed = 0
    for name in FOLDERS:
        folder = cache / name
        if not os.path.lexists(folder):
            continue
        removed += _size_bytes(folder)
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise BundleError(f"cannot remove {folder}: {error.strerror}", try_=f"rm -r {folder}") from error
    return removed


def clean_device(device: Transport) -> None:
    """Removes all bundles, and the parts of uploads that were cut, from a device.

    Raises: DeviceError: it cannot. DeviceLost.
    """
    ended = device.run(["sh", "-c", CLEAN, "sh", device.workdir], timeout_s=CLEAN_LIMIT_S)
    if ended.status:
        said = " ".join(ended.stderr.decode("utf-8", "replace").split())[:200]
        raise DeviceError(
            f"cannot remove {device.workdir}/bundles on {device.name}: {said or f'status {ended.status}'}"
        )


def _size_bytes(folder: Path) -> int:
    """Of all plain files below it; those that go away meanwhile do not count."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(top, name).lstat().st_size
    return total
