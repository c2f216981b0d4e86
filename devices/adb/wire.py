"""The library's TCP transport, as a medium for whole packets."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from typing import Any, Protocol

from adb_shell.exceptions import TcpTimeoutException
from adb_shell.transport.tcp_transport import TcpTransport

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Wire(Protocol):
    """The library's transport, and one more: a packet is sent as the medium wants it."""

    def write_packet(self, header: bytes, payload: Any, timeout_s: float) -> None: ...

    def read_into(self, buffer: memoryview, timeout_s: float) -> int: ...

    def cut(self) -> bool: ...

    def unsent_bytes(self) -> int: ...


class WholeTcp(TcpTransport):  # type: ignore[misc]
    """The library's TCP transport that sends all, at once, and notices a closed link at once."""

    def connect(self, transport_timeout_s: float) -> None:
        super().connect(transport_timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):
                self._connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def bulk_write(self, data: Any, transport_timeout_s: float) -> int:
        """All of `data`. Raises: TcpTimeoutException: no byte could be sent for that long; OSError."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._connection.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, transport_timeout_s)
        return len(data)

    def write_packet(self, header: bytes, payload: Any, timeout_s: float) -> None:
        try:
            sent = self._connection.sendmsg((header, payload))
        except BlockingIOError:
            sent = 0
        for part in (header, payload):
            self.bulk_write(memoryview(part)[sent:], timeout_s)
            sent = max(0, sent - len(part))

    def read_into(self, buffer: memoryview, timeout_s: float) -> int:
        """At least one byte; how many. Raises: TcpTimeoutException; OSError: the link is closed."""
        while True:
            try:
                count = int(self._connection.recv_into(buffer))
            except BlockingIOError:
                self._wait(select.POLLIN, timeout_s)
                continue
            if not count:
                raise ConnectionResetError("the other side closed the link")
            return count

    def bulk_read(self, numbytes: int, transport_timeout_s: float) -> bytes:
        """As the library calls it."""
        buffer = bytearray(numbytes)
        return bytes(buffer[: self.read_into(memoryview(buffer), transport_timeout_s)])

    def cut(self) -> bool:
        """Whether the link is known to be closed. Asks nobody."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):
            return True

    def unsent_bytes(self) -> int:
        """What lies in this side's buffer still; 0 where the system does not say."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, b"\0" * 4))[0])
        except (OSError, TypeError):
            return 0

    def _wait(self, event: int, timeout_s: float) -> None:
        poll = select.poll()  # not select.select, which cannot take descriptors over 1023
        poll.register(self._connection, event)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            raise TcpTimeoutException(f"{self._host}:{self._port}: nothing moved for {timeout_s:.3g} s")
