"""What is ordered otherwise, and whether a claim holds: intervals decide, printed speeds that are equal do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.guidelines.experiment.orderings import FAILS, HOLDS, OPEN, Speed, compare, judge, surely_faster


def speed(label: str, paper: float, here: float | None, half: float = 0.01, macs: int = 100) -> Speed:
    if here is None:
        return Speed(label, macs, paper)
    return Speed(label, macs, paper, here, (here * (1 - half), here * (1 + half)))


def test_a_pair_that_is_the_other_way_round_is_found_with_both_ratios() -> None:
    found = compare([speed("a", 40.0, 100), speed("b", 30.0, 125), speed("c", 20.0, 50)])
    assert found.same == 2 and found.open == 0
    (one,) = found.reversals
    assert (one.faster, one.slower) == ("b", "a")
    assert one.here == pytest.approx(0.25) and one.paper == pytest.approx(0.25)
    assert not one.by_macs


def test_intervals_that_overlap_order_nothing() -> None:
    found = compare([speed("a", 40.0, 100, half=0.02), speed("b", 30.0, 103, half=0.02)])
    assert (found.same, found.open, found.reversals) == (0, 1, ())


def test_speeds_that_are_equal_in_print_and_networks_that_failed_are_in_no_pair() -> None:
    found = compare([speed("a", 2.3, 100), speed("b", 2.3, 200), speed("c", 2.2, None)])
    assert (found.same, found.open, found.reversals) == (0, 0, ())


@pytest.mark.parametrize(("macs", "explained"), [(90, True), (97, False)])
def test_a_network_that_is_faster_by_its_fewer_macs_alone_is_told_so(macs: int, explained: bool) -> None:
    (one,) = compare([speed("a", 40.0, 100), speed("b", 30.0, 105, macs=macs)]).reversals
    assert one.by_macs is explained and one.fewer_macs == pytest.approx(1 - macs / 100)


def test_the_clearest_reversal_comes_first() -> None:
    found = compare([speed("a", 40.0, 100), speed("b", 30.0, 110), speed("c", 20.0, 150)]).reversals
    assert [(one.faster, one.slower) for one in found] == [("c", "a"), ("c", "b"), ("b", "a")]


@pytest.mark.parametrize(
    ("b", "c", "verdict"), [(90, 80, HOLDS), (90, 99.5, OPEN), (90, 110, FAILS), (99.5, 110, FAILS), (90, None, OPEN)]
)
def test_a_claim_holds_where_all_of_its_pairs_are_sure(b: float, c: float | None, verdict: str) -> None:
    speeds = [speed("a", 3, 100), speed("b", 2, b), speed("c", 1, c)]
    judged = judge(speeds, [("a", "b"), ("a", "c")])
    assert judged.verdict == verdict
    assert len(judged.confirmed) + len(judged.against) + len(judged.open) == 2


def test_a_claim_without_a_measured_pair_is_open() -> None:
    assert judge([speed("a", 3, None), speed("b", 2, 5)], [("a", "b")]).verdict == OPEN


values = st.tuples(st.floats(1, 1000), st.floats(0.1, 100), st.floats(0, 0.2))


@given(st.lists(values, max_size=7))
def test_every_pair_is_counted_once_and_no_pair_is_faster_both_ways(rows: list[tuple[float, float, float]]) -> None:
    speeds = [speed(str(i), paper, here, half) for i, (here, paper, half) in enumerate(rows)]
    found = compare(speeds)
    pairs = sum(a.paper != b.paper for i, a in enumerate(speeds) for b in speeds[i + 1 :])
    assert found.same + found.open + len(found.reversals) == pairs
    assert not any(surely_faster(a, b) and surely_faster(b, a) for a in speeds for b in speeds)
    by_label = {one.label: one for one in speeds}
    for one in found.reversals:
        assert by_label[one.faster].paper < by_label[one.slower].paper and one.here > 0 and 0 < one.paper < 1
