"""What a phone sends as an archive of a folder: plain files with plain names, or an error, whatever it holds."""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.adb.archive import pack, unpack
from devices.errors import TransferError
from devices.folders import arriving, bad_name, check_told
from devices.testing import NAMES, written

BLOCK = 512


def member(name: str, content: bytes = b"", **settings: object) -> bytes:
    """One member with its headers, and no end."""
    told = tarfile.TarInfo(name)
    told.size = len(content)
    for setting, value in settings.items():
        setattr(told, setting, value)
    return told.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % BLOCK)


def patched(header: bytes, at: int, put: bytes) -> bytes:
    """A header with other bytes and a sum that is right again."""
    changed = header[:at] + put + header[at + len(put) :]
    changed = changed[:148] + b" " * 8 + changed[156:]
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


def test_several_archives_in_a_row() -> None:
    one, two = member("./a", b"1") + member("./b", bytes(1000)), member("./" + "x" * 200, b"3") + member("d", b"")
    wanted = {"a": b"1", "b": bytes(1000), "x" * 200: b"3", "d": b""}
    for end in (bytes(1024), bytes(10240 - 2048)):
        assert unpack(one + end + two + end, 10_000, 10) == wanted
    assert unpack(one + two, 10_000, 10) == wanted, "some write no end"
    assert unpack(b"", 0, 0) == {}


def test_a_file_with_two_names() -> None:
    second = member("./b", type=tarfile.LNKTYPE, linkname="./a")
    assert unpack(member("./a", b"both") + second, 8, 2) == {"a": b"both", "b": b"both"}
    for wrong in (second, second + member("./a", b"both"), member("./c", type=tarfile.LNKTYPE, linkname="./c")):
        with pytest.raises(ValueError):
            unpack(wrong, 100, 9)
    with pytest.raises(ValueError, match="over 3 bytes more"):
        unpack(member("./a", b"both") + second, 7, 2)


BAD = {
    "above": member("../x"),
    "far above": member("./../../etc/passwd"),
    "absolute": member("/etc/passwd"),
    "deeper": member("./a/b"),
    "itself": member("."),
    "the one above": member("./.."),
    "hidden": member("./.bashrc"),
    "no name": member(""),
    "terminal": member("./\x1b[2J"),
    "line end": member("./a\nb"),
    "too long": member("./" + "x" * 256),
    "no UTF-8": member("./a\udcff"),
    "twice": member("./a") + member("./a"),
    "twice, one plainly": member("./a") + member("a"),
    "symbolic link": member("./a", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "through a link": member("./a", type=tarfile.SYMTYPE, linkname="/tmp") + member("./a/b", b"x"),
    "device": member("./a", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "pipe": member("./a", type=tarfile.FIFOTYPE),
    "folder": member("./a", type=tarfile.DIRTYPE),
    "large": member("./a", bytes(5001)),
    "large together": member("./a", bytes(3000)) + member("./b", bytes(2001)),
    "many": b"".join(member(f"./{number}") for number in range(4)),
    "a size that lies": member("./a", b"x").replace(b"00000000001\0", b"00000009999\0"),
    "cut short": member("./a", b"y" * 3000 + bytes(2001))[:-1024],
    "sparse": patched(member("./a", b"", type=tarfile.GNUTYPE_SPARSE), 483, b"77777777777\0"),
    "less than nothing": patched(member("./a"), 124, b"\xff" * 12),
    "a long name without end": member("././@LongLink", bytes(5000), type=b"L") * 3,
}


@pytest.mark.parametrize("what", BAD)
def test_hostile_archives(what: str) -> None:
    for content in (BAD[what], member("./good", b"x") + BAD[what], BAD[what] + bytes(1024) + member("./good", b"x")):
        with pytest.raises(ValueError) as told:
            unpack(content, 5000, 3)
        assert str(told.value).isprintable() and len(str(told.value)) < 300


def test_a_chain_of_long_names_ends() -> None:
    """Python's reader calls itself for each."""
    start = time.monotonic()
    with pytest.raises(ValueError):
        unpack(member("././@LongLink", b"a\0", type=b"L") * 20_000, 5000, 3)
    assert time.monotonic() - start < 20


GOOD = member("./a", b"some content") + member("./b c", bytes(700)) + bytes(1024)
EDITS = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=12)), max_size=6)


@given(EDITS, st.booleans(), st.integers(0, len(GOOD)))
def test_any_damage_gives_plain_files_or_our_error(edits: list[tuple[int, bytes]], summed: bool, end: int) -> None:
    content = GOOD
    for at, put in edits:
        content = content[:at] + put + content[at + len(put) :]
    if summed:
        content = patched(content[:BLOCK], 0, b"") + content[BLOCK:]
    try:
        files = unpack(content[:end] if not summed else content, 2000, 3)
    except ValueError as error:
        assert str(error).isprintable()
        return
    assert len(files) <= 3 and sum(map(len, files.values())) <= 2000
    assert all(bad_name(name) == "" for name in files)


@given(st.binary(max_size=3000))
def test_any_bytes(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert len(unpack(content, 1000, 3)) <= 3


def test_what_is_packed_is_told(tmp_path: Path) -> None:
    files = written(tmp_path, {"b": b"22", "a": b"1", "it's é": b""})
    files["a"].chmod(0o4755)
    told, size = pack(files, tmp_path / "archive", "/there/.x.new")
    lines = b"".join(sorted(f"{n} /there/.x.new/{name}\n".encode() for n, name in ((2, "b"), (1, "a"), (0, "it's é"))))
    assert told == hashlib.sha256(lines).hexdigest() + "  -" and size == 3
    with tarfile.open(tmp_path / "archive") as tar:
        assert [(one.name, one.size, one.mode) for one in tar] == [
            ("b", 2, files["b"].stat().st_mode & 0o777),
            ("a", 1, 0o755),
            ("it's é", 0, files["it's é"].stat().st_mode & 0o777),
        ]
    assert unpack((tmp_path / "archive").read_bytes(), 3, 3) == {"b": b"22", "a": b"1", "it's é": b""}


def test_names() -> None:
    assert [name for name in NAMES if bad_name(name)] == []
    assert bad_name("é" * 127) == "" and "255 bytes" in bad_name("é" * 128)
    check_told(["a", "b"], 2)
    for names, said in ((["a", "b"], "over 1"), (["a", "a"], "twice"), (["a/b"], "slash")):
        with pytest.raises(ValueError, match=said):
            check_told(names, 1)


def test_files_that_arrive_together(tmp_path: Path) -> None:
    home = written(tmp_path / "home", {"old": b"old", "both": b"old"})["old"].parent
    with pytest.raises(KeyboardInterrupt), arriving(home) as part:
        (part / "both").write_bytes(b"new")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {"old": b"old", "both": b"old"}
    with arriving(home) as part:
        written(part, {"both": b"new", "new": b"new"})
        assert {path.name for path in home.iterdir()} == {"old", "both", part.name} and part.name.startswith(".")
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {"old": b"old", "both": b"new", "new": b"new"}
    (home / "folder").mkdir()
    with pytest.raises(TransferError, match="cannot write into"), arriving(home) as part:
        written(part, {"folder": b""})
    with pytest.raises(TransferError, match="Not a directory|File exists"), arriving(home / "old"):
        pass
    assert sorted(path.name for path in home.iterdir()) == ["both", "folder", "new", "old"]
