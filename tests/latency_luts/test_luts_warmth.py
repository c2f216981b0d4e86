"""Small networks find their kernels warm: a sum lies between warm and cold, as the curve says, and nowhere else."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import Context, Entry, InvalidTable, InvalidWarmth, LatencyTable, OpKey, WarmthPoint
from latency_luts.warmth import cold_share

CONTEXT = Context("a", "", "", "", "litert", "", "", "xnnpack", 1, "", "", "", "2026-01-01T00:00:00Z", False)
CURVE = (WarmthPoint(1.0, 0.0), WarmthPoint(4.0, 1.0))


def conv(c_in: int, c_out: int = 16) -> OpKey:
    return OpKey("conv2d", (1, c_in, 14, 14), c_out, dtype="float32")


def entry(key: OpKey, cold_ms: float, warm_ms: float | None = None) -> Entry:
    ns = cold_ms * 1e6
    return Entry(key, ns, (0.9 * ns, 1.1 * ns), (1,), (), "", None if warm_ms is None else warm_ms * 1e6)


def table(*entries: Entry, warmth: tuple[WarmthPoint, ...] = CURVE) -> LatencyTable:
    return LatencyTable(CONTEXT, entries, warmth=warmth)


@pytest.mark.parametrize(("times", "expected_ms", "cold"), [(1, 0.3, 0.0), (2, 0.6, 0.0), (4, 1.6, 0.5), (10, 5.0, 1.0)])
def test_a_small_network_is_warm_a_large_one_cold(times: int, expected_ms: float, cold: float) -> None:
    made = table(entry(conv(8), 0.5, 0.3))
    answer = made.total([conv(8)] * times)
    assert answer.latency_ms == pytest.approx(expected_ms) and answer.cold == pytest.approx(cold)
    assert answer.interval_ms is not None
    saved = 0.5 * times - expected_ms
    assert answer.interval_ms == pytest.approx((0.45 * times - saved, 0.55 * times - saved))
    assert answer.kind == "measured" and answer.coverage == 1


def test_one_kernel_alone_is_told_as_in_a_large_network() -> None:
    assert table(entry(conv(8), 0.5, 0.3)).lookup(conv(8)).latency_ms == 0.5


def test_without_a_curve_or_a_warm_time_kernels_are_cold() -> None:
    assert table(entry(conv(8), 0.5, 0.3), warmth=()).total([conv(8)]).latency_ms == 0.5
    answer = table(entry(conv(8), 0.25, 0.05), entry(conv(16), 0.5)).total([conv(8), conv(16)])
    assert answer.latency_ms == pytest.approx(0.55) and answer.cold == 0


def test_what_is_interpolated_is_as_warm_as_its_neighbours() -> None:
    entries = [entry(conv(8 * i, 8 * j), 0.001 * i * j, 0.0005 * i * j) for i in range(1, 7) for j in range(1, 7)]
    left_out = table(*(each for each in entries if each.key != conv(24, 24)))
    answer = left_out.total([conv(24, 24)])
    assert answer.kind == "interpolated" and answer.latency_ms is not None
    assert answer.latency_ms == pytest.approx(answer.interpolated[0].latency_ns / 2e6)


def test_with_a_kernel_missing_the_known_ones_are_told_cold() -> None:
    made = table(entry(conv(8), 0.5, 0.3))
    answer = made.total([conv(8), conv(999)], on_missing="bound")
    assert answer.latency_ms is None and answer.known_ms == 0.5 and answer.cold == 1
    assert made.total([conv(8)]).latency_ms == pytest.approx(0.3)


@given(st.floats(1e-6, 1e6))
def test_the_share_lies_between_its_neighbours_and_is_linear_in_the_logarithm(total_ms: float) -> None:
    share = cold_share(CURVE, total_ms)
    assert share == pytest.approx(min(1.0, max(0.0, math.log(total_ms) / math.log(4))), abs=1e-9)
    assert cold_share((), total_ms) == 1


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(0, 1)), min_size=1, max_size=8, unique_by=lambda point: point[0]),
    st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=9),
)
def test_a_longer_network_is_never_warmer(drawn: list[tuple[float, float]], totals: list[float]) -> None:
    times, shares = zip(*drawn, strict=True)
    points = tuple(WarmthPoint(*pair) for pair in zip(sorted(times), sorted(shares), strict=True))
    told = [cold_share(points, total) for total in sorted(totals)]
    assert all(before <= after + 1e-12 for before, after in pairwise(told))
    assert all(0 <= share <= 1 for share in told)


@pytest.mark.parametrize(
    "wrong",
    [
        [WarmthPoint(1.0, 0.0)],
        ((1.0, 0.0),),
        (WarmthPoint(1, 0.0),),
        (WarmthPoint(0.0, 0.0),),
        (WarmthPoint(float("nan"), 0.0),),
        (WarmthPoint(1.0, 1.5),),
        (WarmthPoint(1.0, 0.0), WarmthPoint(1.0, 1.0)),
        (WarmthPoint(1.0, 0.5), WarmthPoint(2.0, 0.4)),
        tuple(WarmthPoint(float(i + 1), 0.0) for i in range(101)),
    ],
)
def test_a_curve_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidWarmth):
        LatencyTable(CONTEXT, (), warmth=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "1", True])
def test_a_warm_time_that_cannot_be_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidTable, match="warm_ns"):
        Entry(conv(8), 1.0, (1.0, 1.0), (1,), (), "", wrong)  # type: ignore[arg-type]
