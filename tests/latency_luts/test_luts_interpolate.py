"""Between measured kernels only, exact at them, and as far off as it says."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from latency_luts import Answer, Context, Entry, LatencyTable, MissingKernel, OpKey, family_fit, interpolate, neighbours

CONTEXT = Context(
    device="host", soc="", os_build="", abi="x86_64", runtime="onnxruntime", runtime_version="1.31.1", runtime_sha256="",
    delegate="", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip
Time = Callable[[int, int, int], float]


def conv(c_in: int, c_out: int, size: int = 14, **more: object) -> OpKey:
    fields: dict[str, object] = {"dtype": "float32", **more}
    return OpKey("conv2d", (1, c_in, size, size), c_out, **fields)  # type: ignore[arg-type]


def made(key: OpKey, ns: float, share: float = 0.0) -> Entry:
    return Entry(key, ns, (ns * (1 - share), ns * (1 + share)), (max(int(ns), 1),), (), "Conv")


def roofline(c_in: int, c_out: int, size: int) -> float:
    area = size * size
    return 2000 + 0.02 * area * c_in * c_out + 0.3 * area * (c_in + c_out) + 0.1 * c_in * c_out


def grid(time: Time, channels: Sequence[int] = (8, 16, 24, 32, 64), sizes: Sequence[int] = (7, 14, 28)) -> LatencyTable:
    points = itertools.product(channels, channels, sizes)
    return LatencyTable(CONTEXT, [made(conv(*point), time(*point)) for point in points])  # type: ignore[arg-type]


def test_a_kernel_between_measured_ones_is_told_with_its_error_and_its_neighbours() -> None:
    table = grid(roofline)
    answer = table.lookup(conv(48, 40, 20))
    (told,) = answer.interpolated
    assert (answer.kind, answer.kinds, answer.coverage, answer.entries) == ("interpolated", ("interpolated",), 0.0, ())
    assert answer.latency_ms == pytest.approx(roofline(48, 40, 20) / 1e6, rel=0.01)
    assert answer.interval_ms is not None
    low, high = answer.interval_ms
    assert low <= answer.latency_ms * (1 - told.error.half_width) + 1e-12
    assert high >= answer.latency_ms * (1 + told.error.half_width) - 1e-12
    assert told.error in answer.errors and told.error.points == 75 and told.error.tested > 60
    assert "in=1xCxSxS out=D" in told.error.family and "c_in % 4 == 0" in told.error.family
    assert 2 <= len(told.neighbours) <= neighbours.NEIGHBOURS + 2
    assert all(each in table.entries for each in told.neighbours)
    assert answer.measured_share == 0.0


def test_a_sum_says_what_it_is_made_of() -> None:
    table = grid(roofline)
    answer = table.total([conv(8, 8), conv(48, 40), conv(8, 8), conv(48, 40)])
    parts = [table.lookup(conv(8, 8)), table.lookup(conv(48, 40))]
    assert answer.latency_ms == pytest.approx(2 * sum(part.known_ms for part in parts))
    assert answer.kinds == ("measured", "interpolated") * 2 and answer.coverage == 0.5
    assert len(answer.entries) == len(answer.interpolated) == 2
    assert answer.measured_share == pytest.approx(2 * parts[0].known_ms / answer.known_ms)
    assert answer == table.total([conv(8, 8), conv(48, 40), conv(8, 8), conv(48, 40)])  # from the cache


def _refused(table: LatencyTable, key: OpKey) -> str:
    with pytest.raises(MissingKernel) as caught:
        table.lookup(key)
    report = table.lookup(key, on_missing="report")
    assert (report.kind, report.missing, report.latency_ms, report.bound_ms) == ("missing", (key,), None, None)
    return str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        conv(4, 16), conv(72, 16), conv(16, 4), conv(16, 72), conv(16, 16, 6), conv(16, 16, 29), conv(72, 72, 29),
    ],
    ids=str,
)  # fmt: skip
def test_outside_of_what_was_measured_there_is_no_answer(key: OpKey) -> None:
    text = _refused(grid(roofline, (8, 12, 16, 32, 64)), key)
    assert "not between measured ones (c_in 8 ... 64, c_out 8 ... 64, size 7 ... 28)" in text and "\n" not in text


@pytest.mark.parametrize(
    "other",
    [
        {"kernel": (3, 3)}, {"stride": (2, 2)}, {"padding": (1, 1, 1, 1)}, {"activation": "relu"}, {"dtype": "int8"},
        {"fused_add": True}, {"detail": "x"}, {"dilation": (2, 2)}, {"groups": 2},
    ],
    ids=str,
)  # fmt: skip
def test_other_families_give_no_answer(other: dict[str, object]) -> None:
    assert "no kernel of its family was measured" in _refused(grid(roofline), conv(48, 40, **other))
    batch = dataclasses.replace(conv(48, 40), input_shape=(2, 48, 14, 14))
    assert "no kernel of its family was measured" in _refused(grid(roofline), batch)


def test_channels_of_an_alignment_that_was_not_measured_have_no_answer() -> None:
    assert "alignment was measured" in _refused(grid(roofline), conv(30, 40))
    assert "c_in that 8 does not divide" in _refused(grid(roofline), conv(12, 40))
    assert "c_out that 16 does not divide" in _refused(grid(roofline, (16, 32, 48, 96)), conv(32, 40))
    assert grid(roofline, (8, 12, 16, 32, 64)).lookup(conv(20, 28)).kind == "interpolated"


def test_a_gap_too_wide_is_not_between() -> None:
    table = grid(roofline, (8, 16, 24, 264, 288, 320))
    assert "not between" in _refused(table, conv(128, 16))
    assert table.lookup(conv(304, 16)).kind == "interpolated"


def test_fewer_than_three_kernels_between_others_say_nothing_of_the_error() -> None:
    line = [made(conv(8, n), n * 1e3) for n in (8, 16, 32, 40, 48)]
    assert "fewer than 3 kernels of its family lie between" in _refused(
        LatencyTable(CONTEXT, tuple(line[:4])), conv(8, 24)
    )
    answer = LatencyTable(CONTEXT, tuple(line)).lookup(conv(8, 24))
    assert answer.interpolated[0].error.tested == 3


def test_a_cross_has_no_corners() -> None:
    """Two lines of measurements through one point say nothing of what lies between the lines' ends."""
    arms = {(n, 32) for n in (8, 16, 24, 32, 40, 48)} | {(32, n) for n in (8, 16, 24, 32, 40, 48)}
    table = LatencyTable(CONTEXT, tuple(made(conv(*point), roofline(*point, 14)) for point in sorted(arms)))
    for corner in ((16, 16), (40, 40)):
        assert "not between" in _refused(table, conv(*corner))


