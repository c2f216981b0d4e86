"""The packets of adbd's `shell,v2,raw:` service: one byte of kind, four of length (little-endian), then the data."""

from __future__ import annotations

import struct

from devices.adb.stream import Buffer, ProtocolError

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
HEADER = struct.Struct("<BI")
MAX_PACKET_BYTES = 1 << 24
"""adbd sends at most 1 MiB in one; a larger length is no length."""


def encode(kind: int, data: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(data)) + data


class Decoder:
    """Packets from bytes that come in any pieces."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: Buffer) -> list[tuple[int, bytes]]:
        """The packets (kind, data) that these bytes complete.

        Raises: ProtocolError: a length that no adbd sends.
        """
        self._left += data
        packets = []
        start = 0
        while len(self._left) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(self._left, start)
            if length > MAX_PACKET_BYTES:
                raise ProtocolError(f"a shell packet of {length} bytes")
            end = start + HEADER.size + length
            if end > len(self._left):
                break
            packets.append((kind, bytes(self._left[start + HEADER.size : end])))
            start = end
        del self._left[:start]
        return packets
