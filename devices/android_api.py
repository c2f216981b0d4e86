"""Which names of Android's own libraries the runner may use: the lists in `native/bionic/*.names`.

One list does two things: the stub library that the runner is linked against is made from it, so that a name which is
not in it does not link; and each name has the API level that brought it, so that a newer one is seen without a phone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from devices.elf import Elf
from devices.errors import BundleError

API_LEVEL = 28
"""Android 9, the oldest that the runner is made for."""

LINKER = "/system/bin/linker64"
PAGE_BYTES = 16384
"""The largest page size of a phone. A file that is aligned to less is refused by phones that use it."""


LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*) ([0-9]{1,3})( variable)?")


@dataclass(frozen=True)
class Name:
    name: str
    level: int
    variable: bool


def read_names(text: str, what: str) -> list[Name]:
    """The names of a list. Raises: BundleError: a line is not `NAME LEVEL [variable]`; its number is named."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise BundleError(f"{what}: line {number} is not NAME LEVEL [variable]: {line[:80]!r}")
        found.append(Name(match[1], int(match[2]), match[3] is not None))
    return found


def libraries(native: Path) -> dict[str, list[Name]]:
    """Library ("libc.so") -> its names, from `bionic/*.names` below the folder of the sources."""
    lists = sorted((native / "bionic").glob("*.names"))
    return {f"{path.stem}.so": read_names(path.read_text("utf-8"), path.name) for path in lists}


def stub_source(names: list[Name]) -> str:
    """C for a library that has these names and does nothing."""
    return "".join(f"void *{one.name};\n" if one.variable else f"void {one.name}(void) {{}}\n" for one in names)


def objections(elf: Elf, abi: str, native: Path) -> list[str]:
    """Why a phone would not start a program, or would run it wrongly; empty where all is well."""
    known = libraries(native)
    levels = {one.name: one.level for names in known.values() for one in names}
    missing = sorted(elf.imports - levels.keys())
    newer = sorted(name for name in elf.imports & levels.keys() if levels[name] > API_LEVEL)
    others = sorted(set(elf.needed) - known.keys())
    alignment = f"its segments are aligned to {elf.alignment_bytes} bytes, not {PAGE_BYTES}"
    checks = [
        (elf.abi != abi, f"it is for {elf.abi}, not {abi}"),
        (not elf.shared, "it is not position-independent"),
        (elf.interpreter != LINKER, f"its interpreter is {elf.interpreter!r}, not {LINKER}"),
        (elf.alignment_bytes < PAGE_BYTES, alignment),
        (elf.thread_locals, "it has thread-locals, which Android 9 breaks silently"),
        (bool(others), f"it needs {', '.join(others)}"),
        (bool(missing), f"it imports {', '.join(missing)}, which Android {API_LEVEL} is not known to have"),
        (bool(newer), f"it imports {', '.join(newer)}, which came after API level {API_LEVEL}"),
    ]
    return [text for wrong, text in checks if wrong]
