"""Builds Android's real adbd for this machine from Debian's source package, once; later calls take it from the cache.

By hand: python tests/phone/build_adbd.py
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import debian

RECIPE = Path(__file__).resolve().parent / "adbd"
SOURCE_PACKAGE = "android-platform-tools"
BUILD_PACKAGES = ("adb", "android-libbase-dev", "android-libcutils-dev", "android-liblog-dev", "android-libboringssl-dev",
                  "libcap-dev", "clang", "lld", "dpkg-dev", "make", "util-linux")

# (file, text that must be there exactly once, what takes its place)
EDITS = (
    # where Android drops its privileges
    ("system/core/adb/daemon/main.cpp", "    umask(0);", "    umask(0);\n    enter_phone();"),
    # an errno that is left from before closes a listener that works
    ("system/core/adb/transport_local.cpp", "serverfd = listen_func(addr, &error);",
     "serverfd = listen_func(addr, &error);\n        if (serverfd != -1) errno = 0;"),
    # the packet is taken from the queue before it is written: a reference to it dangles
    ("frameworks/native/libs/adbd_auth/adbd_auth.cpp", "auto& packet = output_queue_.front();",
     "auto packet = output_queue_.front();"),
)

# Read when this module is imported: tests give $XDG_CACHE_HOME a folder of their own later, which would build adbd every time.
CACHE_HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/handset/phone/<hash of the recipe>; made if need be."""
    digest = hashlib.sha256(repr((SOURCE_PACKAGE, EDITS)).encode())
    for path in sorted(RECIPE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    folder = CACHE_HOME / "handset" / "phone" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def cache_lock(name: str) -> Iterator[Path]:
    """The cache folder, while no other process makes `name` in it."""
    folder = cache_folder()
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def edit(source: Path) -> None:
    """Applies EDITS to the unpacked sources. Raises: Unavailable: a text is not there exactly once."""
    for name, old, new in EDITS:
        path = source / name
        text = path.read_text() if path.is_file() else ""
        if text.count(old) != 1:
            raise debian.Unavailable(f"{source.name}: {name} holds {old!r} {text.count(old)} times, not once")
        path.write_text(text.replace(old, new))


def adbd() -> Path:
    """The adbd program. Raises: debian.Unavailable."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise debian.Unavailable(f"the test phone needs Linux on x86_64, this is {sys.platform} on {platform.machine()}")
    debian.install(BUILD_PACKAGES)
    with cache_lock("adbd") as folder:
        built = folder / "adbd"
        if not built.exists():
            with tempfile.TemporaryDirectory(prefix="handset-adbd-") as scratch:
                work = Path(scratch)
                source = debian.Archive(work / "apt", "amd64", "deb-src").source(SOURCE_PACKAGE)
                edit(source)
                (work / "out").mkdir()
                debian.call(["nice", "make", f"-j{os.cpu_count() or 1}", "-f", str(RECIPE / "Makefile"), f"SOURCE={source}",
                             f"RECIPE={RECIPE}"], cwd=work / "out")
                shutil.copy(work / "out" / "adbd", folder / "adbd.part")
                os.replace(folder / "adbd.part", built)
    debian.call([str(built), "--version"])  # its libraries are there
    return built


if __name__ == "__main__":
    try:
        print(adbd())
    except debian.Unavailable as why:
        sys.exit(f"no test phone: {why}")
