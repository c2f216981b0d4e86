"""What a sweep measures, in which bundles, and what next: properties of pure functions."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import OpKey
from pipeline.sweep.bundle import activation_bytes, weight_bytes
from pipeline.sweep.plan import WARM, Limits, bundles, coordinates, distinct, family, next_points


def point(c_in: int, c_out: int, side: int = 14) -> OpKey:
    return OpKey("conv2d", (1, c_in, side, side), c_out, dtype="float32")


def depthwise(channels: int, side: int = 14) -> OpKey:
    return OpKey(
        "conv2d", (1, channels, side, side), channels, (3, 3), padding=(1,) * 4, groups=channels, dtype="float32"
    )


POINTS = st.builds(point, st.integers(1, 600), st.integers(1, 600), st.sampled_from([7, 14, 28, 56, 112]))


def test_each_kernel_of_some_networks_is_there_once_with_those_that_have_it() -> None:
    a, b, c = point(8, 8), point(8, 16), depthwise(8)
    assert distinct({"one": [a, b, a], "two": [c, a]}) == {a: ("one", "two"), b: ("one",), c: ("two",)}
    assert list(distinct({"one": [b, a]})) == [b, a] and distinct({}) == {}


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(POINTS, max_size=150), copies=st.integers(1, 4), seed=st.integers(0, 9), size=st.integers(1, 60))
def test_each_kernel_is_in_as_many_bundles_as_asked_and_no_bundle_is_over_its_limits(
    keys: list[OpKey], copies: int, seed: int, size: int
) -> None:
    limits = Limits(size, 1 << 20, 8 << 20)
    dealt = bundles(keys, copies=copies, limits=limits, seed=seed)
    assert sorted(map(str, itertools.chain(*dealt))) == sorted(str(key) for key in set(keys) for _ in range(copies))
    for one in dealt:
        assert 1 <= len(one) <= size and len(set(one)) == len(one)
        assert len(one) == 1 or sum(map(weight_bytes, one)) <= limits.weight_bytes
        assert len(one) == 1 or sum(map(activation_bytes, one)) <= limits.activation_bytes
    assert dealt == bundles(keys, copies=copies, limits=limits, seed=seed)


def test_neighbours_change_from_copy_to_copy_and_bundles_are_even() -> None:
    keys = [point(8 * i, 8 * j) for i in range(1, 11) for j in range(1, 11)]
    dealt = bundles(keys, copies=2, seed=3)
    assert [len(one) for one in dealt] == pytest.approx([100 / 3] * 6, abs=3)
    first, second = dealt[:3], dealt[3:]
    shared = [len(set(a) & set(b)) for a in first for b in second]
    assert max(shared) < 25  # 11 by chance
    assert bundles(keys, seed=4) != dealt


@pytest.mark.parametrize("seed", range(10))
def test_every_bundle_has_its_share_of_large_tensors(seed: int) -> None:
    keys = [point(8 + i, 8, side) for i in range(10) for side in (7, 14, 28, 112)]
    dealt = bundles([*keys, *(point(8, 9 + i, 7) for i in range(80))], copies=1, seed=seed)
    large = [sum(key.input_shape[2] == 112 for key in one) for one in dealt]
    assert sum(large) == 10 and len(large) == 3 and max(large) - min(large) <= 2


def test_a_kernel_that_is_too_large_for_small_bundles_has_its_own_and_spreads_the_others_no_thinner() -> None:
    large = [point(8, 8, 448), point(800, 800)]
    dealt = bundles([*large, *(point(8, 8 + i, 7) for i in range(24))], copies=1, limits=WARM)
    assert sorted(map(len, dealt)) in ([1, 1, 12, 12], [1, 1, 8, 8, 8])
    assert all([key] in dealt for key in large)


def test_no_kernels_make_no_bundles() -> None:
    assert bundles([]) == []


# the adaptive sampler


def test_the_next_point_is_where_the_error_is_largest() -> None:
    errors = {point(16, 16): 0.01, point(64, 64): 0.20, point(256, 256): 0.02}
    candidates = [point(24, 16), point(96, 64), point(384, 256)]  # each as far from its neighbour
    assert next_points(candidates, errors, 2) == [point(96, 64), point(384, 256)]


def test_the_next_point_is_the_farthest_where_errors_are_alike() -> None:
    errors = {point(16, 16): 0.1, point(256, 16): 0.1}
    candidates = [point(24, 16), point(64, 16), point(240, 16)]
    assert next_points(candidates, errors, 3)[0] == point(64, 16)


def test_chosen_points_count_as_measured_so_that_the_next_is_elsewhere() -> None:
    errors = {point(16, 16): 0.1, point(16, 1024): 0.1}
    near = [point(64, 16), point(66, 16), point(68, 16)]
    chosen = next_points([*near, point(48, 1024)], errors, 2)
    assert chosen == [point(68, 16), point(48, 1024)]


def test_a_family_of_which_nothing_is_known_comes_first() -> None:
    errors = {point(16, 16): 5.0}
    assert next_points([point(512, 512), depthwise(64)], errors, 1) == [depthwise(64)]


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(POINTS, max_size=30),
    measured=st.dictionaries(POINTS, st.floats(0, 1), max_size=10),
    count=st.integers(0, 40),
)
def test_chosen_points_are_new_candidates_each_once(
    points: list[OpKey], measured: dict[OpKey, float], count: int
) -> None:
    chosen = next_points(points, measured, count)
    waiting = set(points) - set(measured)
    assert set(chosen) <= waiting and len(set(chosen)) == len(chosen) == min(count, len(waiting))


@pytest.mark.parametrize("error", [-0.1, math.nan])
def test_an_error_that_is_none_is_refused(error: float) -> None:
    with pytest.raises(ValueError, match="leave-one-out"):
        next_points([point(8, 8)], {point(16, 16): error}, 1)


def test_thousands_of_candidates_are_chosen_from_within_seconds() -> None:
    candidates = [point(i, j) for i in range(8, 1008, 8) for j in range(8, 808, 8)]
    start = time.perf_counter()
    assert len(next_points(candidates, {point(8, 8): 0.1}, 200)) == 200
    assert time.perf_counter() - start < 10


def test_a_family_is_all_but_sizes() -> None:
    assert family(point(8, 8, 7)) == family(point(90, 1, 112)) and family(depthwise(8)) == family(depthwise(96, 7))
    others = [depthwise(8), replace(point(8, 8), activation="relu"), replace(point(8, 8), stride=(2, 2))]
    others += [
        replace(point(8, 8), groups=4),
        replace(point(8, 8), kernel=(3, 3)),
        OpKey("add", (1, 8, 7, 7), dtype="float32"),
    ]
    assert len({family(key) for key in [point(8, 8), *others]}) == 7
    assert coordinates(point(8, 32, 16)) == (0, 3, 4, 4, 5)
    assert coordinates(OpKey("add", (1, 8), dtype="float32")) == (0, 3, 0)
