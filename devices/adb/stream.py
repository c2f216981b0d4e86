"""Link and Stream: what a phone's adbd gives, whichever way it is reached."""

from __future__ import annotations

from abc import ABC, abstractmethod

PATIENCE_S = 30.0
"""How long a link may be silent before it is asked for a sign of life, and how long that may take."""


Buffer = bytes | bytearray


class Silence(Exception):
    """Nothing came within the time given. The stream is as it was."""


class Refused(Exception):
    """The phone, or the server in between, does not open this stream; the text is its reason."""


class ProtocolError(Exception):
    """The other side sent what no adbd sends."""


class Stream(ABC):
    """Bytes to and from one service of the phone. Not for two threads at once."""

    heard_s: float = 0.0
    """When (`time.monotonic`) anything, be it a part of a packet, last came."""

    @abstractmethod
    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends all of it. Raises: Silence: for PATIENCE_S nothing could be sent; OSError: the link was cut."""

    @abstractmethod
    def recv(self, timeout_s: float) -> Buffer:
        """What has come, at least one byte; b"" once the other side has closed.

        Raises: Silence: nothing within `timeout_s`; 0 looks without waiting. OSError: the link was cut.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the stream. Twice is no error, nor is a link that was cut."""


class Link(ABC):
    """A way to a phone. One thread at a time uses it; several streams may be open on it."""

    shared = True
    """Whether a second link to the same phone can be made while this one is open."""

    @abstractmethod
    def open(self, service: str, timeout_s: float) -> Stream:
        """Raises: Refused, Silence, OSError."""

    @abstractmethod
    def usable(self) -> bool:
        """False where the link is known to be cut. Asks nobody."""

    @abstractmethod
    def close(self) -> None:
        """Twice is no error."""

    def alive(self, timeout_s: float) -> bool:
        """Whether adbd answers within that time: it is asked for a service that it does not have."""
        try:
            self.open("handset-ping:", timeout_s).close()
        except Refused:
            return True
        except (Silence, OSError):
            return False
        return True
