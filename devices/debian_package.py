"""Files out of a Debian package, read without unpacking it: no path in it ever becomes a path here.

A .deb is an `ar` archive with a compressed tar, `data.tar.*`, in it. Sizes and counts are bounded; a link is followed only
to another entry of the same tar.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import subprocess
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from devices.errors import BundleError

MAX_PACKAGE_BYTES = 64 << 20
MAX_TAR_BYTES = 128 << 20
MAX_ENTRIES = 20_000
MAX_AR_MEMBERS = 16
MAX_LINKS = 4

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


def read_package(package: Path, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """Args: wanted: name -> path in the package, without a slash in front. Returns: name -> content.

    Raises: BundleError: it cannot be read, is no Debian package, is damaged or too large, or lacks a file.
    """
    try:
        if package.stat().st_size > MAX_PACKAGE_BYTES:
            raise ValueError(f"it is larger than {MAX_PACKAGE_BYTES >> 20} MiB")
        name, data = _data_member(package.read_bytes())
        unpacked = _unpack(name, data, package)
        if len(unpacked) > MAX_TAR_BYTES:
            raise ValueError(f"{name} is larger than {MAX_TAR_BYTES >> 20} MiB when unpacked")
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            entries = _entries(tar)
            return {name: _content(tar, entries, path) for name, path in wanted.items()}
    except (ValueError, lzma.LZMAError, zlib.error, tarfile.TarError, EOFError, OverflowError, RecursionError) as error:
        raise BundleError(f"{package.name} is refused: {str(error)[:300]}", try_="fetch it again") from None
    except OSError as error:
        raise BundleError(f"cannot read {package}: {error.strerror}") from error


def _data_member(archive: bytes) -> tuple[str, bytes]:
    if not archive.startswith(AR_MAGIC):
        raise ValueError("it is no Debian package")
    offset = len(AR_MAGIC)
    for _ in range(MAX_AR_MEMBERS):
        header = archive[offset : offset + AR_HEADER_BYTES]
        if len(header) < AR_HEADER_BYTES or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise ValueError("it ends early or is damaged: data.tar is not there")
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        begins = offset + AR_HEADER_BYTES
        if begins + size > len(archive):
            raise ValueError(f"it ends in the middle of {name!r}")
        if name.startswith("data.tar"):
            return name, archive[begins : begins + size]
        offset = begins + size + size % 2
    raise ValueError(f"it has more than {MAX_AR_MEMBERS} parts")


def _unpack(name: str, data: bytes, package: Path) -> bytes:
    """At most one byte more than allowed, whatever the data say of themselves."""
    limit = MAX_TAR_BYTES + 1
    if name == "data.tar.xz":
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_TAR_BYTES).decompress(data, limit)
    if name == "data.tar.gz":
        return zlib.decompressobj(31).decompress(data, limit)
    if name == "data.tar":
        return data
    if name == "data.tar.zst":
        return _by_dpkg(package, limit)
    raise ValueError(f"{name!r} is compressed in a way that is not known here")


def _by_dpkg(package: Path, limit: int) -> bytes:
    """zstd is not in Python's library; Ubuntu, which packs with it, has dpkg-deb."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise ValueError("it is packed with zstd, and there is no dpkg-deb here to read that") from None
    with process:
        assert process.stdout is not None
        try:
            return process.stdout.read(limit)
        finally:
            process.kill()


def _entries(tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for count, entry in enumerate(tar):
        if count >= MAX_ENTRIES:
            raise ValueError(f"it has more than {MAX_ENTRIES} entries")
        found[posixpath.normpath(entry.name)] = entry
    return found


def _content(tar: tarfile.TarFile, entries: Mapping[str, tarfile.TarInfo], path: str) -> bytes:
    place, entry = path, entries.get(path)
    for _ in range(MAX_LINKS):
        if entry is None or not entry.issym():
            break
        place = posixpath.normpath(posixpath.join(posixpath.dirname(place), entry.linkname))
        entry = entries.get(place)
    if entry is None:
        raise ValueError(f"it has no file {path}" + (f", which is a link to {place[:200]!r}" if place != path else ""))
    # a sparse file may claim any size and hold nothing
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        raise ValueError(f"{path} is no plain file in it")
    opened = tar.extractfile(entry)
    content = b"" if opened is None else opened.read()
    if len(content) != entry.size:
        raise ValueError(f"it ends in the middle of {path}")
    return content
