"""One command on a phone: started by the phone's own shell, read to its end, killed with all that it started.

adbd starts each command in a session and a group of its own. The shell says its number, which is the group's, as the
first line of output, starts the command and waits for it. What adbd does not do at a time-out or a lost interest, killing
the group, is done by that number; at a lost link adbd hangs up on the shell alone, and the shell kills the group itself.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence

from devices.adb import shell_v2
from devices.adb.errors import clean
from devices.adb.stream import Buffer, Link, ProtocolError, Silence, Stream
from devices.transport import CommandResult, OnOutput

SERVICE = "shell,v2,raw:"
LINE_BYTES = 3000
"""A longer command goes over the shell's input: some phones take 4 KiB in a request, none over 128 KiB."""
PIECE_BYTES = 16384
MAX_OUTPUT_BYTES = 1 << 28
GRACE_S = 5
# The shell outlives a TERM to its group, so that its end says when the command's own end has come. The command does not
# inherit what is trapped, but ignores INT and QUIT, as all does that a shell starts in the background. The shell's own
# word on how it ended ("Terminated") is not for stderr.
START = """echo $$
t= s=127
trap t=1 TERM
trap 'trap "" HUP TERM; kill -s TERM -- "-$$"; n=0
while kill -0 $! && [ $n -lt 50 ]; do sleep 0.1 || sleep 1; n=$((n + 1)); done
kill -s KILL -- "-$$"' HUP
exec """
WAIT = """ </dev/null &
exec 2>/dev/null
while t=; wait $!; n=$?; [ $n = 127 ] || s=$n; [ "$t" ]; do :; done
exit $s"""
# a leader that has ended is a zombie for as long as adbd cannot get rid of its output
KILL = """kill -s TERM -- "-$1" 2>/dev/null || exit 0
n=0
while read -r pid name state rest <"/proc/$1/stat" && [ "$state" != Z ] && [ "$n" -lt "$2" ]; do
  sleep 0.1 || sleep 1; n=$((n + 1))
done 2>/dev/null
kill -s KILL -- "-$1" 2>/dev/null
exit 0"""


class OutOfTime(Exception):
    """The command did not end within its limit."""


def shell_line(argv: Sequence[str]) -> str:
    """What the phone's shell reads. Each argument is quoted, so that it stays one, whatever is in it.

    Raises: ValueError: no program, one that the shell would take for an option, or a NUL.
    """
    if not argv or not argv[0] or argv[0].startswith("-"):
        raise ValueError(f"no program's name begins {list(argv)[:1]!r}")
    if any("\0" in argument for argument in argv):
        raise ValueError("embedded null byte")
    return START + shlex.join(argv) + WAIT


def shown(argv: Sequence[str]) -> str:
    return clean(shlex.join(argv[:20]), 200)


def kill_argv(group: int) -> list[str]:
    """TERM to a group, so that a runner can finish its line; KILL when its leader is gone, at the latest after GRACE_S."""
    return ["sh", "-c", KILL, "sh", str(group), str(GRACE_S * 10)]


def run_command(
    link: Link,
    argv: Sequence[str],
    *,
    timeout_s: float | None,
    on_output: OnOutput | None,
    patience_s: float,
    kill: Callable[[int], None] | None,
) -> CommandResult:
    """Args: kill: ends a group; called before any exception leaves here, unless no number came. None: there is no need.

    Raises: OutOfTime, Refused, Silence, ProtocolError, OSError; what `on_output` raises.
    """
    start = time.monotonic()
    deadline = None if timeout_s is None else start + timeout_s
    line = shell_line(argv)
    script = line.encode("utf-8", "surrogateescape") + b"\n"
    long = len(script) > LINE_BYTES
    output = _Output(on_output)
    stream = link.open(SERVICE + ("exec sh" if long else line), patience_s)
    try:
        if long:
            for offset in range(0, len(script), PIECE_BYTES):
                stream.send(shell_v2.encode(shell_v2.STDIN, script[offset : offset + PIECE_BYTES]))
            stream.send(shell_v2.encode(shell_v2.CLOSE_STDIN))
        while output.status is None:
            data = _receive(link, stream, deadline, patience_s)
            if not data:
                raise ConnectionResetError("the phone closed the shell before the command ended")
            output.take(data)
    except BaseException:
        if kill is not None and output.group is not None:
            kill(output.group)
        raise
    finally:
        stream.close()
    wall_s = time.monotonic() - start
    return CommandResult(tuple(argv), output.status, bytes(output.stdout), bytes(output.stderr), wall_s)


def _receive(link: Link, stream: Stream, deadline: float | None, patience_s: float) -> Buffer:
    """What comes next. A command may be silent for as long as it likes, provided that the link is alive."""
    while True:
        wait_s = patience_s
        if deadline is not None:
            wait_s = min(wait_s, deadline - time.monotonic())
            if wait_s <= 0:
                raise OutOfTime
        try:
            return stream.recv(wait_s)
        except Silence:
            quiet = wait_s == patience_s and time.monotonic() - stream.heard_s >= patience_s
            if quiet and not link.alive(patience_s):
                raise Silence(f"no sign of life for {2 * patience_s:.3g} s") from None


class _Output:
    """The packets of a command, taken apart. group: its number, from the first line; status: None until its end."""

    def __init__(self, on_output: OnOutput | None) -> None:
        self._on_output = on_output
        self._decoder = shell_v2.Decoder()
        self.stdout, self.stderr = bytearray(), bytearray()
        self.group: int | None = None
        self.status: int | None = None

    def take(self, data: Buffer) -> None:
        for kind, part in self._decoder.feed(data):
            if kind == shell_v2.STDOUT:
                self._stdout(part)
            elif kind == shell_v2.STDERR:
                self.stderr += part
            elif kind == shell_v2.EXIT and len(part) == 1:
                self.status = part[0]
                return
            if len(self.stdout) + len(self.stderr) > MAX_OUTPUT_BYTES:
                raise ProtocolError(f"a command that wrote over {MAX_OUTPUT_BYTES >> 20} MiB")

    def _stdout(self, part: bytes) -> None:
        self.stdout += part
        if self.group is None:
            line, newline, rest = bytes(self.stdout).partition(b"\n")
            if not newline:
                return
            if not re.fullmatch(rb"[1-9][0-9]{0,9}", line) or int(line) < 2:
                raise ProtocolError(f"a shell that calls itself process {line[:40]!r}")
            self.group, self.stdout, part = int(line), bytearray(rest), rest
        if part and self._on_output is not None:
            self._on_output(part)
