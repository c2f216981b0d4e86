"""AdbTransport: the transport contract over any Link."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from devices.adb import sync
from devices.adb.archive import PACK, UNPACK, large_files, pack, plan, unpack
from devices.adb.command import GRACE_S, OutOfTime, kill_argv, run_command, shown
from devices.adb.describe import TEXTS, description_of, parse_properties
from devices.adb.errors import CABLE, clean, mapped
from devices.adb.files import Copied, Damaged, receive, send
from devices.adb.pool import LinkPool
from devices.adb.stream import PATIENCE_S, Link
from devices.adb.verify import FINISH, SUM, SWEEP
from devices.errors import CommandTimeout, DeviceError, DeviceLost, TransferError
from devices.folders import arriving, check_given
from devices.transport import (
    HALF_FILES,
    MAX_FOLDER_BYTES,
    MAX_FOLDER_FILES,
    CommandResult,
    DeviceDescription,
    OnOutput,
    OnProgress,
    Transport,
)

WORKDIR = "/data/local/tmp/handset"
TEXT_BYTES = 65536
TEXTS_AT_ONCE = 256
HASH_BYTES_A_SECOND = 5_000_000
"""The slowest phone that a limit of time has to bear with."""
HEADER_BYTES = 4096
"""The most that an archive adds to a file's bytes: headers with its name, and what fills its last block."""

# all but head is the shell itself: a process for each path would take seconds
READ = """m=$1; shift
for f; do
  if [ -f "$f" ] && [ -r "$f" ]; then head -c 65536 "$f" 2>/dev/null; s=$?; else s=1; fi
  echo; echo "$m $s"
done"""


