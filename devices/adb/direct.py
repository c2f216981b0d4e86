"""A link straight to a phone's adbd: the library's transport and device, with what they get wrong put right.

The library sends once and forgets the rest, header and payload apart without TCP_NODELAY, spins on a closed link, loses
its place in the stream at a time-out, and drops the end of one stream while it reads another. It is subclassed here, so
that its handshake and its messages stay its own.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from typing import Any

from adb_shell import constants
from adb_shell.adb_device import AdbDevice, _AdbIOManager
from adb_shell.adb_message import AdbMessage, checksum, unpack
from adb_shell.exceptions import (
    AdbTimeoutError,
    DeviceAuthError,
    InvalidChecksumError,
    InvalidCommandError,
    TcpTimeoutException,
)
from adb_shell.hidden_helpers import _AdbTransactionInfo

from devices.adb.keys import Keys
from devices.adb.stream import PATIENCE_S, Buffer, Link, Refused, Silence, Stream
from devices.adb.wire import WholeTcp, Wire

CONNECT_S = 5.0
DIALOG_S = 10.0
"""How long the dialog on the phone is waited for; who answers it later starts again."""
VERSION_WITHOUT_CHECKSUMS = 0x01000001
MAX_PAYLOAD_BYTES: int = constants.MAX_ADB_DATA
MAX_WAITING_PACKETS = 64
STLS = struct.unpack("<I", b"STLS")[0]
FEATURES = b"features=shell_v2,cmd,stat_v2"


class TlsWanted(InvalidCommandError):  # type: ignore[misc]
    """The phone speaks only Android 11's encrypted form."""


class Packets(_AdbIOManager):  # type: ignore[misc]
    """The library's packets: whole ones only, and without checksums where the phone can do without them."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._wire = wire
        # the packet that is coming: its header, its data, and how many bytes of both together there are
        self._header, self._data, self._got = bytearray(constants.MESSAGE_SIZE), bytearray(), 0
        self._peer_version = 0
        self.banner = b""
        self.heard_s = 0.0

    def connect(self, *arguments: Any) -> Any:
        self._data, self._got = bytearray(), 0
        self._peer_version = 0
        return super().connect(*arguments)

    def _send(self, msg: Any, adb_info: Any) -> None:
        if msg.command == constants.ID_TO_WIRE[constants.CNXN]:
            msg.arg0 = VERSION_WITHOUT_CHECKSUMS
        summed = checksum(msg.data) if self._peer_version < VERSION_WITHOUT_CHECKSUMS else 0
        words = (msg.command, msg.arg0, msg.arg1, len(msg.data), summed, msg.magic)
        self._wire.write_packet(struct.pack(constants.MESSAGE_FORMAT, *words), msg.data, adb_info.transport_timeout_s)

    def _read_packet_from_device(self, adb_info: Any) -> tuple[bytes, int, int, bytearray]:
        """The next packet. What came of one before a time-out is kept for the next call."""
        deadline = time.monotonic() + adb_info.transport_timeout_s
        self._fill(self._header, deadline)
        word, arg0, arg1, length, summed = unpack(bytes(self._header))
        if word == STLS:
            raise TlsWanted("it answered STLS")
        command = constants.WIRE_TO_ID.get(word)
        if command is None or length > MAX_PAYLOAD_BYTES:
            raise InvalidCommandError(f"a packet that begins with {bytes(self._header)!r}")
        if len(self._data) != length:
            self._data = bytearray(length)
        self._fill(self._data, deadline, constants.MESSAGE_SIZE)
        data, self._data, self._got = self._data, bytearray(), 0
        if self._peer_version < VERSION_WITHOUT_CHECKSUMS and summed and checksum(data) != summed:
            raise InvalidChecksumError(f"{checksum(data)} in place of {summed}")
        if command == constants.CNXN:
            self._peer_version, self.banner = arg0, bytes(data)
        return command, arg0, arg1, data

    def _fill(self, part: bytearray, deadline: float, before: int = 0) -> None:
        """One part of a packet, of which `before` bytes precede it."""
        while self._got < before + len(part):
            left = memoryview(part)[self._got - before :]
            self._got += self._wire.read_into(left, deadline - time.monotonic())
            self.heard_s = time.monotonic()


class DirectLink(AdbDevice, Link):  # type: ignore[misc]
    """The library's device, connected, with streams that can be read a piece at a time.

    Args: dialog_s: how long to wait for the dialog on a phone that does not know the key; keys: none but if it asks.

    Raises: those of the library and of sockets; DeviceAuthError: nobody answered the dialog.
    """

    def __init__(
        self, wire: Wire, *, keys: Keys | None = None, patience_s: float = PATIENCE_S, dialog_s: float = DIALOG_S
    ) -> None:
        super().__init__(wire, default_transport_timeout_s=patience_s, banner=FEATURES)
        self._packets = self._io_manager = Packets(wire)
        self._wire, self._patience_s = wire, patience_s
        self._streams: dict[int, DirectStream] = {}
        self._unsent_bytes = 0
        self._moved_s = 0.0
        asked: list[object] = []
        try:
            self.connect(keys or Keys(), min(CONNECT_S, patience_s), dialog_s, dialog_s, asked.append)
        except (TcpTimeoutException, AdbTimeoutError) as error:
            self.close()
            if asked:
                raise DeviceAuthError("its dialog was not answered") from error
            raise
        except BaseException:
            self.close()
            raise

    def open(self, service: str, timeout_s: float) -> Stream:
        self._local_id += 1
        stream = self._streams[self._local_id] = DirectStream(self, self._local_id)
        self.send_packet(constants.OPEN, self._local_id, 0, service.encode("utf-8", "surrogateescape") + b"\0")
        try:
            self.wait_until(lambda: stream.remote_id != 0 or stream.ended, timeout_s)
        except Silence:
            stream.close()
            raise
        if stream.remote_id == 0:
            raise Refused(f"adbd has no service {service.partition(':')[0]!r}")
        return stream

    def usable(self) -> bool:
        # what waits is taken in first: the phone's own end of a stream that was closed here comes after the call that closed it
        waiting = iter(range(MAX_WAITING_PACKETS))
        try:
            self.wait_until(lambda: next(waiting, None) is None, 0.0)
        except Silence:
            pass
        except Exception:  # whatever ails it, another link is made
            return False
        return self.available and not self._wire.cut()

    def send_packet(self, command: bytes, arg0: int, arg1: int, data: Any = b"") -> None:
        """Raises: Silence: nothing could be sent for the link's patience; the packet may be cut, so the link is closed."""
        try:
            self._packets.send(AdbMessage(command, arg0, arg1, data), self._info(self._patience_s))
        except BaseException as error:
            self.close()
            if isinstance(error, TcpTimeoutException):
                raise Silence(str(error)) from error
            raise
        self._unsent_bytes = self._wire.unsent_bytes()

    def wait_patiently(self, done: Callable[[], bool]) -> None:
        """Until it is so, for as long as anything moves. Raises: Silence: nothing did for the link's patience."""
        while True:
            try:
                self.wait_until(done, self._patience_s)
                return
            except Silence:
                if time.monotonic() - self.heard_s >= self._patience_s:
                    raise

    def wait_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Takes packets in, for whichever stream they are, until it is so. Raises: Silence."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if not self.available:
                raise ConnectionResetError("the link is closed")
            try:
                packet = self._packets._read_packet_from_device(self._info(max(0.0, deadline - time.monotonic())))
            except TcpTimeoutException:
                raise Silence(f"nothing for {timeout_s:.3g} s") from None
            command, remote_id, local_id, data = packet
            stream = self._streams.get(local_id)
            if stream is not None:
                stream.take(command, remote_id, data)
            elif command == constants.WRTE:  # of a stream that was closed here meanwhile
                self.send_packet(constants.CLSE, local_id, remote_id)

    @property
    def heard_s(self) -> float:
        """When bytes last came, or were last seen to leave: a slow link may take long over what was sent."""
        unsent_bytes = self._wire.unsent_bytes()
        if unsent_bytes < self._unsent_bytes:
            self._moved_s = time.monotonic()
        self._unsent_bytes = unsent_bytes
        return max(self._packets.heard_s, self._moved_s)

    @property
    def max_payload_bytes(self) -> int:
        return max(1024, min(int(self._maxdata), MAX_PAYLOAD_BYTES))

    def forget(self, local_id: int) -> None:
        self._streams.pop(local_id, None)

    @staticmethod
    def _info(timeout_s: float) -> Any:
        return _AdbTransactionInfo(None, None, timeout_s, timeout_s, None)


