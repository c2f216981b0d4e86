"""Files of tables: written whole or not at all, read up to a bound, never a pickle; and how what is wrong with one is said."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from latency_luts.errors import TableFileError, TableStorageError

TABLE = "latency table"


def write_atomically(data: bytes, path: Path) -> None:
    # A short name of its own: the target's name may already have all the length that a file system allows.
    temporary = path.parent / f".handset-{secrets.token_hex(8)}.tmp"
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TableStorageError(
            f"saving a table of {len(data)} bytes to {shown(path)} was asked, and the system said: {one_line(error)}",
            try_="another folder, or free space there; nothing was changed",
        ) from error
    # The file is in place; a file system that cannot sync a folder has no bearing on that.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_bounded(path: Path, limit: int, what: str = TABLE) -> bytes:
    """The bytes of a plain file that is not empty.

    Raises:
        TableFileError: absent, no file, empty, larger than `limit` bytes, or a pickle.
    """
    there = "the path of a file that is there"
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            raise refused(path, "it is not a file", what, try_=there)
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise refused(path, one_line(error), what, try_=there) from error
    if not data:
        raise refused(path, "it is empty", what)
    if len(data) > limit:
        raise refused(path, f"it is larger than {limit} bytes", what)
    if _is_pickle(data):
        raise refused(path, "it is a pickle, which could run code of its writer and is never opened", what)
    return data


def _is_pickle(data: bytes) -> bool:
    """Protocols 2 to 5 begin with 0x80 and their number, 0 with the mark of a list, a dict or a class, 1 with an empty one."""
    return bool(re.match(rb"\x80[\x02-\x05]|\(?[dl]p?[0-9]*\n|[\]}]q\x00|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n", data))


def refused(path: Path, found: str, what: str = TABLE, *, try_: str = "make the file again") -> TableFileError:
    return TableFileError(f"reading the {what} {shown(path)} was asked: {found}", try_=try_)


def shown(path: Path) -> str:
    return str(path) if str(path).isprintable() else repr(str(path))  # a line break in a name must not break the line


def one_line(value: object) -> str:
    text = value.strerror if isinstance(value, OSError) and value.strerror else str(value)
    return " ".join(text.split())[:200] or type(value).__name__
