"""Runtime libraries out of PyPI's wheels: the installed one where it fits the device, else one that pip downloads."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from devices.aar import DAMAGED
from devices.bundle import GLIBC, RUNTIMES, BundledFile, find_library, installed_version, library_name
from devices.errors import BundleError

MAX_WHEEL_BYTES = 512 << 20
MAX_LIBRARY_BYTES = 256 << 20
MAX_ENTRIES = 20_000
PIP_LIMIT_S = 1800.0


def fetch_library(runtime: str, machine: str, scratch: Path, on_step: Callable[[str], None]) -> BundledFile:
    """The library of a runtime for Linux on a processor, in exactly the version that is installed here.

    Args: machine: "x86_64" or "aarch64".

    Raises: BundleError: the runtime is not installed, PyPI has no such wheel or is not reached, the wheel is damaged.
    """
    distribution, prefix = RUNTIMES[runtime]
    version = installed_version(runtime)
    if sys.platform == "linux" and platform.machine() == machine and platform.libc_ver()[0] == "glibc":
        return find_library(runtime)
    on_step(f"{distribution} {version} for {machine} from PyPI")
    wheel = download(distribution, version, machine, scratch / runtime)
    name, content = read_wheel(wheel, prefix)
    path = scratch / library_name(runtime)
    path.write_bytes(content)
    wheel.unlink()
    return BundledFile(path, hashlib.sha256(content).hexdigest(), f"pypi:{distribution}=={version}:{wheel.name}!{name}")


def download(distribution: str, version: str, machine: str, folder: Path) -> Path:
    """The wheel of that version, in the new `folder`. Raises: BundleError: pip does not give it; with its last words."""
    asked = f"{distribution}=={version}"
    oldest, newest = 17, int(GLIBC.partition(".")[2])
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, oldest - 1, -1)] + [f"manylinux2014_{machine}"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--implementation", "cp", "--python-version", python,
        *(word for tag in tags for word in ("--platform", tag)), "--dest", str(folder), "--", asked,
    ]  # fmt: skip
    try:
        folder.mkdir()
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=PIP_LIMIT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BundleError(f"pip did not download {asked} for {machine} within {PIP_LIMIT_S:.0f} s") from None
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or len(wheels) != 1:
        said = _last_words(ended.stderr) or f"status {ended.returncode}, {len(wheels)} wheels"
        raise BundleError(f"pip cannot download {asked} for {machine}: {said}", try_="a network that reaches PyPI")
    return wheels[0]


def _last_words(text: str) -> str:
    """pip's last error in at most 300 characters; its last line where it calls none so."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [""])[-1][:300]


def read_wheel(wheel: Path, prefix: str) -> tuple[str, bytes]:
    """The one file of a wheel whose path begins so: its path in the wheel, its content.

    Raises: BundleError: the wheel is damaged or too large, or has none or several such files.
    """
    try:
        if wheel.stat().st_size > MAX_WHEEL_BYTES:
            raise BundleError(f"{wheel.name} is larger than {MAX_WHEEL_BYTES >> 20} MiB and is not read")
        with zipfile.ZipFile(wheel) as opened:
            infos = opened.infolist()
            found = [info for info in infos if info.filename.startswith(prefix)]
            if len(infos) > MAX_ENTRIES or len(found) != 1:
                what = f"{wheel.name} holds {len(found)} libraries {prefix}* in {len(infos)} files, not one"
                raise BundleError(what)
            with opened.open(found[0]) as file:
                content = file.read(MAX_LIBRARY_BYTES + 1)
    except (*DAMAGED, OSError) as error:
        raise BundleError(f"{wheel.name} is damaged: {error}", try_="pip cache purge, and again") from None
    if len(content) > MAX_LIBRARY_BYTES:
        raise BundleError(f"{wheel.name}: {found[0].filename} is larger than {MAX_LIBRARY_BYTES >> 20} MiB")
    return found[0].filename, content
