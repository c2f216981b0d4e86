"""Many files as one archive: how they are packed and unpacked on either side."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

from devices.adb.errors import clean
from devices.adb.verify import CHECK, LEFT
from devices.folders import check_bytes, check_next, check_told

ARCHIVE_BYTES = 1 << 26
"""Of content in one archive, for which the phone needs free space a second time."""
ALONE_BYTES = 1 << 24
"""A file from this size on goes alone: its own stream and command are nothing beside its bytes."""
BLOCK_BYTES = 512
PLAIN_NAME_BYTES = 100
"""A longer one needs an extension of the format, which not every phone's tar can read."""

UNPACK = (
    """umask 0
fail() { rm -rf -- "$part" "$new"; echo "$1" >&2; exit 9; }
part=$1 new=$2 folder=$3; shift 3
"""
    + CHECK
    + """mkdir -m 700 -- "$new" && said=$(tar -x -o -C "$new" -f "$part" 2>&1) || fail "it cannot be unpacked: $said"
[ "$(find "$new" -type f -exec stat -c '%s %n' {} + | LC_ALL=C sort | sha256sum)" = "$1" ] || fail "it was unpacked wrong"
said=$(find "$new" -type f -exec sh -c 'folder=$1; shift; mv -f -- "$@" "$folder"' sh "$folder" {} + 2>&1)
[ -z "$(find "$new" -type f)" ] || fail "a file cannot be renamed: $said"
rm -rf -- "$part" "$new"
set -- "$folder/"
"""
    + LEFT
)
# twice: what came is compared with the SHA-256 of what the phone reads the second time; then the large ones' sizes and names
PACK = """cd -- "$1" || exit 9
of() { find . -mindepth 1 -maxdepth 1 -type f ! -name "$@"; }
pack() { of "$1" ! -size +8192 -exec tar -c -f - {} +; }
pack "$2"
pack "$2" | sha256sum >&2
of "$2" -size +8192 -exec stat -c '%s %n' {} + >&2
"""
"""-size +8192: over 4 MiB, whose own stream is nothing beside their bytes; in an archive they would fill our memory."""


def plan(files: Mapping[str, Path]) -> tuple[list[str], list[list[str]]]:
    """The names of files that go alone, and those of each archive. Raises: OSError."""
    alone: list[str] = []
    archives: list[list[str]] = [[]]
    room_bytes = ARCHIVE_BYTES
    for name, path in files.items():
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):  # some would block whoever opens them
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if size >= ALONE_BYTES or len(name.encode()) > PLAIN_NAME_BYTES:
            alone.append(name)
            continue
        if size > room_bytes:
            archives.append([])
            room_bytes = ARCHIVE_BYTES
        archives[-1].append(name)
        room_bytes -= size
    for few in [names for names in archives if len(names) == 1]:
        alone += few
    return alone, [names for names in archives if len(names) > 1]


def pack(files: Mapping[str, Path], archive: Path, new: str) -> tuple[str, int]:
    """Files into an archive. Returns what UNPACK finds where it was unpacked to the folder `new`, and the files' bytes.

    Raises: OSError: a file cannot be read, or changes meanwhile.
    """
    listing = []
    size_bytes = 0
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in files.items():
            with path.open("rb") as file:
                told = os.fstat(file.fileno())
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.mtime = told.st_size, told.st_mode & 0o777, max(0, int(told.st_mtime))
                tar.addfile(member, file)
            listing.append(f"{member.size} {new}/{name}\n".encode())
            size_bytes += member.size
    return f"{hashlib.sha256(b''.join(sorted(listing))).hexdigest()}  -", size_bytes


def unpack(archive: bytes, max_bytes: int, max_files: int) -> dict[str, bytes]:
    """The files of a phone's archive of one folder, of which nothing is trusted: name -> content.

    Raises: ValueError: it is damaged, is larger, or holds anything but plain files with plain names.
    """
    files: dict[str, bytes] = {}
    left_bytes = max_bytes
    start = 0
    try:
        while start < len(archive):
            # the end of one; another follows where the names did not fit into one command
            if not any(archive[start : start + BLOCK_BYTES]):
                start += BLOCK_BYTES
                continue
            with tarfile.open(fileobj=io.BytesIO(archive[start:]), mode="r:") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    check_next(name, files, max_files)
                    files[name] = _content(tar, member, files, left_bytes)
                    left_bytes -= len(files[name])
                start += tar.offset
    except (tarfile.TarError, OverflowError, RecursionError, EOFError) as error:
        raise ValueError(f"what the phone sent is no archive: {clean(str(error), 100)}") from error
    return files


def large_files(told: bytes, known: Mapping[str, bytes], max_bytes: int, max_files: int) -> dict[str, int]:
    """Name -> bytes, out of what PACK says on stderr after its first line.

    Args: known: what came in the archive, which counts too.

    Raises: ValueError: a line is odd, a name is no plain one, or there is more than may be.
    """
    sizes: dict[str, int] = {}
    for line in told.decode("utf-8", "surrogateescape").split("\n")[1:-1]:
        match = re.fullmatch(r"([0-9]{1,18}) \./(.*)", line, re.ASCII)
        if match is None:
            raise ValueError(f"the phone tells of no file: {line[:80]!a}")
        sizes[match[2]] = int(match[1])
    check_told([*known, *sizes], max_files)
    check_bytes([*map(len, known.values()), *sizes.values()], max_bytes)
    return sizes


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, files: Mapping[str, bytes], limit: int) -> bytes:
    found: bytes | None = None
    if member.islnk():  # a second name of a file that came before
        found = files.get(member.linkname.removeprefix("./"))
    elif member.isreg() and not member.issparse() and 0 <= member.size <= limit:
        reader = tar.extractfile(member)
        found = None if reader is None else reader.read()
    if found is None or len(found) > limit:
        raise ValueError(f"it holds over {limit} bytes more, or what is no plain file: {member.name[:80]!a}")
    return found
