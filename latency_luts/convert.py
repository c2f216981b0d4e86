"""Tables as CSV, which every spreadsheet opens: one row a kernel, and back again exactly.

CSV holds a kernel's key, median, interval, samples, networks, the runtime's name of it and its warm time. It holds no context,
so who reads it says where the numbers were measured. Text cells that a spreadsheet would take for a formula are written with
an apostrophe before them, and so are those that begin with one; a file with a bare formula in it was not written here and is
refused.

The formats of other projects: `latency_luts.once_for_all` (YAML), `latency_luts.netadapt` (JSON in the place of a pickle).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from latency_luts.entry import Context, Entry
from latency_luts.errors import InvalidTable
from latency_luts.files import TABLE, one_line, read_bounded, refused, write_atomically
from latency_luts.key import LutError, OpKey, short
from latency_luts.table import LatencyTable

MAX_CSV_BYTES = 256 * 2**20
MAX_ROWS = 200_000
MAX_CELL_CHARS = 4 * 2**20
COLUMNS = (
    "key", "latency_ns_median", "interval_low_ns", "interval_high_ns", "samples_ns", "networks", "runtime_kernel", "warm_ns",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|$)')
_FLOAT = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?")
_INT = re.compile(r"[0-9]{1,19}")


class Unmapped(NamedTuple):
    """A kernel of one format that another cannot say, and why, in words."""

    name: str
    reason: str


def export_csv(table: LatencyTable, path: str | os.PathLike[str]) -> None:
    """Write the table's rows, all or nothing. Lines end with a line feed.

    Raises:
        TableStorageError: the folder is absent or read-only, the disk is full, ...
    """
    lines = [",".join(COLUMNS)]
    for entry in table:
        low, high = entry.interval_ns
        numbers = (repr(entry.latency_ns_median), repr(low), repr(high), " ".join(map(str, entry.samples_ns)))
        texts = (json.dumps(entry.networks, ensure_ascii=False) if entry.networks else "", entry.runtime_kernel)
        warm = "" if entry.warm_ns is None else repr(entry.warm_ns)
        lines.append(",".join([_quote(str(entry.key)), *numbers, *map(_quote, texts), warm]))
    write_atomically(("\n".join(lines) + "\n").encode(), Path(path))


def import_csv(path: str | os.PathLike[str], context: Context) -> LatencyTable:
    """The table whose rows `export_csv` wrote, measured in `context`. A spreadsheet may have saved the file since.

    Raises:
        TableFileError: absent, a pickle, other columns, a formula, a wrong cell, more than the bounds above; with the line.
    """
    path = Path(path)
    entries: dict[OpKey, Entry] = {}
    for number, cells in _rows(path):
        try:
            entry = _entry(cells)
            if entry.key in entries:
                raise InvalidTable(f"{entry.key} is there twice")
        except (LutError, ValueError, RecursionError) as error:
            raise refused(path, f"line {number}: {one_line(error)}") from error
        entries[entry.key] = entry
    return LatencyTable(context, tuple(entries.values()))


def read_text(path: Path, limit: int, what: str = TABLE) -> str:
    """A plain UTF-8 file, a byte order mark left out. Raises TableFileError: absent, empty, larger, a pickle, not text."""
    try:
        return read_bounded(path, limit, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(path, f"byte {error.start} is not UTF-8 text", what) from error


def imported_entry(key: OpKey, latency_ns: float, half_width: float, origin: str) -> Entry:
    """An entry from a file that gives one number a kernel and no samples.

    Args:
        half_width: how far off the number may be, as a share of it; who imports it must say, because the file does not.
        origin: what stands for the runtime's name of the kernel.

    Raises:
        InvalidTable: the latency is negative or not finite, or `half_width` is not 0 ... 1.
    """
    if not 0 <= half_width <= 1:
        raise InvalidTable(f"an import was asked with half_width={short(half_width)}, which is not a share of 0 ... 1")
    if not 0 <= latency_ns < 1e18:
        raise InvalidTable(f"a latency of {short(latency_ns)} ns is not a finite time of at least 0")
    interval = (latency_ns * (1 - half_width), latency_ns * (1 + half_width))
    return Entry(key, latency_ns, interval, (round(latency_ns),), (), origin)


def _quote(text: str) -> str:
    """A text cell: no formula for a spreadsheet, and quoted where CSV needs it."""
    text = f"'{text}" if text.startswith((*_FORMULA, "'")) else text
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"') else text


def _unquote(text: str) -> str:
    if text.startswith(_FORMULA):
        raise ValueError(f"the cell {short(text)} is a formula")
    return text.removeprefix("'")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line after the header."""
    text = read_text(path, MAX_CSV_BYTES)
    if "\0" in text:
        raise refused(path, "it has NUL bytes and is no text")
    lines = text.split("\n")
    if len(lines) > MAX_ROWS + 2:
        raise refused(path, f"it has more than {MAX_ROWS} rows")
    header = tuple(_cells(path, 1, lines[0]))
    if header not in (COLUMNS, COLUMNS[:-1]):  # earlier files have no warm times
        raise refused(path, f"line 1 has other columns than {','.join(COLUMNS)}: {_difference(header)}")
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            cells = _cells(path, number, line)
            if len(cells) != len(header):
                raise refused(path, f"line {number} has {len(cells)} cells instead of {len(header)}")
            yield number, cells + [""] * (len(COLUMNS) - len(cells))


def _difference(header: tuple[str, ...]) -> str:
    lacking = ",".join(name for name in COLUMNS[:-1] if name not in header)
    others = ",".join(name for name in header if name not in COLUMNS)
    words = [f"it lacks {lacking}"] * bool(lacking) + [f"it has {short(others)}"] * bool(others)
    return ", ".join(words) or "they are in another order, or there twice"


def _cells(path: Path, number: int, line: str) -> list[str]:
    line = line.removesuffix("\r")
    cells: list[str] = []
    at = 0
    while True:
        match = _CELL.match(line, at)
        if match is None or len(cells) > len(COLUMNS):
            raise refused(path, f"line {number} is no CSV of {len(COLUMNS)} cells: {short(line)}")
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        if len(cells[-1]) > MAX_CELL_CHARS:
            raise refused(path, f"line {number} has a cell of more than {MAX_CELL_CHARS} characters")
        if not end:
            return cells
        at = match.end()


def _entry(cells: list[str]) -> Entry:
    key, median, low, high, samples, networks, kernel, warm = cells
    names = json.loads(_unquote(networks)) if networks else []
    if not isinstance(names, list):
        raise ValueError(f"networks={short(networks)} is not a list of names")
    return Entry(
        key=OpKey.parse(_unquote(key)),
        latency_ns_median=_number("latency_ns_median", median),
        interval_ns=(_number("interval_low_ns", low), _number("interval_high_ns", high)),
        samples_ns=tuple(map(_whole, samples.split(" "))),
        networks=tuple(names),
        runtime_kernel=_unquote(kernel),
        warm_ns=_number("warm_ns", warm) if warm else None,
    )


def _number(name: str, text: str) -> float:
    if _FLOAT.fullmatch(text) is None:
        raise ValueError(f"{name}={short(text)} is not a number of at least 0")
    return float(text)


def _whole(text: str) -> int:
    if _INT.fullmatch(text) is None:
        raise ValueError(f"samples_ns has {short(text)}, which is not a whole number of at least 0")
    return int(text)
