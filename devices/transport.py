"""Transport: files and commands on a machine that runs models. Every transport passes `devices.testing`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

OnOutput = Callable[[bytes], None]


@dataclass(frozen=True)
class CommandResult:
    """`status` is the exit status; 128 + n where signal n ended the command, 127 where there is no such program."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    wall_s: float


@dataclass(frozen=True)
class DeviceDescription:
    """What a device says of itself. None where it does not say. `simulated` devices never reach a table.

    state: "device" where it can be measured on; else adb's word: "unauthorized", "offline", "no permissions", ...
    """

    name: str
    kind: str
    model: str
    os: str
    kernel: str
    abi: str
    cores: int
    memory_bytes: int | None
    simulated: bool = False
    state: str = "device"


class Transport(ABC):
    """One connection to one device. A context manager; `close` may be called twice."""

    name: str
    workdir: str
    """A folder on the device that is ours; absolute."""

    @abstractmethod
    def push(self, local: Path, remote: str) -> None:
        """Copies a file whole or not at all: to a .part beside it, verified, then renamed. Folders are made.

        Raises: TransferError: it did not arrive whole; DeviceLost.
        """

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """The same way back. Raises: TransferError (also: no such file), DeviceLost."""

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        """Runs a program without any shell of ours in between.

        Args:
            timeout_s: the command is killed after that long; None waits for ever.
            on_output: called with each piece of stdout as it comes, for progress.

        Raises: CommandTimeout, DeviceLost.
        """

    @abstractmethod
    def describe(self) -> DeviceDescription:
        """What the device is."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection and leaves nothing running."""

    def read_texts(self, paths: Sequence[str]) -> dict[str, str]:
        """The text of each small file that can be read, at most 64 KiB of each; the others are left out."""
        texts = {}
        for path in paths:
            result = self.run(["head", "-c", "65536", path], timeout_s=10)
            if result.status == 0:
                texts[path] = result.stdout.decode("utf-8", "replace")
        return texts

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
