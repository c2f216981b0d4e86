"""Debian's packages, fetched without touching this machine: by apt into a folder of ours, or from a mirror by their pins.

`debian_packages.toml` says which packages, from where, with which SHA-256, and which files of them are wanted.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.bundle import BundledFile
from devices.debian_package import read_package
from devices.errors import BundleError

PINS = Path(__file__).parent / "debian_packages.toml"
APT_LIMIT_S = 600.0
SILENCE_LIMIT_S = 30.0


@dataclass(frozen=True)
class Package:
    """One pinned package. `path` is below a mirror; `members` are the files wanted out of `folder` in it."""

    abi: str
    name: str
    version: str
    path: str
    bytes: int
    sha256: str
    folder: str
    members: tuple[str, ...]


def pinned(abi: str) -> tuple[list[Package], list[str]]:
    """The packages for an ABI, and the mirrors that have them."""
    document = tomllib.loads(PINS.read_text("utf-8"))
    rows = [row | {"members": tuple(row["members"])} for row in document["package"] if row["abi"] == abi]
    return [Package(**row) for row in rows], list(document["mirrors"])


def fetch_c_library(abi: str, scratch: Path, on_step: Callable[[str], None]) -> dict[str, BundledFile]:
    """The C library and its kin for an ABI, each written into `scratch`. Returns: file name -> file.

    Raises: BundleError: neither apt nor a mirror gives the packages; one is not what it is pinned to be, or is damaged.
    """
    packages, mirrors = pinned(abi)
    on_step(f"the C library for {abi} from Debian")
    debs = fetch(packages, mirrors, scratch)
    files = {}
    for package, (deb, version) in zip(packages, debs, strict=True):
        paths = {name: f"{package.folder}/{name}" for name in package.members}
        for name, content in read_package(deb, paths).items():
            path = scratch / name
            path.write_bytes(content)
            origin = f"debian:{package.name}={version}!/{paths[name]}"
            files[name] = BundledFile(path, hashlib.sha256(content).hexdigest(), origin)
        deb.unlink()
    return files


def fetch(packages: Sequence[Package], mirrors: Sequence[str], folder: Path) -> list[tuple[Path, str]]:
    """(file, version) of each package, in `folder`. Raises: BundleError: as `fetch_c_library`."""
    said = _by_apt(packages, folder)
    if not said:
        return [_verified(package, *_found(package, folder)) for package in packages]
    fetched = []
    for package in packages:
        deb = folder / package.path.rpartition("/")[2]
        failed = [text for mirror in mirrors if (text := "" if deb.exists() else _download(mirror, package, deb))]
        if not deb.exists():
            what = f"cannot fetch {package.name} {package.version}: {said}; {'; '.join(failed)}"
            raise BundleError(what, try_="a network that reaches deb.debian.org, or apt-get update")
        fetched.append(_verified(package, deb, package.version))
    return fetched


def _by_apt(packages: Sequence[Package], folder: Path) -> str:
    """Fills `folder` with this machine's candidates of the packages, which apt verifies; why not, where it did not."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "there is no apt-get"
    cache = folder / "apt"
    (cache / "archives" / "partial").mkdir(parents=True)
    options = [f"Dir::Cache={cache}", "APT::Sandbox::User=", "APT::Get::AllowUnauthenticated=false"]
    words = [word for option in options for word in ("-o", option)]
    command = [apt, *words, "-q", "download", *(package.name for package in packages)]
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=APT_LIMIT_S, check=False, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"apt-get: {error}"[:300]
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if ended.returncode:
        for deb in folder.glob("*.deb*"):
            deb.unlink()
        lines = [line for line in ended.stderr.splitlines() if line.startswith("E:")]
        return f"apt-get says: {(lines or ['nothing'])[0].removeprefix('E:').strip()[:300]}"
    return ""


def _found(package: Package, folder: Path) -> tuple[Path, str]:
    """What apt left, and the version that its file name says."""
    debs = list(folder.glob(f"{package.name}_*.deb"))
    if len(debs) != 1:
        raise BundleError(f"apt-get left {len(debs)} files of {package.name}, not one", try_="apt-get update")
    return debs[0], urllib.parse.unquote(debs[0].name.split("_")[1])


def _verified(package: Package, deb: Path, version: str) -> tuple[Path, str]:
    if version == package.version:
        with deb.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != package.sha256:
            what = f"{package.name} {version} has the SHA-256 {found}, not {package.sha256}: it was tampered with"
            raise BundleError(what, try_="another mirror in apt's sources, or another network")
    return deb, version


def _download(mirror: str, package: Package, deb: Path) -> str:
    """Writes `deb`; why not, where it did not. Never more than the pinned size is taken."""
    host = urllib.parse.urlsplit(mirror).hostname
    try:
        with urllib.request.urlopen(f"{mirror}/{package.path}", timeout=SILENCE_LIMIT_S) as answer:
            content = answer.read(package.bytes + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"{host} says: {' '.join(str(reason).split())[:200]}"
    if len(content) != package.bytes:
        return f"{host} gave {len(content)} bytes, not {package.bytes}"
    deb.write_bytes(content)
    return ""
