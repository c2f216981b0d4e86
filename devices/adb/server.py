"""A link through an adb server, on this machine or another. It also reaches what adb-shell cannot: phones over
Android 11's encrypted Wi-Fi, and USB phones that the server holds."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

from adbutils import AdbClient
from adbutils._adb import AdbConnection
from adbutils.errors import AdbConnectionError, AdbError, AdbTimeout

from devices.adb.stream import PATIENCE_S, Link, Refused, Silence, Stream

LOOK_S = 0.5
"""How long `handset devices` waits for a server that may not be there."""


@dataclass(frozen=True)
class Listed:
    """A phone as an adb server lists it. state: "device", "unauthorized", "offline", "no permissions", ..."""

    serial: str
    state: str


class Connection(AdbConnection):  # type: ignore[misc]
    """The library's connection, which neither starts a server where there is none nor sends half a request."""

    def __init__(self, address: tuple[str, int], connect_s: float) -> None:
        self._address, self._connect_s = address, connect_s
        super().__init__(*address)

    def _safe_connect(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._address, timeout=self._connect_s)
        except TimeoutError as error:
            raise AdbTimeout(f"{self._address[0]}:{self._address[1]} takes no connection") from error
        except OSError as error:
            raise AdbConnectionError(f"{self._address[0]}:{self._address[1]}: {error.strerror or error}") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send_command(self, cmd: str) -> None:
        request = cmd.encode("utf-8", "surrogateescape")
        self.conn.sendall(b"%04x" % len(request) + request)


class Client(AdbClient):  # type: ignore[misc]
    """The library's client over such connections. Args: connect_s: limit of the connection, and of each answer."""

    def __init__(self, address: tuple[str, int], connect_s: float) -> None:
        super().__init__(*address)
        self._address, self._connect_s = address, connect_s

    def make_connection(self, timeout: float | None = None) -> Connection:
        connection = Connection(self._address, self._connect_s)
        connection.conn.settimeout(timeout or self._connect_s)
        return connection


def list_phones(address: tuple[str, int], limit_s: float = LOOK_S) -> list[Listed]:
    """What the server lists; empty where there is no server, or one that does not answer in time."""
    with contextlib.suppress(AdbError, OSError, ValueError):
        # the library gives the first word of a state only
        words = {"no": "no permissions"}
        return [Listed(one.serial, words.get(one.state, one.state)) for one in Client(address, limit_s).list()]
    return []


class ServerLink(Link):
    """Each stream is a connection of its own to the server."""

    def __init__(self, serial: str, address: tuple[str, int], patience_s: float = PATIENCE_S) -> None:
        self._serial, self._patience_s = serial, patience_s
        self._client = Client(address, patience_s)
        self._closed = False

    def open(self, service: str, timeout_s: float) -> Stream:
        if self._closed:
            raise ConnectionResetError("the link is closed")
        connection = self._client.make_connection(timeout_s)
        try:
            for request in (f"host:transport:{self._serial}", service):
                connection.send_command(request)
                connection.check_okay()
        except AdbTimeout as error:
            connection.close()
            raise Silence(str(error)) from error
        except AdbError as error:
            connection.close()
            if request == service and "closed" in str(error):
                raise Refused(f"adbd has no service {service.partition(':')[0]!r}") from error
            raise
        except BaseException:
            connection.close()
            raise
        return ServerStream(connection, self._patience_s)

    def usable(self) -> bool:
        return not self._closed

    def close(self) -> None:
        self._closed = True


class ServerStream(Stream):
    def __init__(self, connection: Any, patience_s: float) -> None:
        self._connection, self._patience_s = connection, patience_s
        self._socket: socket.socket = connection.conn
        self._socket.setblocking(False)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, self._patience_s)

    def recv(self, timeout_s: float) -> bytes:
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                self._wait(select.POLLIN, timeout_s)
                continue
            self.heard_s = time.monotonic()
            return data

    def close(self) -> None:
        self._socket.close()

    def _wait(self, event: int, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            raise Silence(f"nothing moved for {timeout_s:.3g} s")
