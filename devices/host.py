"""The machine in front of you, as a transport."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from devices.errors import CommandTimeout, TransferError
from devices.transport import CommandResult, DeviceDescription, OnOutput, Transport

GRACE_S = 5.0
"""How long a command may take to end after SIGTERM before it is killed."""


class HostTransport(Transport):
    """Args: workdir: where files for runs are kept; made at the first push."""

    name = "host"

    def __init__(self, workdir: Path) -> None:
        self.workdir = str(workdir.absolute())

    def push(self, local: Path, remote: str) -> None:
        _copy(local, Path(remote))

    def pull(self, remote: str, local: Path) -> None:
        _copy(Path(remote), local)

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            status = 127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126
            return CommandResult(tuple(argv), status, b"", str(error).encode(), time.monotonic() - start)
        with process:
            try:
                stdout, stderr = _collect(process, None if timeout_s is None else start + timeout_s, on_output)
            except BaseException:
                _end(process)
                raise
        status = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return CommandResult(tuple(argv), status, stdout, stderr, time.monotonic() - start)

    def describe(self) -> DeviceDescription:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return DeviceDescription(
            name="host",
            kind="host",
            model=_cpu_model(),
            os=_os_name(),
            kernel=platform.release(),
            abi=platform.machine(),
            cores=os.cpu_count() or 1,
            memory_bytes=memory,
        )

    def close(self) -> None:
        pass


def _collect(
    process: subprocess.Popen[bytes], deadline: float | None, on_output: OnOutput | None
) -> tuple[bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None
    chunks: dict[IO[bytes], list[bytes]] = {process.stdout: [], process.stderr: []}
    with selectors.DefaultSelector() as selector:
        for stream in chunks:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise CommandTimeout(f"{process.args!r} did not end in time and was killed")
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                chunks[key.fileobj].append(data)  # type: ignore[index]
                if on_output is not None and key.fileobj is process.stdout:
                    on_output(data)
    try:
        process.wait(None if deadline is None else max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise CommandTimeout(f"{process.args!r} closed its output, did not end in time and was killed") from None
    return b"".join(chunks[process.stdout]), b"".join(chunks[process.stderr])


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, so that a runner can finish its line, then SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # also what the command started and left behind


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part)
        if _digest(part) != _digest(source):
            raise TransferError(f"{target} arrived damaged", try_="copy it again; check the disk")
        shutil.copymode(source, part)
        part.replace(target)
    except OSError as error:
        raise TransferError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _os_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()
