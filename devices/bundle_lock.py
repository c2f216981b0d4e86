"""A built bundle in the cache: `bundles/<kind>-<abi>/<key>/` with its files by their names on the device, and `lock.json`.

The folder appears whole or not at all. At every load each file must have the size and the SHA-256 of the lock; the lock
itself is not trusted either: sizes and counts are bounded, names are plain file names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from devices.bundle import RUNNER, BundledFile, RuntimeBundle, file_sha256, library_name
from devices.errors import BundleError

SCHEMA_VERSION = 1
"""1: the first."""

LOCK = "lock.json"
PART = ".part-"
MAX_LOCK_BYTES = 1 << 18
MAX_FILES = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")
SHA256 = re.compile(r"[0-9a-f]{64}")
TEXT = re.compile(r"[ -~]{0,1000}")
REMEDY = "handset bundle clean, then handset bundle build"


def kept_bundle(
    cache: Path, kind: str, abi: str, recipe: Sequence[str], make: Callable[[Path], RuntimeBundle]
) -> RuntimeBundle:
    """The bundle of that recipe, out of the cache; made and kept there where it is not yet.

    Args:
        recipe: all that decides what is in it.
        make: gives the bundle; its files may lie in the scratch folder that it is given, which is removed afterwards.

    Raises: BundleError: `make` raises it; the cache cannot be written; what is there is not what its lock says.
    """
    words = [str(SCHEMA_VERSION), kind, abi, *recipe]
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    folder = cache / "bundles" / f"{kind}-{abi}" / key
    if not os.path.lexists(folder):
        _build(folder, make)
    return load(folder)


def _build(folder: Path, make: Callable[[Path], RuntimeBundle]) -> None:
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=PART, dir=folder.parent))
        scratch, ready = part / "scratch", part / "ready"
        scratch.mkdir()
        ready.mkdir()
        _write(make(scratch), ready, folder.name)
        with contextlib.suppress(FileExistsError):  # another build was faster; it made the same
            _rename(ready, folder)
    except OSError as error:
        raise BundleError(f"cannot build the bundle in {folder.parent}: {error.strerror or error}") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _rename(ready: Path, folder: Path) -> None:
    """Raises: FileExistsError: there is one already, empty or not."""
    try:
        ready.rename(folder)
    except OSError:
        if folder.is_dir():
            raise FileExistsError(str(folder)) from None
        raise


def _write(bundle: RuntimeBundle, folder: Path, key: str) -> None:
    rows = []
    for name, file in bundle.files.items():
        path = folder / name
        shutil.copyfile(file.path, path)
        path.chmod(0o755 if name in (RUNNER, bundle.loader) else 0o644)
        rows.append({"name": name, "bytes": path.stat().st_size, "sha256": file.sha256, "origin": file.origin})
    document = {
        "schema_version": SCHEMA_VERSION,
        "key": key,
        "kind": bundle.kind,
        "abi": bundle.abi,
        "loader": bundle.loader,
        "versions": dict(bundle.versions),
        "sha256": bundle.sha256,
        "files": rows,
    }
    (folder / LOCK).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def load(folder: Path) -> RuntimeBundle:
    """A built bundle, each of its files checked. Raises: BundleError: it is not what its lock says, with the file's name."""
    try:
        bundle, sizes = _read(_document(folder / LOCK), folder)
        for name, file in bundle.files.items():
            _check(name, file, sizes[name])
    except ValueError as error:
        raise BundleError(f"the bundle {folder} is refused: {error}", try_=REMEDY) from None
    return bundle


def _document(path: Path) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{LOCK} is no plain file")
        with path.open("rb") as file:
            text = file.read(MAX_LOCK_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {LOCK}: {error.strerror}") from None
    if len(text) > MAX_LOCK_BYTES:
        raise ValueError(f"{LOCK} is larger than {MAX_LOCK_BYTES >> 10} KiB")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{LOCK} is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError(f"{LOCK} is no object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ValueError(f"{LOCK} has schema_version {str(version)[:40]}, not {SCHEMA_VERSION}")
    return document


def _read(document: dict[str, Any], folder: Path) -> tuple[RuntimeBundle, dict[str, int]]:
    """The bundle that a lock speaks of, and its files' sizes. Raises: ValueError: what is wrong with the lock."""
    kind, abi = _text(document, "kind", NAME), _text(document, "abi", NAME)
    if (f"{kind}-{abi}", document.get("key")) != (folder.parent.name, folder.name):
        raise ValueError(f"{LOCK} is that of another bundle")
    versions = document.get("versions")
    rows = document.get("files")
    if not isinstance(versions, dict) or not isinstance(rows, list) or len(rows) > MAX_FILES:
        raise ValueError(f"{LOCK} has no versions, no files or more than {MAX_FILES}")
    files: dict[str, BundledFile] = {}
    sizes = {}
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{LOCK} has a file that is no object")
        name, size = _text(row, "name", NAME), row.get("bytes")
        if name in files or name == LOCK or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"{LOCK} has {name} twice, or without its size")
        files[name] = BundledFile(folder / name, _text(row, "sha256", SHA256), _text(row, "origin", TEXT))
        sizes[name] = size
    runtimes = {runtime: _text(versions, runtime, TEXT) for runtime in versions}
    loader = "" if document.get("loader") == "" else _text(document, "loader", NAME)
    others = {RUNNER, *map(library_name, runtimes)}
    support = {name: file for name, file in files.items() if name not in others}
    if not others <= files.keys() or bool(loader) != bool(support) or loader not in {"", *support}:
        raise ValueError(f"{LOCK} lacks the runner, a runtime's library or the loader")
    libraries = {runtime: files[library_name(runtime)] for runtime in runtimes}
    bundle = RuntimeBundle(kind, abi, files[RUNNER], libraries, runtimes, support, loader)
    if document.get("sha256") != bundle.sha256:
        raise ValueError(f"{LOCK} was changed: it is not that of these files")
    return bundle, sizes


def _text(row: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{LOCK} has {ascii(key)[:60]}: {ascii(value)[:80]}")
    return value


def _check(name: str, file: BundledFile, size: int) -> None:
    try:
        status = file.path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise ValueError(f"{name} has {status.st_size} bytes, not {size}")
        found = file_sha256(file.path)
    except OSError as error:
        raise ValueError(f"cannot read {name}: {error.strerror}") from None
    if found != file.sha256:
        raise ValueError(f"{name} was changed: its SHA-256 is {found}, not {file.sha256}")
