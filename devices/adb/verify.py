"""A file is the same on both sides: its size and SHA-256, computed here while it passes and on the phone by its shell."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from devices.adb.sync import LocalError

SEGMENT_BYTES = 1 << 23
"""Of each, a SHA-256 of its own: the phone's cores share the work, which else takes longer than a fast link."""

SUMS = """sums() {
  for worker in 0 1 2 3; do
    ( k=$worker; while [ "$k" -lt "$2" ]; do
        echo "$k $(dd "if=$1" bs=1048576 skip=$((k * 8)) count=8 2>/dev/null | sha256sum)"; k=$((k + 4)); done ) &
  done; wait
}
"""
FINISH = (
    SUMS
    + """fail() { rm -f -- "$part"; echo "$1" >&2; exit 9; }
part=$1
[ ! -d "$2" ] || fail "a folder of that name is there"
[ "$(stat -c %s -- "$part")" = "$4" ] || fail "it arrived with another size"
[ "$(sums "$part" "$5" | sort -n)" = "$6" ] || fail "it arrived damaged"
chmod "$3" "$part" && mv -f -- "$part" "$2" || fail "it cannot be renamed"
rm -f -- "$2".????????.part
"""
)
SUM = SUMS + 'stat -L -c %s -- "$1" && sums "$1" "$2" | sort -n'


class Sums:
    """The SHA-256 of each segment of what it is given, in the form in which the phone prints them."""

    def __init__(self) -> None:
        self.size = 0
        self._segments = [hashlib.sha256()]
        self._room = SEGMENT_BYTES

    @property
    def count(self) -> int:
        return len(self._segments)

    def update(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        self.size += len(left)
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


class Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sums = file, Sums()

    def readinto(self, buffer: memoryview) -> int:
        count = int(self._file.readinto(buffer))  # type: ignore[attr-defined]
        self.sums.update(buffer[:count])
        return count


class Sink:
    """A file that is hashed while it is written; an error of it is no error of the link."""

    def __init__(self, path: Path) -> None:
        self.sums = Sums()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise LocalError(error.strerror) from error

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise LocalError(error.strerror) from error
        self.sums.update(data)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise LocalError(error.strerror) from error
