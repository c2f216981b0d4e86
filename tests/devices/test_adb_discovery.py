"""Which phones are there and what a name means: texts for none, two and those that do not let themselves be used."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices import discovery
from devices.adb import find, usb
from devices.adb.find import Phone as Found
from devices.adb.find import find_phones, parse_address, server_address
from devices.adb.phone import AdbTransport
from devices.discovery import list_devices, open_device
from devices.errors import DeviceError, DeviceLost, NoSuchDevice

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

REASON = Phone.available()
needs_phone = pytest.mark.skipif(REASON is not None, reason=str(REASON))
PIXEL = {"ro.product.manufacturer": "Google", "ro.product.model": "Pixel 9", "ro.product.cpu.abi": "arm64-v8a"}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.1:1")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Phones (serial, state, properties) that are there; they cannot be run on."""

    def put(*phones: tuple[str, str, dict[str, str]]) -> None:
        known = {serial: properties for serial, _, properties in phones}
        found = [Found(serial, state, refuse) for serial, state, _ in phones]
        monkeypatch.setattr(discovery, "find_phones", lambda: found)
        monkeypatch.setattr(Found, "properties", lambda self: known[self.serial])

    return put


def refuse(patience_s: float) -> Any:
    raise ConnectionRefusedError("not now")


def failure(name: str) -> str:
    with pytest.raises(NoSuchDevice) as told:
        open_device(name).close()
    return str(told.value)


def test_a_kind_of_which_there_is_one(there: Callable[..., None]) -> None:
    there(("A", "device", PIXEL), ("B", "device", {"ro.product.model": "SM-S911B"}))
    with open_device("pixel") as transport:
        assert isinstance(transport, AdbTransport) and transport.name == "A"
    assert open_device("B").name == "B"


def test_none(there: Callable[..., None]) -> None:
    there()
    for name in ("pixel", "R5CT"):
        said = failure(name)
        assert "here are: host (" in said and "--device host; connect a phone, allow USB debugging" in said
        assert "adb start-server" in said and "DEVICE=HOST:PORT" in said
    assert "no phone is 'pixel' (a Google Pixel phone)" in failure("pixel")
    assert "no device named 'R5CT'" in failure("R5CT")


def test_two(there: Callable[..., None]) -> None:
    there(("A", "device", PIXEL), ("B", "device", PIXEL), ("C", "device", {}))
    assert failure("pixel") == "2 phones are 'pixel' (a Google Pixel phone): A, B; try: DEVICE=A"


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("unauthorized", "Allow USB debugging"),
        ("authorizing", "Allow USB debugging"),
        ("no permissions", "udev rules"),
        ("offline", "plug it in again"),
        ("recovery", "restart it into Android"),
        ("strange \x1b[2J", "adb reconnect"),
    ],
)
def test_one_that_does_not_let_itself_be_used(there: Callable[..., None], state: str, remedy: str) -> None:
    there(("A", state, PIXEL))
    said = failure("A")
    assert said.startswith("A is there but ") and remedy in said and "\x1b" not in said
    said = failure("pixel")
    assert "here are: host (" in said and "A (" in said and "\x1b" not in said
    (host, phone) = list_devices()
    assert host.state == "device" and phone.name == "A" and phone.state == state.replace("\x1b", "").strip()
    assert (phone.kind, phone.model, phone.cores) == ("adb", "unknown", 0)


def test_one_that_was_there_a_moment_ago(there: Callable[..., None]) -> None:
    there(("A", "device", PIXEL))
    assert [device.state for device in list_devices()] == ["device", "offline"]
    with open_device("A") as transport, pytest.raises(DeviceLost, match="A was lost while running true: not now"):
        transport.run(["true"])


def test_an_address_where_nobody_listens() -> None:
    said = failure("127.0.0.1:1")
    assert "no device named '127.0.0.1:1'" in said and "refused" in said and "here are: host (" in said


