"""Files and commands over a link like a real one: MSS 1460, slow, frozen, cut at any byte. Clear errors; never half a file."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.adb.find import phone_at
from devices.adb.phone import AdbTransport
from devices.errors import DeviceError, DeviceLost, TransferError
from devices.testing import listing, scratch, wait_until_gone

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

REASON = Phone.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
SIZE = 2_500_000
PATIENCE_S = 0.6


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("x86_64", "galaxy") as phone:
        yield phone


@pytest.fixture
def near(phone: Phone) -> Iterator[AdbTransport]:
    """The same phone, past the proxy: sees what lies there."""
    with phone_at("127.0.0.1", phone.port, "near").open() as transport:
        yield transport


@pytest.fixture
def proxy(phone: Phone) -> Iterator[Proxy]:
    with Proxy(phone.port) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy) -> Iterator[AdbTransport]:
    with phone_at("127.0.0.1", proxy.port, "far").open(PATIENCE_S) as transport:
        yield transport


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An old file and a new one."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "old").write_bytes(b"old")
    (folder / "new").write_bytes(os.urandom(SIZE))
    return folder / "old", folder / "new"


# before and in the sync request, in a header, in the data, between packets, in the last one, in the command that renames
@pytest.mark.parametrize(
    "after", [0, 1, 23, 24, 60, 200, 70_000, 983_200, 983_300, 2_000_000, SIZE, SIZE + 700, SIZE + 900]
)
def test_a_push_that_is_cut(
    near: AdbTransport, far: AdbTransport, proxy: Proxy, files: tuple[Path, Path], after: int
) -> None:
    old, new = files
    with scratch(near) as folder:
        near.push(old, f"{folder}/file")
        far.check()
        proxy.cut_after(after)
        try:
            far.push(new, f"{folder}/file")
        except (DeviceLost, TransferError) as error:
            assert "far" in str(error) and "try: " in str(error)
            content = near.run(["cat", f"{folder}/file"]).stdout
            assert content in (b"old", new.read_bytes()), "whole, old or new"
        else:
            pytest.fail("nobody noticed")
        far.push(new, f"{folder}/file")
        assert listing(near, folder) == ["file"]
        assert near.run(["cat", f"{folder}/file"]).stdout == new.read_bytes()


@pytest.mark.parametrize("after", [0, 24, 100])
def test_a_push_whose_answers_are_cut(
    near: AdbTransport, far: AdbTransport, proxy: Proxy, files: tuple[Path, Path], after: int
) -> None:
    with scratch(near) as folder:
        near.push(files[0], f"{folder}/file")
        far.check()
        proxy.cut_after(after, "from_phone")
        with pytest.raises(DeviceLost):
            far.push(files[1], f"{folder}/file")
        assert near.run(["cat", f"{folder}/file"]).stdout == b"old"
        far.push(files[1], f"{folder}/file")
        assert listing(near, folder) == ["file"]


@pytest.mark.parametrize("after", [0, 30, 500, 66_000, 1_500_000, SIZE, SIZE + 400])
def test_a_pull_that_is_cut(
    near: AdbTransport, far: AdbTransport, proxy: Proxy, files: tuple[Path, Path], tmp_path: Path, after: int
) -> None:
    back = tmp_path / "home" / "back"
    back.parent.mkdir()
    back.write_bytes(b"old")
    with scratch(near) as folder:
        near.push(files[1], f"{folder}/file")
        far.check()
        proxy.cut_after(after, "from_phone")
        with pytest.raises(DeviceLost):
            far.pull(f"{folder}/file", back)
        assert [path.read_bytes() for path in back.parent.iterdir()] == [b"old"]
        far.pull(f"{folder}/file", back)
        assert [path.read_bytes() for path in back.parent.iterdir()] == [files[1].read_bytes()]


def test_a_push_that_freezes(near: AdbTransport, far: AdbTransport, proxy: Proxy, files: tuple[Path, Path]) -> None:
    with scratch(near) as folder:
        near.push(files[0], f"{folder}/file")
        start = time.monotonic()
        with pytest.raises(DeviceLost, match="far does not answer while pushing.*cable or the Wi-Fi"):
            far.push(files[1], f"{folder}/file", on_progress=lambda sent: proxy.freeze())
        assert time.monotonic() - start < 20
        assert near.run(["cat", f"{folder}/file"]).stdout == b"old"
        proxy.thaw()
        far.push(files[1], f"{folder}/file")
        assert listing(near, folder) == ["file"]
        assert near.run(["cat", f"{folder}/file"]).stdout == files[1].read_bytes()


def test_a_command_whose_link_freezes(far: AdbTransport, proxy: Proxy) -> None:
    """Silence alone is no loss; no sign of life is."""
    start = time.monotonic()
    with pytest.raises(DeviceLost, match=r"far does not answer while running .*no sign of life for 1\.2 s"):
        far.run(["sh", "-c", "echo on; exec sleep 600"], on_output=lambda data: proxy.freeze())
    assert time.monotonic() - start < 20
    proxy.thaw()
    far.run(["pkill", "-f", "sleep 600"])


def test_a_time_out_over_a_frozen_link_does_not_claim_that_it_killed(far: AdbTransport, proxy: Proxy) -> None:
    with pytest.raises(DeviceLost, match="within 0.3 s and could not be killed.*does not answer"):
        far.run(["sh", "-c", "echo on; exec sleep 600"], timeout_s=0.3, on_output=lambda data: proxy.freeze())
    proxy.thaw()
    far.run(["pkill", "-f", "sleep 600"])


def test_a_link_that_cannot_be_made_is_told_in_time(far: AdbTransport, proxy: Proxy) -> None:
    proxy.freeze()
    start = time.monotonic()
    with pytest.raises(DeviceLost, match="far does not answer while running true"):
        far.run(["true"])
    assert time.monotonic() - start < 10


def test_a_slow_link_is_no_silent_one(near: AdbTransport, far: AdbTransport, proxy: Proxy, tmp_path: Path) -> None:
    """One packet takes longer than the patience, both ways, and what was sent waits in this side's buffer."""
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(os.urandom(700_000))
    with scratch(near) as folder:
        far.check()
        proxy.rate = 350e3
        start = time.monotonic()
        far.push(local, f"{folder}/file")
        assert time.monotonic() - start > 2 * PATIENCE_S
        far.pull(f"{folder}/file", back)
    assert back.read_bytes() == local.read_bytes()


