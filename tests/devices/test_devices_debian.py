"""Debian packages of our own making, honest and hostile; fetched by an apt-get of ours, or from a mirror on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import debian_archive, debian_package
from devices.debian_archive import Package, fetch, fetch_c_library, pinned
from devices.debian_package import read_package
from devices.elf import read_elf
from devices.errors import BundleError
from devices.linux_bundle import ABIS

LIB = "usr/aarch64-linux-gnu/lib"
WANTED = {"libc.so.6": f"{LIB}/libc.so.6", "libstdc++.so.6": f"{LIB}/libstdc++.so.6"}
LIBC, STDCXX = b"\x7fELF the C library" * 500, b"\x7fELF and C++'s" * 900


def tar_of(entries: dict[str, bytes | str], **more: tarfile.TarInfo) -> bytes:
    """A text is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries.items():
            info = more.get(name) or tarfile.TarInfo(f"./{name}")
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def ar_of(members: dict[str, bytes]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def deb_of(data: bytes, name: str = "data.tar.xz") -> bytes:
    return ar_of({"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(b"odd"), name: data})


ENTRIES: dict[str, bytes | str] = {
    "usr": "somewhere",
    f"{LIB}/libc.so.6": LIBC,
    f"{LIB}/libstdc++.so.6": "libstdc++.so.6.0.30",
    f"{LIB}/libstdc++.so.6.0.30": STDCXX,
}
DEB = deb_of(lzma.compress(tar_of(ENTRIES)))


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    (tmp_path / "p_1_all.deb").write_bytes(DEB)
    return tmp_path / "p_1_all.deb"


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("data.tar.xz", lzma.compress),
        ("data.tar.gz", lambda tar: zlib.compress(tar, wbits=31)),
        ("data.tar", bytes),
        ("data.tar.xz/", lzma.compress),  # as GNU's ar writes it
    ],
)
def test_files_of_a_package(name: str, pack: Callable[[bytes], bytes], deb: Path) -> None:
    deb.write_bytes(deb_of(pack(tar_of(ENTRIES)), name))
    assert read_package(deb, WANTED) == {"libc.so.6": LIBC, "libstdc++.so.6": STDCXX}
    assert [path.name for path in deb.parent.iterdir()] == [deb.name], "nothing is unpacked"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")
@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip", "none"])
def test_a_package_as_dpkg_builds_it(compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: n <n@n>\nDescription: d\n"
    )
    (root / LIB).mkdir(parents=True)
    (root / LIB / "libc.so.6").write_bytes(LIBC)
    (root / LIB / "libstdc++.so.6.0.30").write_bytes(STDCXX)
    (root / LIB / "libstdc++.so.6").symlink_to("libstdc++.so.6.0.30")
    made = subprocess.run(
        ["dpkg-deb", f"-Z{compression}", "-b", root, tmp_path / "p.deb"], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"dpkg-deb does not pack with {compression}: {made.stderr.strip()}")
    assert read_package(tmp_path / "p.deb", WANTED) == {"libc.so.6": LIBC, "libstdc++.so.6": STDCXX}
    if compression == "zstd":
        monkeypatch.setattr(debian_package, "MAX_TAR_BYTES", 10_000)
        with pytest.raises(BundleError, match="larger than 0 MiB when unpacked"):
            read_package(tmp_path / "p.deb", WANTED)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(BundleError, match="packed with zstd, and there is no dpkg-deb"):
            read_package(tmp_path / "p.deb", WANTED)


def sparse(size: int) -> bytes:
    """A tar with one file that claims `size` bytes and holds none: GNU's old sparse format."""
    info = tarfile.TarInfo(f"{LIB}/libc.so.6")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % size
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def huge() -> bytes:
    """A tar whose one file claims more than follows."""
    info = tarfile.TarInfo(f"{LIB}/libc.so.6")
    info.size = 1 << 33
    return info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024


XZ = lzma.compress
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no Debian package"),
    "another archive": (b"PK\3\4" * 99, "no Debian package"),
    "nothing in it": (b"!<arch>\n", "ends early"),
    "no data": (ar_of({"debian-binary": b"2.0\n"}), "ends early"),
    "header cut": (DEB[:100], "ends early|ends in the middle"),
    "data cut": (DEB[:-300], "ends in the middle of 'data.tar.xz'"),
    "size of no number": (DEB.replace(b"4         `\n", b"-4        `\n", 1), "damaged"),
    "size beyond the end": (
        DEB.replace(b"4         `\n", b"9999999999`\n", 1),
        "ends in the middle of 'debian-binary'",
    ),
    "many parts": (ar_of({f"x{i}": b"" for i in range(99)}), "more than 16 parts"),
    "packed oddly": (deb_of(b"x", "data.tar.lz4"), "compressed in a way"),
    "no xz": (deb_of(b"x" * 99), "not supported by decoder"),
    "xz that is damaged": (deb_of(XZ(tar_of(ENTRIES))[:-40] + b"\0" * 40), "Corrupt input"),
    "no tar": (deb_of(XZ(b"x" * 9999)), "invalid header"),
    "tar cut": (deb_of(XZ(tar_of(ENTRIES)[:3000])), "unexpected end"),
    "bomb": (deb_of(XZ(bytes(200 << 20), preset=0)), "data.tar.xz is larger than 128 MiB when unpacked"),
    "gzip bomb": (deb_of(zlib.compress(bytes(200 << 20), 1, wbits=31), "data.tar.gz"), "larger than 128 MiB"),
    "file missing": (deb_of(XZ(tar_of({f"{LIB}/other": b""}))), "has no file usr/aarch64-linux-gnu/lib/libc.so.6"),
    "link out": (
        deb_of(XZ(tar_of({f"{LIB}/libc.so.6": "../../../../../etc/passwd"}))),
        r"a link to '\.\./\.\./etc/passwd'",
    ),
    "link to a root": (deb_of(XZ(tar_of({f"{LIB}/libc.so.6": "/etc/passwd"}))), "a link to '/etc/passwd'"),
    "link to itself": (deb_of(XZ(tar_of({f"{LIB}/libc.so.6": "libc.so.6"}))), "no plain file"),
    "sparse": (deb_of(XZ(sparse(1 << 33))), "no plain file"),
    "claims too much": (deb_of(XZ(huge())), "unexpected end"),
    "many entries": (deb_of(XZ(tar_of({f"f{i}": b"" for i in range(20_001)}))), "more than 20000 entries"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_package_is_refused(what: str, deb: Path) -> None:
    content, message = REFUSED[what]
    deb.write_bytes(content)
    with pytest.raises(BundleError, match=rf"p_1_all\.deb is refused: .*{message}.*try: fetch it again"):
        read_package(deb, WANTED)


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar.gz"])
def test_bomb_takes_no_memory(name: str, deb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_package, "MAX_TAR_BYTES", 4 << 20)
    bomb = bytes(128 << 20)
    deb.write_bytes(
        deb_of(lzma.compress(bomb, preset=0) if name.endswith("xz") else zlib.compress(bomb, 1, wbits=31), name)
    )
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="larger than 4 MiB when unpacked"):
            read_package(deb, WANTED)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_folder_hard_link_and_device_are_no_files(deb: Path) -> None:
    for kind in (tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"{LIB}/libc.so.6")
        info.type, info.linkname = kind, "/etc/passwd"
        deb.write_bytes(deb_of(lzma.compress(tar_of({f"{LIB}/libc.so.6": b""}, **{f"{LIB}/libc.so.6": info}))))
        with pytest.raises(BundleError, match="no plain file"):
            read_package(deb, WANTED)


def test_package_that_is_too_large_or_not_there(deb: Path, tmp_path: Path) -> None:
    with deb.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger than 64 MiB"):
        read_package(deb, WANTED)
    with pytest.raises(BundleError, match="cannot read .*none: No such file"):
        read_package(tmp_path / "none", WANTED)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(DEB) - 1), st.binary(min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(place: int, put: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(DEB[:place] + put + DEB[place + len(put) :])
        file.flush()
        with contextlib.suppress(BundleError):
            assert read_package(Path(file.name), WANTED) == {"libc.so.6": LIBC, "libstdc++.so.6": STDCXX}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=12))
