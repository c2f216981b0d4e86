"""Names from a device, and files that arrive in a local folder together: what every transport does with a folder."""

from __future__ import annotations

import contextlib
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from devices.errors import TransferError

MAX_NAME_BYTES = 255


def bad_name(name: str) -> str:
    """Why this cannot be the name of a file in a folder; "" where it can. Names from a device may hold anything."""
    if not name or name.startswith("."):
        return "is empty or begins with a dot"
    if "/" in name:
        return "holds a slash"
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
        return "holds a control character, or is no UTF-8"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has over {MAX_NAME_BYTES} bytes"
    return ""


def check_given(names: Iterable[str]) -> None:
    """Raises: ValueError: one that a caller gave is no plain name."""
    for name in names:
        if reason := bad_name(name):
            raise ValueError(f"the name {name!r} {reason}")


def check_told(names: Iterable[str], max_files: int) -> None:
    """Raises: ValueError: of the names that a device told, one is no plain name or comes twice, or they are too many."""
    seen: set[str] = set()
    for name in names:
        check_next(name, seen, max_files)
        seen.add(name)


def check_next(name: str, seen: Collection[str], max_files: int) -> None:
    """As `check_told`, for one more name. Args: seen: those before it."""
    if reason := "comes twice" if name in seen else bad_name(name):
        raise ValueError(f"the name {name[:80]!a} {reason}")
    if len(seen) >= max_files:
        raise ValueError(f"it holds over {max_files} files")


def check_bytes(sizes: Iterable[int], max_bytes: int) -> None:
    """Raises: ValueError: they are more together."""
    if sum(sizes) > max_bytes:
        raise ValueError(f"it holds over {max_bytes} bytes")


@contextlib.contextmanager
def arriving(local: Path) -> Iterator[Path]:
    """A new folder inside `local`, which is made. What lies in it at a good end is renamed into `local`, each file whole.

    Raises: TransferError: this side's disk.
    """
    try:
        local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=local) as part:
            yield Path(part)
            for path in sorted(Path(part).iterdir()):
                path.replace(local / path.name)
    except OSError as error:
        raise TransferError(f"cannot write into {local}: {error.strerror or error}") from error