def test_a_diagonal_says_nothing_of_what_lies_beside_it() -> None:
    """16 -> 64 channels are each within what was measured, and a smaller and a larger kernel are near."""
    table = LatencyTable(CONTEXT, tuple(made(conv(n, n), roofline(n, n, 14)) for n in (8, 16, 24, 32, 40, 48, 56, 64)))
    assert "not between" in _refused(table, conv(24, 40))
    lone = LatencyTable(CONTEXT, tuple(each for each in table if each.key != conv(32, 32)))
    assert lone.lookup(conv(32, 32)).latency_ms == pytest.approx(roofline(32, 32, 14) / 1e6, rel=0.01)


def test_depthwise_channels_vary_together() -> None:
    def depthwise(channels: int, size: int) -> OpKey:
        return conv(channels, channels, size, groups=channels, kernel=(3, 3), padding=(1, 1, 1, 1))

    points = itertools.product((16, 32, 48, 64, 96), (7, 14, 28))
    table = LatencyTable(CONTEXT, tuple(made(depthwise(c, s), 1000 + 9 * c * s * s) for c, s in points))
    answer = table.lookup(depthwise(80, 20))
    assert answer.latency_ms == pytest.approx((1000 + 9 * 80 * 400) / 1e6, rel=0.02)
    assert "g=C" in answer.interpolated[0].error.family


