"""Many files at once over the real adbd: cut anywhere, without space, interrupted; how many streams anything takes."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.adb import archive as archive_module
from devices.adb import files as files_module
from devices.adb import sync, verify
from devices.adb.command import GRACE_S
from devices.adb.direct import DirectLink
from devices.adb.find import phone_at
from devices.adb.phone import AdbTransport
from devices.adb.stream import Stream
from devices.errors import DeviceLost, TransferError
from devices.testing import listing, scratch, written

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "phone"))
from phone import Phone
from proxy import Proxy

REASON = Phone.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
COUNT, EACH_BYTES = 30, 20_000
TOTAL_BYTES = COUNT * EACH_BYTES


@pytest.fixture(scope="module")
def phone() -> Iterator[Phone]:
    with Phone("x86_64", "walleye", data="size=24m") as phone:
        yield phone


@pytest.fixture
def near(phone: Phone) -> Iterator[AdbTransport]:
    with phone_at("127.0.0.1", phone.port, "near").open() as transport:
        yield transport


@pytest.fixture
def proxy(phone: Phone) -> Iterator[Proxy]:
    with Proxy(phone.port) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy) -> Iterator[AdbTransport]:
    with phone_at("127.0.0.1", proxy.port, "far").open(2.0) as transport:
        yield transport


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return written(tmp_path_factory.mktemp("old"), {f"file {number}": b"old" for number in range(COUNT)})


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    contents = {f"file {number}": os.urandom(EACH_BYTES) for number in range(COUNT)}
    return written(tmp_path_factory.mktemp("new"), contents)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The service of each stream that is opened on a direct link: a round trip each."""
    opened: list[str] = []
    real = DirectLink.open

    def open_(link: DirectLink, service: str, timeout_s: float) -> Stream:
        opened.append(service.partition(":")[0])
        return real(link, service, timeout_s)

    monkeypatch.setattr(DirectLink, "open", open_)
    return opened


def contents(phone: Phone, folder: str) -> dict[str, bytes]:
    """What lies under the final names of a folder."""
    return {path.name: path.read_bytes() for path in phone.path(folder).iterdir() if not path.name.startswith(".")}


