"""What plain adb-shell does wrong, shown on it against the real adbd, and that none of it reaches our users."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.adb.find import phone_at
from devices.adb.phone import AdbTransport
from devices.errors import CommandTimeout, DeviceLost, TransferError
from devices.testing import listing, scratch, wait_until_gone

adb_shell = pytest.importorskip("adb_shell")
from adb_shell import constants, exceptions  # noqa: E402
from adb_shell.adb_device import AdbDeviceTcp  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone  # noqa: E402
from proxy import Proxy  # noqa: E402

REASON = Phone.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
SHORT_S = 1.0


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("x86_64", "pixel", data="size=24m") as phone:
        yield phone


@pytest.fixture
def proxy(phone: Phone) -> Iterator[Proxy]:
    with Proxy(phone.port) as proxy:
        yield proxy


@pytest.fixture
def plain(proxy: Proxy) -> Iterator[Any]:
    device = AdbDeviceTcp("127.0.0.1", proxy.port, default_transport_timeout_s=SHORT_S)
    device.connect(read_timeout_s=SHORT_S)
    yield device
    device.close()


@pytest.fixture
def ours(proxy: Proxy) -> Iterator[AdbTransport]:
    with phone_at("127.0.0.1", proxy.port, "ours").open(SHORT_S) as transport:
        yield transport


@pytest.fixture
def megabytes(tmp_path: Path) -> Path:
    local = tmp_path / "megabytes"
    local.write_bytes(os.urandom(3_000_000))
    return local


def test_1_push_over_a_real_network(proxy: Proxy, plain: Any, ours: AdbTransport, megabytes: Path) -> None:
    """It sends once and takes for granted that all went out."""
    proxy.rate = 20e6
    with pytest.raises(exceptions.TcpTimeoutException):
        plain.push(str(megabytes), "/data/local/tmp/plain", transport_timeout_s=SHORT_S, read_timeout_s=SHORT_S)
    with scratch(ours) as folder:
        ours.push(megabytes, f"{folder}/file")
        assert ours.run(["cat", f"{folder}/file"]).stdout == megabytes.read_bytes()


def test_2_a_packet_is_one_send_and_is_not_held_back(plain: Any, ours: AdbTransport) -> None:
    from devices.adb.direct import DirectLink

    with ours._link("test") as link:
        assert isinstance(link, DirectLink)
        for device, sends, nodelay in ((plain, 2, False), (link, 1, True)):
            connection = device._io_manager._transport._connection
            assert bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay
            counted = Counted(connection)
            device._io_manager._transport._connection = counted
            message = device_message(constants.OPEN, 77, 0, b"handset-ping:\0")
            device._io_manager.send(message, info(SHORT_S))
            assert counted.sends == sends


class Counted:
    """A socket whose sends are counted."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self.sends = connection, 0

    def send(self, data: Any) -> int:
        self.sends += 1
        return self._connection.send(data)

    def sendmsg(self, parts: Any) -> int:
        self.sends += 1
        return self._connection.sendmsg(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def device_message(*arguments: Any) -> Any:
    from adb_shell.adb_message import AdbMessage

    return AdbMessage(*arguments)


def info(timeout_s: float) -> Any:
    from adb_shell.hidden_helpers import _AdbTransactionInfo

    return _AdbTransactionInfo(None, None, timeout_s, timeout_s, None)


def test_3_a_full_disk_is_named(phone: Phone, ours: AdbTransport, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(40_000_000))
    plain = AdbDeviceTcp("127.0.0.1", phone.port, default_transport_timeout_s=SHORT_S)
    plain.connect()
    with pytest.raises(Exception) as told:  # KeyError: 1953067639, or a time-out
        plain.push(str(local), "/data/local/tmp/plain", read_timeout_s=5)
    assert "space" not in str(told.value).lower()
    plain.close()
    with scratch(ours) as folder:
        with pytest.raises(TransferError, match=r"No space left on device.*free space on the phone"):
            ours.push(local, f"{folder}/file")
        assert listing(ours, folder) == []
        local.write_bytes(b"small")
        ours.push(local, f"{folder}/file")


def test_4_a_closed_link_is_noticed_at_once(proxy: Proxy, plain: Any, ours: AdbTransport) -> None:
    plain.shell("true")
    ours.check()
    proxy.cut(reset=False)
    transport = plain._io_manager._transport
    assert [transport.bulk_read(24, SHORT_S) for _ in range(1000)] == [b""] * 1000, "it spins"
    assert plain.available
    assert not ours._idle[0].usable()
    assert ours.run(["echo", "again"]).stdout == b"again\n"
    start = time.monotonic()
    with pytest.raises(DeviceLost, match="ours was lost while running sh"):
        ours.run(["sh", "-c", "echo on; sleep 600"], on_output=lambda data: proxy.cut(reset=False), timeout_s=300)
    assert time.monotonic() - start < 30


def test_5_the_old_file_stays_until_the_new_one_is_whole(
    phone: Phone, proxy: Proxy, ours: AdbTransport, megabytes: Path, tmp_path: Path
) -> None:
    old, large = tmp_path / "old", tmp_path / "large"
    old.write_bytes(b"old")
    large.write_bytes(bytes(40_000_000))
    with scratch(ours) as folder:
        for name in ("plain", "ours"):
            ours.push(old, f"{folder}/{name}")
        plain = AdbDeviceTcp("127.0.0.1", phone.port, default_transport_timeout_s=SHORT_S)
        plain.connect()
        with pytest.raises(Exception):  # noqa: B017
            plain.push(str(large), f"{folder}/plain", read_timeout_s=5)
        plain.close()
        assert listing(ours, folder) == ["ours"], "the phone is full, and the old file is gone"
        with pytest.raises(TransferError):
            ours.push(large, f"{folder}/ours")
        assert ours.run(["cat", f"{folder}/ours"]).stdout == b"old"
        proxy.cut_after(1_500_000)
        with pytest.raises(DeviceLost):
            ours.push(megabytes, f"{folder}/ours")
        assert ours.run(["cat", f"{folder}/ours"]).stdout == b"old"
        ours.push(megabytes, f"{folder}/ours")


def test_6_a_silent_command_on_a_live_link_goes_on(plain: Any, proxy: Proxy) -> None:
    with pytest.raises(exceptions.TcpTimeoutException):
        plain.shell("sleep 1.5; echo late", transport_timeout_s=0.3, read_timeout_s=0.3)
    with phone_at("127.0.0.1", proxy.port, "ours").open(0.3) as ours:
        assert ours.run(["sh", "-c", "sleep 1.5; echo late"]).stdout == b"late\n"
        assert ours.run(["sh", "-c", "sleep 1.5; echo late"], timeout_s=60).stdout == b"late\n"


def test_6_a_time_out_ends_the_command_and_its_children_on_the_phone(plain: Any, ours: AdbTransport) -> None:
    with contextlib.suppress(exceptions.TcpTimeoutException, exceptions.AdbTimeoutError):
        plain.shell("sleep 601 & wait", transport_timeout_s=0.2, read_timeout_s=0.2)
    plain.close()
    pids: list[bytes] = []
    with pytest.raises(CommandTimeout):
        ours.run(["sh", "-c", "sleep 602 & echo $!; wait"], timeout_s=0.5, on_output=pids.append)
    wait_until_gone(ours, b"".join(pids))
    running = ours.run(["ps", "-o", "args"]).stdout
    assert b"sleep 601" in running and b"sleep 602" not in running
    ours.run(["pkill", "-f", "sleep 601"])


def test_7_status_errors_and_long_command_lines(phone: Phone, plain: Any, ours: AdbTransport) -> None:
    assert plain.shell("echo out; echo err >&2; exit 3", read_timeout_s=5).split() == ["out", "err"]
    result = ours.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    long = "x" * 100_000
    direct = AdbDeviceTcp("127.0.0.1", phone.port, default_transport_timeout_s=5)
    direct.connect()
    assert direct.shell(f"echo {long} {long}", read_timeout_s=5).count("x") < 10
    direct.close()
    assert ours.run(["echo", long, long]).stdout.decode() == f"{long} {long}\n"
    assert ours.run(["sh", "-c", "kill -KILL $$"]).status == 137
    assert ours.run(["no-such-program"]).status == 127


def test_8_the_end_of_one_stream_is_not_lost_while_another_is_read(plain: Any, ours: AdbTransport) -> None:
    ended = plain._open(b"shell:true", SHORT_S, SHORT_S, None)
    spoken = plain._open(b"shell:sleep 0.5; echo spoken", SHORT_S, SHORT_S, None)
    assert b"".join(plain._read_until_close(spoken)).strip() == b"spoken"
    with pytest.raises(exceptions.TcpTimeoutException):
        list(plain._read_until_close(ended))
    with ours._link("test") as link:
        first = link.open("shell,v2,raw:true", SHORT_S)
        second = link.open("shell,v2,raw:sleep 0.5; echo spoken", SHORT_S)
        assert b"spoken" in second.recv(5)
        assert b"".join(iter(lambda: first.recv(5), b"")) == b"\x03\x01\x00\x00\x00\x00"
        assert link.alive(SHORT_S)


def test_9_10_a_missing_file_is_an_error_and_leaves_nothing(plain: Any, ours: AdbTransport, tmp_path: Path) -> None:
    assert plain.stat("/data/local/tmp/missing") == (0, 0, 0) and plain.list("/no/such/folder") == []
    with pytest.raises(exceptions.AdbCommandFailureException):
        plain.pull("/data/local/tmp/missing", str(tmp_path / "plain"))
    with pytest.raises(TransferError, match="no such file"):
        ours.pull("/data/local/tmp/missing", tmp_path / "ours")
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("plain", 0)]