def test_kernels_below_the_clock_do_not_take_part() -> None:
    line = [made(conv(8, n), n * 1e3) for n in (8, 16, 32, 40, 48, 56)]
    table = LatencyTable(CONTEXT, (*line, made(conv(8, 72), 0.0)))
    assert table.lookup(conv(8, 24)).interpolated[0].error.points == 6
    assert "not between measured ones (c_in 8 ... 8, c_out 8 ... 56" in _refused(table, conv(8, 64))
    assert table.lookup(conv(8, 72)).latency_ms == 0.0


# --- properties

_counts = st.lists(st.integers(1, 40).map(lambda n: 8 * n), min_size=5, max_size=12, unique=True)
_times = st.floats(1e3, 1e7)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data(), _counts)
def test_an_answer_is_within_its_neighbours_and_inside_of_what_was_measured(
    data: st.DataObject, counts: list[int]
) -> None:
    """Whatever the times are: no order, no smoothness."""
    table = LatencyTable(CONTEXT, tuple(made(conv(8, n), data.draw(_times)) for n in counts))
    asked = 8 * data.draw(st.integers(1, 45))
    answer = table.lookup(conv(8, asked), on_missing="report")
    if asked in counts:
        assert answer.kind == "measured"
    if not min(counts) <= asked <= max(counts):
        assert answer.kind == "missing"
    for told in answer.interpolated:
        times = [each.latency_ns_median for each in told.neighbours]
        assert min(times) <= told.latency_ns <= max(times)
        ends = [each.key.out_channels for each in told.neighbours]
        assert min(ends) < asked < max(ends)
        assert told.interval_ns[0] <= told.latency_ns <= told.interval_ns[1]
        assert told.interval_ns[0] >= 0


@settings(max_examples=40, deadline=None)
@given(_counts, st.integers(1, 40), st.floats(0, 1e5), st.floats(1, 1e4), st.floats(0.3, 2))
def test_of_monotone_times_an_answer_lies_between_the_next_below_and_above(
    counts: list[int], asked: int, constant: float, slope: float, power: float
) -> None:
    table = LatencyTable(CONTEXT, tuple(made(conv(8, n), constant + slope * n**power) for n in counts))
    answer = table.lookup(conv(8, 8 * asked), on_missing="report")
    assume(answer.kind == "interpolated")
    used = answer.interpolated[0].neighbours
    assert max(each.key.out_channels for each in used) > 8 * asked > min(each.key.out_channels for each in used)
    assert min(e.latency_ns_median for e in used) <= answer.known_ms * 1e6 * (1 + 1e-12)
    assert answer.known_ms * 1e6 <= max(e.latency_ns_median for e in used) * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_is_exact_at_measured_points(data: st.DataObject) -> None:
    """The fit itself, which a table never asks at a measured point."""
    table = LatencyTable(CONTEXT, tuple(made(conv(8, n), data.draw(_times)) for n in data.draw(_counts)))
    finder = interpolate.Interpolator(table.entries)
    for entry in table:
        told = finder.at(entry.key)
        if not isinstance(told, str):
            assert told.latency_ns == entry.latency_ns_median
            assert told.neighbours == (entry,)


def test_a_trend_does_not_lead_beyond_the_neighbours() -> None:
    """Two neighbours of 5 and 6 us, whatever a trend says that the rest of the family gave."""
    near = neighbours.Around(np.array([[-1.0, 1.0]]), np.zeros((1, 1))).neighbours(np.array([0]))
    used = near.weights[0] > 0
    assert near.used[0, used].tolist() == [0, 1]
    for own, wanted in ((1e9, 6e3), (1e-9, 5e3), (11.0, 5.5e3)):
        ns, trends = np.array([5e3, 6e3])[near.used], np.array([10.0, 12.0])[near.used]
        assert family_fit.combine(near, ns, trends, np.array([own])) == pytest.approx(wanted)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1e-3, 1e15), min_size=27, max_size=27))
