"""A file is the same on both sides: by the SHA-256 that the phone's shell computes, or by its bytes, read again.

A phone's cable or Wi-Fi is most often slower than its SHA-256. Where a link is fast (a loopback to an emulated phone), all
bytes come over a second time and are compared: no weaker than a SHA-256 of both sides, and quicker.
"""

from __future__ import annotations

import hashlib
import time
from typing import BinaryIO

from devices.adb import sync
from devices.adb.stream import Stream
from devices.adb.sync import LocalError

SEGMENT_BYTES = 1 << 23
"""Of each, a SHA-256 of its own: the phone's cores share the work, which else takes longer than a fast link."""
FAST_BYTES_A_SECOND = 1.25e8
"""A gigabit: no Wi-Fi of a phone, and few cables, carry more."""
TRIAL_BYTES = 1 << 21
"""After these it shows whether a link is fast; below, a command costs more than either way."""

SUMS = """sums() {
  for worker in 0 1 2 3; do
    [ "$worker" -lt "$2" ] || break
    ( k=$worker; while [ "$k" -lt "$2" ]; do
        echo "$k $(dd "if=$1" bs=1048576 skip=$((k * 8)) count=8 2>/dev/null | sha256sum)"; k=$((k + 4)); done ) &
  done; wait
}
"""
# nothing is asked where both sides were compared
CHECK = (
    SUMS
    + """if [ "$2" != 0 ]; then
  [ "$(stat -c %s -- "$part")" = "$1" ] || fail "it arrived with another size"
  [ "$(sums "$part" "$2" | sort -n)" = "$3" ] || fail "it arrived damaged"
fi
shift 3
"""
)
# says whether pushes that were cut left anything behind. It does not remove it: where this push was cut itself, that may be
# the next one's, which has begun.
LEFT = """for left in "$1".????????.part "$1".????????.new; do [ ! -e "$left" ] || echo "$left"; done
"""
SWEEP = 'rm -rf -- "$1".????????.part "$1".????????.new'
FINISH = (
    """fail() { rm -f -- "$part"; echo "$1" >&2; exit 9; }
part=$1; shift
"""
    + CHECK
    + """[ ! -d "$1" ] || fail "a folder of that name is there"
chmod "$2" "$part" && mv -f -- "$part" "$1" || fail "it cannot be renamed"
"""
    + LEFT
)
SUM = SUMS + 'stat -L -c %s -- "$1" && sums "$1" "$2" | sort -n'


class Sums:
    """The SHA-256 of each segment of what it is given, in the form in which the phone prints them."""

    def __init__(self) -> None:
        self._segments = [hashlib.sha256()]
        self._room = SEGMENT_BYTES

    @property
    def count(self) -> int:
        return len(self._segments)

    def update(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            if self._room == 0:
                self._segments.append(hashlib.sha256())
                self._room = SEGMENT_BYTES
            piece = left[: self._room]
            self._segments[-1].update(piece)
            self._room -= len(piece)
            left = left[len(piece) :]

    def text(self) -> str:
        return "\n".join(f"{number} {digest.hexdigest()}  -" for number, digest in enumerate(self._segments))


class Passing:
    """The bytes of a file on their way: counted, timed, and hashed until the link shows itself to be fast."""

    def __init__(self) -> None:
        self.size = 0
        self._start_s = time.monotonic()
        self._sums: Sums | None = Sums()

    @property
    def fast(self) -> bool:
        seconds = time.monotonic() - self._start_s
        return self.size >= TRIAL_BYTES and self.size > FAST_BYTES_A_SECOND * seconds

    def update(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self._sums is not None:
            if self.fast:
                self._sums = None
            else:
                self._sums.update(data)

    def sums(self, file: BinaryIO) -> Sums:
        """Args: file: the same bytes, for what was not hashed on the way. Raises: LocalError."""
        if self._sums is None:  # fast at first, as long as the buffers in between took it
            self._sums = Sums()
            _rewind(file)
            try:
                while data := file.read(1 << 20):
                    self._sums.update(data)
            except OSError as error:
                raise LocalError(error.strerror or str(error)) from error
        return self._sums


class _Differs(Exception):
    pass


def reads_the_same(stream: Stream, remote: str, file: BinaryIO, size: int, patience_s: float) -> bool:
    """Whether the phone's file, read over the link, holds the `size` bytes of `file`. If not, the stream is of no more use.

    Raises: those of `sync.receive_file`; LocalError.
    """

    block = bytearray(sync.CHUNK_BYTES)

    def compare(data: memoryview) -> None:
        nonlocal block
        if len(block) != len(data):
            block = bytearray(len(data))
        try:
            if file.readinto(block) != len(data) or block != data:  # type: ignore[attr-defined]
                raise _Differs
        except OSError as error:
            raise LocalError(error.strerror or str(error)) from error

    try:
        _rewind(file)
        return sync.receive_file(stream, remote, compare, 1 << 62, patience_s) == size
    except _Differs:
        return False


def _rewind(file: BinaryIO) -> None:
    try:
        file.seek(0)  # also writes out what is buffered
    except OSError as error:
        raise LocalError(error.strerror or str(error)) from error
