"""The runner for Android's C library, checked without a phone: what it asks for, and that its bytes repeat."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices import android_bundle
from devices.android_api import API_LEVEL, libraries, objections, read_names, stub_source
from devices.android_bundle import TARGETS, build_android_runner
from devices.discovery import cache_dir
from devices.elf import Elf, read_elf_file
from devices.errors import BundleError

NATIVE = Path(android_bundle.__file__).parent / "native"
ABIS = sorted(TARGETS)


@pytest.fixture(scope="module", params=ABIS)
def built(request: pytest.FixtureRequest, cache_home: Path) -> tuple[str, Elf]:
    return request.param, read_elf_file(build_android_runner(request.param, cache_dir()).path)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that a test may change."""
    native = tmp_path / "package" / "native"
    shutil.copytree(NATIVE, native)
    monkeypatch.setattr(android_bundle, "__file__", str(native.parent / "android_bundle.py"))
    return native


@pytest.fixture
def cache(tmp_path: Path, cache_home: Path) -> Path:
    """A cache of its own that shares the compiler's."""
    (cache_dir() / "zig").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "zig").symlink_to(cache_dir() / "zig")
    return tmp_path / "cache"


def test_what_android_asks_of_a_program(built: tuple[str, Elf]) -> None:
    abi, elf = built
    assert (elf.abi, elf.shared, elf.interpreter) == (abi, True, "/system/bin/linker64")
    assert elf.needed == ("libc.so", "libdl.so")
    assert elf.alignment_bytes == 16384
    assert not elf.thread_locals
    assert elf.exports == frozenset()
    assert objections(elf, abi, NATIVE) == []


def test_every_import_is_known_to_android_9(built: tuple[str, Elf]) -> None:
    _, elf = built
    known = {one.name: one.level for names in libraries(NATIVE).values() for one in names}
    assert {name: known.get(name, 99) for name in elf.imports if known.get(name, 99) > API_LEVEL} == {}
    assert {"__libc_init", "__errno", "dlopen", "dlsym", "fork", "stderr", "clock_gettime"} <= elf.imports
    assert {"errno", "__errno_location", "__libc_start_main", "atexit"} & elf.imports == set()


@pytest.mark.parametrize("abi", ABIS)
def test_bytes_repeat(abi: str, sources: Path, cache: Path) -> None:
    """Another folder of sources, another cache, other stubs: the same program."""
    first, second = build_android_runner(abi, cache_dir()), build_android_runner(abi, cache)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path != second.path and first.path.name == second.path.name
    assert (first.sha256, first.origin) == (second.sha256, second.origin)


def test_second_build_does_not_compile(built: tuple[str, Elf], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> Any:
        raise AssertionError("the compiler was called")

    monkeypatch.setattr(subprocess, "run", no_compiler)
    abi, _ = built
    assert build_android_runner(abi, cache_dir()).path.exists()


def test_a_name_that_is_not_listed_does_not_link(sources: Path, cache: Path) -> None:
    names = sources / "bionic" / "libc.names"
    names.write_text(names.read_text().replace("pipe2 21\n", ""))
    with pytest.raises(BundleError, match=r"does not compile: [\s\S]*pipe2"):
        build_android_runner("x86_64", cache)
    assert list((cache / "runner-android").iterdir()) == []


def test_a_name_of_a_newer_android_is_refused(sources: Path, cache: Path) -> None:
    names = sources / "bionic" / "libc.names"
    names.write_text(names.read_text().replace("pipe2 21\n", "pipe2 29\n"))
    with pytest.raises(
        BundleError, match="the runner for x86_64 is refused: it imports pipe2, which came after API level 28"
    ):
        build_android_runner("x86_64", cache)


def test_a_thread_local_is_refused(sources: Path, cache: Path) -> None:
    with (sources / "lines.c").open("a") as file:
        file.write("static __thread int last_core;\nint *where(void) { return &last_core; }\n")
    with pytest.raises(BundleError, match=r"for x86_64 is refused: it has thread-locals.* try: rm .*runner-android"):
        build_android_runner("x86_64", cache)


def test_sources_of_the_c_library_decide_what_is_built(sources: Path, cache: Path) -> None:
    first = build_android_runner("arm64-v8a", cache)
    with (sources / "bionic" / "bionic.h").open("a") as file:
        file.write("/* another */\n")
    second = build_android_runner("arm64-v8a", cache)
    assert first.path != second.path and first.sha256 == second.sha256


GOOD = Elf(
    abi="x86_64",
    shared=True,
    interpreter="/system/bin/linker64",
    soname="",
    needed=("libc.so", "libdl.so"),
    alignment_bytes=16384,
    thread_locals=False,
    imports=frozenset({"malloc", "dlopen"}),
    exports=frozenset(),
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"alignment_bytes": 65536}, None),
        ({"abi": "arm64-v8a"}, "it is for arm64-v8a, not x86_64"),
        ({"shared": False}, "not position-independent"),
        ({"interpreter": "/lib64/ld-linux-x86-64.so.2"}, "its interpreter is '/lib64/ld-linux-x86-64.so.2'"),
        ({"alignment_bytes": 4096}, "aligned to 4096 bytes, not 16384"),
        ({"thread_locals": True}, "thread-locals"),
        ({"needed": ("libc.so", "libstdc++.so.6")}, "it needs libstdc++.so.6"),
        ({"imports": frozenset({"malloc", "pthread_cond_clockwait"})}, "it imports pthread_cond_clockwait"),
    ],
)
def test_objections(change: dict[str, Any], said: str | None) -> None:
    found = objections(replace(GOOD, **change), "x86_64", NATIVE)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_lists_of_names() -> None:
    known = libraries(NATIVE)
    assert sorted(known) == ["libc.so", "libdl.so"]
    for names in known.values():
        assert [one.name for one in names] == sorted({one.name for one in names}), "sorted, each name once"
        assert all(21 <= one.level <= API_LEVEL for one in names)
    assert [one.name for one in known["libc.so"] if one.variable] == ["stderr", "stdout"]


@pytest.mark.parametrize(
    "line", ["malloc", "malloc x", "malloc 21 function", "mal-loc 21", "a 1 variable more", "f();{ 21"]
)
def test_a_line_that_is_no_name(line: str) -> None:
    with pytest.raises(BundleError, match="list: line 3 is not NAME LEVEL"):
        read_names(f"# a comment\n\n{line}\n", "list")


def test_stubs() -> None:
    names = read_names("one 21\ntwo 23 variable\n", "list")
    assert stub_source(names) == "void one(void) {}\nvoid *two;\n"