class DirectStream(Stream):
    """One stream of a DirectLink. Each packet is answered by the other side before the next one is sent."""

    def __init__(self, link: DirectLink, local_id: int) -> None:
        self._link, self._local_id = link, local_id
        self.remote_id = 0
        self.ended = False
        self._unanswered = 0
        self._inbox: list[Buffer] = []

    @property
    def heard_s(self) -> float:  # type: ignore[override]
        return self._link.heard_s

    def take(self, command: bytes, remote_id: int, data: Buffer) -> None:
        """A packet for this stream, from the link."""
        if command == constants.OKAY:
            self._unanswered = 0
            self.remote_id = self.remote_id or remote_id
        elif command == constants.WRTE:
            self._inbox.append(data)
        elif command == constants.CLSE:
            self.ended = True
            self._link.forget(self._local_id)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(data)
        while left:
            self._link.wait_patiently(lambda: not self._unanswered or self.ended)
            if self.ended:
                raise BrokenPipeError("the phone closed the stream")
            piece = left[: self._link.max_payload_bytes]
            self._unanswered = len(piece)
            self._link.send_packet(constants.WRTE, self._local_id, self.remote_id, piece)
            left = left[len(piece) :]

    def recv(self, timeout_s: float) -> Buffer:
        self._link.wait_until(lambda: bool(self._inbox) or self.ended, timeout_s)
        if not self._inbox:
            return b""
        data = self._inbox.pop(0)
        if not self.ended:  # the answer lets the phone send the next one
            self._link.send_packet(constants.OKAY, self._local_id, self.remote_id)
        return data or self.recv(timeout_s)

    def close(self) -> None:
        if not self.ended and self._link.available:
            self.ended = True
            self._link.forget(self._local_id)
            with contextlib.suppress(OSError, Silence):
                self._link.send_packet(constants.CLSE, self._local_id, self.remote_id)


def connect_tcp(
    host: str,
    port: int,
    *,
    keys: Keys | None = None,
    patience_s: float = PATIENCE_S,
    dialog_s: float = DIALOG_S,
) -> DirectLink:
    """A link to an adbd that listens on TCP."""
    return DirectLink(WholeTcp(host, port), keys=keys, patience_s=patience_s, dialog_s=dialog_s)