def test_11_the_mode_is_the_files_own(plain: Any, ours: AdbTransport, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"x")
    local.chmod(0o640)
    with scratch(ours) as folder:
        plain.push(str(local), f"{folder}/plain")
        ours.push(local, f"{folder}/ours")
        modes = ours.run(["stat", "-c", "%a", f"{folder}/plain", f"{folder}/ours"]).stdout.split()
    assert modes == [b"777", b"640"]


def test_12_a_public_key_is_a_line(tmp_path: Path) -> None:
    from adb_shell.auth.keygen import keygen

    from devices.adb.keys import ensure_key

    keygen(str(tmp_path / "plain"))
    ensure_key(tmp_path / "ours")
    assert not (tmp_path / "plain.pub").read_bytes().endswith(b"\n")
    assert (tmp_path / "ours.pub").read_bytes().count(b"\n") == 1
    assert (tmp_path / "ours.pub").read_bytes().endswith(b"\n")


def test_13_what_is_left_in_the_background(ours: AdbTransport) -> None:
    """One that keeps the output blocks until the limit of time, and is ended then; one that has let go outlives the call.

    With plain adb-shell the first goes on for ever: see the time-outs of 6.
    """
    with pytest.raises(CommandTimeout):
        ours.run(["sh", "-c", "sleep 604 &"], timeout_s=0.5)
    script = "setsid sleep 605 >/dev/null 2>&1 </dev/null & echo $!"
    pid = ours.run(["sh", "-c", script], timeout_s=60).stdout
    running = ours.run(["ps", "-o", "args"]).stdout
    assert [f"sleep {number}".encode() in running for number in (604, 605)] == [False, True]
    ours.run(["kill", pid.decode().strip()])
    wait_until_gone(ours, pid)


def test_14_packets_are_large(proxy: Proxy, ours: AdbTransport, megabytes: Path) -> None:
    """3 MB in four packets, each answered before the next; in pieces of 2 KiB they would be 1465."""
    ours.check()
    proxy.rate = 30e6  # what comes over a faster link is read again
    before = proxy.carried["from_phone"]
    with scratch(ours) as folder:
        ours.push(megabytes, f"{folder}/file")
    assert proxy.carried["from_phone"] - before < 3000
