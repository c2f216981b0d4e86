"""The transport contract over the real adbd: straight to it, and through a real adb server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.adb.find import phone_at, server_phones
from devices.adb.phone import AdbTransport
from devices.errors import DeviceLost, NoSuchDevice, TransferError
from devices.testing import TransportContract, listing, raises, scratch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

REASON = Phone.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("x86_64", "pixel") as phone:
        yield phone


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A real adb server of our own, in the foreground, which ends with the tests."""
    adbutils = pytest.importorskip("adbutils")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "ADB_MDNS": "0"}
    environment.pop("ADB_SERVER_SOCKET", None)
    argv = [adbutils.adb_path(), "-P", str(port), "server", "nodaemon"]
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None and time.monotonic() < deadline, "the adb server does not listen"
            time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def server_connect(server: tuple[str, int], phone: Phone) -> AdbTransport:
    from devices.adb.server import Client

    assert "connected" in Client(server, 10).connect(phone.serial)
    (found,) = server_phones(server)
    assert (found.serial, found.state) == (phone.serial, "device")
    return found.open()


class TestDirect(TransportContract):
    shell = "/system/bin/sh"

    @pytest.fixture
    def transport(self, phone: Phone) -> Iterator[AdbTransport]:
        with phone_at("127.0.0.1", phone.port, "direct").open() as transport:
            assert isinstance(transport, AdbTransport)
            yield transport


class TestServer(TransportContract):
    shell = "/system/bin/sh"

    @pytest.fixture
    def transport(self, phone: Phone, server: tuple[str, int]) -> Iterator[AdbTransport]:
        with server_connect(server, phone) as transport:
            assert isinstance(transport, AdbTransport)
            yield transport


@pytest.fixture(params=["direct", "server"])
def transport(request: pytest.FixtureRequest, phone: Phone) -> Iterator[AdbTransport]:
    if request.param == "direct":
        made = phone_at("127.0.0.1", phone.port, "direct").open()
    else:
        made = server_connect(request.getfixturevalue("server"), phone)
    with made as transport:
        assert isinstance(transport, AdbTransport)
        yield transport


def test_a_long_command_line(transport: AdbTransport) -> None:
    """Plain adb-shell loses one of over 100 kB without a word."""
    arguments = [f"{number:05d} it's \\ \n" for number in range(12_000)]
    result = transport.run(["printf", "%s", *arguments], timeout_s=60)
    assert result.stdout.decode() == "".join(arguments)
    assert transport.run(["sh", "-c", "exit 7", *arguments]).status == 7


def test_an_argument_that_no_phone_takes(transport: AdbTransport) -> None:
    assert transport.run(["true", "x" * 200_000], timeout_s=60).status in (1, 126)
    for argv in ([], [""], ["-c"], ["a\0b"]):
        with pytest.raises(ValueError):
            transport.run(argv)


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o400])
def test_the_mode_of_a_file_travels_both_ways(transport: AdbTransport, tmp_path: Path, mode: int) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(b"x")
    sent.chmod(mode)
    with scratch(transport) as folder:
        transport.push(sent, f"{folder}/file")
        assert transport.run(["stat", "-c", "%a", f"{folder}/file"]).stdout.decode().strip() == f"{mode:o}"
        transport.pull(f"{folder}/file", back)
        assert back.stat().st_mode & 0o777 == mode


def test_progress_of_a_push(transport: AdbTransport, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(20_000_000))
    seen: list[int] = []
    with scratch(transport) as folder:
        transport.push(local, f"{folder}/file", on_progress=seen.append)
        back = tmp_path / "back"
        transport.pull(f"{folder}/file", back)
    assert seen == sorted(seen) and len(seen) > 10 and seen[-1] == 20_000_000
    assert back.read_bytes() == local.read_bytes(), "several segments, each with a SHA-256"


def test_an_interrupted_push_leaves_nothing(transport: AdbTransport, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(5_000_000))

    def interrupt(sent: int) -> None:
        raise KeyboardInterrupt

    with scratch(transport) as folder:
        with raises(KeyboardInterrupt):
            transport.push(local, f"{folder}/file", on_progress=interrupt)
        assert listing(transport, folder) == []


