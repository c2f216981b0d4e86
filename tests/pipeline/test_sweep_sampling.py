"""What a build measures next: lines that show steps, kernels told too loosely, kernels told worst; an error that only falls."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import Context, Entry, LatencyTable, OpKey
from pipeline.errors import UsageError
from pipeline.sweep.grid import Grid
from pipeline.sweep.plan import COLD, WARM
from pipeline.sweep.sampling import LINE, candidates, error_of, expected_error, lines, next_round, wide

CONTEXT = Context("a", "", "", "", "litert", "", "", "xnnpack", 1, "", "", "", "2026-01-01T00:00:00Z", False)


def conv(c_in: int, c_out: int, size: int = 14, act: str = "relu6", **more: object) -> OpKey:
    return OpKey("conv2d", (1, c_in, size, size), c_out, activation=act, dtype="float32", **more)  # type: ignore[arg-type]


def depthwise(channels: int) -> OpKey:
    return conv(channels, channels, kernel=(3, 3), padding=(1, 1, 1, 1), groups=channels)


def entry(key: OpKey, us: float, half: float = 0.01) -> Entry:
    ns = 1e3 * us
    return Entry(key, ns, (ns * (1 - half), ns * (1 + half)), (int(ns),), (), "conv")


def table(*entries: Entry) -> LatencyTable:
    return LatencyTable(CONTEXT, entries)


def test_lines_vary_one_count_of_the_commonest_kinds() -> None:
    own = [conv(16, 96), conv(24, 144), conv(32, 192, act="none"), depthwise(96), conv(3, 32, 224, kernel=(3, 3))]
    found = lines(own, kinds=1)
    assert {key.activation for key in found} == {"relu6"} and {key.groups for key in found} == {1}
    assert {key.out_channels for key in found if key.input_shape[1] == 64} >= set(LINE)
    assert {key.input_shape[1] for key in found if key.out_channels == 64} >= set(LINE)
    more = lines(own)
    assert {key.input_shape[1] for key in more if key.groups > 1} == set(LINE)
    assert not any(key.input_shape[1] == 3 for key in more), "a first layer has no line"


def test_wide_intervals_come_back_by_how_much_they_hide_and_short_kernels_do_not() -> None:
    told = ((8, 100, 0.05), (16, 1000, 0.03), (24, 50, 0.01), (32, 2, 0.9))
    rows = [entry(conv(8, count), us, half) for count, us, half in told]
    assert wide(rows, 0.02) == [conv(8, 16), conv(8, 8)]


def test_a_round_is_shared_by_the_loosely_told_and_the_new() -> None:
    rows = [entry(conv(8 * i, 16), 10.0 * i, 0.1) for i in range(1, 9)]
    points = [conv(8 * i, 16) for i in range(1, 30)]
    rounds = {one.purpose: one for one in next_round(table(*rows), points, 12, 0.02, {})}
    assert len(rounds["narrow"].keys) == 6 and rounds["narrow"].copies == 1
    assert len(rounds["explore"].keys) == 3 and rounds["explore"].copies == 2
    assert not set(rounds["explore"].keys) & {row.key for row in rows}
    assert rounds["warm"].keys == rounds["explore"].keys and rounds["warm"].copies == 1
    assert [one.limits for one in rounds.values()] == [COLD, WARM, COLD]


def test_what_cannot_be_measured_is_not_asked_for_again() -> None:
    rows = [entry(conv(8, 16), 10.0)]
    lost = {conv(16, 16): "it ran as another kernel"}
    assert next_round(table(*rows), [conv(16, 16)], 80, 0.02, lost) == []


def test_candidates_are_dense_at_the_tables_steps_and_never_far_larger_than_the_networks() -> None:
    own = [conv(32, 64)]
    # 16 channels are computed at a time, whatever their number
    rows = [entry(conv(32, count), 10.0 * math.ceil(count / 16)) for count in range(16, 100)]
    found = candidates(own, Grid(width_points=3, kernel_sizes=(3,)), table(*rows))
    counts = {key.out_channels for key in found}
    assert {64, 65} <= counts and {count for count in counts if count % 16 == 1}
    assert max(key.input_shape[1] * key.out_channels for key in found) <= 2 * 32 * 64
    with pytest.raises(UsageError, match="max_points"):
        candidates(own, Grid(width_points=4000, max_points=10), table(*rows))


def test_what_takes_next_to_nothing_is_not_measured_for_its_large_share() -> None:
    """Both families are off by the same share; the candidates lie beside the measured ones of each."""
    long = [entry(conv(8 * i, 16), 100.0 * (1 + i % 2)) for i in range(1, 9)]
    short = [entry(conv(8 * i, 16, size=2), 0.1 * (1 + i % 2)) for i in range(1, 9)]
    points = [conv(8 * i + 4, 16, size=size) for i in range(1, 8) for size in (14, 2)]
    (explored, *_) = next_round(table(*long, *short), points, 14, 0.5, {})
    assert explored.purpose == "explore" and {key.input_shape[2] for key in explored.keys} == {14}


def test_the_error_is_that_of_all_kernels_by_their_time() -> None:
    rows = [entry(conv(8 * i, 16), 100.0 * i) for i in range(1, 9)]
    odd = [entry(conv(8 * i, 16, kernel=(3, 3), padding=(1, 1, 1, 1)), 0.001 * (1 + 9 * (i % 2))) for i in range(1, 9)]
    alone, error = error_of(table(*rows)), error_of(table(*rows, *odd))
    assert alone is not None and error is not None and error < alone + 0.02
    much = error_of(table(*odd))
    assert much is not None and much > 0.5


def test_the_error_of_a_smooth_family_is_small() -> None:
    assert error_of(table(entry(conv(8, 8), 1.0))) is None
    rows = [entry(conv(8 * i, 8 * j), float(i * j)) for i in range(1, 7) for j in range(1, 7)]
    error = error_of(table(*rows))
    assert error is not None and 0 <= error < 0.05


@given(
    st.integers(2, 10_000), st.floats(1e-4, 1), st.integers(1, 10_000), st.floats(1e-4, 1), st.integers(1, 100_000)
)  # fmt: skip
def test_an_expected_error_never_rises(first: int, before: float, more: int, now: float, beyond: int) -> None:
    expected = expected_error([(first, before), (first + more, now)], first + more + beyond)
    assert expected is not None and 0 <= expected <= now


def test_an_expected_error_is_a_power_law() -> None:
    assert expected_error([(100, 0.1), (200, 0.05)], 400) == pytest.approx(0.025)
    assert expected_error([(100, 0.1)], 400) is None
