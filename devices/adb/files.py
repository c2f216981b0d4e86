"""One file over a link, and what is then known of it: sent, or received and by whom it is still to be checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from devices.adb import sync
from devices.adb.stream import Link
from devices.adb.sync import LocalError
from devices.adb.verify import Passing, Sums, reads_the_same
from devices.transport import OnProgress

MAX_PULL_BYTES = 1 << 32
SMALL_BYTES = 1 << 16
"""So little is read a second time at once: a command takes longer."""


class Damaged(Exception):
    """The bytes on both sides are not the same."""


@dataclass(frozen=True)
class Copied:
    """A file that came over whole. sums: for the phone's shell to compare its file with; None: both sides were compared."""

    mode: int
    size: int
    sums: Sums | None

    @property
    def proof(self) -> list[str]:
        """The arguments of `verify.CHECK`."""
        return [str(self.size), *(["0", ""] if self.sums is None else [str(self.sums.count), self.sums.text()])]


def send(link: Link, file: BinaryIO, remote: str, patience_s: float, on_progress: OnProgress) -> Copied:
    """Raises: sync.SyncFailed: the phone's reason; LocalError: `file` cannot be read; Damaged; Silence, OSError."""
    status = os.fstat(file.fileno())
    mode = stat.S_IMODE(status.st_mode) & 0o777
    source = _Source(file)
    with contextlib.closing(link.open("sync:", patience_s)) as stream:
        to = cast(BinaryIO, source)
        sync.send_file(stream, remote, mode, to, int(status.st_mtime), patience_s, on_progress)
        passing = source.passing
        if not passing.fast:
            return Copied(mode, passing.size, passing.sums(file))
        if not reads_the_same(stream, remote, file, passing.size, patience_s):
            raise Damaged
        return Copied(mode, passing.size, None)


def receive(link: Link, remote: str, local: Path, patience_s: float) -> Copied:
    """Raises: sync.SyncFailed: also where there is no file; LocalError: `local` cannot be written; and as `send`."""
    with contextlib.closing(link.open("sync:", patience_s)) as stream:
        mode = sync.stat_mode(stream, remote, patience_s)
        if mode == 0:
            raise sync.SyncFailed("there is no such file, or not for the phone's shell")
        if stat.S_ISDIR(mode):
            raise sync.SyncFailed("it is a folder")
        mode = mode & 0o777 if stat.S_ISREG(mode) else 0o644
        with _opened(local) as file:
            sink = _Sink(file)
            sync.receive_file(stream, remote, sink.write, MAX_PULL_BYTES, patience_s)
            passing = sink.passing
            if not passing.fast and passing.size > SMALL_BYTES:
                return Copied(mode, passing.size, passing.sums(file))
            if not reads_the_same(stream, remote, file, passing.size, patience_s):
                raise Damaged
            return Copied(mode, passing.size, None)


class _Source:
    """A file that is watched while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.passing = file, Passing()

    def readinto(self, buffer: memoryview) -> int:
        count = int(self._file.readinto(buffer))  # type: ignore[attr-defined]
        self.passing.update(buffer[:count])
        return count


class _Sink:
    """A file that is watched while it is written; an error of it is no error of the link."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.passing = file, Passing()

    def write(self, data: memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise LocalError(error.strerror) from error
        self.passing.update(data)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A new file, whose folder is made; written out at the end. Raises: LocalError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb+")
    except OSError as error:
        raise LocalError(error.strerror) from error
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise LocalError(error.strerror) from error