def test_any_damage_of_the_tar_raises_nothing_else(place: int, put: bytes) -> None:
    tar = tar_of({f"{LIB}/libstdc++.so.6": "a", f"{LIB}/a": b"x" * 600, f"{LIB}/libc.so.6": LIBC[:600]})
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(deb_of(tar[:place] + put + tar[place + len(put) :], "data.tar"))
        file.flush()
        with contextlib.suppress(BundleError):
            read_package(Path(file.name), WANTED)


# Pins.


@pytest.mark.parametrize("abi", ABIS)
def test_pins_are_whole(abi: str) -> None:
    packages, mirrors = pinned(abi)
    assert all(mirror.startswith("https://") for mirror in mirrors) and len(mirrors) == 2
    names = [name for package in packages for name in package.members]
    assert len(names) == len(set(names)) == 8 and ABIS[abi].loader in names
    assert {
        "libc.so.6",
        "libm.so.6",
        "libdl.so.2",
        "libpthread.so.0",
        "librt.so.1",
        "libgcc_s.so.1",
        "libstdc++.so.6",
    } < set(names)
    for package in packages:
        assert len(package.sha256) == 64 and 10_000 < package.bytes < 2_000_000
        assert package.path.endswith(f"/{package.name}_{package.version}_all.deb")


