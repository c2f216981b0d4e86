"""A built bundle is there whole or not at all, is found again without being made again, and is refused when it was changed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import bundle_lock
from devices.bundle import RUNNER, BundledFile, RuntimeBundle
from devices.bundle_lock import LOCK, kept_bundle, load
from devices.errors import BundleError

LOADER = "ld-linux-x86-64.so.2"
CONTENT = {RUNNER: b"runner", "libonnxruntime.so": b"onnxruntime" * 999, LOADER: b"loader", "libc.so.6": b""}


def bundle_in(scratch: Path, version: str = "1.2.3") -> RuntimeBundle:
    files = {}
    for name, content in CONTENT.items():
        (scratch / name).write_bytes(content)
        files[name] = BundledFile(scratch / name, hashlib.sha256(content).hexdigest(), f"test:{name}")
    support = {name: files[name] for name in (LOADER, "libc.so.6")}
    libraries, versions = {"onnxruntime": files["libonnxruntime.so"]}, {"onnxruntime": version}
    return RuntimeBundle("linux", "x86_64", files[RUNNER], libraries, versions, support, LOADER)


def never(scratch: Path) -> RuntimeBundle:
    raise AssertionError("it was made again")


def kept(cache: Path, make: Callable[[Path], RuntimeBundle] = bundle_in, recipe: str = "a") -> RuntimeBundle:
    return kept_bundle(cache, "linux", "x86_64", [recipe], make)


def left(cache: Path) -> list[str]:
    return [str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return kept(tmp_path).runner.path.parent


def test_bundle_is_kept_under_its_names(tmp_path: Path) -> None:
    made = kept(tmp_path)
    assert {name: file.path.read_bytes() for name, file in made.files.items()} == CONTENT
    assert made.sha256 == bundle_in(tmp_path).sha256, "the same wherever its files lie"
    assert (made.kind, made.abi, made.loader, made.versions) == ("linux", "x86_64", LOADER, {"onnxruntime": "1.2.3"})
    assert made.runner.origin == f"test:{RUNNER}"
    assert {name: file.path.stat().st_mode & 0o777 for name, file in made.files.items()} == {
        RUNNER: 0o755, LOADER: 0o755, "libonnxruntime.so": 0o644, "libc.so.6": 0o644,
    }  # fmt: skip
    (folder,) = (tmp_path / "bundles" / "linux-x86_64").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONTENT, LOCK]), "and no scratch"


def test_second_time_nothing_is_made(tmp_path: Path) -> None:
    assert kept(tmp_path) == kept(tmp_path, never)


def test_recipe_decides(tmp_path: Path) -> None:
    first = kept(tmp_path)
    second = kept(tmp_path, lambda scratch: bundle_in(scratch, "2"), "b")
    assert first.runner.path.parent != second.runner.path.parent and second.versions == {"onnxruntime": "2"}
    assert kept(tmp_path, never) == first
    for kind, abi in (("android", "x86_64"), ("linux", "arm64-v8a")):
        with pytest.raises(AssertionError, match="made again"):
            kept_bundle(tmp_path, kind, abi, ["a"], never)


@pytest.mark.parametrize("name", sorted(CONTENT))
def test_file_that_was_changed(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    changed = bytes([content[0] ^ 1]) + content[1:] if content else b"more"
    (folder / name).write_bytes(changed)
    with pytest.raises(
        BundleError, match=rf"is refused: {name} .*try: handset bundle clean, then handset bundle build"
    ):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"is refused: cannot read {name}: No such file"):
        load(folder)
    (folder / name).mkdir()
    with pytest.raises(BundleError, match=f"is refused: {name} has "):
        load(folder)
    (folder / name).rmdir()
    (folder / name).write_bytes(content)
    assert load(folder)


def test_file_of_another_size_is_not_even_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(folder / "libc.so.6", 1 << 40)
    monkeypatch.setattr(
        bundle_lock, "file_sha256", lambda path: CONTENT[path.name] and hashlib.sha256(CONTENT[path.name]).hexdigest()
    )
    with pytest.raises(BundleError, match=r"libc\.so\.6 has 1099511627776 bytes, not 0"):
        load(folder)


@pytest.mark.parametrize("name", ["libc.so.6", LOCK])
def test_fifo_is_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    code = f"from pathlib import Path; from devices.bundle_lock import load; load(Path({str(folder)!r}))"

    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2]
    )
    assert "BundleError" in ended.stderr and name in ended.stderr


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["files"]}


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update({key: value})


def change_row(key: str, value: Any, name: str = "libc.so.6") -> Callable[[dict[str, Any]], None]:
    return lambda document: rows(document)[name].update({key: value})


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no schema": (lambda document: document.pop("schema_version"), "schema_version None, not 1"),
    "newer schema": (change("schema_version", 2), "schema_version 2, not 1"),
    "schema true": (change("schema_version", True), "schema_version True"),
    "schema of text": (change("schema_version", "1" * 9999), r"schema_version 1{40}, not"),
    "another key": (change("key", "0" * 16), "of another bundle"),
    "another kind": (change("kind", "android"), "of another bundle"),
    "kind with a path": (change("kind", "../x"), r"'kind': '\.\./x'"),
    "abi of a number": (change("abi", 7), "'abi': 7"),
    "no loader": (change("loader", ""), "or the loader"),
    "loader elsewhere": (change("loader", "/bin/sh"), "'loader'"),
    "loader that is not there": (change("loader", "ld.so"), "or the loader"),
    "loader of an empty list": (change("loader", []), "'loader'"),
    "loader of a list": (change("loader", ["x"]), "'loader'"),
    "versions of a list": (change("versions", []), "has no versions"),
    "version of a number": (change("versions", {"onnxruntime": 1}), "'onnxruntime': 1"),
    "another runtime": (change("versions", {"litert": "1"}), "a runtime's library"),
    "runtime with a path": (change("versions", {"../../x": "1"}), "a runtime's library"),
    "files of an object": (change("files", {}), "no files"),
    "too many files": (lambda document: document["files"].extend(document["files"] * 20), "more than 64"),
    "file of text": (lambda document: document["files"].append("x"), "no object"),
    "file twice": (lambda document: document["files"].append(document["files"][0]), "twice"),
    "no runner": (lambda document: document["files"].pop(0), "lacks the runner"),
    "file less": (lambda document: document["files"].pop(), "not that of these files"),
    "name with a path": (change_row("name", "../../../etc/passwd"), r"'name': '\.\./"),
    "absolute name": (change_row("name", "/etc/passwd"), "'name': '/etc"),
    "name is a folder": (change_row("name", ".."), r"'name': '\.\.'"),
    "name is the lock": (change_row("name", LOCK), "twice, or without its size"),
    "name with a line break": (change_row("name", "libc.so.6\n"), "'name'"),
    "name of a list": (change_row("name", ["libc.so.6"]), "'name'"),
    "size of text": (change_row("bytes", "0"), "without its size"),
    "size below zero": (change_row("bytes", -1), "without its size"),
    "size true": (change_row("bytes", True), "without its size"),
    "sum of another file": (change_row("sha256", "0" * 64), "not that of these files"),
    "sum too short": (change_row("sha256", "0"), "'sha256': '0'"),
    "origin too long": (change_row("origin", "x" * 2000), "'origin'"),
    "origin that steers a terminal": (change_row("origin", "\x1b[2J"), "'origin'"),
    "identity": (change("sha256", "0" * 64), "not that of these files"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_lock(what: str, folder: Path) -> None:
    harm, message = HOSTILE[what]
    document = json.loads((folder / LOCK).read_text())
    harm(document)
    (folder / LOCK).write_text(json.dumps(document))
    with pytest.raises(BundleError, match=rf"is refused: lock\.json .*{message}") as caught:
        load(folder)
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"[1]", "no object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema_version": ' + b"9" * 9999 + b"}", "not JSON"),
        (b" " * (1 << 19), "larger than 256 KiB"),
    ],
)
def test_lock_that_is_none(text: bytes, message: str, folder: Path) -> None:
    (folder / LOCK).write_bytes(text)
    with pytest.raises(BundleError, match=message):
        load(folder)


def test_no_lock(folder: Path) -> None:
    (folder / LOCK).unlink()
    with pytest.raises(BundleError, match=r"cannot read lock\.json: No such file"):
        load(folder)
    (folder / LOCK).mkdir()
    with pytest.raises(BundleError, match=r"lock\.json is no plain file"):
        load(folder)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_of_the_lock_is_refused_or_harmless(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is cut out or put in: a BundleError, or the very same bundle."""
    folder = kept(tmp_path_factory.getbasetemp() / "any").runner.path.parent
    text = (folder / LOCK).read_bytes()
    try:
        expected = load(folder)
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 80)))
        put = data.draw(st.binary(max_size=20) | st.sampled_from([b"null", b"[]", b"{}", b'"', b"-1", b"../"]))
        (folder / LOCK).write_bytes(text[:begin] + put + text[end:])
        try:
            found = load(folder)
        except BundleError:
            return
        assert found.sha256 == expected.sha256
        assert {file.path for file in found.files.values()} == {file.path for file in expected.files.values()}
    finally:
        (folder / LOCK).write_bytes(text)