def test_times_of_any_order_can_be_fitted(times: list[float]) -> None:
    points = itertools.product((8, 16, 32), (8, 16, 32), (7, 14, 28))
    table = LatencyTable(CONTEXT, tuple(made(conv(*at), ns) for at, ns in zip(points, times, strict=True)))
    for at in itertools.product((8, 16, 24), (16, 24), (10, 14)):
        answer = table.lookup(conv(*at))
        assert answer.latency_ms is not None and answer.interval_ms is not None
        assert min(times) * 0.999 <= answer.latency_ms * 1e6 <= max(times) * 1.001
        assert np.isfinite(answer.interval_ms).all()


def _without(table: LatencyTable, entry: Entry) -> LatencyTable:
    return LatencyTable(table.context, tuple(each for each in table if each is not entry))


@pytest.mark.parametrize("step", family_fit.STEPS)
def test_the_leave_one_out_error_is_that_of_tables_without_the_kernel(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(family_fit, "STEPS", (step,))
    noise = np.random.default_rng(step)
    drawn = zip(noise.integers(1, 13, 40), noise.integers(1, 13, 40), noise.choice([7, 14, 28], 40), strict=True)
    points = {(8 * int(c_in), 8 * int(c_out), int(size)) for c_in, c_out, size in drawn}
    table = LatencyTable(CONTEXT, tuple(made(conv(*p), roofline(*p) * noise.uniform(0.9, 1.1)) for p in sorted(points)))
    (told,) = (
        table.lookup(conv(48, 56, 14), on_missing="report").interpolated or table.lookup(conv(56, 40)).interpolated
    )
    errors = []
    for entry in table:
        answer = _without(table, entry).lookup(entry.key, on_missing="report")
        if answer.latency_ms is not None:
            errors.append(answer.latency_ms * 1e6 / entry.latency_ns_median - 1)
    assert told.error.tested == len(errors) and told.error.step == step
    assert told.error.rms == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)
    assert told.error.worst == pytest.approx(np.abs(errors).max(), rel=1e-9)


def test_steps_are_followed_where_they_were_measured() -> None:
    """16 channels at a time: between 48 and 64 a kernel takes what 64 takes."""

    def stepped(c_in: int, c_out: int, size: int) -> float:
        return roofline(-(-c_in // 16) * 16, -(-c_out // 16) * 16, size)

    table = grid(stepped, (8, 16, 24, 32, 48, 64))
    answer = table.lookup(conv(32, 56))
    assert answer.interpolated[0].error.step == 16
    assert answer.latency_ms == pytest.approx(stepped(32, 56, 14) / 1e6, rel=0.01)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    inside = []
    for seed in range(12):
        noise = np.random.default_rng(seed)
        every = list(itertools.product((8, 16, 24, 32, 48, 64), (8, 16, 24, 32, 48, 64), (7, 14, 28)))
        times = {at: roofline(*at) * float(np.exp(0.03 * noise.standard_normal())) for at in every}
        held = {every[i] for i in noise.permutation(len(every))[:30]}
        table = LatencyTable(CONTEXT, tuple(made(conv(*at), times[at]) for at in every if at not in held))
        for at in held:
            for told in table.lookup(conv(*at), on_missing="report").interpolated:
                inside.append(told.interval_ns[0] <= times[at] <= told.interval_ns[1])
    assert len(inside) > 200 and 0.9 <= np.mean(inside) <= 1.0


# --- bounds


def bound(answer: Answer) -> tuple[float | None, float | None]:
    assert answer.latency_ms is None and answer.interval_ms is None and answer.kind == "missing"
    assert answer.bound_ms is not None
    return answer.bound_ms


def test_a_missing_kernel_can_be_bounded_by_a_smaller_and_a_larger_one() -> None:
    table = LatencyTable(CONTEXT, tuple(made(conv(c, c), c * 1e3, 0.1) for c in (16, 32, 64, 128)))
    answer = table.lookup(conv(48, 48), on_missing="bound")
    assert bound(answer) == pytest.approx((0.9 * 0.032, 1.1 * 0.064))
    assert (answer.bounds[0].lower, answer.bounds[0].upper) == (table.entries[1], table.entries[2])


def test_bounds_know_alignment() -> None:
    """60 channels may be slower than 64, whose blocks are full; 64 may not be slower than 68."""
    table = LatencyTable(CONTEXT, tuple(made(conv(16, c), c * 1e3) for c in (16, 20, 48, 64, 68, 72)))
    (sixty,) = table.lookup(conv(16, 60), on_missing="bound", interpolate=False).bounds
    assert sixty.lower is not None and sixty.lower.key.out_channels == 48
    assert sixty.upper is not None and sixty.upper.key.out_channels == 68
    (fifty_six,) = table.lookup(conv(16, 56), on_missing="bound", interpolate=False).bounds
    assert fifty_six.lower is not None and fifty_six.lower.key.out_channels == 48
    assert fifty_six.upper is not None and fifty_six.upper.key.out_channels == 68


def test_ends_without_a_kernel_are_none_and_sums_need_all() -> None:
    table = LatencyTable(CONTEXT, tuple(made(conv(16, c), c * 1e3) for c in (16, 32)))
    assert bound(table.lookup(conv(16, 8), on_missing="bound")) == (None, None)  # 16 is larger, but better aligned
    assert bound(table.lookup(conv(16, 15), on_missing="bound")) == (None, None)
    assert table.lookup(conv(16, 48), on_missing="bound").bound_ms == (pytest.approx(0.032), None)
    assert table.lookup(conv(16, 48, kernel=(3, 3)), on_missing="bound").bound_ms == (None, None)
    answer = table.total([conv(16, 16), conv(16, 48), conv(16, 48)], on_missing="bound")
    assert answer.bound_ms == (pytest.approx(0.016 + 2 * 0.032), None) and len(answer.bounds) == 2
    assert answer.known_ms == pytest.approx(0.016)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(*[st.integers(1, 20)] * 2), min_size=1, max_size=15), st.integers(1, 20), st.integers(1, 20))