def test_no_pins_for_another_abi() -> None:
    assert pinned("armeabi-v7a")[0] == []


# Fetching.

PACKAGES = [
    Package(
        "arm64-v8a", name, "1:2-3", f"pool/{name}_2-3_all.deb", len(DEB), hashlib.sha256(DEB).hexdigest(), LIB, members
    )
    for name, members in (("libc6-x", ("libc.so.6",)), ("libstdc++6-x", ("libstdc++.so.6",)))
]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An apt-get that does what its script says; `source` is a package to copy."""
    (tmp_path / "source").write_bytes(DEB)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    def make(script: str) -> None:
        path = tmp_path / "bin" / "apt-get"
        path.write_text(f'#!/bin/sh\nsource={tmp_path}/source\necho "$*" > {tmp_path}/asked\n{script}\n')
        path.chmod(0o755)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def mirror() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server on loopback, and what it has."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            if content is not None:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/debian", files
    server.shutdown()
    thread.join()
    server.server_close()


TAKE = 'cp "$source" libc6-x_1%3a2-3_all.deb; cp "$source" libstdc++6-x_1%3a2-3_all.deb'


def test_apt_is_asked_once_and_verified(apt: Callable[[str], None], folder: Path, tmp_path: Path) -> None:
    apt(TAKE)
    found = fetch(PACKAGES, ["https://nowhere.invalid"], folder)
    assert [(path.name, version) for path, version in found] == [
        ("libc6-x_1%3a2-3_all.deb", "1:2-3"), ("libstdc++6-x_1%3a2-3_all.deb", "1:2-3"),
    ]  # fmt: skip
    asked = (tmp_path / "asked").read_text()
    assert asked.endswith("download libc6-x libstdc++6-x\n") and f"Dir::Cache={folder}/apt" in asked
    assert not (folder / "apt").exists()


def test_another_version_of_apts_is_taken(apt: Callable[[str], None], folder: Path, tmp_path: Path) -> None:
    apt(TAKE.replace("2-3", "9"))
    (tmp_path / "source").write_bytes(deb_of(lzma.compress(tar_of({**ENTRIES, "more": b""}))))
    assert [version for _, version in fetch(PACKAGES, [], folder)] == ["1:9", "1:9"]


def test_pinned_version_with_another_content_is_refused(
    apt: Callable[[str], None], folder: Path, tmp_path: Path
) -> None:
    apt(TAKE)
    (tmp_path / "source").write_bytes(DEB + b"\n")
    with pytest.raises(BundleError, match=r"libc6-x 1:2-3 has the SHA-256 [0-9a-f]{64}, not .*: it was tampered with"):
        fetch(PACKAGES, [], folder)


def test_apt_that_says_it_did(apt: Callable[[str], None], folder: Path) -> None:
    apt("true")
    with pytest.raises(BundleError, match="apt-get left 0 files of libc6-x, not one"):
        fetch(PACKAGES, [], folder)


def test_mirror_where_apt_cannot(
    apt: Callable[[str], None], folder: Path, mirror: tuple[str, dict[str, bytes]]
) -> None:
    apt('cp "$source" libc6-x_1%3a2-3_all.deb; echo "E: Unable to locate package libc6-x" >&2; exit 100')
    url, files = mirror
    files |= {f"/debian/{package.path}": DEB for package in PACKAGES}
    found = fetch(PACKAGES, ["http://127.0.0.1:9/debian", url], folder)
    assert [(path.name, version) for path, version in found] == [
        ("libc6-x_2-3_all.deb", "1:2-3"), ("libstdc++6-x_2-3_all.deb", "1:2-3"),
    ]  # fmt: skip
    assert len(list(folder.iterdir())) == 2, "nothing of apt's is left"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "127.0.0.1 says: Not Found"),
        (DEB[:-1], f"127.0.0.1 gave {len(DEB) - 1} bytes, not {len(DEB)}"),
        (DEB + bytes(1 << 20), f"127.0.0.1 gave {len(DEB) + 1} bytes, not"),
        (bytes(len(DEB)), "libc6-x 1:2-3 has the SHA-256 .*tampered with"),
    ],
)
def test_mirror_that_gives_something_else(
    content: bytes | None,
    message: str,
    folder: Path,
    mirror: tuple[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    url, files = mirror
    if content is not None:
        files[f"/debian/{PACKAGES[0].path}"] = content
    with pytest.raises(BundleError, match=message):
        fetch(PACKAGES, [url], folder)


def test_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BundleError) as caught:
        fetch(PACKAGES, ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"], folder)
    assert str(caught.value) == (
        "cannot fetch libc6-x 1:2-3: there is no apt-get; 127.0.0.1 says: [Errno 111] Connection refused; 127.0.0.1 says: "
        "[Errno 111] Connection refused; try: a network that reaches deb.debian.org, or apt-get update"
    )
    assert list(folder.iterdir()) == []


def test_c_library(apt: Callable[[str], None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt(TAKE)
    monkeypatch.setattr(debian_archive, "pinned", lambda abi: (PACKAGES, []))
    steps: list[str] = []
    found = fetch_c_library("arm64-v8a", folder, steps.append)
    assert {name: file.path.read_bytes() for name, file in found.items()} == {
        "libc.so.6": LIBC,
        "libstdc++.so.6": STDCXX,
    }
    assert found["libc.so.6"].origin == f"debian:libc6-x=1:2-3!/{LIB}/libc.so.6"
    assert found["libc.so.6"].sha256 == hashlib.sha256(LIBC).hexdigest()
    assert steps == ["the C library for arm64-v8a from Debian"]
    assert sorted(path.name for path in folder.iterdir()) == ["libc.so.6", "libstdc++.so.6"]
    apt(TAKE)
    monkeypatch.setattr(
        debian_archive, "pinned", lambda abi: ([replace(PACKAGES[0], members=("libz.so",)), PACKAGES[1]], [])
    )
    with pytest.raises(BundleError, match=r"is refused: it has no file .*libz\.so"):
        fetch_c_library("arm64-v8a", folder, steps.append)


@pytest.mark.parametrize("abi", ABIS)
def test_real_packages(abi: str, folder: Path) -> None:
    """Debian's own, where this machine reaches them."""
    try:
        found = fetch_c_library(abi, folder, lambda text: None)
    except BundleError as error:
        if "cannot fetch" not in str(error):
            raise
        pytest.skip(str(error))
    for name, file in found.items():
        elf = read_elf(file.path.read_bytes(), name)
        assert elf.abi == abi and set(elf.needed) <= set(found)
