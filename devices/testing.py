"""TransportContract: what every transport must do, as tests.

A test file subclasses it and gives the fixture `transport`, an open transport to a device that has a POSIX shell:

    class TestHost(TransportContract):
        @pytest.fixture
        def transport(self, tmp_path): ...

pytest runs the methods; nothing here imports it.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from devices.errors import CommandTimeout, TransferError
from devices.transport import Transport

PATIENCE_S = 10.0
"""How long a killed process may take to be gone."""

NAMES = (
    "plain.bin", "with space", " both ends ", "it's", 'say "hi"', "ünïcödé", "日本語", "$HOME", "`id`", "a;b&c|d",
    "star*?[x]", "back\\slash", "-dash", "#hash", "~", "{a,b}", "x" * 200,
)  # fmt: skip

ARGUMENTS = (
    "", " ", "a  b", "$HOME", "${PATH}", "`id`", "$(id)", "*", "?", "~", "'", '"', "\\", "\\n", "%s", "!", "#", ";", "&&",
    "|", "> /tmp/x", "-n", "--", "a\nb", "tab\t", "ünïcödé 日本語", "{a,b}",
)  # fmt: skip


class TransportContract:
    """The tests. Each leaves the device as it was."""

    shell = "/bin/sh"
    """Where the device has its shell; Android before 10 has no /bin."""

    def test_bytes_round_trip(self, transport: Transport, tmp_path: Path) -> None:
        sent, back = tmp_path / "sent", tmp_path / "back"
        with scratch(transport) as folder:
            for size in (0, 1, 4096, 5_000_000):
                content = random.Random(size).randbytes(size)
                sent.write_bytes(content)
                transport.push(sent, f"{folder}/data")
                transport.pull(f"{folder}/data", back)
                assert back.read_bytes() == content, f"{size} bytes"
                assert transport.run(["wc", "-c", f"{folder}/data"]).stdout.split()[0] == str(size).encode()

    def test_names_round_trip(self, transport: Transport, tmp_path: Path) -> None:
        with scratch(transport) as folder:
            for number, name in enumerate(NAMES):
                local = tmp_path / name
                local.write_text(name)
                transport.push(local, f"{folder}/{number}/{name}/{name}")
                transport.pull(f"{folder}/{number}/{name}/{name}", tmp_path / "back" / name)
                assert (tmp_path / "back" / name).read_text() == name
                assert listing(transport, f"{folder}/{number}/{name}") == [name]

    def test_push_replaces_and_leaves_nothing_beside(self, transport: Transport, tmp_path: Path) -> None:
        local = tmp_path / "local"
        with scratch(transport) as folder:
            for content in (b"long " * 100_000, b"short", b""):
                local.write_bytes(content)
                transport.push(local, f"{folder}/file")
                assert transport.run(["cat", f"{folder}/file"]).stdout == content
            assert listing(transport, folder) == ["file"]

    def test_program_that_was_pushed_runs(self, transport: Transport, tmp_path: Path) -> None:
        local = tmp_path / "program"
        local.write_text(f"#!{self.shell}\nexit 7\n")
        local.chmod(0o755)
        with scratch(transport) as folder:
            transport.push(local, f"{folder}/program")
            assert transport.run([f"{folder}/program"]).status == 7

    def test_push_of_a_missing_file_changes_nothing(self, transport: Transport, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(b"old")
        with scratch(transport) as folder:
            transport.push(local, f"{folder}/file")
            with raises(TransferError):
                transport.push(tmp_path / "missing", f"{folder}/file")
            assert listing(transport, folder) == ["file"]
            assert transport.run(["cat", f"{folder}/file"]).stdout == b"old"

    def test_push_onto_a_folder_fails_whole(self, transport: Transport, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(b"content")
        with scratch(transport) as folder:
            assert transport.run(["mkdir", "-p", f"{folder}/taken/inner"]).status == 0
            with raises(TransferError):
                transport.push(local, f"{folder}/taken")
            assert listing(transport, folder) == ["taken"]
            assert listing(transport, f"{folder}/taken") == ["inner"]

    def test_pull_of_a_missing_file_leaves_nothing(self, transport: Transport, tmp_path: Path) -> None:
        home = tmp_path / "home"
        home.mkdir()
        with scratch(transport) as folder:
            with raises(TransferError) as told:
                transport.pull(f"{folder}/missing", home / "file")
            assert "missing" in str(told[0])
            assert list(home.iterdir()) == []
            (home / "file").write_bytes(b"old")
            with raises(TransferError):
                transport.pull(f"{folder}/missing", home / "file")
            assert [path.read_bytes() for path in home.iterdir()] == [b"old"]

    def test_many_files_at_once_and_back(self, transport: Transport, tmp_path: Path) -> None:
        contents = {f"{number:03d}.bin": random.Random(number).randbytes(number) for number in range(500)}
        contents["large"] = random.Random(1).randbytes(5_000_000)
        files = written(tmp_path / "here", contents)
        with scratch(transport) as folder:
            transport.push_many(files, f"{folder}/a new one/in it")
            assert listing(transport, f"{folder}/a new one/in it") == sorted(contents)
            assert transport.pull_folder(f"{folder}/a new one/in it", tmp_path / "back" / "here") == sorted(contents)
        assert {path.name: path.read_bytes() for path in (tmp_path / "back" / "here").iterdir()} == contents

    def test_no_files_at_once(self, transport: Transport, tmp_path: Path) -> None:
        with scratch(transport) as folder:
            transport.push_many({}, f"{folder}/empty")
            assert listing(transport, folder) == ["empty"]
            assert transport.pull_folder(f"{folder}/empty", tmp_path / "back") == []
            assert list((tmp_path / "back").iterdir()) == []
            with raises(TransferError):
                transport.pull_folder(f"{folder}/missing", tmp_path / "none")

    def test_names_of_many_files_round_trip(self, transport: Transport, tmp_path: Path) -> None:
        contents = {name: name.encode() for name in NAMES}
        files = written(tmp_path / "here", {str(number): name.encode() for number, name in enumerate(NAMES)})
        with scratch(transport) as folder:
            transport.push_many(dict(zip(NAMES, files.values(), strict=True)), folder)
            assert listing(transport, folder) == sorted(NAMES)
            assert transport.pull_folder(folder, tmp_path / "back") == sorted(NAMES)
        assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == contents

    def test_names_that_no_file_of_a_folder_has(self, transport: Transport, tmp_path: Path) -> None:
        (local,) = written(tmp_path, {"local": b"x"}).values()
        with scratch(transport) as folder:
            for name in ("", ".", "..", ".hidden", "a/b", "/a", "a\nb", "a\0b", "\x1b[2J", "é" * 128):
                with raises(ValueError):
                    transport.push_many({"good": local, name: local}, folder)
            assert listing(transport, folder) == []

    def test_many_files_replace_those_that_are_there(self, transport: Transport, tmp_path: Path) -> None:
        with scratch(transport) as folder:
            for content in (b"long " * 1000, b"short", b""):
                files = written(tmp_path / "here", dict.fromkeys(("a", "b", "c"), content))
                files["b"].chmod(0o755)
                transport.push_many(files, folder)
                assert [transport.run(["cat", f"{folder}/{name}"]).stdout for name in files] == [content] * 3
                transport.pull_folder(folder, tmp_path / "back")
                assert [(tmp_path / "back" / name).read_bytes() for name in files] == [content] * 3
            assert listing(transport, folder) == sorted(path.name for path in (tmp_path / "back").iterdir()) == [*"abc"]
            modes = transport.run(["stat", "-c", "%a", *(f"{folder}/{name}" for name in files)]).stdout.split()
            assert modes == [f"{path.stat().st_mode & 0o777:o}".encode() for path in files.values()]

    def test_many_files_onto_a_folder_fail(self, transport: Transport, tmp_path: Path) -> None:
        files = written(tmp_path / "here", {"a": b"a", "taken": b"b"})
        with scratch(transport) as folder:
            assert transport.run(["mkdir", "-p", f"{folder}/taken/inner"]).status == 0
            with raises(TransferError):
                transport.push_many(files, folder)
            with raises(TransferError):
                transport.push_many({"b": files["a"], "missing": tmp_path / "missing"}, folder)
            assert set(listing(transport, folder)) <= {"a", "b", "taken"}
            assert listing(transport, f"{folder}/taken") == ["inner"]

    def test_only_plain_files_of_a_folder_come(self, transport: Transport, tmp_path: Path) -> None:
        files = written(tmp_path / "here", {"plain": b"plain", "other": b"other"})
        script = 'cd "$1"; mkdir inner; cp plain inner/file; ln -s plain link; ln -s /proc/stat far; mkfifo pipe; ln plain too'
        with scratch(transport) as folder:
            transport.push_many(files, folder)
            assert transport.run(["sh", "-c", script, "sh", folder]).status == 0
            assert transport.pull_folder(folder, tmp_path / "back") == ["other", "plain", "too"]
            contents = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
            assert contents == {"plain": b"plain", "other": b"other", "too": b"plain"}

    def test_a_folder_that_is_too_large_stays(self, transport: Transport, tmp_path: Path) -> None:
        files = written(tmp_path / "here", {"a": bytes(700_000), "b": bytes(300_000)})
        home = tmp_path / "back"
        with scratch(transport) as folder:
            transport.push_many(files, folder)
            for limits in (
                {"max_bytes": 999_999},
                {"max_files": 1},
                {"max_bytes": 0},
                {"max_bytes": 10, "max_files": 1},
            ):
                with raises(TransferError):
                    transport.pull_folder(folder, home, **limits)
            assert not home.exists() or list(home.iterdir()) == []
            assert transport.pull_folder(folder, home, max_bytes=1_000_000, max_files=2) == ["a", "b"]

    def test_a_folder_with_a_wrong_name_stays(self, transport: Transport, tmp_path: Path) -> None:
        (local,) = written(tmp_path, {"local": b"x"}).values()
        for name in (".hidden", "a\nb", "a\n5 b", "\x1b[31m", "tab\t", "\x7f"):
            with scratch(transport) as folder:
                transport.push_many({"good": local}, folder)
                assert transport.run(["cp", f"{folder}/good", f"{folder}/{name}"]).status == 0
                with raises(TransferError):
                    transport.pull_folder(folder, tmp_path / "back")
        assert not (tmp_path / "back").exists() or list((tmp_path / "back").iterdir()) == []

    def test_exit_statuses(self, transport: Transport) -> None:
        for status in (0, 1, 2, 71, 126, 127, 255):
            assert transport.run(["sh", "-c", f"exit {status}"]).status == status
        for number, name in ((9, "KILL"), (15, "TERM"), (6, "ABRT")):
            assert transport.run(["sh", "-c", f"kill -{name} $$"]).status == 128 + number
        assert transport.run(["/no/such/program"]).status == 127
        assert transport.run(["no-such-program-anywhere"]).status == 127

    def test_output_and_errors_are_apart(self, transport: Transport) -> None:
        result = transport.run(["sh", "-c", "echo out; echo err >&2; echo out2; exit 3"])
        assert (result.status, result.stdout, result.stderr) == (3, b"out\nout2\n", b"err\n")
        assert result.argv == ("sh", "-c", "echo out; echo err >&2; echo out2; exit 3")
        assert result.wall_s >= 0

    def test_much_output_on_both_sides(self, transport: Transport) -> None:
        result = transport.run(["sh", "-c", "head -c 400000 /dev/zero >&2; head -c 700001 /dev/zero"], timeout_s=60)
        assert (len(result.stdout), len(result.stderr)) == (700_001, 400_000)

    def test_output_is_bytes(self, transport: Transport, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(bytes(range(256)) + b"\r\n\r\n\n\0")
        with scratch(transport) as folder:
            transport.push(local, f"{folder}/file")
            assert transport.run(["cat", f"{folder}/file"]).stdout == local.read_bytes()

    def test_arguments_arrive_verbatim(self, transport: Transport) -> None:
        result = transport.run(["printf", "<%s>", *ARGUMENTS])
        assert result.stdout.decode() == "".join(f"<{argument}>" for argument in ARGUMENTS)

    def test_a_command_has_no_input(self, transport: Transport) -> None:
        assert transport.run(["cat"], timeout_s=30).stdout == b""

    def test_output_is_passed_on_as_it_comes(self, transport: Transport) -> None:
        pieces: list[bytes] = []
        result = transport.run(["sh", "-c", "echo one; echo two >&2; echo three"], on_output=pieces.append)
        assert b"".join(pieces) == result.stdout == b"one\nthree\n"

    def test_timeout_leaves_nothing_running(self, transport: Transport) -> None:
        pids: list[bytes] = []
        start = time.monotonic()
        with raises(CommandTimeout) as told:
            transport.run(["sh", "-c", "sleep 600 & echo $$ $!; wait"], timeout_s=1, on_output=pids.append)
        assert time.monotonic() - start < 60
        assert "sleep 600" in str(told[0])
        wait_until_gone(transport, b"".join(pids))
        assert transport.run(["echo", "still here"], timeout_s=30).stdout == b"still here\n"

    def test_a_command_that_ends_in_time_is_no_timeout(self, transport: Transport) -> None:
        assert transport.run(["sh", "-c", "echo quick"], timeout_s=60).stdout == b"quick\n"

    def test_timeout_of_a_command_that_closed_its_output(self, transport: Transport) -> None:
        pids: list[bytes] = []
        with raises(CommandTimeout):
            transport.run(["sh", "-c", "echo $$; exec sleep 600 >&- 2>&-"], timeout_s=1, on_output=pids.append)
        wait_until_gone(transport, b"".join(pids))

    def test_an_error_in_on_output_ends_the_command(self, transport: Transport) -> None:
        pids: list[bytes] = []

        def interrupt(data: bytes) -> None:
            pids.append(data)
            raise KeyboardInterrupt

        with raises(KeyboardInterrupt):
            transport.run(["sh", "-c", "sleep 600 & echo $$ $!; wait"], timeout_s=60, on_output=interrupt)
        wait_until_gone(transport, b"".join(pids))

    def test_texts_that_cannot_be_read_are_left_out(self, transport: Transport, tmp_path: Path) -> None:
        small, large = tmp_path / "small", tmp_path / "large"
        small.write_bytes(b"42\n\xff")
        large.write_bytes(b"x" * 100_000)
        with scratch(transport) as folder:
            transport.push(small, f"{folder}/a small one")
            transport.push(large, f"{folder}/large")
            texts = transport.read_texts([f"{folder}/a small one", f"{folder}/missing", folder, f"{folder}/large"])
            assert texts == {f"{folder}/a small one": "42\n\ufffd", f"{folder}/large": "x" * 65536}

    def test_description(self, transport: Transport) -> None:
        description = transport.describe()
        assert description.name == transport.name
        assert description.cores >= 1
        assert description.memory_bytes is None or description.memory_bytes > 1 << 20
        assert all([description.kind, description.model, description.os, description.kernel, description.abi])
        assert transport.workdir.startswith("/")

    def test_close_twice(self, transport: Transport) -> None:
        with transport as same:
            assert same is transport
        transport.close()
        transport.close()


@contextlib.contextmanager
def raises(kind: type[BaseException]) -> Iterator[list[BaseException]]:
    """Fails where the block does not raise `kind`; the list has the error afterwards."""
    told: list[BaseException] = []
    try:
        yield told
    except kind as error:
        told.append(error)
    assert told, f"no {kind.__name__} was raised"


@contextlib.contextmanager
def scratch(transport: Transport) -> Iterator[str]:
    """A folder of our own on the device, gone afterwards. A half-copied file in it is a failure."""
    folder = f"{transport.workdir}/contract-{uuid.uuid4().hex}"
    assert transport.run(["mkdir", "-p", folder]).status == 0
    try:
        yield folder
        assert transport.run(["find", folder, "-name", "*.part"]).stdout == b""
    finally:
        transport.run(["rm", "-rf", folder])


def written(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Local files with these contents, by their names."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def listing(transport: Transport, folder: str) -> list[str]:
    """The names in a folder of the device, sorted."""
    result = transport.run(["find", folder, "-mindepth", "1", "-maxdepth", "1", "-print0"])
    return sorted(path.decode().rpartition("/")[2] for path in result.stdout.split(b"\0") if path)


def wait_until_gone(transport: Transport, pids: bytes) -> None:
    """Fails where one of the processes, whose numbers a command printed, still runs after a while."""
    numbers = pids.split()
    assert numbers, "the command did not say its process numbers"
    deadline = time.monotonic() + PATIENCE_S
    for number in numbers:
        while _runs(transport, number.decode()):
            assert time.monotonic() < deadline, f"process {number.decode()} still runs"


def _runs(transport: Transport, pid: str) -> bool:
    """A zombie, which has ended and waits for its parent to notice, does not run."""
    text = transport.read_texts([f"/proc/{pid}/stat"]).get(f"/proc/{pid}/stat", "")
    return bool(text) and text.rpartition(") ")[2][:1] not in ("Z", "X")