def read(files: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


# in the sync request, the data, the last packet, every few bytes of the command that unpacks; and in each answer
CUTS = [0, 23, 60, 200, 70_000, 300_000, TOTAL_BYTES, *range(TOTAL_BYTES + 27_000, TOTAL_BYTES + 31_000, 400)]


@pytest.mark.parametrize(
    ("after", "direction"), [(after, "to_phone") for after in CUTS] + [(n, "from_phone") for n in range(0, 240, 30)]
)
def test_a_batch_that_is_cut(
    phone: Phone, near: AdbTransport, far: AdbTransport, proxy: Proxy, old: Any, new: Any, after: int, direction: Any
) -> None:
    before, wanted = read(old), read(new)
    with scratch(near) as folder:
        near.push_many(old, folder)
        far.check()
        proxy.cut_after(after, direction)
        try:
            far.push_many(new, folder)
        except (DeviceLost, TransferError) as error:
            assert "far" in str(error) and "try: " in str(error)
            seen = contents(phone, folder)
            assert set(seen) == set(new), "no half name"
            assert all(seen[name] in (before[name], wanted[name]) for name in new), "no half file"
        else:
            assert after > 60 and contents(phone, folder) == wanted, "all was over"
        far.push_many(new, folder)
        assert listing(near, folder) == sorted(new), "and what the cut one left is gone"
        assert contents(phone, folder) == wanted


@pytest.mark.parametrize("after", [0, 40, 600, 70_000, TOTAL_BYTES, TOTAL_BYTES + 25_000])
def test_a_folder_that_is_cut(
    near: AdbTransport, far: AdbTransport, proxy: Proxy, new: Any, tmp_path: Path, after: int
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "file 1").write_bytes(b"old")
    with scratch(near) as folder:
        near.push_many(new, folder)
        far.check()
        proxy.cut_after(after, "from_phone")
        with pytest.raises(DeviceLost):
            far.pull_folder(folder, home)
        assert {path.name: path.read_bytes() for path in home.iterdir()} == {"file 1": b"old"}
        assert far.pull_folder(folder, home) == sorted(new)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == read(new)


def test_what_a_cut_batch_left_is_removed_by_the_next(
    phone: Phone, near: AdbTransport, new: Any, tmp_path: Path
) -> None:
    script = 'cd "$1"; mkdir .deadbeef.new; echo x >.deadbeef.new/file; echo x >.01234567.part; echo x >"file 1.89abcdef.part"'
    with scratch(near) as folder:
        near.push_many(new, folder)
        assert near.run(["sh", "-c", script, "sh", folder]).status == 0
        assert near.pull_folder(folder, tmp_path / "back") == sorted(new), "they are no files of the folder"
        near.push_many(new, folder)
        assert listing(near, folder) == sorted([*new, "file 1.89abcdef.part"]), "a single file's are its own push's"
        near.push(new["file 1"], f"{folder}/file 1")
        assert listing(near, folder) == sorted(new)


@pytest.mark.parametrize(("count", "what"), [(30, "fit the archive, not the files"), (60, "fit neither")])
def test_a_phone_without_the_space(phone: Phone, near: AdbTransport, tmp_path: Path, count: int, what: str) -> None:
    files = written(tmp_path, dict.fromkeys((f"f{number}" for number in range(count)), os.urandom(500_000)))
    old = written(tmp_path / "old", dict.fromkeys(("f1", "f2"), b"old"))
    with scratch(near) as folder:
        near.push_many(old, folder)
        with pytest.raises(TransferError, match="No space left"):
            near.push_many(files, folder)
        assert listing(near, folder) == ["f1", "f2"] and contents(phone, folder) == read(old)
        near.push_many(dict(list(files.items())[:10]), folder)


def test_a_batch_that_is_interrupted(near: AdbTransport, old: Any, new: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = AdbTransport.run
    with scratch(near) as folder:
        near.push_many(old, folder)
        with pytest.raises(KeyboardInterrupt):
            near.push_many(new, folder, on_progress=interrupt)
        assert listing(near, folder) == sorted(old)
        runs = iter([interrupt, real])
        monkeypatch.setattr(AdbTransport, "run", lambda *args, **more: next(runs)(*args, **more))
        with pytest.raises(KeyboardInterrupt):
            near.push_many(new, folder)
        monkeypatch.setattr(AdbTransport, "run", real)
        assert listing(near, folder) == sorted(old)


def test_progress_of_a_batch(near: AdbTransport, new: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive_module, "ALONE_BYTES", 2_000_000)
    files = new | written(tmp_path, {"large": bytes(2_500_000)})
    seen: list[int] = []
    with scratch(near) as folder:
        near.push_many(files, folder, on_progress=seen.append)
        assert listing(near, folder) == sorted(files)
    assert seen == sorted(seen) and len(seen) >= 3 and seen[-1] == TOTAL_BYTES + 2_500_000


def test_several_archives(
    near: AdbTransport, phone: Phone, new: Any, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "ARCHIVE_BYTES", 7 * EACH_BYTES)
    with scratch(near) as folder:
        streams.clear()
        near.push_many(new, folder)
        assert Counter(streams) == {"sync": 5, "shell,v2,raw": 5}, "30 files, 7 in an archive"
        assert contents(phone, folder) == read(new)


def test_a_folder_that_is_too_large_is_not_even_brought(
    phone: Phone, near: AdbTransport, far: AdbTransport, proxy: Proxy, tmp_path: Path
) -> None:
    """And the phone's tar, which waits for somebody to take its output, is ended without the grace of one that may finish."""
    files = written(tmp_path, {"a": bytes(8_000_000), "b": b""})
    with scratch(near) as folder:
        near.push_many(files, folder)
        far.check()
        start = time.monotonic()
        with pytest.raises(TransferError, match="over 10 bytes"):
            far.pull_folder(folder, tmp_path / "back", max_bytes=10, max_files=2)
        assert time.monotonic() - start < GRACE_S
        assert proxy.carried["from_phone"] < 3_000_000 and not (tmp_path / "back").exists()


def test_large_files_of_a_folder_come_one_by_one(near: AdbTransport, streams: list[str], tmp_path: Path) -> None:
    contents = {"over": b"o" * ((4 << 20) + 1), "just": b"j" * (4 << 20), "small": b"s", "it's large": bytes(5_000_000)}
    files = written(tmp_path, contents)
    with scratch(near) as folder:
        for name, path in files.items():
            near.push(path, f"{folder}/{name}")
        streams.clear()
        assert near.pull_folder(folder, tmp_path / "back") == sorted(contents)
        assert {name: (tmp_path / "back" / name).read_bytes() for name in contents} == contents
        assert Counter(streams)["sync"] == 2


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (b"5000000 ../x\n", "no file"), (b"5000000 ./a/../b\n", "slash"), (b"nonsense\n", "no file"),
        (b"5000000 ./a\n./b\n", "no file"), (b"5000000 ./here\n", "twice"), (b"99999999 ./a\n", "over 9000000 bytes"),
        (b"1 ./a\n1 ./b\n1 ./c\n", "over 3 files"), (b"1 ./a\x1b\n", "control"),
    ],
)  # fmt: skip
def test_what_a_phone_tells_of_large_files_is_not_trusted(told: bytes, why: str) -> None:
    assert archive_module.large_files(b"sum  -\n5000000 ./a b\n", {"here": b""}, 9_000_000, 3) == {"a b": 5_000_000}
    with pytest.raises(ValueError, match=why):
        archive_module.large_files(b"sum  -\n" + told, {"here": b""}, 9_000_000, 3)