def test_an_address_where_somebody_else_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def answer() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                client.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        said = failure(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "does not speak adb's protocol" in said


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("5037", ("127.0.0.1", 5037)),
        ("desk:5038", ("desk", 5038)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:5037", ("::1", 5037)),
    ],
)
def test_addresses(text: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_address(text) == address
    for form in (text, f"tcp:{text}"):
        monkeypatch.setenv("ADB_SERVER_SOCKET", form)
        assert server_address() == address


def test_the_servers_address_as_adb_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADB_SERVER_SOCKET")
    for name in ("ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert server_address() == ("127.0.0.1", 5037)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "6000")
    assert server_address() == ("127.0.0.1", 6000)
    monkeypatch.setenv("ANDROID_ADB_SERVER_ADDRESS", "desk")
    assert server_address() == ("desk", 6000)


@pytest.mark.parametrize(
    "text", ["", "desk", "desk:", "desk:0", "desk:65536", "a b:1", "desk:1:2", "localfilesystem:/x", "$(id):1"]
)
def test_what_is_no_address(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="is no HOST:PORT"):
        parse_address(text)
    if text:
        monkeypatch.setenv("ADB_SERVER_SOCKET", text)
        with pytest.raises(DeviceError, match="ADB_SERVER_SOCKET=tcp:HOST:5037"):
            list_devices()


def test_looking_is_quick_and_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an address answers to nothing at all: a listener whose queue is full."""
    import subprocess

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        for address in ("tcp:127.0.0.1:1", f"tcp:127.0.0.1:{port}"):
            monkeypatch.setenv("ADB_SERVER_SOCKET", address)
            start = time.monotonic()
            assert find_phones() == []
            assert time.monotonic() - start < 1.5
        for one in waiting:
            one.close()


class Server:
    """An adb server that lists what it is told, and nothing else."""

    def __init__(self, listing: bytes) -> None:
        self._listing, self.asked = listing, [b""]
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(8)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(100)
                self.asked.append(request)
                if request.endswith(b"host:devices"):
                    client.sendall(b"OKAY%04x" % len(self._listing) + self._listing)
                elif request:
                    client.sendall(b"FAIL0006no way")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(b"AB12\toffline\nCD34\tunauthorized\nEF56\tno permissions (user in plugdev group)\n\nodd\n")
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{made.port}")
    yield made
    made.close()


def test_what_a_server_lists(server: Server) -> None:
    assert [(one.serial, one.state) for one in find_phones()] == [
        ("AB12", "offline"),
        ("CD34", "unauthorized"),
        ("EF56", "no permissions"),
    ]
    assert [device.state for device in list_devices()] == ["device", "offline", "unauthorized", "no permissions"]
    assert "here are: host (" in failure("XY") and "CD34 (unauthorized)" in failure("XY")
    assert "Allow USB debugging" in failure("CD34")


def test_a_server_that_refuses_a_phone() -> None:
    from devices.adb.server import ServerLink

    server = Server(b"")
    transport = AdbTransport("AB12", lambda: ServerLink("AB12", ("127.0.0.1", server.port), 5))
    with transport, pytest.raises(DeviceLost, match="AB12 was lost by its adb server while running true: no way"):
        transport.run(["true"])
    server.close()
    with AdbTransport("AB12", lambda: ServerLink("AB12", ("127.0.0.1", 1), 5)) as transport:
        with pytest.raises(DeviceLost, match=r"cannot be reached while running true.*try: adb start-server"):
            transport.run(["true"])


def test_a_server_that_says_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    for listing in (b"\xff\xfe\t\x00\n", b"\t\t\n" * 50):
        made = Server(listing)
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{made.port}")
        assert all(one.serial.strip() for one in find_phones())
        made.close()


def test_usb_is_looked_at_where_no_server_runs(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(usb, "usb_serials", lambda: ["USB1"])
    assert [one.serial for one in find_phones()] == ["AB12", "CD34", "EF56"]
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:127.0.0.1:1")
    assert [(one.serial, one.state) for one in find_phones()] == [("USB1", find.READY)]


@needs_phone
def test_a_phone_by_its_address() -> None:
    with Phone("x86_64", "galaxy") as phone, open_device(phone.serial) as transport:
        assert transport.name == transport.describe().name == phone.serial
        assert transport.describe().model.startswith("samsung ")
