"""Many questions to a device in one command: a constant script, whose answers a random mark tells apart."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Sequence

from devices.errors import CommandTimeout
from devices.transport import Transport

MAX_ANSWERS = 4096
MAX_BYTES = 1 << 22
FILES_S = 20.0

# $m: the mark, which no file can hold, not even one that the device makes up
# IFS is empty: an unquoted $p is a pattern and never words
HEAD = """m=$1; shift
IFS=
say() { echo; echo "$m $1"; }
"""
# All is the shell itself: a process for each of some hundred files would take a phone seconds. Its echo knows backslashes,
# which no file of the kernel's has.
FILES = """for p; do for f in $p; do
  case $f in *\\\\*) continue ;; esac
  [ -f "$f" ] && [ -r "$f" ] || continue
  say "$f"
  n=0; l=
  while [ $n -lt 100 ] && { read -r l || [ "$l" ]; }; do echo "$l"; n=$((n + 1)); l=; done <"$f"
done; done 2>/dev/null
"""


def ask(transport: Transport, script: str, arguments: Sequence[str] = (), *, limit_s: float) -> dict[str, str]:
    """What a script, run by the device's shell after `HEAD`, printed after each `say NAME`: name -> text, stripped.

    A script that hangs is ended after `limit_s`; what it had answered by then counts. Where the device has no shell for
    us, nothing is answered. Names and texts are the device's: at most MAX_ANSWERS, MAX_BYTES in all.

    Raises: DeviceLost.
    """
    mark = secrets.token_hex(16)
    heard = bytearray()
    ended = False
    with contextlib.suppress(CommandTimeout):
        argv = ["sh", "-c", HEAD + script, "sh", mark, *arguments]
        transport.run(argv, timeout_s=limit_s, on_output=heard.extend)
        ended = True
    parts = heard[:MAX_BYTES].decode("utf-8", "replace").split(f"{mark} ")[1 : MAX_ANSWERS + 1]
    if not ended:
        del parts[-1:]  # the one that hung may be half a number
    answers: dict[str, str] = {}
    for part in parts:
        name, newline, text = part.partition("\n")
        if newline:
            answers.setdefault(name, text.strip())
    return answers


def read_files(transport: Transport, patterns: Iterable[str]) -> dict[str, str]:
    """Path -> text (the first 100 lines) of each readable file that fits one of the shell patterns; one command."""
    return ask(transport, FILES, list(patterns), limit_s=FILES_S)
