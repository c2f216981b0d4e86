"""Proxy: a loopback link like a real network: MSS 1460, a rate, a delay, freezes and cuts.

Loopback's own segments of 64 KiB and buffers of megabytes hide what goes wrong on Wi-Fi.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Literal

Direction = Literal["to_phone", "from_phone"]
MSS = 1460
CHUNK_BYTES = 64 * 1024


class _Link:
    """One client's connection and ours to the phone; two threads a direction, so that a delay does not hold up what follows."""

    def __init__(self, proxy: Proxy, client: socket.socket, phone: socket.socket) -> None:
        self.proxy = proxy
        self.sockets = (client, phone)
        self._closing = threading.Lock()
        self._open = True
        for direction, source, sink in (("to_phone", client, phone), ("from_phone", phone, client)):
            # one chunk waits when there is no delay: the client feels the phone's pace at once
            waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(256 if proxy.delay_s else 1)
            for work, end in ((self._read, source), (self._write, sink)):
                threading.Thread(target=work, args=(direction, end, waiting), daemon=True).start()

    def _read(self, direction: Direction, source: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(self.proxy.chunk_bytes)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self.proxy.delay_s, data))

    def _write(self, direction: Direction, sink: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            self.proxy.flowing.wait()
            data, cut = self.proxy.admit(direction, data)
            try:
                sink.sendall(data)
            except OSError:
                cut = True
            if cut or not data:
                self.close()
                # the reader may wait for room
                with contextlib.suppress(queue.Empty):
                    while True:
                        waiting.get(timeout=1)
                return

    def close(self, reset: bool = False) -> None:
        """Both ends. `reset`: at once, dropping what is under way, as a crash does."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        for end in self.sockets:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)  # also wakes the threads that read and write it
            with contextlib.suppress(OSError):
                end.close()
        self.proxy.forget(self)


class Proxy:
    """Listens on `port` (0: any free one) and forwards to a phone's port. A context manager.

    `rate` bytes a second in each direction (None: no limit), `delay_s` one way. `rate` may be changed at any time.
    """

    def __init__(
        self, phone_port: int, *, rate: float | None = None, delay_s: float = 0.0, mss: int = MSS, port: int = 0
    ) -> None:
        self.phone_port, self.rate, self.delay_s = phone_port, rate, delay_s
        self.carried: dict[Direction, int] = {"to_phone": 0, "from_phone": 0}
        """Bytes forwarded so far."""
        self.connections = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self._lock = threading.Lock()
        self._cut_at: dict[Direction, int] = {}
        self._free_at: dict[Direction, float] = {"to_phone": 0.0, "from_phone": 0.0}
        self._links: set[_Link] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # before listen(): it goes out in the answer to the client's SYN, and bounds what the client sends in one segment
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(16)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        """What `adb connect` takes."""
        return f"127.0.0.1:{self.port}"

    @property
    def chunk_bytes(self) -> int:
        """A hundredth of a second's worth at most, so that a slow link is slow evenly."""
        return CHUNK_BYTES if self.rate is None else int(min(CHUNK_BYTES, max(512, self.rate / 100)))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                phone = socket.create_connection(("127.0.0.1", self.phone_port), timeout=5)
            except OSError:
                client.close()
                continue
            phone.settimeout(None)
            for end in (client, phone):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._links.add(_Link(self, client, phone))

    def forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def admit(self, direction: Direction, data: bytes) -> tuple[bytes, bool]:
        """Waits until the rate lets `data` through; what of it may pass, and whether the link is cut behind it."""
        with self._lock:
            cut_at = self._cut_at.get(direction)
            cut = cut_at is not None and self.carried[direction] + len(data) >= cut_at
            if cut_at is not None and cut:
                data = data[: cut_at - self.carried[direction]]
                del self._cut_at[direction]
            self.carried[direction] += len(data)
            pause = 0.0
            if self.rate is not None:
                now = time.monotonic()
                # up to 20 ms that a sleep overran are made up for
                self._free_at[direction] = max(self._free_at[direction], now - 0.02) + len(data) / self.rate
                pause = self._free_at[direction] - now
        if pause > 0:
            time.sleep(pause)
        return data, cut

    def cut_after(self, count: int, direction: Direction = "to_phone") -> None:
        """Arms one cut: the link ends after `count` more bytes in this direction; later connections are whole again."""
        with self._lock:
            self._cut_at[direction] = self.carried[direction] + count

    def cut(self, reset: bool = True) -> None:
        """Ends all connections now."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close(reset)

    def freeze(self) -> None:
        """Connections stay, nothing passes."""
        self.flowing.clear()

    def thaw(self) -> None:
        self.flowing.set()

    def close(self) -> None:
        """Ends all connections and the listener; new ones are refused. May be called twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.thaw()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