def test_line_speed(near: AdbTransport, far: AdbTransport, proxy: Proxy, tmp_path: Path) -> None:
    """At 10 MB/s the link is full, which 64 KiB packets, each answered before the next, would not do with 5 ms each way."""
    local = tmp_path / "local"
    local.write_bytes(os.urandom(6_000_000))
    with scratch(near) as folder:
        far.check()
        proxy.rate, proxy.delay_s = 10e6, 0.002
        start = time.monotonic()
        far.push(local, f"{folder}/file")
        assert time.monotonic() - start < 2 * 0.6
        assert proxy.carried["to_phone"] < 1.01 * 6_000_000


def test_two_threads_and_a_cut(far: AdbTransport, proxy: Proxy) -> None:
    """Each is told; neither hangs; the transport goes on."""
    errors: list[DeviceError] = []
    begun = threading.Barrier(3, timeout=30)

    def work() -> None:
        try:
            far.run(["sh", "-c", "echo on; exec sleep 600"], on_output=lambda data: begun.wait() and None)
        except DeviceError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    proxy.cut()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 2 and all(isinstance(error, DeviceLost) for error in errors)
    far.run(["pkill", "-f", "sleep 600"])
    assert far.run(["echo", "again"]).stdout == b"again\n"


def run_and_cut(far: AdbTransport, proxy: Proxy, argv: list[str], reset: bool = True) -> bytes:
    """A command whose link is lost at its first output, for good: nobody can end it from here. Returns that output."""
    said: list[bytes] = []

    def cut(data: bytes) -> None:
        said.append(data)
        proxy.cut(reset)
        proxy.freeze()

    with pytest.raises(DeviceLost):
        far.run(argv, on_output=cut)
    return b"".join(said)


