"""The packets of adbd's `sync:` service: a file to the phone, a file from it, what kind of file is there."""

from __future__ import annotations

import contextlib
import stat as stat_module
import struct
import time
from collections.abc import Callable
from typing import BinaryIO

from devices.adb.errors import clean
from devices.adb.stream import ProtocolError, Silence, Stream
from devices.transport import OnProgress

WORD = struct.Struct("<4sI")
STAT = struct.Struct("<4sIII")
CHUNK_BYTES = 65536
"""The most that adbd takes in one DATA."""
CHUNKS_A_PACKET = 15
"""So that they fit into one packet of 1 MiB: each packet is answered before the next."""
MAX_PATH_BYTES = 1024


class SyncFailed(Exception):
    """adbd's own reason, cleaned."""


class SyncReader:
    """Whole answers from a stream that gives pieces."""

    def __init__(self, stream: Stream, patience_s: float) -> None:
        self._stream, self._patience_s = stream, patience_s
        self._left = memoryview(b"")

    def take(self, size: int) -> memoryview:
        """Raises: Silence: nothing, not even a part, for the patience; OSError."""
        while len(self._left) < size:
            self._more(self._patience_s)
        data, self._left = self._left[:size], self._left[size:]
        return data

    def look(self) -> bool:
        """Whether anything has come, without waiting."""
        with contextlib.suppress(Silence):
            self._more(0.0)
        return bool(self._left)

    def word(self, *expected: bytes) -> tuple[bytes, int]:
        """An answer's name and its number. Raises: SyncFailed: it is FAIL; ProtocolError: it is none of `expected`."""
        name, number = WORD.unpack(self.take(WORD.size))
        if name == b"FAIL":
            reason = str(self.take(min(number, 4096)), "utf-8", "replace")
            raise SyncFailed(clean(reason, 200) or "no reason was given")
        if name not in expected:
            raise ProtocolError(f"a sync answer {name!r} in place of {expected!r}")
        return name, number

    def _more(self, timeout_s: float) -> None:
        while True:
            try:
                data = self._stream.recv(timeout_s)
            except Silence:
                if timeout_s and time.monotonic() - self._stream.heard_s < timeout_s:
                    continue  # a slow link is no silent one
                raise
            if not data:
                raise ConnectionResetError("the phone closed the stream in the middle of a file")
            self._left = memoryview(b"".join((self._left, data)) if self._left else data)
            return


def send_file(
    stream: Stream, path: str, mode: int, file: BinaryIO, mtime_s: int, patience_s: float, on_progress: OnProgress
) -> None:
    """A file to `path`, whose folders adbd makes. on_progress: bytes sent so far.

    Raises: SyncFailed: the phone could not write it; OSError, Silence: the link; LocalError: `file` cannot be read.
    """
    reader = SyncReader(stream, patience_s)
    block = memoryview(bytearray(CHUNKS_A_PACKET * (WORD.size + CHUNK_BYTES)))
    sent = 0
    try:
        stream.send(_request(b"SEND", path, f",{stat_module.S_IFREG | mode}"))
        while True:
            used, count = _fill(block, file)
            if not count:
                break
            stream.send(block[:used])
            sent += count
            on_progress(sent)
            if reader.look():  # nothing but FAIL can come before DONE
                reader.word()
        stream.send(WORD.pack(b"DONE", mtime_s & 0xFFFFFFFF))
    except BrokenPipeError:
        reader.word()  # what the phone said before it closed the stream
        raise
    reader.word(b"OKAY")


def receive_file(
    stream: Stream, path: str, write: Callable[[memoryview], object], limit: int, patience_s: float
) -> int:
    """The bytes of `path`, to `write`; their number.

    Raises: SyncFailed, ProtocolError (over `limit` bytes), Silence, OSError.
    """
    reader = SyncReader(stream, patience_s)
    stream.send(_request(b"RECV", path))
    size = 0
    while True:
        name, length = reader.word(b"DATA", b"DONE")
        if name == b"DONE":
            return size
        if length > 1 << 20 or size + length > limit:
            raise ProtocolError(f"a file of over {limit} bytes")
        write(reader.take(length))
        size += length


def stat_mode(stream: Stream, path: str, patience_s: float) -> int:
    """st_mode of a file; 0 where there is none. (The size that comes with it has 32 bits only.)"""
    stream.send(_request(b"STAT", path))
    name, mode, _, _ = STAT.unpack(SyncReader(stream, patience_s).take(STAT.size))
    if name != b"STAT":
        raise ProtocolError(f"a sync answer {name!r} in place of STAT")
    return int(mode)


class LocalError(Exception):
    """The file on this side cannot be read."""


def _fill(block: memoryview, file: BinaryIO) -> tuple[int, int]:
    """DATA packets of what `file` has next: the bytes of the block that are used, and those of the file in them."""
    used = count = 0
    for _ in range(CHUNKS_A_PACKET):
        start = used + WORD.size
        try:
            size = file.readinto(block[start : start + CHUNK_BYTES])  # type: ignore[attr-defined]
        except OSError as error:
            raise LocalError(error.strerror or str(error)) from error
        if not size:
            break
        WORD.pack_into(block, used, b"DATA", size)
        used, count = start + size, count + size
    return used, count


def _request(name: bytes, path: str, more: str = "") -> bytes:
    data = (path + more).encode("utf-8", "surrogateescape")
    if len(data) > MAX_PATH_BYTES:
        raise SyncFailed(f"the path has over {MAX_PATH_BYTES} bytes")
    return WORD.pack(name, len(data)) + data