def test_bounds_hold_the_truth_of_any_order_of_size_and_alignment(
    measured: set[tuple[int, int]], a: int, b: int
) -> None:
    def time(c_in: int, c_out: int) -> float:
        full = [-(-count // 16) * 16 for count in (c_in, c_out)]
        return 100 + full[0] * full[1] * (1 + (c_in % 4 > 0) + (c_out % 4 > 0) + (c_out % 16 > 0) / 4)

    table = LatencyTable(CONTEXT, tuple(made(conv(*at), time(*at), 0.01) for at in sorted(measured)))
    answer = table.lookup(conv(a, b), on_missing="bound", interpolate=False)
    if answer.bound_ms is not None:
        low, high = answer.bound_ms
        assert low is None or low * 1e6 <= time(a, b) * (1 + 1e-9)
        assert high is None or high * 1e6 >= time(a, b) * (1 - 1e-9)
        (only,) = answer.bounds
        assert (only.lower is None) == (low is None) and (only.upper is None) == (high is None)


def test_a_table_that_contradicts_the_order_widens_the_bound() -> None:
    table = LatencyTable(CONTEXT, (made(conv(16, 16), 9e3), made(conv(16, 64), 2e3)))
    answer = table.lookup(conv(16, 32), on_missing="bound")
    assert bound(answer) == (0.002, 0.009)
    assert answer.bounds[0].lower == table.entries[0] and answer.bounds[0].upper == table.entries[1]


def test_a_table_says_how_well_it_tells_its_families_and_which_kernel_worst() -> None:
    odd = conv(24, 24, 14)

    def time(c_in: int, c_out: int, size: int) -> float:
        return roofline(c_in, c_out, size) * (3.0 if (c_in, c_out, size) == (24, 24, 14) else 1.0)

    table = grid(time)
    (error,) = table.family_errors
    assert error == table.lookup(conv(40, 40)).interpolated[0].error
    left = table.left_out_errors()
    assert len(left) == error.tested and max(left, key=lambda key: left[key]) == odd
    assert left[odd] == pytest.approx(error.worst) and left[odd] == pytest.approx(2 / 3, abs=0.1)
    assert grid(time, channels=(8,), sizes=(7, 14)).family_errors == ()
