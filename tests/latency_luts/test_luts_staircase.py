"""Steps are found where they are, and not in noise, curves or kinks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import (
    Context,
    Entry,
    InvalidTable,
    LatencyTable,
    OpKey,
    Staircase,
    TableFileError,
    load,
    round_channels,
    save,
    store,
)
from latency_luts.staircase import MAX_JUMPS, Jump, Line, detect, find, steps

CONTEXT = Context(
    device="host", soc="", os_build="", abi="x86_64", runtime="onnxruntime", runtime_version="1.31.1", runtime_sha256="",
    delegate="", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip
SMOOTH: dict[str, Callable[[Any], Any]] = {
    "affine": lambda n: 2000 + 300 * n,
    "power": lambda n: 500 * n**0.8,
    "quadratic": lambda n: 1000 + 20 * n + 0.7 * n**2,
    "kink": lambda n: np.maximum(8000, 200 * n),
    "bend": lambda n: np.where(n < 70, 3000 + 100 * n, 180 * n - 2600),
    "flat": lambda n: 5000 + 0 * n,
}


def line(counts: Any, ns: Any, spread: float = 0.002) -> Line:
    return Line(np.asarray(counts, float), np.asarray(ns, float), np.full(len(counts), spread))


def noisy(ns: Any, share: float, seed: int) -> Any:
    return ns * np.exp(share * np.random.default_rng(seed).standard_normal(len(ns)))


@pytest.mark.parametrize("share", [0.003, 0.01, 0.02])
@pytest.mark.parametrize("step", [4, 8, 16, 32])
def test_steps_are_found_in_noise(step: int, share: float) -> None:
    counts = np.arange(1, 129)
    for seed in range(20):
        found = detect([line(counts, noisy(1000 + 100 * np.ceil(counts / step) * step, share, seed))])
        assert found is not None and found[0] == step
        assert {jump.at for jump in found[1]} == set(range(step, 128, step))
        assert 0.3 <= found[2] <= 1


@pytest.mark.parametrize("shape", SMOOTH)
def test_smooth_latencies_have_no_steps_over_200_seeds(shape: str) -> None:
    """Of every measured number of channels, and of a random choice of them."""
    for seed in range(200):
        chosen = np.sort(np.random.default_rng(seed).choice(np.arange(1, 300), 60, replace=False))
        counts = (np.arange(1, 129), chosen, np.arange(2, 257, 2))[seed % 3].astype(float)
        share = (0.0, 0.003, 0.01, 0.05)[seed % 4]
        assert detect([line(counts, noisy(SMOOTH[shape](counts), share, seed))]) is None, seed


def test_a_surcharge_for_channels_that_do_not_fit_is_a_step_too() -> None:
    """As measured: a depthwise of a multiple of 4 channels runs some 3 times faster than its neighbours."""
    counts = np.arange(1, 129)
    ns = noisy(5000 + 400 * counts * np.where(counts % 4, 3.5, 1.0), 0.01, 0)
    found = detect([line(counts, ns)])
    assert found is not None and found[0] == 4


def test_several_lines_tell_what_one_cannot() -> None:
    counts = np.arange(4, 140, 4)
    lines = [line(counts, noisy((2000 + 30 * np.ceil(counts / 8) * 8) * scale, 0.02, scale)) for scale in range(1, 9)]
    assert detect(lines[:1]) is None
    found = detect(lines)
    assert found is not None and found[0] == 8


def test_multiples_of_the_step_do_not_show_it() -> None:
    counts = np.arange(16, 513, 16)
    assert detect([line(counts, 1000 + 100 * np.ceil(counts / 16) * 16)]) is None


def test_a_step_within_the_entries_intervals_is_noise() -> None:
    counts = np.arange(1, 129)
    ns = noisy(100_000 + 20 * np.ceil(counts / 8) * 8, 0.0, 0)
    assert detect([line(counts, ns, spread=0.02)]) is None  # less than 1 %, too
    assert detect([line(counts, 1000 + 100 * np.ceil(counts / 8) * 8, spread=5.0)]) is None


def test_nothing_is_said_of_few_points() -> None:
    assert detect([]) is None
    assert detect([line([1, 2, 3, 4], [1, 1, 2, 2])]) is None


# --- in a table


def conv(c_in: int, c_out: int, size: int = 14) -> OpKey:
    return OpKey("conv2d", (1, c_in, size, size), c_out, dtype="float32")


def stepped_table(step: int = 8, share: float = 0.005) -> LatencyTable:
    """Steps in the channels out at two sizes, none in the channels in."""
    noise = np.random.default_rng(0)
    entries = []
    out = [(16, n, size) for n in range(1, 65) for size in (7, 14)]
    for c_in, c_out, size in out + [(n, 64, 14) for n in range(1, 65) if n != 16]:
        ns = (500 + 2 * size * size * c_in * -(-c_out // step) * step) * float(np.exp(share * noise.standard_normal()))
        entries.append(Entry(conv(c_in, c_out, size), ns, (0.99 * ns, 1.01 * ns), (int(ns),), (), "Conv"))
    return LatencyTable(CONTEXT, tuple(entries))


def test_a_table_knows_its_staircases() -> None:
    table = stepped_table()
    (found,) = table.staircases
    assert (found.axis, found.step) == ("c_out", 8) and found.gain > 0.9
    assert "in=1xCxSxS out=D" in found.family
    assert [jump.at for jump in found.jumps] == list(range(8, 64, 8))
    assert found.jumps[0].ratio == pytest.approx((500 + 2 * 16 * 16 * 120) / (500 + 2 * 16 * 8 * 120), rel=0.1)
    assert steps(table.staircases, conv(3, 3)) == {"c_in": 1, "c_out": 8}
    assert steps(table.staircases, OpKey("add", (1, 8, 7, 7), dtype="float32")) == {"channels": 1}
    assert steps(table.staircases, OpKey("add", (1, 8, 7), dtype="float32")) == {}
    assert find(table) == find(list(table)) == table.staircases


def test_times_of_zero_are_left_out() -> None:
    table = stepped_table()
    zero = Entry(conv(16, 65), 0.0, (0.0, 0.0), (0,), (), "Conv")
    assert find([*table, zero]) == table.staircases


def test_staircases_are_kept_in_the_file_and_can_be_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = stepped_table()
    save(table, tmp_path / "table.parquet")
    loaded = load(tmp_path / "table.parquet")
    assert loaded.stored_staircases == table.staircases == find(loaded)
    with monkeypatch.context() as patch:
        patch.setattr("latency_luts.staircase.find", lambda _: pytest.fail("it is in the file"))
        assert loaded.staircases == table.staircases
    save(loaded, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "table.parquet").read_bytes()


def test_a_file_of_before_has_none_and_they_are_found() -> None:
    old = load(Path(__file__).parent / "data" / "table_v1.parquet")
    assert old.stored_staircases is None and old.staircases == ()


GOOD = {"family": "f", "axis": "c_out", "step": 8, "jumps": [[8, 1.5]], "gain": 0.9}


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ({}, "no list"), ([GOOD, GOOD], "one family and axis"), ([{}], "no latency table"), ([1], "no latency table"),
        ([{**GOOD, "more": 1}], "no latency table"), ([{**GOOD, "step": 7}], "step=7"), ([{**GOOD, "step": True}], "step=True"),
        ([{**GOOD, "axis": "size"}], "axis='size'"), ([{**GOOD, "gain": 2.0}], "gain=2.0"), ([{**GOOD, "gain": 1}], "gain=1"),
        ([{**GOOD, "family": "a\nb"}], "family="), ([{**GOOD, "family": "x" * 1001}], "family="),
        ([{**GOOD, "jumps": [[9, 1.5]]}], "jumps="), ([{**GOOD, "jumps": [[8, -1.0]]}], "jumps="),
        ([{**GOOD, "jumps": [[8, float("nan")]]}], "jumps="), ([{**GOOD, "jumps": [[8]]}], "no latency table"),
        ([{**GOOD, "jumps": [[8, 1.5]] * (MAX_JUMPS + 1)}], "jumps="),
        ([{**GOOD, "family": str(i)} for i in range(10_001)], "at most 10000"),
    ],
)  # fmt: skip
def test_wrong_staircases_in_a_file_are_refused(tmp_path: Path, stored: Any, found: str) -> None:
    path = tmp_path / "table.parquet"
    save(stepped_table(), path)
    metadata = {**pq.read_schema(path).metadata, b"handset.staircases": json.dumps(stored).encode()}
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), buffer)
    path.write_bytes(store._seal(buffer.getvalue()))
    with pytest.raises(TableFileError, match=found) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_staircase_of_wrong_types_is_refused() -> None:
    for changed in ({"jumps": [Jump(8, 1.5)]}, {"jumps": ((8, 1.5),)}, {"family": None}, {"axis": 3}):
        with pytest.raises(InvalidTable, match=f"{next(iter(changed))}="):
            Staircase(**{"family": "f", "axis": "c_out", "step": 8, "jumps": (), "gain": 0.5, **changed})  # type: ignore[arg-type]


# --- rounding


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_rounding_ends_a_step_and_never_adds_channels(count: int, step: int) -> None:
    rounded = round_channels(count, step)
    assert 1 <= rounded <= count
    assert rounded % step == 0 if count >= step else rounded == count
    assert count - rounded < step
    assert round_channels(rounded, step) == rounded


def test_rounding_by_a_staircase_and_of_nonsense() -> None:
    assert round_channels(31, Staircase("f", "c_out", 8, (), 0.5)) == 24
    for count, step in ((0, 8), (8, 0), (-1, 4)):
        with pytest.raises(ValueError, match="at least 1"):
            round_channels(count, step)