def test_where_the_shell_may_not_write(transport: AdbTransport, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(bytes(3_000_000))
    with pytest.raises(TransferError, match="ermission denied"):
        transport.push(local, "/system/file")
    with pytest.raises(TransferError, match="over 1024 bytes"):
        transport.push(local, "/data/local/tmp/" + "x/" * 600)


def test_pull_of_a_folder_and_of_what_is_not_ours(transport: AdbTransport, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="is a folder"):
        transport.pull("/data/local/tmp", tmp_path / "x")
    with pytest.raises(TransferError, match="no such file"):
        transport.pull("/no/such/folder/file", tmp_path / "x")
    (tmp_path / "taken").write_bytes(b"")
    with scratch(transport) as folder:
        transport.push(tmp_path / "taken", f"{folder}/file")
        with pytest.raises(TransferError):
            transport.pull(f"{folder}/file", tmp_path / "taken" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_threads_use_it_at_once(transport: AdbTransport) -> None:
    """A second thread reads texts while a command of the first runs, and none sees the other's bytes."""
    seen: dict[int, set[bytes]] = {}

    def work(number: int) -> None:
        seen[number] = {
            transport.run(["sh", "-c", f"echo {number}; sleep 0.05; echo {number}"]).stdout for _ in range(5)
        }

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    assert transport.read_texts(["/proc/uptime"])
    for thread in threads:
        thread.join(30)
    assert seen == {number: {b"%d\n%d\n" % (number, number)} for number in range(4)}
    assert time.monotonic() - start < 20


def test_a_closed_transport_says_so(transport: AdbTransport) -> None:
    transport.close()
    with pytest.raises(DeviceLost, match="closed"):
        transport.run(["true"])


def test_many_texts_in_one_command(transport: AdbTransport, tmp_path: Path) -> None:
    """Contents that look like what separates them, empty ones, and more than fit into one command."""
    with scratch(transport) as folder:
        for name, content in (("empty", b""), ("lines", b"\n\n0 1\n"), ("zero", b"\0\n")):
            (tmp_path / name).write_bytes(content)
            transport.push(tmp_path / name, f"{folder}/{name}")
        texts = transport.read_texts([f"{folder}/empty", "/none", f"{folder}/lines", f"{folder}/zero"])
        assert texts == {f"{folder}/empty": "", f"{folder}/lines": "\n\n0 1\n", f"{folder}/zero": "\0\n"}
        assert transport.read_texts([f"{folder}/{number}" for number in range(600)] + [f"{folder}/lines"]) == {
            f"{folder}/lines": "\n\n0 1\n"
        }
        assert transport.read_texts([]) == {}


def test_description_is_the_phones(transport: AdbTransport) -> None:
    description = transport.describe()
    assert description.model == "Google Pixel 9 (Google Tensor G4)"
    assert description.os == "Android 15 (AP3A.241105.007)"
    assert (description.kind, description.abi, description.cores, description.state) == ("adb", "x86_64", 8, "device")
    assert description.simulated, "its times are this machine's"


@pytest.fixture
def restarted() -> Iterator[Phone]:
    """One of its own: an adb server that looks for a phone that is gone may take its port."""
    with Phone("x86_64", "walleye") as phone:
        yield phone


def test_a_phone_that_restarts(restarted: Phone) -> None:
    """The idle link is known to be dead and made anew; no command is lost."""
    phone = restarted
    with phone_at("127.0.0.1", phone.port, "direct").open() as transport:
        assert transport.run(["echo", "1"]).stdout == b"1\n"
        phone.restart()
        assert transport.run(["echo", "2"]).stdout == b"2\n"
        phone.unplug()
        try:
            with pytest.raises(DeviceLost, match="lost while running echo 3.*refused"):
                transport.run(["echo", "3"])
        finally:
            phone.restart()
        assert transport.run(["echo", "4"]).stdout == b"4\n"


def test_a_phone_that_restarts_in_the_middle(restarted: Phone) -> None:
    phone = restarted
    with phone_at("127.0.0.1", phone.port, "direct").open() as transport:
        with pytest.raises(DeviceLost, match="lost while running sh"):
            transport.run(["sh", "-c", "echo on; sleep 600"], on_output=lambda data: phone.restart(), timeout_s=60)


def test_the_server_loses_its_phone(phone: Phone, server: tuple[str, int]) -> None:
    from devices.adb.server import Client

    with server_connect(server, phone) as transport:
        with pytest.raises(DeviceLost):
            transport.run(
                ["sh", "-c", "echo on; sleep 600"],
                on_output=lambda data: Client(server, 10).disconnect(phone.serial),
                timeout_s=60,
            )
        with pytest.raises(DeviceLost, match=r"lost by its adb server.*not found"):
            transport.run(["true"])


def test_an_unauthorized_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, int]) -> None:
    from devices.adb.direct import connect_tcp
    from devices.adb.server import Client

    monkeypatch.setenv("HOME", str(tmp_path))
    with Phone("x86_64", "pixel", require_auth=True) as phone:
        transport = AdbTransport("new phone", lambda: connect_tcp("127.0.0.1", phone.port, dialog_s=0.3), patience_s=5)
        with pytest.raises(NoSuchDevice, match="new phone is unauthorized.*Allow USB debugging"):
            transport.check()
        Client(server, 10).connect(phone.serial)
        states = {one.serial: one for one in server_phones(server)}
        assert states[phone.serial].state == "unauthorized"
        with pytest.raises(NoSuchDevice, match="is there but unauthorized.*Allow USB debugging"):
            states[phone.serial].open()
        assert states[phone.serial].describe().state == "unauthorized"
        Client(server, 10).disconnect(phone.serial)
        phone.authorize(tmp_path / ".android" / "adbkey.pub")
        with transport:
            assert transport.run(["echo", "in"]).stdout == b"in\n"
