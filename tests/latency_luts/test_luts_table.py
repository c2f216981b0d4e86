"""Tables answer exactly where all is measured, and say what is missing where not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import latency_luts
from latency_luts import Context, Entry, InvalidTable, LatencyTable, LutError, MissingKernel, OpKey

CONTEXT = Context(
    device="host", soc="EPYC", os_build="Debian GNU/Linux 12 (bookworm)", abi="x86_64", runtime="onnxruntime",
    runtime_version="1.31.1", runtime_sha256="ab" * 32, delegate="", threads=1, cpu_mask="0x2", clocks="not readable",
    handset_version="0.1.0", created="2026-11-21T14:22:33Z", simulated=False,
)  # fmt: skip


def key(width: int) -> OpKey:
    return OpKey("add", (1, width), dtype="float32")


def entry(width: int, latency_ns: float = 1000.0) -> Entry:
    return Entry(key(width), latency_ns, (latency_ns * 0.9, latency_ns * 1.2), (1, 2, 3), ("net",), "Add")


TABLE = LatencyTable(CONTEXT, (entry(1, 1e6), entry(2, 3e6)))


def test_a_measured_kernel_is_answered_with_its_entry() -> None:
    answer = TABLE.lookup(key(2))
    assert (answer.latency_ms, answer.interval_ms) == (3.0, pytest.approx((2.7, 3.6)))
    assert (answer.kind, answer.coverage, answer.missing) == ("measured", 1.0, ())
    assert answer.entries == (entry(2, 3e6),)


def test_a_total_counts_each_kernel_as_often_as_it_is_asked() -> None:
    answer = TABLE.total([key(1), key(2), key(1)])
    assert answer.latency_ms == 5.0
    assert answer.interval_ms == pytest.approx((4.5, 6.0))
    assert [used.key for used in answer.entries] == [key(1), key(2), key(1)]
    assert answer.known_ms == answer.latency_ms


def test_a_total_of_nothing_is_nothing() -> None:
    answer = TABLE.total([])
    assert (answer.latency_ms, answer.interval_ms, answer.coverage, answer.kind) == (0.0, (0.0, 0.0), 1.0, "measured")


def test_a_missing_kernel_is_an_error_that_names_it() -> None:
    with pytest.raises(MissingKernel) as caught:
        TABLE.total(iter([key(1), key(7), key(8), key(7)]))
    assert caught.value.keys == (key(7), key(8))
    assert str(key(7)) in str(caught.value)
    assert "and 1 more" in str(caught.value)
    assert caught.value.exit_status == 1


def test_a_lookup_of_a_missing_kernel_is_an_error() -> None:
    with pytest.raises(MissingKernel, match="host, onnxruntime 1.31.1"):
        TABLE.lookup(key(7))


def test_a_mistyped_on_missing_does_not_silence_the_error() -> None:
    with pytest.raises(MissingKernel):
        TABLE.lookup(key(7), on_missing="ignore")  # type: ignore[arg-type]


def test_missing_kernels_are_reported_where_that_was_asked() -> None:
    answer = TABLE.total([key(7), key(2), key(7), key(1)], on_missing="report")
    assert (answer.latency_ms, answer.interval_ms, answer.kind) == (None, None, "missing")
    assert answer.missing == (key(7), key(7))
    assert answer.coverage == 0.5
    assert answer.known_ms == 4.0
    assert TABLE.lookup(key(7), on_missing="report").known_ms == 0.0


@given(st.lists(st.integers(1, 9), max_size=30), st.sets(st.integers(1, 9)))
def test_a_total_is_the_sum_of_the_lookups(asked: list[int], measured: set[int]) -> None:
    table = LatencyTable(CONTEXT, tuple(entry(width, 1e3 * width) for width in sorted(measured)))
    answer = table.total(map(key, asked), on_missing="report")
    parts = [table.lookup(key(width), on_missing="report") for width in asked]
    assert answer.known_ms == pytest.approx(sum(part.known_ms for part in parts))
    assert len(answer.entries) + len(answer.interpolated) + len(answer.missing) == len(asked)
    assert answer.kinds == tuple(part.kind for part in parts)
    if asked:
        assert answer.coverage == pytest.approx(sum(part.coverage for part in parts) / len(asked))
    assert (answer.kind == "missing") == (answer.latency_ms is None) == any(part.missing for part in parts)


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(1, 9), st.floats(1, 1e9))
def test_a_total_grows_with_each_entry(asked: list[int], slower: int, by_ns: float) -> None:
    latencies = {width: 1e3 * width for width in range(1, 10)}
    fast = LatencyTable(CONTEXT, tuple(entry(*each) for each in latencies.items()))
    latencies[slower] += by_ns
    slow = LatencyTable(CONTEXT, tuple(entry(*each) for each in latencies.items()))
    before, after = (table.total(map(key, asked)).known_ms for table in (fast, slow))
    assert (after > before) if slower in asked else (after == before)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.sets(st.integers(1, 9)))
def test_without_interpolation_a_kernel_is_measured_or_missing(asked: list[int], measured: set[int]) -> None:
    table = LatencyTable(CONTEXT, tuple(entry(width, 1e3 * width) for width in sorted(measured)))
    answer = table.total(map(key, asked), on_missing="report", interpolate=False)
    assert answer.kinds == tuple("measured" if width in measured else "missing" for width in asked)
    assert answer.measured_share == (None if answer.missing else 1.0)
    table.total(
        map(key, asked), on_missing="report"
    )  # fills the cache of what was interpolated, which then is not used
    assert table.total(map(key, asked), on_missing="report", interpolate=False) == answer


def test_a_table_is_iterable_has_a_length_and_is_immutable() -> None:
    assert list(TABLE) == [entry(1, 1e6), entry(2, 3e6)]
    assert len(TABLE) == 2
    assert TABLE.schema_version == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE.entries = ()  # type: ignore[misc]
    assert LatencyTable(CONTEXT, [entry(1)]).entries == (entry(1),)  # type: ignore[arg-type]


def test_a_kernel_stands_in_a_table_once() -> None:
    with pytest.raises(InvalidTable, match="two entries of add"):
        LatencyTable(CONTEXT, (entry(1, 1.0), entry(2), entry(1, 2.0)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", "add"), ("latency_ns_median", float("nan")), ("latency_ns_median", float("inf")),
        ("latency_ns_median", -1.0), ("latency_ns_median", None), ("latency_ns_median", True),
        ("latency_ns_median", 10**400), ("interval_ns", (2.0, 1.0)), ("interval_ns", (1.0,)),
        ("interval_ns", (1.0, float("nan"))), ("interval_ns", [1.0, 2.0]), ("interval_ns", (-1.0, 2.0)),
        ("samples_ns", ()), ("samples_ns", [1]), ("samples_ns", (1, -1)), ("samples_ns", (1.0,)),
        ("samples_ns", (2**63,)), ("samples_ns", (True,)), ("networks", ["a"]), ("networks", ("a", "a")),
        ("networks", ("",)), ("networks", (None,)), ("networks", "net"), ("runtime_kernel", "a\nb"),
        ("runtime_kernel", None), ("runtime_kernel", "x" * 1001), ("runtime_kernel", "\ud800"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_refused_with_the_field(name: str, value: Any) -> None:
    with pytest.raises(InvalidTable, match=name) as caught:
        dataclasses.replace(entry(1), **{name: value})
    assert "\n" not in str(caught.value)


def test_whole_numbers_become_floats_and_zero_is_a_measurement() -> None:
    zero = Entry(key(1), 0, (0, 1), (0,), (), "")
    assert type(zero.latency_ns_median) is float
    assert [type(end) for end in zero.interval_ns] == [float, float]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", ""), ("runtime", ""), ("soc", None), ("os_build", "a\x1b[2J"), ("clocks", "x" * 1001),
        ("threads", 0), ("threads", True), ("threads", 1.0), ("simulated", 1), ("simulated", None),
        ("created", "yesterday"), ("created", ""), ("abi", 3),
    ],
)  # fmt: skip
def test_a_wrong_context_is_refused_with_the_field(name: str, value: Any) -> None:
    with pytest.raises(InvalidTable, match=f"{name}=") as caught:
        dataclasses.replace(CONTEXT, **{name: value})
    assert "\n" not in str(caught.value)


def test_the_public_surface() -> None:
    assert latency_luts.__all__ == sorted(latency_luts.__all__)
    assert all(hasattr(latency_luts, name) for name in latency_luts.__all__)
    errors = [each for name in latency_luts.__all__ if isinstance(each := getattr(latency_luts, name), type)]
    errors = [each for each in errors if issubclass(each, Exception)]
    assert all(issubclass(each, LutError) and each.exit_status in (1, 2) for each in errors)
    drawn = latency_luts.errors.__doc__ or ""
    assert all(f"{each.__name__} " in drawn for each in errors)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "pyarrow", "numpy", "scipy", "yaml", "devices", "pipeline")
    code = f"import sys, latency_luts; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(latency_luts.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