def test_what_goes_alone(tmp_path: Path) -> None:
    contents = {
        "small": b"s",
        "large": bytes(archive_module.ALONE_BYTES),
        "x" * 101: b"l",
        "x" * 100: b"",
        "é" * 51: b"l",
    }
    files = written(tmp_path, contents)
    assert archive_module.plan(files) == (["large", "x" * 101, "é" * 51], [["small", "x" * 100]])
    assert archive_module.plan({"small": files["small"]}) == (["small"], [])
    assert archive_module.plan({}) == ([], [])


def test_few_streams(near: AdbTransport, new: Any, streams: list[str], tmp_path: Path) -> None:
    """Each is a round trip and more on a slow link, and links are not made again."""
    large = written(tmp_path, {"large": bytes(300_000)})["large"]
    small = new["file 1"]
    with scratch(near) as folder:
        for action, opened in (
            (lambda: near.run(["true"]), {"shell,v2,raw": 1}),
            (lambda: near.push(large, f"{folder}/a/large"), {"sync": 1, "shell,v2,raw": 1}),
            (lambda: near.pull(f"{folder}/a/large", tmp_path / "back"), {"sync": 1, "shell,v2,raw": 1}),
            (lambda: near.push(small, f"{folder}/a/small"), {"sync": 1, "shell,v2,raw": 1}),
            (lambda: near.pull(f"{folder}/a/small", tmp_path / "back"), {"sync": 1}),
            (lambda: near.push_many(new, f"{folder}/b"), {"sync": 1, "shell,v2,raw": 1}),
            (lambda: near.pull_folder(f"{folder}/b", tmp_path / "folder"), {"shell,v2,raw": 1}),
        ):
            streams.clear()
            action()
            assert Counter(streams) == opened


@pytest.mark.parametrize(
    "tar", ["exit 0", "exit 1", 'cd "$4"; echo x >"file 1"', 'cd "$4"; busybox tar -x -f "$6"; mv "file 1" "file"']
)
def test_a_tar_that_does_something_else(near: AdbTransport, phone: Phone, old: Any, new: Any, tar: str) -> None:
    """As one that cuts names, or does not notice a full disk."""
    program = phone.path("/system/bin/tar")
    with scratch(near) as folder:
        near.push_many(old, folder)
        program.rename(program.with_name("tar.kept"))
        try:
            program.write_text(f"#!/system/bin/sh\n{tar}\n")
            program.chmod(0o755)
            with pytest.raises(TransferError, match="unpacked"):
                near.push_many(new, folder)
        finally:
            program.with_name("tar.kept").replace(program)
        assert listing(near, folder) == sorted(old) and contents(phone, folder) == read(old)


