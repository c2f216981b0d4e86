"""The entries of a file, kept as Arrow columns: 100,000 of them are checked at once, and each is built when it is asked for.

`Columns` is a sequence of entries like the tuple of a table that was made by hand, equal to that tuple, and as strict: what
`Entry` and `OpKey` refuse is refused here, in the same words, before the first entry is handed out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from latency_luts.entry import MAX_CHARS, Entry
from latency_luts.errors import InvalidTable
from latency_luts.family import PARTS
from latency_luts.key import OpKey

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


class Columns(Sequence[Entry]):
    """The rows of a table's file.

    Args:
        columns: key, latency_ns_median, interval_low_ns, interval_high_ns, samples_ns, networks, runtime_kernel, warm_ns, as
            `latency_luts.store` writes them, without empty cells but in warm_ns.

    Raises:
        InvalidTable, InvalidKey: a row that is no `Entry`, in the words of that class; a kernel that is there twice.
    """

    def __init__(self, columns: pa.Table) -> None:
        self._columns = columns.combine_chunks()
        self.texts: list[str] = self._columns.column("key").to_pylist()
        self.medians: NDArray[np.float64] = self._floats("latency_ns_median")
        self.lows: NDArray[np.float64] = self._floats("interval_low_ns")
        self.highs: NDArray[np.float64] = self._floats("interval_high_ns")
        self._warm = self._columns.column("warm_ns")
        self._samples = _flat(self._columns, "samples_ns")
        self._networks = _flat(self._columns, "networks")
        self._kernels = self._columns.column("runtime_kernel")
        self._check()
        self._rows = {text: row for row, text in enumerate(self.texts)}
        if len(self._rows) < len(self.texts):
            twice = next(text for row, text in enumerate(self.texts) if self._rows[text] != row)
            raise InvalidTable(f"a table was asked with two entries of {twice}", try_="one entry for each kernel")

    def find(self, text: str) -> Entry | None:
        """The entry of the kernel with this canonical text."""
        row = self._rows.get(text)
        return None if row is None else self._entry(row)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        rows = range(len(self))[index]
        return tuple(map(self._entry, rows)) if isinstance(rows, range) else self._entry(rows)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns | tuple) and len(self) == len(other) and all(map(_equal, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self)} entries>"

    def _entry(self, row: int) -> Entry:
        """Built without `Entry`'s own checks, which `_check` made for all rows."""
        fields: dict[str, Any] = {
            "key": OpKey.parse(self.texts[row]),
            "latency_ns_median": float(self.medians[row]),
            "interval_ns": (float(self.lows[row]), float(self.highs[row])),
            "samples_ns": _row(self._samples, row),
            "networks": _row(self._networks, row),
            "runtime_kernel": self._kernels[row].as_py(),
            "warm_ns": self._warm[row].as_py(),
        }
        entry = object.__new__(Entry)
        entry.__dict__.update(fields)
        return entry

    def _floats(self, name: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = self._columns.column(name).to_numpy()
        return values

    def _check(self) -> None:
        """Finds the first wrong row with whole columns, and lets `OpKey` and `Entry` say what is wrong with it."""
        import numpy as np

        _check_keys(self.texts)
        bounded = np.ones(len(self), dtype=np.bool_)
        for values in (self.medians, self.lows, self.highs):
            bounded &= (values >= 0) & (values <= 2**63 - 1)  # refuses nan, inf
        bounded &= self.lows <= self.highs
        bounded &= _durations_or_empty(self._warm)
        for row in np.flatnonzero(
            ~bounded | _wrong_samples(self._samples) | _wrong_texts(self._networks, self._kernels)
        ):
            Entry(
                key=OpKey.parse(self.texts[row]),
                latency_ns_median=float(self.medians[row]),
                interval_ns=(float(self.lows[row]), float(self.highs[row])),
                samples_ns=_row(self._samples, int(row)),
                networks=_row(self._networks, int(row)),
                runtime_kernel=self._kernels[int(row)].as_py(),
                warm_ns=self._warm[int(row)].as_py(),
            )


def _equal(a: Entry, b: Entry) -> bool:
    return a == b


def _flat(columns: pa.Table, name: str) -> tuple[NDArray[np.int64], pa.Array]:
    """A column of lists as (where each row begins, and the end; all items)."""
    import numpy as np

    array = columns.column(name).combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[:1], array.flatten()


def _row(lists: tuple[NDArray[np.int64], pa.Array], row: int) -> tuple[Any, ...]:
    offsets, items = lists
    return tuple(items[int(offsets[row]) : int(offsets[row + 1])].to_pylist())


def _check_keys(texts: list[str]) -> None:
    """Raises InvalidKey for the first text that is no canonical key.

    Texts that differ only in how large the shape, the output and the groups are have the same form; one of each form is
    parsed, and of the others only the numbers are looked at: groups must divide the channels of a conv2d.
    """
    seen: set[tuple[Any, ...]] = set()
    for text in texts:
        match = PARTS.fullmatch(text)
        if match is None:
            OpKey.parse(text)
            continue
        op, shape, out, middle, groups, tail = match.groups()
        form = (op, shape.count("x"), out is None, middle, groups if groups in (None, "1") else "", tail)
        if form not in seen or (op == "conv2d" and groups != "1" and not _divides(int(groups), shape, int(out))):
            OpKey.parse(text)
            seen.add(form)


def _durations_or_empty(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    good = pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, float(2**63 - 1)))  # refuses nan, inf
    found: NDArray[np.bool_] = pc.fill_null(good, True).to_numpy()
    return found


def _divides(groups: int, shape: str, out: int) -> bool:
    return out % groups == 0 and int(shape.split("x")[1]) % groups == 0


def _wrong_samples(samples: tuple[NDArray[np.int64], pa.Array]) -> NDArray[np.bool_]:
    """Which rows have no samples, an empty cell among them or one below 0."""
    import numpy as np
    import pyarrow.compute as pc

    offsets, items = samples
    wrong: NDArray[np.bool_] = np.diff(offsets) < 1
    if items.null_count or (len(items) and pc.min(items).as_py() < 0):
        bad = pc.fill_null(pc.less(items, 0), True).to_numpy(zero_copy_only=False)
        wrong[np.searchsorted(offsets, np.flatnonzero(bad), side="right") - 1] = True
    return wrong


def _wrong_texts(networks: tuple[NDArray[np.int64], pa.Array], kernels: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows may have a network or a kernel's name that `Entry` refuses: the few different texts are looked at once."""
    import numpy as np
    import pyarrow.compute as pc

    offsets, items = networks
    codes = pc.dictionary_encode(items, null_encoding="encode")
    bad_codes = [code for code, name in enumerate(codes.dictionary.to_pylist()) if not name or not _is_text(name)]
    numbers = codes.indices.to_numpy()
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    wrong = np.zeros(len(offsets) - 1, dtype=np.bool_)
    wrong[owner[np.isin(numbers, bad_codes)]] = True
    order = np.lexsort((numbers, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(numbers[order]) == 0)
    wrong[owner[order[1:]][same]] = True
    bad_names = [name for name in pc.unique(kernels).to_pylist() if not _is_text(name)]
    if bad_names:
        wrong |= np.isin(np.asarray(kernels.to_pylist(), dtype=object), np.asarray(bad_names, dtype=object))
    return wrong


def _is_text(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_CHARS and text.isprintable()
