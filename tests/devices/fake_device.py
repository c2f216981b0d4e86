"""A device that is nothing but texts: it answers the scripts of `devices.conditions` without a shell."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

from devices.host import HostTransport
from devices.transport import CommandResult, OnOutput


class FakeDevice(HostTransport):
    """Args: files: path -> text; services: what is said besides. Both are read at each command: change them in between."""

    def __init__(self, files: Mapping[str, str], services: Mapping[str, str] | None = None) -> None:
        super().__init__(Path("/nowhere"))
        self.files, self.services = files, services or {}
        self.commands = 0

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        self.commands += 1
        assert argv[:2] == ["sh", "-c"] and timeout_s is not None and on_output is not None
        mark, patterns = argv[4], argv[5:]
        found = {path: text for one in patterns for path, text in self.files.items() if fnmatch.fnmatch(path, one)}
        for name, text in {**found, **self.services}.items():
            on_output(f"\n{mark} {name}\n{text}\n".encode("utf-8", "surrogateescape"))
        return CommandResult(tuple(argv), 0, b"", b"", 0.0)
