"""What an ELF file asks of the machine that loads it, read without running anything.

Only what decides whether Android loads a file: processor, interpreter, needed libraries, page size, thread-locals and
names. The file is not trusted: every offset is checked against its size, every count and text is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from devices.errors import BundleError

MAX_FILE_BYTES = 512 << 20
MAX_SEGMENTS = 128
MAX_DYNAMIC = 4096
MAX_SYMBOLS = 1 << 20
MAX_TEXT_BYTES = 4096

ABIS = {62: "x86_64", 183: "arm64-v8a", 3: "x86", 40: "armeabi-v7a"}
"""ELF's number of a processor -> Android's name for it."""

LOAD, DYNAMIC, INTERPRETER, THREAD_LOCAL = 1, 2, 3, 7
NEEDED, HASH, STRINGS, SYMBOLS, STRINGS_BYTES, SONAME, GNU_HASH = 1, 4, 5, 6, 10, 14, 0x6FFFFEF5


@dataclass(frozen=True)
class Elf:
    """Args: alignment_bytes: the smallest alignment of a loaded segment, so the largest page size it can be loaded with."""

    abi: str
    shared: bool
    interpreter: str
    soname: str
    needed: tuple[str, ...]
    alignment_bytes: int
    thread_locals: bool
    imports: frozenset[str]
    exports: frozenset[str]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int
    alignment: int


def read_elf_file(path: Path) -> Elf:
    """Raises: BundleError: the file cannot be read, is too large, or `read_elf` refuses it."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BundleError(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB and is not read")
        return read_elf(path.read_bytes(), path.name)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error


def read_elf(data: bytes, name: str) -> Elf:
    """A program or a shared library of 64 bits, little-endian.

    Raises: BundleError: it is none, or its tables point outside of it; `name` says which file it was.
    """
    try:
        return _read(data)
    except (ValueError, struct.error) as error:
        raise BundleError(f"{name} is not an ELF file that can be used: {error}") from None


def _read(data: bytes) -> Elf:
    if data[:4] != b"\x7fELF":
        raise ValueError("it does not begin as one")
    if data[4:6] != b"\x02\x01":
        raise ValueError("it is not of 64 bits, little-endian")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if kind not in (2, 3):
        raise ValueError("it is neither a program nor a shared library")
    segments = _segments(data)
    loads = [segment for segment in segments if segment.kind == LOAD]
    if not loads:
        raise ValueError("it has nothing to load")
    dynamic = _dynamic(data, segments)
    strings = _place(data, loads, _last(dynamic, STRINGS), _last(dynamic, STRINGS_BYTES)) if dynamic else b""
    imports, exports = _symbols(data, loads, dynamic, strings) if dynamic else (frozenset[str](), frozenset[str]())
    sonames = [_text(strings, value) for tag, value in dynamic if tag == SONAME]
    paths = [_slice(data, segment.offset, segment.size) for segment in segments if segment.kind == INTERPRETER]
    return Elf(
        abi=ABIS.get(machine, f"machine {machine}"),
        shared=kind == 3,
        interpreter=_text(paths[0] + b"\0", 0) if paths else "",
        soname=sonames[0] if sonames else "",
        needed=tuple(_text(strings, value) for tag, value in dynamic if tag == NEEDED),
        alignment_bytes=min(segment.alignment for segment in loads),
        thread_locals=any(segment.kind == THREAD_LOCAL for segment in segments),
        imports=imports,
        exports=exports,
    )


def _segments(data: bytes) -> list[_Segment]:
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    if size < 56 or not 0 < count <= MAX_SEGMENTS:
        raise ValueError(f"{count} segments of {size} bytes")
    found = []
    for i in range(count):
        entry = _slice(data, offset + i * size, 56)
        kind, _, where, address, _, length, _, alignment = struct.unpack("<IIQQQQQQ", entry)
        found.append(_Segment(kind, where, address, length, alignment))
    return found


def _dynamic(data: bytes, segments: list[_Segment]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind != DYNAMIC:
            continue
        table = _slice(data, segment.offset, min(segment.size, MAX_DYNAMIC * 16) // 16 * 16)
        for tag, value in struct.iter_unpack("<QQ", table):
            if tag == 0:
                return found
            found.append((tag, value))
        raise ValueError("its dynamic table does not end")
    return found


def _last(dynamic: list[tuple[int, int]], tag: int) -> int:
    values = [value for found, value in dynamic if found == tag]
    if not values:
        raise ValueError(f"its dynamic table lacks entry {tag}")
    return values[-1]


def _symbols(
    data: bytes, loads: list[_Segment], dynamic: list[tuple[int, int]], strings: bytes
) -> tuple[frozenset[str], frozenset[str]]:
    """Imports and exports: the names that have no section, and those that have one and are visible."""
    tags = dict(dynamic)
    if HASH in tags:
        _, count = _words(_place(data, loads, tags[HASH], 8))
    elif GNU_HASH in tags:
        count = _gnu_count(data, loads, tags[GNU_HASH])
    else:
        raise ValueError("it has no hash table of its symbols")
    if count > MAX_SYMBOLS:
        raise ValueError(f"{count} symbols")
    table = _place(data, loads, _last(dynamic, SYMBOLS), count * 24)
    imports: set[str] = set()
    exports: set[str] = set()
    for i, (name, info, _, section) in enumerate(struct.iter_unpack("<IBBH16x", table)):
        if i and info >> 4 in (1, 2):  # global, weak
            (exports if section else imports).add(_text(strings, name))
    return frozenset(imports), frozenset(exports)


def _gnu_count(data: bytes, loads: list[_Segment], address: int) -> int:
    """How many symbols there are: GNU's table holds no count, its last chain ends with the last symbol."""
    buckets, first, bloom, _ = _words(_place(data, loads, address, 16))
    if max(buckets, first, bloom) > MAX_SYMBOLS:
        raise ValueError("a hash table of that size")
    begins = address + 16 + bloom * 8
    last = max(_words(_place(data, loads, begins, buckets * 4)), default=0)
    if last < first:
        return first
    for number in range(last, MAX_SYMBOLS):
        (hashed,) = _words(_place(data, loads, begins + 4 * (buckets + number - first), 4))
        if hashed & 1:
            return number + 1
    raise ValueError("its hash table does not end")


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def _place(data: bytes, loads: list[_Segment], address: int, size: int) -> bytes:
    for segment in loads:
        if segment.address <= address and address + size <= segment.address + segment.size:
            return _slice(data, segment.offset + address - segment.address, size)
    raise ValueError(f"nothing is loaded at 0x{address:x}")


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError(f"it ends before byte {offset + size}")
    return data[offset : offset + size]


def _text(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + MAX_TEXT_BYTES)
    if end < 0:
        raise ValueError("a name that does not end")
    return strings[offset:end].decode("utf-8", "replace")
