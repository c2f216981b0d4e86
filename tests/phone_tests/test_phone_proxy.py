"""The proxy: its MSS, rate, delay, freezes and cuts, against a plain echo server."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from proxy import MSS, Proxy


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while data := client.recv(1 << 16):
                    client.sendall(data)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def receive(link: socket.socket, count: int) -> bytes:
    """Up to `count` bytes; fewer where the link ends."""
    data = b""
    while len(data) < count:
        try:
            more = link.recv(count - len(data))
        except ConnectionError:
            break
        if not more:
            break
        data += more
    return data


def echo(link: socket.socket, data: bytes) -> bytes:
    """What comes back of `data`, sent from a thread of its own, for the buffers are small."""

    def send() -> None:
        with contextlib.suppress(OSError):
            link.sendall(data)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    back = receive(link, len(data))
    sender.join(10)
    return back


def test_segments_are_those_of_a_real_network(echo_port):
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= MSS
        with socket.create_connection(("127.0.0.1", echo_port)) as direct:
            assert direct.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 10_000


def test_a_fast_sender_is_held_back(echo_port):
    """A non-blocking send of a megabyte is cut at the send buffer, as on Wi-Fi."""
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        proxy.freeze()
        link.setblocking(False)
        assert link.send(bytes(1 << 20)) < 1 << 20


def test_bytes_pass_unchanged_and_are_counted(echo_port):
    data = bytes(range(256)) * 2000
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        assert echo(link, data) == data
        assert proxy.carried == {"to_phone": len(data), "from_phone": len(data)} and proxy.connections == 1


def test_rate_is_kept(echo_port):
    with Proxy(echo_port, rate=1e6) as proxy, connect(proxy) as link:
        start = time.monotonic()
        assert len(echo(link, bytes(300_000))) == 300_000
        assert 0.27 < time.monotonic() - start < 1.5  # a fast loopback takes a few ms; the upper end is for a busy machine


def test_delay_is_a_way_each(echo_port):
    with Proxy(echo_port, delay_s=0.05) as proxy, connect(proxy) as link:
        start = time.monotonic()
        assert echo(link, b"x") == b"x"
        assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize("count", [0, 1, 1000, 100_000])
def test_cut_after_a_count_lets_exactly_that_pass_once(echo_port, count):
    with Proxy(echo_port) as proxy:
        with connect(proxy) as link:
            proxy.cut_after(count, "from_phone")
            assert len(echo(link, bytes(200_000))) == count
        with connect(proxy) as link:
            assert echo(link, bytes(1000)) == bytes(1000)


def test_cut_on_the_way_to_the_phone(echo_port):
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        proxy.cut_after(5000, "to_phone")
        assert len(echo(link, bytes(20_000))) <= 5000
        assert proxy.carried["to_phone"] == 5000


def test_freeze_holds_and_thaw_lets_go(echo_port):
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        assert echo(link, b"before") == b"before"
        proxy.freeze()
        link.sendall(b"during")
        link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            link.recv(1)
        link.settimeout(10)
        proxy.thaw()
        assert receive(link, 6) == b"during"


def test_cut_now_ends_the_links_and_close_the_listener(echo_port):
    with Proxy(echo_port) as proxy, connect(proxy) as link:
        assert echo(link, b"x") == b"x"
        proxy.cut()
        assert receive(link, 1) == b""
        with connect(proxy) as again:
            assert echo(again, b"y") == b"y"
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.close()
