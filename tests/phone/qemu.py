"""arm64 programs on this machine: qemu-user through the kernel's binfmt_misc."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import build_adbd
import debian

BINFMT = Path("/proc/sys/fs/binfmt_misc")
# an ELF file, 64 bit, little endian, executable or shared, for machine 183 (aarch64); as in qemu's own qemu-binfmt-conf.sh
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def program() -> Path:
    """qemu-aarch64-static, out of Debian's package; nothing is installed. Raises: debian.Unavailable."""
    with build_adbd.cache_lock("qemu") as cache:
        built = cache / "qemu-aarch64-static"
        if not built.exists():
            with tempfile.TemporaryDirectory(prefix="handset-qemu-") as scratch:
                root = debian.Archive(Path(scratch) / "apt", "amd64", "deb").unpack("qemu-user-static")
                shutil.copy(root / "usr" / "bin" / built.name, cache / "qemu.part")
                os.replace(cache / "qemu.part", built)
    return built


def registered() -> bool:
    """An enabled handler for aarch64 that works in a chroot (flag F: the kernel holds qemu open) and keeps argv[0] (flag P).

    Without P, `taskset 2 grep ...` of a busybox is another `taskset`: it runs /proc/self/exe under the applet's name.
    """
    for entry in BINFMT.glob("*"):
        if entry.name not in ("register", "status"):
            text = entry.read_text()
            flags = text.partition("flags:")[2].partition("\n")[0]
            if text.startswith("enabled") and "aarch64" in text and "P" in flags and "F" in flags:
                return True
    return False


def register() -> None:
    """Gives the kernel a handler for aarch64 programs until this machine restarts, if need be. Raises: debian.Unavailable."""
    if not (BINFMT / "register").exists():
        debian.call(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    if not registered():
        fields = (b"", b"handset-aarch64", b"M", b"", MAGIC, MASK, os.fsencode(program()), b"PF")
        try:
            (BINFMT / "register").write_bytes(b":".join(fields))
        except OSError as error:
            raise debian.Unavailable(f"the kernel takes no handler for arm64 programs: {error.strerror}") from None