# Building.


@pytest.mark.parametrize("error", [KeyboardInterrupt, BundleError("no"), ValueError("a bug")])
def test_build_that_ends_early_leaves_nothing(error: Any, tmp_path: Path) -> None:
    def interrupted(scratch: Path) -> RuntimeBundle:
        bundle_in(scratch)
        raise error

    with pytest.raises(BaseException) as caught:
        kept(tmp_path, interrupted)
    assert caught.type is (error if isinstance(error, type) else type(error))
    assert left(tmp_path) == []
    assert kept(tmp_path)


def test_interrupt_while_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = bundle_lock.shutil.copyfile, []

    def copyfile(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(bundle_lock.shutil, "copyfile", copyfile)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path)
    assert left(tmp_path) == []


def test_file_that_is_not_what_its_maker_says(tmp_path: Path) -> None:
    def lying(scratch: Path) -> RuntimeBundle:
        made = bundle_in(scratch)
        (scratch / "libonnxruntime.so").write_bytes(CONTENT["libonnxruntime.so"][::-1])
        return made

    with pytest.raises(BundleError, match=r"libonnxruntime\.so was changed"):
        kept(tmp_path, lying)


@pytest.mark.parametrize("cache", ["/proc/none", "/dev/null"])
def test_cache_that_cannot_be_written(cache: str) -> None:
    with pytest.raises(BundleError, match=f"cannot build the bundle in {cache}/bundles/linux-x86_64: "):
        kept(Path(cache))


def test_cache_that_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("a small disk needs root and mount")
    try:
        with pytest.raises(BundleError, match="cannot build the bundle in .*: No space left on device"):
            kept(disk)
        assert left(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def _build_at_once(cache: Path, barrier: Any, answers: Any) -> None:
    def make(scratch: Path) -> RuntimeBundle:
        made = bundle_in(scratch)
        barrier.wait(30)  # all of them are in the middle of it
        return made

    answers.put(kept(cache, make).sha256)


def test_builds_at_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(4), fork.Queue()
    builds = [fork.Process(target=_build_at_once, args=(tmp_path, barrier, answers)) for _ in range(4)]
    for build in builds:
        build.start()
    found = {answers.get(timeout=60) for _ in builds}
    for build in builds:
        build.join(30)
    assert found == {kept(tmp_path, never).sha256} and [build.exitcode for build in builds] == [0] * 4
    assert len(left(tmp_path)) == len(CONTENT) + 1, "one bundle, no parts"


def test_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    folder = kept(tmp_path).runner.path.parent
    subprocess.run(["rm", "-r", folder], check=True)
    folder.write_text("no folder")
    with pytest.raises(BundleError, match=r"cannot read lock\.json: Not a directory"):
        kept(tmp_path)
