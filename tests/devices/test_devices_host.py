"""HostTransport: the contract of all transports, and what only a machine in front of us can be asked."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import devices.host
from devices.errors import CommandTimeout, DeviceError, TransferError
from devices.host import HostTransport
from devices.testing import TransportContract, wait_until_gone


class TestHost(TransportContract):
    @pytest.fixture
    def transport(self, tmp_path: Path) -> Iterator[HostTransport]:
        with HostTransport(tmp_path / "work") as transport:
            assert isinstance(transport, HostTransport)
            yield transport
        assert not list(tmp_path.rglob("*.part"))


def test_workdir_is_made_at_the_first_push_only(tmp_path: Path) -> None:
    host = HostTransport(tmp_path / "work")
    host.describe()
    host.run(["true"])
    assert not (tmp_path / "work").exists()
    (tmp_path / "file").write_text("x")
    host.push(tmp_path / "file", f"{host.workdir}/a/b")
    assert (tmp_path / "work" / "a" / "b").read_text() == "x"


def test_relative_workdir_becomes_absolute() -> None:
    assert HostTransport(Path("somewhere")).workdir == str(Path.cwd() / "somewhere")


@pytest.mark.parametrize("how", ["timeout", "interrupt"])
def test_a_group_that_ignores_sigterm_is_killed(how: str, host: HostTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.host, "GRACE_S", 0.2)
    pids: list[bytes] = []

    def take(data: bytes) -> None:
        pids.append(data)
        if how == "interrupt":
            raise KeyboardInterrupt

    with pytest.raises(CommandTimeout if how == "timeout" else KeyboardInterrupt):
        host.run(["sh", "-c", "trap '' TERM; sleep 600 & echo $$ $!; wait; wait"], timeout_s=1, on_output=take)
    wait_until_gone(host, b"".join(pids))


def test_a_child_that_outlives_a_well_behaved_leader_is_killed(host: HostTransport) -> None:
    script = "(trap '' TERM; exec sleep 600) & echo $$ $!; wait"
    pids: list[bytes] = []
    with pytest.raises(CommandTimeout):
        host.run(["sh", "-c", script], timeout_s=1, on_output=pids.append)
    wait_until_gone(host, b"".join(pids))


def test_a_second_ctrl_c_does_not_wait_for_the_grace(host: HostTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[bytes] = []

    def take(data: bytes) -> None:
        pids.append(data)
        raise KeyboardInterrupt

    real_wait = subprocess.Popen.wait

    def interrupted_wait(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", real_wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted_wait)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        host.run(["sh", "-c", "trap '' TERM; echo $$; sleep 600; sleep 600"], on_output=take)
    assert time.monotonic() - start < devices.host.GRACE_S
    wait_until_gone(host, b"".join(pids))


def test_ctrl_c_at_the_terminal_does_not_reach_the_command_by_itself(host: HostTransport) -> None:
    """The command is a group of its own: we decide when it ends, and with which signal."""
    result = host.run(["sh", "-c", "ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat"])
    assert int(result.stdout) != os.getpgrp()


@pytest.mark.parametrize("kind", ["not executable", "wrong format", "under a file", "folder"])
def test_a_program_that_cannot_start_is_a_status(kind: str, host: HostTransport, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\x7fELF garbage")
    file.chmod(0o755 if kind == "wrong format" else 0o644)
    program = {"under a file": file / "program", "folder": tmp_path}.get(kind, file)
    result = host.run([str(program)])
    assert result.status == (127 if kind == "under a file" else 126)
    assert result.stderr


def fill(source: object, target: os.PathLike[str], **_: object) -> None:
    Path(target).write_bytes(b"half of")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_keeps_the_old_file(host: HostTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, target = tmp_path / "new", tmp_path / "work" / "file"
    new.write_bytes(b"old")
    host.push(new, str(target))
    new.write_bytes(b"new")
    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(TransferError, match="No space left"):
        host.push(new, str(target))
    with pytest.raises(TransferError, match="No space left"):
        host.pull(str(new), target)
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_copy_that_arrives_damaged(host: HostTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:-1] + b"?")

    (tmp_path / "new").write_bytes(b"new")
    monkeypatch.setattr(shutil, "copyfile", damage)
    with pytest.raises(TransferError, match="damaged"):
        host.push(tmp_path / "new", f"{host.workdir}/file")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_really_full_disk(host: HostTransport, tmp_path: Path, tiny_disk: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    (tiny_disk / "file").write_bytes(b"old")
    with pytest.raises(TransferError, match="No space left"):
        host.push(tmp_path / "large", str(tiny_disk / "file"))
    assert [path.read_bytes() for path in tiny_disk.iterdir()] == [b"old"]


def test_folder_that_cannot_be_written(host: HostTransport, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    with pytest.raises(TransferError, match="/proc/none/file"):
        host.push(tmp_path / "new", "/proc/none/file")  # not even root makes folders there
    with pytest.raises(TransferError, match="cannot copy"):
        host.push(tmp_path / "new", str(tmp_path / "new" / "file"))


def test_interrupted_copy_leaves_no_part(host: HostTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(source: object, target: os.PathLike[str]) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    (tmp_path / "new").write_bytes(b"new")
    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        host.push(tmp_path / "new", f"{host.workdir}/file")
    assert list((tmp_path / "work").iterdir()) == []


def test_no_descriptor_is_left_open(host: HostTransport) -> None:
    host.run(["true"])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        host.run(["sh", "-c", "echo out; echo err >&2"])
        host.run(["/no/such/program"])
        with pytest.raises(CommandTimeout):
            host.run(["sleep", "600"], timeout_s=0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_sigterm_comes_first_so_that_a_command_can_finish_its_line(host: HostTransport, tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = (
        "import pathlib, signal, sys\n"
        f"def end(*_): pathlib.Path({str(said)!r}).write_text('whole line'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )

    def interrupt(_: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.run([sys.executable, "-c", script], on_output=interrupt)
    assert said.read_text() == "whole line"


def test_error_of_a_timeout_is_a_device_error() -> None:
    assert issubclass(CommandTimeout, DeviceError) and CommandTimeout.exit_status == 3


def test_describe_of_this_machine(host: HostTransport) -> None:
    description = host.describe()
    assert (description.name, description.kind, description.simulated) == ("host", "host", False)
    assert description.abi == os.uname().machine
