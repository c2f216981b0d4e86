"""One bench at a time on a device, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import devices.lock
from devices.errors import DeviceBusy, DeviceError
from devices.host import HostTransport
from devices.lock import device_lock, lock_key

HOLD = """
import sys, pathlib
from devices.lock import device_lock
with device_lock("host", pathlib.Path(sys.argv[1]), wait_s=0, on_wait=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the device until its stdin closes."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def must_not_wait(line: str) -> None:
    raise AssertionError(line)


def test_lock_after_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with device_lock("host", tmp_path / "deep" / "folder", wait_s=0, on_wait=must_not_wait):
            pass
    assert [path.name for path in (tmp_path / "deep" / "folder").iterdir()] == ["host.lock"]


def test_second_gives_up_at_once_where_it_may_not_wait(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with pytest.raises(DeviceBusy, match=rf"device host is held by another bench \(process {holder.pid}\).*--wait"):
        with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
            raise AssertionError("it was given")


def test_second_waits_and_says_so_once(
    holder: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    polls: list[float] = []

    def poll(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 3:
            holder.communicate()

    monkeypatch.setattr(devices.lock.time, "sleep", poll)
    with device_lock("host", tmp_path, wait_s=1000, on_wait=said.append):
        assert (tmp_path / "host.lock").read_text() == str(os.getpid())
    assert said == [f"device host is held by another bench (process {holder.pid}); waiting up to 1000 s"]
    assert len(polls) >= 3


def test_busy_after_the_wait(holder: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(devices.lock.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(devices.lock.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    said: list[str] = []
    with pytest.raises(DeviceBusy, match=f"process {holder.pid}"):
        with device_lock("host", tmp_path, wait_s=5, on_wait=said.append):
            raise AssertionError("it was given")
    assert len(said) == 1
    assert 5 <= clock[0] <= 5 + 2 * devices.lock.POLL_S


def test_killed_holder_lets_go(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
        pass


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
            raise KeyboardInterrupt
    with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
        pass


def test_devices_do_not_share_a_lock(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with device_lock("pixel", tmp_path, wait_s=0, on_wait=must_not_wait):
        pass


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_device_is_locked_by_its_key(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with pytest.raises(DeviceBusy, match=rf"^device pixel is held by another bench \(process {holder.pid}\)"):
        with device_lock("pixel", tmp_path, wait_s=0, on_wait=must_not_wait, key="host"):
            raise AssertionError("it was given")


def test_the_key_of_this_machine_is_its_name(tmp_path: Path) -> None:
    assert lock_key(HostTransport(tmp_path)) == "host"


@pytest.mark.parametrize("name", ["../../escape", "a/b", "192.168.1.5:5555", "ünï", "a\0b", ""])
def test_hostile_names_stay_in_the_folder(name: str, tmp_path: Path) -> None:
    with device_lock(name, tmp_path / "locks", wait_s=0, on_wait=must_not_wait):
        assert len(list((tmp_path / "locks").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_folder_that_cannot_be_made() -> None:
    with pytest.raises(DeviceError, match="cannot make the lock file /proc/none/host.lock"):
        with device_lock("host", Path("/proc/none"), wait_s=0, on_wait=must_not_wait):
            pass


def test_a_full_disk_does_not_keep_the_device_from_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
        with pytest.raises(DeviceBusy, match=r"\(process \?\)"):
            with device_lock("host", tmp_path, wait_s=0, on_wait=must_not_wait):
                raise AssertionError("it was given twice")
