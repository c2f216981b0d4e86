"""Runtime libraries out of an AAR, the archive in which Android's packages are published.

An AAR is a zip with `jni/<abi>/*.so` in it. It comes from somewhere else and is not trusted: its size, its number of
entries and each library's size are bounded, a name that leaves its folder refuses the whole archive, and what does not
have the checksum that was written down is refused too. Libraries are kept under their own SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devices.android_api import PAGE_BYTES
from devices.bundle import BundledFile, file_sha256
from devices.elf import Elf, read_elf, read_elf_file
from devices.errors import BundleError

MAX_ARCHIVE_BYTES = 512 << 20
MAX_LIBRARY_BYTES = 256 << 20
MAX_LIBRARIES = 32
MAX_ENTRIES = 20_000

GROUPS = {
    "tensorflow-lite": "org.tensorflow",
    "onnxruntime-android": "com.microsoft.onnxruntime",
    "litert": "com.google.ai.edge.litert",
}
"""Maven artifact -> its group, for those that are known to hold a runtime."""

DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError)
"""What zipfile raises for an archive that is cut short, damaged or packed in an unknown way."""

LIBRARY = re.compile(r"jni/([a-z0-9_-]{1,32})/(lib[A-Za-z0-9._+-]{1,120}\.so)")
FILE_NAME = re.compile(r"([A-Za-z][A-Za-z0-9._-]{0,80}?)-(\d[A-Za-z0-9._-]{0,40})\.aar")


@dataclass(frozen=True)
class Aar:
    """An archive. `origin`: "maven:GROUP:ARTIFACT:VERSION", or "aar:NAME[:VERSION] sha256:..." where it is just a file."""

    path: Path
    origin: str
    version: str
    sha256: str


@dataclass(frozen=True)
class AarLibrary:
    """A library as it lies in the cache, and what its ELF tables say."""

    file: BundledFile
    name: str
    elf: Elf


def page_size_warning(library: BundledFile) -> str | None:
    """What the user should know before the library is used on a phone. Raises: BundleError: it cannot be read."""
    alignment = read_elf_file(library.path).alignment_bytes
    if alignment >= PAGE_BYTES:
        return None
    return (
        f"{library.origin.rpartition('/')[2]} is aligned to {alignment >> 10} KiB: "
        f"phones with {PAGE_BYTES >> 10} KiB pages refuse it; try: --bundle linux"
    )


def open_aar(path: Path) -> Aar:
    """An archive that is just a file. Raises: BundleError: it cannot be read, or is too large."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_ARCHIVE_BYTES:
            raise BundleError(
                f"{path} is no file of at most {MAX_ARCHIVE_BYTES >> 20} MiB", try_="the path of an .aar file"
            )
        digest = file_sha256(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    name, version = label(path)
    return Aar(path, f"aar:{name}{':' + version if version else ''} sha256:{digest}", version or digest[:12], digest)


def label(archive: Path) -> tuple[str, str]:
    """("org.tensorflow:tensorflow-lite", "2.16.1") as the file name suggests; a label and nothing more."""
    match = FILE_NAME.fullmatch(archive.name)
    if not match:
        return re.sub(r"[^A-Za-z0-9._-]", "_", archive.stem)[:80], ""
    artifact, version = match.groups()
    return (f"{GROUPS[artifact]}:{artifact}" if artifact in GROUPS else artifact), version


def extract(archive: Path, abi: str, cache: Path, *, sha256: str | None = None, origin: str = "") -> list[AarLibrary]:
    """The libraries for one ABI, by name, each written to the cache where it is not there yet.

    Args: sha256: of the archive, where it is known; another one is refused. origin: as in `Aar`, where it is known.

    Raises: BundleError: the archive cannot be read, is no AAR, is too large, was tampered with, or has nothing for `abi`.
    """
    try:
        if not archive.is_file() or archive.stat().st_size > MAX_ARCHIVE_BYTES:
            what = f"{archive} is no file of at most {MAX_ARCHIVE_BYTES >> 20} MiB"
            raise BundleError(what, try_="the path of an .aar file")
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sha256 is not None and digest != sha256:
                what = f"{archive.name} has the SHA-256 {digest}, not {sha256}: it is another file or was tampered with"
                raise BundleError(what, try_="fetch it again")
            with zipfile.ZipFile(file) as opened:
                return _take(opened, archive, abi, origin or open_aar(archive).origin, cache)
    except DAMAGED as error:
        raise BundleError(f"{archive.name} is damaged, or no AAR: {error}", try_="fetch it again") from None
    except OSError as error:
        raise BundleError(f"cannot take libraries from {archive} into {cache}: {error.strerror or error}") from error


def _take(opened: zipfile.ZipFile, archive: Path, abi: str, origin: str, cache: Path) -> list[AarLibrary]:
    entries = _entries(opened, archive.name)
    wanted = sorted((library, entry.filename, entry) for (found, library), entry in entries.items() if found == abi)
    if not wanted:
        abis = ", ".join(sorted({found for found, _ in entries}))
        what = f"{archive.name} has no libraries for {abi}; it has {abis or 'none at all'}"
        raise BundleError(what, try_="an AAR that holds jni/*/lib*.so, or --bundle linux")
    if len(wanted) > MAX_LIBRARIES:
        raise BundleError(f"{archive.name} has {len(wanted)} libraries for {abi}, more than {MAX_LIBRARIES}")
    return [
        _keep(_content(opened, entry, archive.name), library, abi, f"{origin}!{path}", cache)
        for library, path, entry in wanted
    ]


def verify(file: BundledFile) -> None:
    """Raises: BundleError: the file is gone, or its bytes are not those that its SHA-256 stands for."""
    try:
        with file.path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {file.path} of {file.origin}: {error.strerror}") from error
    if found != file.sha256:
        what = f"{file.path} was changed: its SHA-256 is {found}, not {file.sha256}"
        raise BundleError(what, try_=f"rm {file.path}, and the same command again")


def _entries(opened: zipfile.ZipFile, archive: str) -> dict[tuple[str, str], zipfile.ZipInfo]:
    """(ABI, library) -> its entry. The whole archive is refused for one bad name: nobody packs one by accident."""
    infos = opened.infolist()
    if len(infos) > MAX_ENTRIES:
        raise BundleError(f"{archive} has {len(infos)} entries, more than {MAX_ENTRIES}, and is not read")
    found: dict[tuple[str, str], zipfile.ZipInfo] = {}
    for info in infos:
        # orig_filename: what the archive says, before zipfile cuts it at a NUL or turns a backslash round
        parts = info.orig_filename.split("/")
        if ".." in parts or info.orig_filename.startswith("/") or re.search(r"[\0\\:]", info.orig_filename):
            raise BundleError(f"{archive} is refused: its entry {info.orig_filename[:120]!r} would leave its folder")
        match = LIBRARY.fullmatch(info.filename)
        if not match:
            continue
        if match.groups() in found:
            raise BundleError(f"{archive} is refused: it has {info.filename} twice")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleError(f"{archive} is refused: its entry {info.filename} is no plain file")
        found[match[1], match[2]] = info
    return found


def _content(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, archive: str) -> bytes:
    """At most one byte more than allowed is unpacked, whatever the entry says of its size. zipfile compares the CRC."""
    with opened.open(entry) as file:
        content = file.read(MAX_LIBRARY_BYTES + 1)
    if len(content) > MAX_LIBRARY_BYTES:
        what = f"{entry.filename} is larger than {MAX_LIBRARY_BYTES >> 20} MiB and is not unpacked"
        raise BundleError(f"{archive}: {what}")
    return content


def _keep(content: bytes, name: str, abi: str, origin: str, cache: Path) -> AarLibrary:
    elf = read_elf(content, name)
    if elf.abi != abi or not elf.shared:
        raise BundleError(f"{origin} is refused: it is for {elf.abi}, not a library for {abi}")
    digest = hashlib.sha256(content).hexdigest()
    path = cache / "aar" / digest / name
    file = BundledFile(path, digest, origin)
    if path.exists():
        verify(file)
        return AarLibrary(file, name, elf)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part(path) as part:
        Path(part).write_bytes(content)
        os.chmod(part, 0o644)
        os.replace(part, path)
    return AarLibrary(file, name, elf)


@contextlib.contextmanager
def _part(path: Path) -> Iterator[str]:
    """A file beside `path` to write to; gone afterwards, unless it took its place."""
    handle, part = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    os.close(handle)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)
