"""AdbTransport: the transport contract over any Link."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from devices.adb import sync
from devices.adb.command import GRACE_S, OutOfTime, kill_argv, run_command, shown
from devices.adb.describe import TEXTS, description_of, parse_properties
from devices.adb.errors import CABLE, clean, mapped
from devices.adb.stream import PATIENCE_S, Link, Stream
from devices.adb.verify import FINISH, SUM, Hashed, Sink
from devices.errors import CommandTimeout, DeviceError, DeviceLost, TransferError
from devices.transport import CommandResult, DeviceDescription, OnOutput, Transport

WORKDIR = "/data/local/tmp/handset"
MAX_PULL_BYTES = 1 << 32
TEXT_BYTES = 65536
TEXTS_AT_ONCE = 256
HASH_BYTES_A_SECOND = 5_000_000
"""The slowest phone that a limit of time has to bear with."""

# all but head is the shell itself: a process for each path would take seconds
READ = """m=$1; shift
for f; do
  if [ -f "$f" ] && [ -r "$f" ]; then head -c 65536 "$f" 2>/dev/null; s=$?; else s=1; fi
  echo; echo "$m $s"
done"""


class AdbTransport(Transport):
    """A phone. Threads may use it at once: each has a link of its own, or waits where there is but one (USB).

    Args:
        name: its serial, or host:port.
        connect: makes a link. The first is made at the first use.
        patience_s: how long a link may be silent before it counts as lost; a silent command on a live link may go on.
    """

    def __init__(
        self, name: str, connect: Callable[[], Link], *, workdir: str = WORKDIR, patience_s: float = PATIENCE_S
    ) -> None:
        self.name, self.workdir = name, workdir
        self._connect, self._patience_s = connect, patience_s
        self._free = threading.Condition()
        self._idle: list[Link] = []
        self._busy: list[Link] = []
        self._closed = False

    def push(self, local: Path, remote: str, *, on_progress: sync.OnProgress = lambda sent: None) -> None:
        """See `Transport`. on_progress: called with the number of bytes that were sent so far."""
        # a name of its own: adbd removes the file of a push that was cut, and may come to it when the next one is under way
        part = f"{remote}.{secrets.token_hex(4)}.part"
        what = f"push {local} to {clean(remote, 200)}"
        try:
            file = local.open("rb")
        except OSError as error:
            raise TransferError(f"cannot {what}: {error.strerror}") from error
        with file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode) & 0o777
            source = Hashed(file)
            try:
                with self._link(f"pushing {local}") as link, contextlib.closing(self._open_sync(link)) as stream:
                    to = cast(BinaryIO, source)
                    sync.send_file(stream, part, mode, to, int(status.st_mtime), self._patience_s, on_progress)
            except (sync.SyncFailed, sync.LocalError) as error:
                self._remove(part)
                free = "free space on the phone (df), and whether its shell may write there"
                raise TransferError(f"cannot {what} on {self.name}: {error}", try_=free) from error
            except DeviceLost:
                raise
            except BaseException:
                self._remove(part)
                raise
        sums = source.sums
        argv = ["sh", "-c", FINISH, "sh", part, remote, f"{mode:o}", str(sums.size), str(sums.count), sums.text()]
        ended = self.run(argv, timeout_s=60 + sums.size / HASH_BYTES_A_SECOND)
        if ended.status != 0:
            reason = clean(ended.stderr.decode("utf-8", "replace"), 200)
            raise TransferError(f"cannot {what} on {self.name}: {reason}")

    def pull(self, remote: str, local: Path) -> None:
        what = f"pull {clean(remote, 200)} from {self.name} to {local}"
        part = local.with_name(local.name + ".part")
        try:
            with self._link(f"pulling {clean(remote, 200)}") as link:
                with contextlib.closing(self._open_sync(link)) as stream:
                    mode = sync.stat_mode(stream, remote, self._patience_s)
                    if mode == 0:
                        raise TransferError(f"cannot {what}: there is no such file, or not for the phone's shell")
                    if stat.S_ISDIR(mode):
                        raise TransferError(f"cannot {what}: it is a folder")
                    sink = Sink(part)
                    try:
                        sync.receive_file(stream, remote, sink.write, MAX_PULL_BYTES, self._patience_s)
                    finally:
                        sink.close()
            sums = sink.sums
            argv = ["sh", "-c", SUM, "sh", remote, str(sums.count)]
            said = self.run(argv, timeout_s=60 + sums.size / HASH_BYTES_A_SECOND).stdout.decode("ascii", "replace")
            if said.strip() != f"{sums.size}\n{sums.text()}":
                raise TransferError(f"cannot {what}: it arrived damaged, or changed meanwhile", try_="pull it again")
            part.chmod(mode & 0o777 if stat.S_ISREG(mode) else 0o644)
            part.replace(local)
        except (sync.SyncFailed, sync.LocalError) as error:
            raise TransferError(f"cannot {what}: {error}") from error
        except OSError as error:
            raise TransferError(f"cannot {what}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        unkilled: list[DeviceError] = []

        def kill(group: int) -> None:
            try:
                self._kill(link, group)
            except DeviceError as error:
                unkilled.append(error)

        try:
            with self._link(f"running {shown(argv)}") as link:
                return run_command(
                    link, argv, timeout_s=timeout_s, on_output=on_output, patience_s=self._patience_s, kill=kill
                )
        except OutOfTime:
            said = f"{shown(argv)} did not end on {self.name} within {timeout_s:.3g} s"
            if unkilled:
                raise DeviceLost(f"{said} and could not be killed: {unkilled[0]}", try_=CABLE) from unkilled[0]
            raise CommandTimeout(f"{said} and was killed") from None

    def read_texts(self, paths: Sequence[str]) -> dict[str, str]:
        """As in `Transport`, all of them by one command."""
        texts = {}
        for start in range(0, len(paths), TEXTS_AT_ONCE):
            some = paths[start : start + TEXTS_AT_ONCE]
            mark = secrets.token_hex(16)  # which no file can hold, not even one that the phone makes up
            pieces = self.run(["sh", "-c", READ, "sh", mark, *some], timeout_s=60).stdout.split(f"\n{mark} ".encode())
            content = pieces[0]
            for path, piece in zip(some, pieces[1:], strict=False):
                status, _, following = piece.partition(b"\n")
                if status == b"0":
                    texts[path] = content[:TEXT_BYTES].decode("utf-8", "replace")
                content = following
        return texts

    def check(self) -> None:
        """Raises: NoSuchDevice, DeviceLost: it cannot be reached, or does not let itself be used."""
        with self._link("connecting"):
            pass

    def properties(self) -> dict[str, str]:
        """The phone's system properties, cleaned; empty where it has no getprop."""
        return parse_properties(self.run(["getprop"], timeout_s=30).stdout.decode("utf-8", "replace"))

    def describe(self) -> DeviceDescription:
        uname = self.run(["uname", "-r", "-m"], timeout_s=30).stdout.decode("utf-8", "replace")
        return description_of(self.name, self.properties(), self.read_texts(TEXTS), uname)

    def close(self) -> None:
        with self._free:
            self._closed = True
            links, self._idle = self._idle + self._busy, []
            self._free.notify_all()
        for link in links:
            with contextlib.suppress(Exception):
                link.close()

    def _open_sync(self, link: Link) -> Stream:
        return link.open("sync:", self._patience_s)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(DeviceError):
            self.run(["rm", "-f", "--", path], timeout_s=GRACE_S * 2)

    def _kill(self, link: Link, group: int) -> None:
        """Ends a group of processes, over a second link where there can be one: the first may be in mid-packet."""
        with contextlib.ExitStack() as stack:
            second = stack.enter_context(self._link("ending a command")) if link.shared else link
            argv, limit_s = kill_argv(group), GRACE_S + self._patience_s
            with mapped(self.name, "ending a command"):
                try:
                    run_command(second, argv, timeout_s=limit_s, on_output=None, patience_s=self._patience_s, kill=None)
                except OutOfTime:
                    raise DeviceLost(f"{self.name} does not end a command", try_=CABLE) from None

    @contextlib.contextmanager
    def _link(self, doing: str) -> Iterator[Link]:
        """A link that nobody else uses in the block; closed after any error but the phone's plain refusal."""
        with mapped(self.name, doing):
            link = self._take()
            try:
                yield link
            except (sync.SyncFailed, TransferError):
                self._give(link)
                raise
            except BaseException:
                link.close()
                self._give(link)
                raise
            self._give(link)

    def _take(self) -> Link:
        with self._free:
            while True:
                if self._closed:
                    raise ConnectionResetError("this transport was closed")
                while self._idle:
                    link = self._idle.pop()
                    if link.usable():
                        self._busy.append(link)
                        return link
                    link.close()
                if not any(not link.shared for link in self._busy):
                    link = self._connect()
                    self._busy.append(link)
                    return link
                self._free.wait()

    def _give(self, link: Link) -> None:
        with self._free:
            self._busy.remove(link)
            if not self._closed and link.usable():
                self._idle.append(link)
            self._free.notify()
