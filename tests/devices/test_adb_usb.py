"""The USB link without a cable: a libusb1 of our own whose bulk transfers end at the real adbd's socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.adb import usb
from devices.adb.phone import AdbTransport
from devices.adb.usb import connect_usb, usb_serials
from devices.errors import CommandTimeout, DeviceLost, NoSuchDevice

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone

REASON = Phone.available()
needs_phone = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class Handle:
    """One opened device. It keeps adbd's rule: a header is a transfer of its own, and so is its payload."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._payload = 0

    def bulkWrite(self, endpoint: int, data: bytes, timeout: int) -> int:
        if self._payload:
            part = data[:100_000]  # libusb may take less than all
            assert len(part) <= self._payload
            self._payload -= len(part)
        else:
            assert len(data) == 24, "a header alone"
            part, self._payload = data, struct.unpack("<I", data[12:16])[0]
        self.socket.sendall(part)
        return len(part)

    def bulkRead(self, endpoint: int, length: int, timeout: int) -> bytes:
        assert timeout > 0, "0 would be for ever"
        self.socket.settimeout(timeout / 1000)
        try:
            data = self.socket.recv(length)
        except TimeoutError:
            raise sys.modules["usb1"].USBErrorTimeout from None
        if not data:
            raise sys.modules["usb1"].USBErrorNoDevice
        return data

    def kernelDriverActive(self, number: int) -> bool:
        return False

    def claimInterface(self, number: int) -> None:
        if Usb.held:
            raise sys.modules["usb1"].USBErrorBusy

    def releaseInterface(self, number: int) -> None:
        pass

    def close(self) -> None:
        self.socket.close()


class Usb:
    """The one device on the bus, and its one setting, and its two endpoints."""

    port = 0
    held = False
    serial = "USB123"

    def __init__(self, address: int = 0) -> None:
        self._address = address

    def getDeviceIterator(self, skip_on_error: bool) -> list[Usb]:
        return [Usb()]

    def iterSettings(self) -> list[Usb]:
        return [self]

    def iterEndpoints(self) -> list[Usb]:
        return [Usb(0x81), Usb(0x02)]

    def getAddress(self) -> int:
        return self._address

    def getSerialNumber(self) -> str:
        return self.serial

    def open(self) -> Any:
        return Handle(self.port) if self.port else None

    getClass = staticmethod(lambda: 0xFF)
    getSubClass = staticmethod(lambda: 0x42)
    getProtocol = staticmethod(lambda: 0x01)
    getNumber = staticmethod(lambda: 0)
    getBusNumber = staticmethod(lambda: 1)
    getPortNumberList = staticmethod(lambda: [1])


@pytest.fixture
def libusb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    usb1: Any = types.ModuleType("usb1")
    usb1.CLASS_VENDOR_SPEC, usb1.ENDPOINT_DIR_MASK, usb1.USBContext = 0xFF, 0x80, Usb
    usb1.USBError = type("USBError", (Exception,), {})
    for name in ("Timeout", "NoDevice", "Busy", "NotFound"):
        setattr(usb1, f"USBError{name}", type(f"USBError{name}", (usb1.USBError,), {}))
    monkeypatch.setitem(sys.modules, "usb1", usb1)
    monkeypatch.delitem(sys.modules, "adb_shell.transport.usb_transport", raising=False)
    yield
    sys.modules.pop("adb_shell.transport.usb_transport", None)


@pytest.fixture
def transport(libusb: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbTransport]:
    with contextlib.ExitStack() as stack:
        phone = stack.enter_context(Phone("x86_64", "pixel"))
        monkeypatch.setattr(Usb, "port", phone.port)
        made = AdbTransport("USB123", lambda: connect_usb("USB123", patience_s=5), patience_s=5)
        yield stack.enter_context(made)  # type: ignore[misc]


def test_without_libusb1_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    monkeypatch.delitem(sys.modules, "adb_shell.transport.usb_transport", raising=False)
    assert usb_serials() == []
    with pytest.raises(NoSuchDevice, match="adb start-server, or pip install libusb1"):
        connect_usb("X")


def test_what_is_on_the_bus(libusb: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.adb.usb.adb_on_usb", lambda: True)
    assert usb_serials() == ["USB123"]

    def not_ours(self: Usb) -> str:
        raise sys.modules["usb1"].USBError("access")

    monkeypatch.setattr(Usb, "getSerialNumber", not_ours)
    assert usb_serials() == []


@pytest.mark.parametrize(("numbers", "there"), [(("ff", "42", "01"), True), (("ff", "42", "03"), False), (("ff",), False)])
def test_whether_to_look_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[str, ...], there: bool
) -> None:
    for folder, values in (("1-0:1.0", ("09", "00", "00")), ("1-1:1.1", numbers)):
        (tmp_path / folder).mkdir()
        for name, value in zip(usb.INTERFACE, values, strict=False):
            (tmp_path / folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(usb, "BUS", tmp_path)
    assert usb.adb_on_usb() is there
    monkeypatch.setattr(usb, "BUS", tmp_path / "nothing")
    assert not usb.adb_on_usb()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert usb.adb_on_usb()


def test_one_that_is_not_there(libusb: None) -> None:
    with AdbTransport("OTHER", lambda: connect_usb("OTHER")) as transport:
        with pytest.raises(NoSuchDevice, match="OTHER is not on USB while connecting.*udev"):
            transport.check()


@needs_phone
def test_files_and_commands(transport: AdbTransport, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(bytes(range(256)) * 10_000)
    transport.push(local, f"{transport.workdir}/file")
    transport.pull(f"{transport.workdir}/file", back)
    assert back.read_bytes() == local.read_bytes()
    assert transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"]).status == 3


@needs_phone
def test_a_time_out_kills_over_the_only_link(transport: AdbTransport) -> None:
    with pytest.raises(CommandTimeout):
        transport.run(["sh", "-c", "echo on; sleep 600 & wait"], timeout_s=0.5)
    assert b"sleep 600" not in transport.run(["ps", "-o", "args"]).stdout


@needs_phone
def test_a_cable_that_is_pulled(transport: AdbTransport) -> None:
    def pull(data: bytes) -> None:
        for link in transport._busy:
            link._wire._transport.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]

    with pytest.raises(DeviceLost, match="cannot be read from over USB while running"):
        transport.run(["sh", "-c", "echo on; sleep 600"], on_output=pull)
    assert transport.run(["echo", "again"]).stdout == b"again\n"


@needs_phone
def test_one_that_a_server_holds(transport: AdbTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Usb, "held", True)
    with pytest.raises(DeviceLost, match="cannot be read from over USB while connecting.*end a running adb server"):
        transport.check()
