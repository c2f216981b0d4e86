"""Latency tables as Parquet files, which `pandas.read_parquet` reads too.

One row an entry, raw samples included. The context stands as JSON in the schema's metadata under `handset`. A reader
who sees only the rows must not take made-up numbers for measured ones, so `simulated` is a column as well.

Beside the context stand, under `handset.staircases`, the steps that were found in the rows (`latency_luts.staircase`): who
does not know them loses nothing, as they can be found again; and under `handset.warmth` the points of that curve.

Between the rows and Parquet's footer, where readers skip what the footer does not point to, stands a SHA-256 of all other
bytes. It is checked before pyarrow sees the file, because pyarrow ends the whole process on some damaged footers.

Version history: `SCHEMA_VERSION` in `latency_luts.table`; `UPGRADES` reads the older ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from latency_luts.columns import Columns
from latency_luts.entry import Context
from latency_luts.errors import InvalidTable, NewerSchema, SimulatedTable, TableFileError
from latency_luts.files import one_line, read_bounded, refused, shown, write_atomically
from latency_luts.key import LutError
from latency_luts.staircase import MAX_STAIRCASES, Jump, Staircase
from latency_luts.table import SCHEMA_VERSION, LatencyTable
from latency_luts.warmth import WarmthPoint

if TYPE_CHECKING:
    import pyarrow as pa

# Bounds on what `load` takes in. A table of 1,000 kernels with 1,000 samples each has 8 MB.
MAX_FILE_BYTES = 256 * 2**20
MAX_CONTENT_BYTES = 1024 * 2**20  # after decompression, as the file declares it
MAX_ENTRIES = 200_000
MAX_SAMPLES = 50_000_000
_MAX_HEADER_BYTES = 64 * 2**10
_MAX_STAIRCASES_BYTES = 8 * 2**20

_HEADER = b"handset"
_STAIRCASES = b"handset.staircases"
_WARMTH = b"handset.warmth"
_MAGIC = b"PAR1"
_SEAL = b"handset-sha256:"
_KIND = "latency_table"


class Stored(NamedTuple):
    """What a file of some version holds, before it is checked: the context's fields, the rows' columns, and the staircases
    as `_plain` writes them; None where the file has none; and the points of `latency_luts.warmth`."""

    context: dict[str, Any]
    columns: pa.Table
    staircases: list[Any] | None = None
    warmth: list[Any] | None = None


def _with_warm_times(stored: Stored) -> Stored:
    """Version 1 knew cold times only."""
    import pyarrow as pa

    nothing = pa.nulls(len(stored.columns), pa.float64())
    place = stored.columns.schema.get_field_index("simulated")
    return stored._replace(columns=stored.columns.add_column(max(0, place), "warm_ns", nothing))


# UPGRADES[n] turns what version n stored into what version n + 1 stores; there is one for each older version.
UPGRADES: dict[int, Callable[[Stored], Stored]] = {1: _with_warm_times}


def save(table: LatencyTable, path: str | os.PathLike[str], *, allow_simulated: bool = False) -> None:
    """Write the table to `path`, all or nothing: on any failure an older file there stays as it was.

    The file is written beside its place, forced to disk and then renamed. The same table gives the same bytes.

    Raises:
        SimulatedTable: the context says that the numbers were not measured, and `allow_simulated` is False.
        TableStorageError: the folder is absent or read-only, the disk is full, ...
    """
    path = Path(path)
    if table.context.simulated and not allow_simulated:
        raise SimulatedTable(
            f"saving the table of {table.context.device} to {shown(path)} was asked, and its numbers come from a simulated or"
            " replayed device",
            try_="numbers of a device; in Python allow_simulated=True, which marks the file",
        )
    write_atomically(_serialise(table), path)


def load(path: str | os.PathLike[str]) -> LatencyTable:
    """The table that `save` wrote, also by an older version.

    Raises:
        NewerSchema: a newer version wrote it.
        TableFileError: absent, unreadable, not a latency table, cut short, damaged or larger than the bounds above.
    """
    import pyarrow as pa

    path = Path(path)
    data = read_bounded(path, MAX_FILE_BYTES)
    try:
        version, stored = _deserialise(data, path)
        for older in range(version, SCHEMA_VERSION):
            stored = UPGRADES[older](stored)
        return _to_table(stored)
    except TableFileError:
        raise
    except LutError as error:
        raise refused(path, str(error)) from error
    # What pyarrow raises for damaged files, and json and the constructors for a header of another shape.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise refused(path, f"cut short, damaged or no latency table: {one_line(error)}") from error


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("key", pa.string()),
            ("latency_ns_median", pa.float64()),
            ("interval_low_ns", pa.float64()),
            ("interval_high_ns", pa.float64()),
            ("samples_ns", pa.list_(pa.field("element", pa.int64()))),  # Parquet's own name of a list's items
            ("networks", pa.list_(pa.field("element", pa.string()))),
            ("runtime_kernel", pa.string()),
            ("warm_ns", pa.float64()),
            ("simulated", pa.bool_()),
        ]
    )


def _serialise(table: LatencyTable) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = {"kind": _KIND, "schema_version": SCHEMA_VERSION, "context": dataclasses.asdict(table.context)}
    if table.context.simulated:
        header["warning"] = "simulated or replayed: these numbers are not measurements"
    steps = json.dumps([_plain(each) for each in table.staircases]).encode()
    metadata = {_HEADER: json.dumps(header, sort_keys=True).encode(), _STAIRCASES: steps}
    if table.warmth:
        metadata[_WARMTH] = json.dumps([list(point) for point in table.warmth]).encode()
    schema = _schema().with_metadata(metadata)
    entries = tuple(table)
    columns = {
        "key": [str(entry.key) for entry in entries],
        "latency_ns_median": [entry.latency_ns_median for entry in entries],
        "interval_low_ns": [entry.interval_ns[0] for entry in entries],
        "interval_high_ns": [entry.interval_ns[1] for entry in entries],
        "samples_ns": [entry.samples_ns for entry in entries],
        "networks": [entry.networks for entry in entries],
        "runtime_kernel": [entry.runtime_kernel for entry in entries],
        "warm_ns": [entry.warm_ns for entry in entries],
        "simulated": [table.context.simulated] * len(entries),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), buffer, compression="zstd")
    return _seal(buffer.getvalue())


def _footer_start(data: bytes) -> int:
    """Where the footer begins: a Parquet file ends with the footer, its length (4 bytes) and the magic (4 bytes)."""
    if data[:4] != _MAGIC:
        raise ValueError("it does not begin as a Parquet file does")
    if len(data) < 12 or data[-4:] != _MAGIC:
        raise ValueError("it does not end as a Parquet file does")
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if start < 4:
        raise ValueError("its footer is longer than the file")
    return start


def _seal(data: bytes) -> bytes:
    """A Parquet file with the digest of its bytes before the footer."""
    start = _footer_start(data)
    return data[:start] + _SEAL + hashlib.sha256(data).digest() + data[start:]


def _check_seal(data: bytes) -> None:
    """Raises ValueError where a byte was changed since `_seal`, or the file never went through it."""
    footer = _footer_start(data)
    body = max(footer - len(_SEAL) - hashlib.sha256().digest_size, 0)
    if data[body : body + len(_SEAL)] != _SEAL:
        raise ValueError("it has no digest, so handset did not write it as a latency table")
    if hashlib.sha256(data[:body] + data[footer:]).digest() != data[body + len(_SEAL) : footer]:
        raise ValueError("its bytes are not those that were written")


def _deserialise(data: bytes, path: Path) -> tuple[int, Stored]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_seal(data)
    file = pq.ParquetFile(pa.BufferReader(data))
    _check_bounds(file.metadata, path)
    text = (file.schema_arrow.metadata or {}).get(_HEADER)
    if text is None or len(text) > _MAX_HEADER_BYTES:
        raise refused(path, "it is a Parquet file that is no latency table of handset")
    header = json.loads(text)
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        raise refused(path, "it is a Parquet file that is no latency table of handset")
    version = header.get("schema_version")
    if type(version) is not int or version < 1:
        raise refused(path, f"it is a table without a valid schema_version ({one_line(version)})")
    if version > SCHEMA_VERSION:
        raise NewerSchema(
            f"reading the latency table {shown(path)} was asked, and its schema_version is {version}, newer than"
            f" {SCHEMA_VERSION}, the newest known here",
            try_="a newer handset",
        )
    if not isinstance(header.get("context"), dict):
        raise refused(path, "it is a table without a context")
    steps = file.schema_arrow.metadata.get(_STAIRCASES)
    if steps is not None and len(steps) > _MAX_STAIRCASES_BYTES:
        raise refused(path, f"its staircases have more than {_MAX_STAIRCASES_BYTES} bytes")
    warmth = file.schema_arrow.metadata.get(_WARMTH)
    if warmth is not None and len(warmth) > _MAX_HEADER_BYTES:
        raise refused(path, f"its warmth has more than {_MAX_HEADER_BYTES} bytes")
    lists = (None if text is None else json.loads(text) for text in (steps, warmth))
    return version, Stored(header["context"], file.read(), *lists)


def _check_bounds(metadata: Any, path: Path) -> None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    bounds = (
        ("entries", metadata.num_rows, MAX_ENTRIES),
        ("values in one column", max((chunk.num_values for chunk in chunks), default=0), MAX_SAMPLES),
        ("bytes of content", sum(chunk.total_uncompressed_size for chunk in chunks), MAX_CONTENT_BYTES),
    )
    for what, found, bound in bounds:
        if not 0 <= found <= bound:
            raise refused(path, f"it declares {found} {what}, and the bound is {bound}")


def _to_table(stored: Stored) -> LatencyTable:
    """Check everything that a file of the current version can hold wrongly."""
    expected = _schema()
    found = {column.name: str(column.type) for column in stored.columns.schema}
    wanted = {column.name: str(column.type) for column in expected}
    wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if wrong or len(stored.columns.schema) != len(expected):
        raise InvalidTable(f"it has other columns than a table: {', '.join(wrong)[:200] or 'one is there twice'}")
    empty = [name for name in wanted if name != "warm_ns" and stored.columns.column(name).null_count]
    if empty:
        raise InvalidTable(f"it has empty cells in {', '.join(empty)}")
    names = {each.name for each in dataclasses.fields(Context)}
    if names != stored.context.keys():
        raise InvalidTable(f"its context has other fields: {', '.join(sorted(names ^ stored.context.keys()))[:200]}")
    context = Context(**stored.context)
    import pyarrow.compute as pc

    if len(stored.columns) and pc.unique(stored.columns.column("simulated")).to_pylist() != [context.simulated]:
        raise InvalidTable("its context and its column `simulated` disagree")
    entries = Columns(stored.columns.drop_columns(["simulated"]))
    warmth = tuple(WarmthPoint(float(ms), float(cold)) for ms, cold in stored.warmth or ())
    return LatencyTable(context, entries, warmth=warmth, stored_staircases=_to_staircases(stored.staircases))


def _plain(staircase: Staircase) -> dict[str, Any]:
    return {**vars(staircase), "jumps": [list(jump) for jump in staircase.jumps]}


def _to_staircases(stored: list[Any] | None) -> tuple[Staircase, ...] | None:
    if stored is None:
        return None
    if not isinstance(stored, list) or len(stored) > MAX_STAIRCASES:
        raise InvalidTable(f"its staircases are no list of at most {MAX_STAIRCASES}")
    found = tuple(Staircase(**{**each, "jumps": tuple(Jump(*jump) for jump in each["jumps"])}) for each in stored)
    if len({(each.family, each.axis) for each in found}) < len(found):
        raise InvalidTable("two of its staircases are of one family and axis")
    return found
