"""Transport: files and commands on a machine that runs models. Every transport passes `devices.testing`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from devices import folders
from devices.errors import TransferError

OnOutput = Callable[[bytes], None]
OnProgress = Callable[[int], None]
"""Called with the number of bytes that were sent so far."""

MAX_FOLDER_BYTES = 1 << 26
MAX_FOLDER_FILES = 1000
HALF_FILES = "*.????????.part"
"""What a cut push leaves on a device until the next one: no file of a folder."""

LIST = """cd -- "$1" && find . -mindepth 1 -maxdepth 1 -type f ! -name "$2" -exec stat -c '%s %n' {} +"""


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

    def push_many(self, files: Mapping[str, Path], folder: str, *, on_progress: OnProgress = lambda sent: None) -> None:
        """Local files by their new names, all into one folder of the device, which is made; each appears whole or not at all.

        Raises: ValueError: no plain name; TransferError: one did not arrive, others may have; DeviceLost.
        """
        folders.check_given(files)
        if not files:
            self._make_folder(folder)
        sent = 0
        for name, local in files.items():
            self.push(local, f"{folder}/{name}")
            sent += local.stat().st_size
            on_progress(sent)

    def pull_folder(
        self, remote: str, local: Path, *, max_bytes: int = MAX_FOLDER_BYTES, max_files: int = MAX_FOLDER_FILES
    ) -> list[str]:
        """Every plain file directly in a folder of the device into a local one, which is made; their names, sorted.

        Folders in it, links and devices stay there. Nothing arrives where anything is wrong.

        Raises: TransferError: also of a name that is no plain one, of more bytes or files than allowed; DeviceLost.
        """
        what = f"pull the folder {remote!a} from {self.name} to {local}"
        listed = self.run(["sh", "-c", LIST, "sh", remote, HALF_FILES], timeout_s=60)
        if listed.status != 0:
            raise TransferError(f"cannot {what}: it is not there, or not to be read")
        found = [line.partition(" ./") for line in listed.stdout.decode("utf-8", "surrogateescape").split("\n")[:-1]]
        names = [name for _, _, name in found]
        sizes = {name: int(size) if size.isdecimal() else max_bytes + 1 for size, _, name in found}
        try:
            folders.check_told(names, max_files)
            with folders.arriving(local) as part:
                for name in names:
                    folders.check_bytes(sizes.values(), max_bytes)
                    self.pull(f"{remote}/{name}", part / name)
                    sizes[name] = (part / name).stat().st_size
                folders.check_bytes(sizes.values(), max_bytes)
        except ValueError as error:
            raise TransferError(f"cannot {what}: {error}") from None
        return sorted(names)

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

    def _make_folder(self, folder: str) -> None:
        if self.run(["sh", "-c", 'mkdir -p -- "$1"', "sh", folder], timeout_s=60).status != 0:
            raise TransferError(f"cannot make the folder {folder!a} on {self.name}")

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