class AdbTransport(LinkPool, Transport):
    """A phone. Threads may use it at once: each has a link of its own, or waits where there is but one (USB).

    Args:
        name: its serial, or host:port.
        connect: makes a link. The first is made at the first use.
        patience_s: how long a link may be silent before it counts as lost; a silent command on a live link may go on.
    """

    def __init__(
        self, name: str, connect: Callable[[], Link], *, workdir: str = WORKDIR, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(name, connect)
        self.workdir, self._patience_s = workdir, patience_s

    def push(self, local: Path, remote: str, *, on_progress: OnProgress = lambda sent: None) -> None:
        """See `Transport`."""
        # a name of its own: adbd removes the file of a push that was cut, and may come to it when the next one is under way
        part = f"{remote}.{secrets.token_hex(4)}.part"
        what = f"push {local} to {clean(remote, 200)} on {self.name}"
        with self._swept(remote):
            copied = self._send(local, part, what, on_progress)
            self._finish(remote, [FINISH, "sh", part, *copied.proof, remote, f"{copied.mode:o}"], copied.size, what)

    def push_many(self, files: Mapping[str, Path], folder: str, *, on_progress: OnProgress = lambda sent: None) -> None:
        """See `Transport`. Small files go as archives, which the phone unpacks beside their places."""
        check_given(files)
        what = f"push {len(files)} files to {clean(folder, 200)} on {self.name}"
        try:
            alone, archives = plan(files)
            sent = 0
            for name in alone:
                self.push(files[name], f"{folder}/{name}", on_progress=_after(sent, on_progress))
                sent += files[name].stat().st_size
            for names in archives:
                some = {name: files[name] for name in names}
                sent += self._push_archive(some, folder, what, _after(sent, on_progress))
        except OSError as error:
            raise TransferError(f"cannot {what}: {error.filename or ''} {error.strerror or error}") from error
        if not files:
            self._make_folder(folder)

    def pull(self, remote: str, local: Path) -> None:
        what = f"pull {clean(remote, 200)} from {self.name} to {local}"
        part = local.with_name(local.name + ".part")
        try:
            with self._link(f"pulling {clean(remote, 200)}") as link:
                copied = receive(link, remote, part, self._patience_s)
            if copied.sums is not None:
                argv = ["sh", "-c", SUM, "sh", remote, str(copied.sums.count)]
                said = self.run(argv, timeout_s=_limit_s(copied.size)).stdout.decode("ascii", "replace")
                if said.strip() != f"{copied.size}\n{copied.sums.text()}":
                    raise Damaged
            part.chmod(copied.mode)
            part.replace(local)
        except Damaged:
            raise TransferError(
                f"cannot {what}: it arrived damaged, or changed meanwhile", try_="pull it again"
            ) from None
        except (sync.SyncFailed, sync.LocalError) as error:
            raise TransferError(f"cannot {what}: {error}") from error
        except OSError as error:
            raise TransferError(f"cannot {what}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def pull_folder(
        self, remote: str, local: Path, *, max_bytes: int = MAX_FOLDER_BYTES, max_files: int = MAX_FOLDER_FILES
    ) -> list[str]:
        """See `Transport`. One command, whose output is an archive in memory; files over 4 MiB then come one by one."""
        what = f"pull the folder {clean(remote, 200)} from {self.name} to {local}"
        left_bytes = max_bytes + HEADER_BYTES * (max_files + 8)

        def count(data: bytes) -> None:
            nonlocal left_bytes
            left_bytes -= len(data)
            if left_bytes < 0:
                raise _TooLarge

        try:
            argv = ["sh", "-c", PACK, "sh", remote, HALF_FILES]
            packed = self.run(argv, timeout_s=_limit_s(max_bytes), on_output=count)
            if not packed.stderr.startswith(b"%s  -\n" % hashlib.sha256(packed.stdout).hexdigest().encode()):
                reason = clean(packed.stderr.decode("utf-8", "replace"), 200)
                raise TransferError(f"cannot {what}: {reason or 'it arrived damaged'}", try_="pull it again")
            files = unpack(packed.stdout, max_bytes, max_files)
            large = large_files(packed.stderr, files, max_bytes, max_files)
            with arriving(local) as part:
                for name, content in files.items():
                    (part / name).write_bytes(content)
                for name, size in large.items():
                    self.pull(f"{remote}/{name}", part / name)
                    if (part / name).stat().st_size != size:
                        raise ValueError(f"{name} changed meanwhile")
        except ValueError as error:
            raise TransferError(f"cannot {what}: {error}") from None
        except _TooLarge:
            raise TransferError(f"cannot {what}: it holds over {max_bytes} bytes or {max_files} files") from None
        return sorted([*files, *large])

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

    def _push_archive(self, files: Mapping[str, Path], folder: str, what: str, on_progress: OnProgress) -> int:
        """Returns the bytes of the files. Raises: OSError: one cannot be read; TransferError, DeviceLost."""
        stem, token = f"{folder}/", secrets.token_hex(4)
        part, new = f"{stem}.{token}.part", f"{stem}.{token}.new"
        with tempfile.TemporaryDirectory(prefix="handset-") as scratch, self._swept(stem):
            archive = Path(scratch) / "archive"
            listing, size = pack(files, archive, new)
            copied = self._send(archive, part, what, lambda sent: on_progress(min(sent, size)))
            self._finish(stem, [UNPACK, "sh", part, new, folder, *copied.proof, listing], copied.size, what)
        return size

    def _send(self, local: Path, part: str, what: str, on_progress: OnProgress) -> Copied:
        """A file to `part`. Raises: TransferError, DeviceLost."""
        try:
            with local.open("rb") as file, self._link(f"pushing {local}") as link:
                return send(link, file, part, self._patience_s, on_progress)
        except (sync.SyncFailed, sync.LocalError) as error:
            free = "free space on the phone (df), and whether its shell may write there"
            raise TransferError(f"cannot {what}: {error}", try_=free) from error
        except Damaged:
            raise TransferError(f"cannot {what}: it arrived damaged", try_="push it again") from None
        except OSError as error:
            raise TransferError(f"cannot {what}: {error.strerror}") from error

    def _finish(self, stem: str, script: Sequence[str], size_bytes: int, what: str) -> None:
        """A script, and its arguments, that gives what was sent its place. Raises: TransferError, DeviceLost."""
        ended = self.run(["sh", "-c", *script], timeout_s=_limit_s(size_bytes))
        if ended.status != 0:
            raise TransferError(f"cannot {what}: {clean(ended.stderr.decode('utf-8', 'replace'), 200)}")
        if ended.stdout:
            self._sweep(stem)

    @contextlib.contextmanager
    def _swept(self, stem: str) -> Iterator[None]:
        """After an error in the block, unless the phone was lost with it, no half file is left there."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, CommandTimeout) or not isinstance(error, DeviceLost):
                self._sweep(stem)
            raise

    def _sweep(self, stem: str) -> None:
        with contextlib.suppress(DeviceError):
            self.run(["sh", "-c", SWEEP, "sh", stem], timeout_s=GRACE_S * 2)

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


class _TooLarge(Exception):
    """A phone writes more than was asked for."""


def _after(sent: int, on_progress: OnProgress) -> OnProgress:
    return lambda more: on_progress(sent + more)


def _limit_s(size_bytes: int) -> float:
    """What a command that reads so much may take."""
    return 60 + size_bytes / HASH_BYTES_A_SECOND
