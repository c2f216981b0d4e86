"""The links to one phone: one for each thread that asks, or one for all where there can be but one (USB)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from devices.adb import sync
from devices.adb.errors import mapped
from devices.adb.stream import Link


class LinkPool:
    """Args: name: the phone's, for errors; connect: makes a link. The first is made at the first use."""

    def __init__(self, name: str, connect: Callable[[], Link]) -> None:
        self.name = name
        self._connect = connect
        self._free = threading.Condition()
        self._idle: list[Link] = []
        self._busy: list[Link] = []
        self._closed = False

    def close(self) -> None:
        with self._free:
            self._closed = True
            links, self._idle = self._idle + self._busy, []
            self._free.notify_all()
        for link in links:
            with contextlib.suppress(Exception):
                link.close()

    @contextlib.contextmanager
    def _link(self, doing: str) -> Iterator[Link]:
        """A link that nobody else uses in the block; closed after any error but the phone's plain refusal."""
        with mapped(self.name, doing):
            link = self._take()
            try:
                yield link
            except sync.SyncFailed:
                self._give(link)
                raise
            except BaseException:
                link.close()
                self._give(link)
                raise
            self._give(link)

    def _take(self) -> Link:
        with self._free:
            while True:
                if self._closed:
                    raise ConnectionResetError("this transport was closed")
                while self._idle:
                    link = self._idle.pop()
                    if link.usable():
                        self._busy.append(link)
                        return link
                    link.close()
                if not any(not link.shared for link in self._busy):
                    link = self._connect()
                    self._busy.append(link)
                    return link
                self._free.wait()

    def _give(self, link: Link) -> None:
        with self._free:
            self._busy.remove(link)
            if not self._closed and link.usable():
                self._idle.append(link)
            self._free.notify()
