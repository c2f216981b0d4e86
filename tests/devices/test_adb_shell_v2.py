"""The packets of a command and of a file, and what the phone's shell is given: pure functions and a link made of bytes."""

from __future__ import annotations

import io
import shlex
import stat
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.adb import shell_v2, sync
from devices.adb.command import LINE_BYTES, START, WAIT, OutOfTime, run_command, shell_line
from devices.adb.stream import Link, ProtocolError, Refused, Silence, Stream

PACKETS = st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=300)), max_size=8)


class Canned(Stream):
    """A stream that gives pieces and keeps what was sent."""

    def __init__(self, pieces: list[bytes], silent: bool = False) -> None:
        self.pieces, self.silent = pieces, silent
        self.sent = bytearray()
        self.closed = 0

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def recv(self, timeout_s: float) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.silent or timeout_s == 0:
            raise Silence("nothing")
        return b""

    def close(self) -> None:
        self.closed += 1


class CannedLink(Link):
    def __init__(self, stream: Canned, alive: bool = True) -> None:
        self.stream, self.living = stream, alive
        self.services: list[str] = []

    def open(self, service: str, timeout_s: float) -> Stream:
        self.services.append(service)
        if service == "handset-ping:":
            raise Refused("no such service") if self.living else Silence("nothing")
        return self.stream

    def usable(self) -> bool:
        return True

    def close(self) -> None:
        pass


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The same bytes in pieces of these sizes, over and over."""
    pieces = []
    while data:
        for size in sizes or [len(data)]:
            pieces.append(data[:size])
            data = data[size:]
    return [piece for piece in pieces if piece]


@given(PACKETS, st.lists(st.integers(1, 50), max_size=4))
def test_packets_survive_any_cutting(packets: list[tuple[int, bytes]], sizes: list[int]) -> None:
    decoder = shell_v2.Decoder()
    wire = b"".join(shell_v2.encode(kind, data) for kind, data in packets)
    assert [packet for piece in cut(wire, sizes) for packet in decoder.feed(piece)] == packets


@given(st.binary(max_size=200))
def test_any_bytes_give_packets_or_an_error_and_never_grow(data: bytes) -> None:
    try:
        packets = shell_v2.Decoder().feed(data)
    except ProtocolError:
        return
    assert sum(5 + len(part) for _, part in packets) <= len(data)


def test_encoding() -> None:
    assert shell_v2.encode(shell_v2.STDOUT, b"ab") == b"\x01\x02\x00\x00\x00ab"
    assert shell_v2.encode(shell_v2.CLOSE_STDIN) == b"\x04\x00\x00\x00\x00"
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        shell_v2.Decoder().feed(b"\x01\xff\xff\xff\xff")


TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_arguments_reach_a_shell_as_they_are(arguments: list[str]) -> None:
    line = shell_line(["printf", "%s\\0", *arguments])
    assert shlex.split(line.removeprefix(START).removesuffix(WAIT)) == ["printf", "%s\\0", *arguments]


def test_arguments_reach_a_real_shell_as_they_are() -> None:
    nasty = ["$(id)", "`id`", "'; id; '", "a\nb", "\\", "*", "~", "é", "-n", "", "$'x'", "!!", "#"]
    line = shell_line(["printf", "%s\\0", *nasty])
    said = subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout
    pid, _, rest = said.partition(b"\n")
    assert pid.isdigit() and rest.decode().split("\0")[:-1] == nasty


def stdout(*lines: bytes) -> bytes:
    return b"".join(shell_v2.encode(shell_v2.STDOUT, line) for line in lines)


def run(link: Link, killed: list[int], timeout_s: float | None = None, argv: tuple[str, ...] = ("prog",)) -> object:
    return run_command(link, argv, timeout_s=timeout_s, on_output=None, patience_s=0.001, kill=killed.append)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 255), st.lists(st.integers(1, 9), max_size=3))
def test_a_commands_output_status_and_number(out: bytes, err: bytes, status: int, sizes: list[int]) -> None:
    wire = (
        stdout(b"1234", b"5\n" + out)
        + shell_v2.encode(shell_v2.STDERR, err)
        + shell_v2.encode(shell_v2.EXIT, bytes([status]))
    )
    stream = Canned(cut(wire, sizes))
    killed: list[int] = []
    seen: list[bytes] = []
    result = run_command(
        CannedLink(stream), ["prog", "it's"], timeout_s=5, on_output=seen.append, patience_s=1, kill=killed.append
    )
    assert (result.stdout, result.stderr, result.status, result.argv) == (out, err, status, ("prog", "it's"))
    assert b"".join(seen) == out and not killed and stream.closed == 1


@pytest.mark.parametrize(
    "line", [b"1\n", b"0\n", b"-5\n", b"12x\n", b"99999999999\n", b"\n", b"$(id)\n", "٣٣\n".encode()]
)
def test_a_shell_that_lies_about_its_number_kills_nothing(line: bytes) -> None:
    killed: list[int] = []
    with pytest.raises(ProtocolError, match="calls itself"):
        run(CannedLink(Canned([stdout(line)])), killed)
    assert killed == []


def test_whatever_goes_wrong_the_group_is_ended_first() -> None:
    for pieces, error in (
        ([stdout(b"77\n")], ConnectionResetError),
        ([stdout(b"77\n"), b"\x01\xff\xff\xff\xff"], ProtocolError),
    ):
        killed: list[int] = []
        with pytest.raises(error):
            run(CannedLink(Canned(pieces)), killed)
        assert killed == [77]


def test_a_silent_command_asks_for_signs_of_life_until_its_limit() -> None:
    link = CannedLink(Canned([stdout(b"77\n")], silent=True))
    killed: list[int] = []
    with pytest.raises(OutOfTime):
        run(link, killed, timeout_s=0.05)
    assert killed == [77] and link.services.count("handset-ping:") > 2
    dead = CannedLink(Canned([stdout(b"77\n")], silent=True), alive=False)
    with pytest.raises(Silence, match="no sign of life"):
        run(dead, killed)
    assert dead.services.count("handset-ping:") == 1


def test_a_phone_that_never_stops_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.adb.command.MAX_OUTPUT_BYTES", 1000)
    killed: list[int] = []
    with pytest.raises(ProtocolError, match="over"):
        run(CannedLink(Canned([stdout(b"77\n", b"x" * 600, b"x" * 600)])), killed)
    assert killed == [77]


def test_a_long_line_goes_over_the_shells_input() -> None:
    wire = stdout(b"77\n") + shell_v2.encode(shell_v2.EXIT, b"\0")
    for size, service in ((10, f"shell,v2,raw:{START}prog "), (LINE_BYTES, "shell,v2,raw:exec sh")):
        stream = Canned([wire])
        link = CannedLink(stream)
        run(link, [], argv=("prog", "x" * size))
        assert link.services[0].startswith(service)
        packets = shell_v2.Decoder().feed(bytes(stream.sent))
        script = b"".join(data for kind, data in packets if kind == shell_v2.STDIN)
        assert script == (b"" if size == 10 else f"{START}prog {'x' * size}{WAIT}\n".encode())
        assert [kind for kind, _ in packets][-1:] == ([] if size == 10 else [shell_v2.CLOSE_STDIN])


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 983_040, 983_041, 2_000_000])
def test_a_file_as_packets(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    stream = Canned([b"OKAY\0\0\0\0"])
    progress: list[int] = []
    taken = iter([])
    stream.recv = lambda timeout_s, real=stream.recv: real(timeout_s) if timeout_s else next(taken, b"") or silence()  # type: ignore[misc,method-assign]
    sync.send_file(stream, "/a,b", 0o640, io.BytesIO(content[:size]), 1234, 1, progress.append)
    wire = bytes(stream.sent)
    request = f"/a,b,{stat.S_IFREG | 0o640}".encode()
    assert wire.startswith(b"SEND" + struct.pack("<I", len(request)) + request)
    rest, got = wire[8 + len(request) :], b""
    while rest[:4] == b"DATA":
        length = struct.unpack("<I", rest[4:8])[0]
        assert 0 < length <= 65536
        got, rest = got + rest[8 : 8 + length], rest[8 + length :]
    assert got == content[:size] and rest == b"DONE" + struct.pack("<I", 1234)
    assert progress == sorted(progress) and progress[-1:] == ([size] if size else [])


def silence() -> bytes:
    raise Silence("nothing")


def test_fail_in_answer_to_data_ends_the_push_early() -> None:
    stream = Canned([b"FAIL" + struct.pack("<I", 11) + b"no \x1b[31m sp"])
    with pytest.raises(sync.SyncFailed, match=r"no \[31m sp"):
        sync.send_file(stream, "/f", 0o644, io.BytesIO(bytes(50_000_000)), 0, 1, lambda sent: None)
    assert len(stream.sent) < 2_000_000


@given(st.binary(max_size=3000), st.lists(st.integers(1, 500), max_size=4))
def test_a_file_from_packets(content: bytes, sizes: list[int]) -> None:
    wire = b"".join(b"DATA" + struct.pack("<I", len(part)) + part for part in cut(content, [700]))
    got: list[bytes] = []
    assert sync.receive_file(Canned(cut(wire + b"DONE\0\0\0\0", sizes)), "/f", got.append, 5000, 1) == len(content)
    assert b"".join(got) == content


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"DATA" + struct.pack("<I", 1 << 31), ProtocolError),
        (b"DATA" + struct.pack("<I", 600) + bytes(600) + b"DATA" + struct.pack("<I", 600), ProtocolError),
        (b"JUNK\0\0\0\0", ProtocolError),
        (b"FAIL\xff\xff\xff\xff" + b"x" * 5000, sync.SyncFailed),
        (b"DATA\x05\0\0\0ab", ConnectionResetError),
        (b"", ConnectionResetError),
    ],
)
def test_a_hostile_or_broken_file(wire: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as told:
        sync.receive_file(Canned([wire]), "/f", lambda data: None, 1000, 1)
    assert len(str(told.value)) < 300


def test_stat_of_what_is_there_and_what_is_not() -> None:
    assert sync.stat_mode(Canned([b"STAT" + struct.pack("<III", 0o100644, 5, 6)]), "/f", 1) == 0o100644
    assert sync.stat_mode(Canned([b"STAT" + bytes(12)]), "/f", 1) == 0
    with pytest.raises(ProtocolError):
        sync.stat_mode(Canned([bytes(16)]), "/f", 1)
