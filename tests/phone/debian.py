"""Debian's archive without touching this machine's apt: sources, and binaries of any architecture, through lists of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class Unavailable(RuntimeError):
    """The test phone cannot be had on this machine; the message is one line that says why."""


def call(argv: Sequence[str], cwd: Path | None = None, timeout_s: float = 900.0) -> str:
    """Its standard output. Raises: Unavailable: it failed, with the last line of what it said."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                              env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})
    except FileNotFoundError:
        raise Unavailable(f"there is no {argv[0]} here: the test phone needs Debian 12") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(argv[:4])} took more than {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Unavailable(f"{' '.join(argv[:4])} ... ended with {done.returncode}: {said}")
    return done.stdout


def missing(packages: Sequence[str]) -> list[str]:
    """Those of these packages that are not installed here."""
    if shutil.which("dpkg-query") is None:
        raise Unavailable("there is no dpkg here: the test phone needs Debian 12")
    absent = []
    for package in packages:
        asked = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True)
        if asked.stdout != "installed":
            absent.append(package)
    return absent


def install(packages: Sequence[str]) -> None:
    """Installs in CI only: on somebody's own machine a test says what is missing and touches nothing.

    Raises: Unavailable: some are missing and it is not ours to install them, or apt cannot.
    """
    absent = missing(packages)
    if not absent:
        return
    if os.geteuid() != 0 or not os.environ.get("CI"):
        raise Unavailable(f"missing: {' '.join(absent)}; try: sudo apt-get install {' '.join(absent)}")
    call(["apt-get", "update"])
    call(["apt-get", "install", "--yes", "--no-install-recommends", *absent])


class Archive:
    """The repositories that this machine's apt knows, read through lists in `folder` for `architecture` (and with sources)."""

    def __init__(self, folder: Path, architecture: str, kind: str) -> None:
        """`kind` is "deb" or "deb-src". Raises: Unavailable: no repository answers."""
        self.folder = folder
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        targets = call(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
        (folder / "sources.list").write_text("".join(f"{kind} {line}\n" for line in sorted(set(targets.splitlines()))))
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "lists", "Dir::Cache": folder / "cache", "APT::Sandbox::User": "",
            "APT::Architecture": architecture, "APT::Architectures": architecture,
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        call(["apt-get", *self._options, "update"])

    def source(self, package: str) -> Path:
        """The folder with its unpacked, patched sources."""
        call(["apt-get", *self._options, "source", package], cwd=self.folder)
        return next(path for path in self.folder.glob(f"{package}-*") if path.is_dir())

    def unpack(self, package: str) -> Path:
        """The folder with the binary package's files; nothing is installed."""
        call(["apt-get", *self._options, "download", package], cwd=self.folder)
        root = self.folder / "unpacked" / package
        root.parent.mkdir(exist_ok=True)
        call(["dpkg-deb", "-x", str(next(self.folder.glob(f"{package}_*.deb"))), str(root)])
        return root
