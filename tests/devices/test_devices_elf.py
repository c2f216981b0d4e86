"""ELF files made by the compiler, read; and the same files damaged, refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.bundle import compile_c
from devices.discovery import cache_dir
from devices.elf import Elf, read_elf, read_elf_file
from devices.errors import BundleError

SOURCE = """
int given(int);
extern int variable;
__attribute__((weak)) void maybe(void);
static int hidden(void) { return 3; }
THREAD int counter;
int visible(int x) { counter++; if (maybe) maybe(); return given(x) + hidden() + variable; }
int another = 4;
"""


def built(folder: Path, name: str, *flags: str, target: str = "x86_64-linux-gnu.2.28", source: str = SOURCE) -> Path:
    file = folder / "source.c"
    file.write_text(source)
    bare = ["-target", target, "-O1", "-nostdlib", "-fno-sanitize=all", "-s", "-w"]
    compile_c([*bare, *flags, str(file)], folder / name, cache_dir())
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> Path:
    return tmp_path_factory.mktemp("elf")


@pytest.fixture(scope="module")
def library(folder: Path) -> bytes:
    flags = ["-shared", "-fPIC", "-DTHREAD=", "-Wl,-soname,libsmall.so", "-Wl,--hash-style=both"]
    return built(folder, "libsmall.so", *flags).read_bytes()


@pytest.mark.parametrize(("target", "abi"), [("x86_64-linux-gnu", "x86_64"), ("aarch64-linux-gnu", "arm64-v8a")])
@pytest.mark.parametrize("style", ["both", "gnu", "sysv"])
def test_library(style: str, target: str, abi: str, folder: Path) -> None:
    flags = ["-shared", "-fPIC", "-DTHREAD=", "-Wl,-soname,libone.so", f"-Wl,--hash-style={style}"]
    elf = read_elf_file(built(folder, f"{style}-{abi}.so", *flags, "-Wl,-z,max-page-size=65536", target=target))
    assert elf == Elf(
        abi=abi,
        shared=True,
        interpreter="",
        soname="libone.so",
        needed=(),
        alignment_bytes=65536,
        thread_locals=False,
        imports=frozenset({"given", "variable", "maybe"}),
        exports=frozenset({"visible", "another", "counter"}),
    )


def test_thread_locals(folder: Path) -> None:
    flags = ["-shared", "-fPIC", "-ftls-model=initial-exec"]
    assert read_elf_file(built(folder, "libtls.so", *flags, "-DTHREAD=__thread")).thread_locals
    assert not read_elf_file(built(folder, "libplain.so", *flags, "-DTHREAD=")).thread_locals


def test_program_with_interpreter_and_needed_libraries(folder: Path) -> None:
    needed = []
    for number in (2, 1):
        source = f"int f{number}(void) {{ return 0; }}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,lib{number}.so"]
        needed.append(str(built(folder, f"lib{number}.so", *flags, source=source)))
    source = "int f1(void), f2(void);\nvoid _start(void) { f1(); f2(); }"
    flags = ["-fPIE", "-pie", "-Wl,-dynamic-linker,/an/interpreter", "-Wl,-z,max-page-size=16384", *needed]
    elf = read_elf_file(built(folder, "program", *flags, source=source))
    assert (elf.interpreter, elf.needed, elf.soname) == ("/an/interpreter", ("lib2.so", "lib1.so"), "")
    assert (elf.imports, elf.exports) == ({"f1", "f2"}, frozenset())
    assert elf.shared and elf.alignment_bytes == 16384


def test_static_program(folder: Path) -> None:
    elf = read_elf_file(built(folder, "static", "-static", "-fno-pie", "-no-pie", source="void _start(void) {}"))
    assert (elf.shared, elf.interpreter, elf.needed, elf.imports) == (False, "", (), frozenset())


def damaged(library: bytes, offset: int, form: str, value: int) -> bytes:
    copy = bytearray(library)
    struct.pack_into(form, copy, offset, value)
    return bytes(copy)


@pytest.mark.parametrize(
    ("offset", "form", "value", "said"),
    [
        (0, "<B", 0, "does not begin as one"),
        (4, "<B", 1, "not of 64 bits"),
        (5, "<B", 2, "little-endian"),
        (16, "<H", 1, "neither a program nor a shared library"),
        (32, "<Q", 1 << 63, "it ends before byte"),
        (54, "<H", 10, "segments of 10 bytes"),
        (56, "<H", 0, "0 segments"),
        (56, "<H", 65535, "65535 segments"),
    ],
)
def test_damaged_header(offset: int, form: str, value: int, said: str, library: bytes) -> None:
    with pytest.raises(BundleError, match=f"libx.so is not an ELF file that can be used: .*{said}"):
        read_elf(damaged(library, offset, form, value), "libx.so")


def entry_offset(library: bytes, tag: int) -> int:
    """Where the value of an entry of the dynamic table lies in the file."""
    (table,) = struct.unpack_from("<Q", library, 32)
    for i in range(32):
        kind, _, offset = struct.unpack_from("<IIQ", library, table + 56 * i)
        if kind == 2:
            while struct.unpack_from("<Q", library, offset)[0] != tag:
                offset += 16
            return int(offset) + 8
    raise AssertionError("no dynamic table")


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        (4, 1 << 62, "nothing is loaded at 0x4000000000000000"),
        (5, 0xFFFFFFFF, "nothing is loaded"),
        (6, 1 << 40, "nothing is loaded"),
        (10, 1 << 60, "nothing is loaded"),
        (10, 1, "a name that does not end"),
        (14, 1 << 50, "a name that does not end"),
    ],
)
def test_tables_that_point_elsewhere(tag: int, value: int, said: str, library: bytes) -> None:
    with pytest.raises(BundleError, match=said):
        read_elf(damaged(library, entry_offset(library, tag), "<Q", value), "libx.so")


def test_counts_without_end(library: bytes) -> None:
    (address,) = struct.unpack_from("<Q", library, entry_offset(library, 4))
    with pytest.raises(BundleError, match="4294967295 symbols"):
        read_elf(damaged(library, address + 4, "<I", 0xFFFFFFFF), "libx.so")


def test_library_without_a_hash_table(library: bytes) -> None:
    for tag in (4, 0x6FFFFEF5):
        library = damaged(library, entry_offset(library, tag) - 8, "<Q", 0x70000001)
    with pytest.raises(BundleError, match="no hash table"):
        read_elf(library, "libx.so")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_read_or_refused(library: bytes, data: st.DataObject) -> None:
    """Nothing but a BundleError, whatever four places in the tables hold and wherever the file ends."""
    copy = bytearray(library[: data.draw(st.integers(0, len(library)))] if data.draw(st.booleans()) else library)
    for _ in range(4):
        if copy:
            copy[data.draw(st.integers(0, min(len(copy), 2500) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(read_elf(bytes(copy), "libx.so"), Elf)
    except BundleError as error:
        assert "libx.so is not an ELF file that can be used" in str(error)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="cannot read .*none: No such file"):
        read_elf_file(tmp_path / "none")
    with pytest.raises(BundleError, match="cannot read .*Is a directory"):
        read_elf_file(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(BundleError, match="does not begin as one"):
        read_elf_file(tmp_path / "empty")
    monkeypatch.setattr("devices.elf.MAX_FILE_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(BundleError, match="large is larger than"):
        read_elf_file(tmp_path / "large")
