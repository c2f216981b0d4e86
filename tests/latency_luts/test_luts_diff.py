"""What changed between two tables is told from noise, with few false alarms."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts import Context, Entry, InvalidTable, LatencyTable, OpKey, diff
from latency_luts.diff import holm

CONTEXT = Context(
    device="pixel", soc="", os_build="A", abi="arm64-v8a", runtime="litert", runtime_version="2.1.0", runtime_sha256="",
    delegate="xnnpack", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip
COUNT = 40


def key(width: int) -> OpKey:
    return OpKey("add", (1, width), dtype="float32")


def measured(
    seed: int,
    *,
    factor: float = 1.0,
    spread: float = 0.01,
    session: float = 0.0,
    changed: dict[int, float] | None = None,
) -> LatencyTable:
    """COUNT kernels of 20 us and up, each with noise of `spread` that its interval tells, and of `session` that it does not."""
    noise, entries = np.random.default_rng(seed), []
    for width in range(1, COUNT + 1):
        off = math.exp(math.hypot(spread, session) * noise.standard_normal())
        ns = 20_000.0 * width * factor * (changed or {}).get(width, 1.0) * off
        samples = (int(ns), int(ns) + 1)
        entries.append(Entry(key(width), ns, (ns * (1 - 1.96 * spread), ns * (1 + 1.96 * spread)), samples, (), "Add"))
    return LatencyTable(CONTEXT, tuple(entries))


def test_a_table_and_itself() -> None:
    table = measured(0)
    told = diff(table, table)
    assert (told.verdict, told.changes, told.factor, told.compared, told.scatter) == ("noise", (), 1.0, COUNT, 1.0)
    assert told.context == told.only_old == told.only_new == ()
    assert told.factor_interval is not None and told.factor_interval[0] < 1 < told.factor_interval[1]


@pytest.mark.parametrize("session", [0.0, 0.03])
def test_false_alarms_are_rarer_than_alpha(session: float) -> None:
    """Also where sessions differ by more than the intervals know."""
    pairs = ((measured(i, session=session), measured(1000 + i, session=session)) for i in range(200))
    alarms = sum(diff(*pair).verdict == "change" for pair in pairs)
    assert alarms <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_kernels_that_changed_are_found_and_no_others() -> None:
    told = diff(measured(1), measured(2, changed={3: 1.2, 30: 0.8}))
    assert told.verdict == "change" and [change.key for change in told.changes] == [key(30), key(3)]
    for change, ratio in zip(told.changes, (0.8, 1.2), strict=True):
        assert change.interval[0] < ratio < change.interval[1] and change.ratio == pytest.approx(
            change.new_ns / change.old_ns
        )
        assert change.beyond_factor and change.p_value <= 0.05
    assert told.factor == pytest.approx(1.0, abs=0.02)


def test_a_slower_machine_is_a_factor_and_no_kernel_is_beyond_it() -> None:
    told = diff(measured(1), measured(2, factor=1.1, changed={7: 1.3}))
    assert told.verdict == "change" and told.factor == pytest.approx(1.1, abs=0.01)
    assert told.factor_p_value is not None and told.factor_p_value < 1e-6
    assert len(told.changes) > COUNT / 2
    assert [change.key for change in told.changes if change.beyond_factor] == [key(7)]


def test_changes_that_matter_little_can_be_left_out() -> None:
    told = diff(measured(1, spread=1e-4), measured(2, spread=1e-4, factor=1.01), minimum_effect=0.02)
    assert told.verdict == "noise" and told.changes == () and told.factor == pytest.approx(1.01, abs=1e-3)
    assert diff(measured(1, spread=1e-4), measured(2, spread=1e-4, factor=1.01)).verdict == "change"


def test_kernels_of_one_table_and_times_of_zero() -> None:
    old, new = measured(1), measured(1)
    zero = dataclasses.replace(new.entries[5], latency_ns_median=0.0, interval_ns=(0.0, 0.0), samples_ns=(0,))
    told = diff(
        LatencyTable(CONTEXT, tuple(old.entries[:-1])),
        LatencyTable(CONTEXT, (*new.entries[1:5], zero, *new.entries[6:])),
    )
    assert (told.only_old, told.only_new, told.compared) == ((key(1),), (key(COUNT),), COUNT - 3)
    nothing = diff(LatencyTable(CONTEXT, ()), new)
    assert (nothing.factor, nothing.factor_interval, nothing.factor_p_value, nothing.verdict) == (
        None,
        None,
        None,
        "noise",
    )


def test_the_ticks_of_a_coarse_clock_are_no_change() -> None:
    """Whole microseconds: 3 and 3 us with intervals of no width are as good as 3.2 and 2.9."""

    def table(ns: float) -> LatencyTable:
        return LatencyTable(CONTEXT, (Entry(key(1), ns, (ns, ns), (2000, 3000, 3000), (), "Add"),))

    assert diff(table(3200.0), table(2900.0)).verdict == "noise"
    assert diff(table(3200.0), table(9000.0)).verdict == "change"


def test_contexts_are_compared_field_by_field() -> None:
    other = dataclasses.replace(CONTEXT, os_build="B", threads=2, created="2026-11-22")
    told = diff(LatencyTable(CONTEXT, ()), LatencyTable(other, ()))
    assert [tuple(each) for each in told.context] == [
        ("os_build", "A", "B"), ("threads", 1, 2), ("created", "2026-11-21", "2026-11-22"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": math.nan}, {"minimum_effect": -0.1}, {"minimum_effect": math.nan}],
)
def test_wrong_thresholds_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidTable, match=next(iter(asked))):
        diff(measured(1), measured(2), **asked)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_its_definition(p_values: list[float]) -> None:
    adjusted = holm(np.array(p_values))
    for alpha in (0.01, 0.05, 0.3, 0.9):
        rejected, ranked = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        for rank, i in enumerate(ranked):
            if p_values[i] * (len(p_values) - rank) > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert (adjusted >= p_values).all() and (adjusted <= 1).all()


def test_kernels_far_shorter_than_the_clocks_tick_are_noise() -> None:
    entry = Entry(key(1), 0.4, (0.0, 500.0), (1000,), (), "Add")
    told = diff(LatencyTable(CONTEXT, (entry,)), LatencyTable(CONTEXT, (entry,)))
    assert told.verdict == "noise" and told.factor_interval is not None and math.isfinite(told.factor_interval[1])