def test_a_file_that_cannot_be_read(near: AdbTransport, new: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with scratch(near) as folder:
        for path, said in (
            (tmp_path / "none", "none.*No such file"),
            (tmp_path, "no plain file"),
            (tmp_path / "pipe", "pipe.*no plain file"),
        ):
            with pytest.raises(TransferError, match=said):
                near.push_many(new | {"other": path}, folder)
        assert listing(near, folder) == []


@pytest.fixture(params=["compared", "hashed"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to know that a file is the same, for files of any size."""
    monkeypatch.setattr(verify, "TRIAL_BYTES", 100_000)
    monkeypatch.setattr(files_module, "SMALL_BYTES", 0)
    monkeypatch.setattr(verify, "FAST_BYTES_A_SECOND", 0 if request.param == "compared" else 1e18)
    return str(request.param)


def afterwards(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Something happens on the phone when the first file is over, before it is verified."""
    real = getattr(sync, name)
    acts = iter([act])

    def then(*arguments: Any) -> Any:
        result = real(*arguments)
        next(acts, lambda: None)()
        return result

    monkeypatch.setattr(sync, name, then)


def change(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1) or b"x"
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("at", [0, 1_500_000, 2_999_999, 3_000_000])
def test_a_push_that_arrives_damaged(
    phone: Phone, near: AdbTransport, tmp_path: Path, how: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, {"old": b"old", "new": os.urandom(3_000_000)})

    def damage() -> None:
        (part,) = phone.path(folder).glob("file.*.part")
        change(part, at)

    with scratch(near) as folder:
        near.push(files["old"], f"{folder}/file")
        afterwards(monkeypatch, "send_file", damage)
        with pytest.raises(TransferError, match="damaged" if how == "compared" or at < 3_000_000 else "another size"):
            near.push(files["new"], f"{folder}/file")
        assert listing(near, folder) == ["file"] and contents(phone, folder) == {"file": b"old"}
        near.push(files["new"], f"{folder}/file")
        assert contents(phone, folder) == {"file": files["new"].read_bytes()}


@pytest.mark.parametrize("at", [0, 2_000_000, 2_999_999, 3_000_000, None])
def test_a_pull_of_what_changes(
    phone: Phone, near: AdbTransport, tmp_path: Path, how: str, at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte, one more, or a million less."""
    files = written(tmp_path, {"file": os.urandom(3_000_000)})

    def happen() -> None:
        there = phone.path(f"{folder}/file")
        if at is None:
            os.truncate(there, 2_000_000)
        else:
            change(there, at)

    with scratch(near) as folder:
        near.push(files["file"], f"{folder}/file")
        afterwards(monkeypatch, "receive_file", happen)
        with pytest.raises(TransferError, match="damaged, or changed meanwhile"):
            near.pull(f"{folder}/file", tmp_path / "back")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
        near.pull(f"{folder}/file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == phone.path(f"{folder}/file").read_bytes()


def test_a_link_that_is_fast_only_at_first(
    near: AdbTransport, phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not hashed on the way is hashed afterwards, for the phone to check."""
    monkeypatch.setattr(verify, "TRIAL_BYTES", 100_000)
    monkeypatch.setattr(verify, "FAST_BYTES_A_SECOND", 0)
    files = written(tmp_path, {"file": os.urandom(20_000_000)})

    def slow(sent: int) -> None:
        if sent > 10_000_000:
            monkeypatch.setattr(verify, "FAST_BYTES_A_SECOND", 1e18)

    finished: list[list[str]] = []
    real = AdbTransport.run

    def run(transport: AdbTransport, argv: list[str], **more: Any) -> Any:
        finished.append(argv)
        return real(transport, argv, **more)

    with scratch(near) as folder:
        monkeypatch.setattr(AdbTransport, "run", run)
        near.push(files["file"], f"{folder}/file", on_progress=slow)
        assert [argv[5:7] for argv in finished if len(argv) > 6] == [["20000000", "3"]], "three segments"
        assert contents(phone, folder) == read(files)