SCRIPTS = {
    "children": "sleep 600 & sleep 600 & echo $$ $!; wait",
    "one that does not hear a hangup": "trap '' HUP; (sleep 600 & echo $$ $!; wait)",
    "one in a pipe": "echo $$; sleep 600 | cat",
    "one that heeds nothing": "trap '' HUP TERM; sleep 600 & echo $$ $!; wait; sleep 600",
}


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_cut_leaves_nothing_running(
    far: AdbTransport, near: AdbTransport, proxy: Proxy, script: str, reset: bool
) -> None:
    pids = run_and_cut(far, proxy, ["sh", "-c", SCRIPTS[script]], reset)
    wait_until_gone(near, pids)
    assert b"sleep 600" not in near.run(["ps", "-o", "args"]).stdout


def test_a_long_command_that_is_cut(far: AdbTransport, near: AdbTransport, proxy: Proxy) -> None:
    wait_until_gone(near, run_and_cut(far, proxy, ["sh", "-c", SCRIPTS["children"], "x" * 50_000]))


def test_a_command_that_is_cut_may_finish_its_line(far: AdbTransport, near: AdbTransport, proxy: Proxy) -> None:
    script = "trap 'sleep 0.3; echo whole >\"$1/said\"; exit' TERM; echo $$; sleep 600 & wait"
    with scratch(near) as folder:
        wait_until_gone(near, run_and_cut(far, proxy, ["sh", "-c", script, "sh", folder]))
        assert near.run(["cat", f"{folder}/said"]).stdout == b"whole\n"


def test_nothing_is_left_of_a_command_but_itself(near: AdbTransport) -> None:
    """The shell that waits for it is its parent, adds no word of its own and ends with it."""
    before = near.run(["ps", "-o", "pid,args"]).stdout.count(b"\n")
    killed = near.run(["sh", "-c", "echo out; echo err >&2; kill -KILL $$"])
    assert (killed.status, killed.stdout, killed.stderr) == (137, b"out\n", b"err\n")
    for script, status in (
        ("kill -TERM 0; sleep 600", 143),
        ("trap 'exit 5' TERM; kill 0; sleep 600 & wait", 5),
        ("exit 127", 127),
    ):
        assert near.run(["sh", "-c", script], timeout_s=30).status == status
    assert near.run(["ps", "-o", "pid,args"]).stdout.count(b"\n") == before


def test_links_are_used_again(near: AdbTransport, far: AdbTransport, proxy: Proxy, tmp_path: Path) -> None:
    """The phone's end of each stream comes after the call that used it, and is no reason for another connection."""
    (tmp_path / "file").write_bytes(bytes(100_000))
    with scratch(near) as folder:
        for _ in range(5):
            far.run(["true"])
            far.push(tmp_path / "file", f"{folder}/file")
            far.pull(f"{folder}/file", tmp_path / "back")
    assert proxy.connections == 1


def test_a_link_that_was_cut_while_it_was_idle(far: AdbTransport, proxy: Proxy) -> None:
    """Also where packets of the last command lie before the end: no command is lost to it."""
    far.run(["true"])
    (link,) = far._idle
    wire = link._wire._connection  # type: ignore[attr-defined]
    proxy.cut(reset=False)
    deadline = time.monotonic() + 10
    while not select.select([wire], [], [], 10)[0] or not ended(wire):
        assert time.monotonic() < deadline
    assert far.run(["echo", "again"]).stdout == b"again\n"
    assert proxy.connections == 2


def ended(connection: socket.socket) -> bool:
    """Whether the other side has closed; what came before lies there still."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
