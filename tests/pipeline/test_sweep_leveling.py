"""What a bundle's minute did to all its kernels is found through the kernels that bundles share."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import OpKey
from pipeline.sweep.fold import Seen
from pipeline.sweep.leveling import level
from pipeline.sweep.plan import bundles

KEYS = tuple(OpKey("conv2d", (1, 8 * n, 14, 14), 64, dtype="float32") for n in range(1, 161))
TIMES = {key: 10.0 * 1.02**number for number, key in enumerate(KEYS)}


def seen(key: OpKey, bundle: int, us: float) -> Seen:
    return Seen(key, f"bundle-{bundle}", us, 0.01, (1,), "")


def readings(effects: list[float], noise: float = 0.0, seed: int = 0, copies: int = 2) -> list[list[Seen]]:
    """Parts of three bundles each; `effects`: of each bundle, again from the first when there are more bundles."""
    rng, groups = random.Random(seed), bundles(KEYS, copies=copies, seed=seed)
    rows = [
        [
            seen(key, number % 3, TIMES[key] * math.exp(effects[number % len(effects)] + rng.gauss(0, noise)))
            for key in group
        ]
        for number, group in enumerate(groups)
    ]
    return [[one for some in rows[start : start + 3] for one in some] for start in range(0, len(rows), 3)]


def off(found: list[Seen]) -> list[float]:
    return [one.us / TIMES[one.key] for one in found]


@settings(max_examples=25, deadline=None)
@given(effects=st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=9))
def test_effects_are_taken_off_up_to_one_factor_for_all(effects: list[float]) -> None:
    found = off(level(readings(effects)))
    assert max(found) / min(found) == pytest.approx(1.0, abs=3e-3)


def test_kernels_agree_better_with_noise_too_and_what_is_left_is_in_the_interval() -> None:
    effects = [0.0, 0.15, -0.1, 0.05]
    parts = readings(effects, noise=0.02)
    before, after = off([one for part in parts for one in part]), off(level(parts))
    assert max(before) / min(before) > 1.25 > 1.15 > max(after) / min(after)
    for one in level(parts):
        assert 0.001 * one.us < one.half_us < 0.02 * one.us


def test_a_wild_kernel_does_not_move_its_neighbours() -> None:
    parts = readings([0.0, 0.1, -0.1])
    wild = [
        [dataclasses.replace(one, us=one.us * (50 if number % 10 == 0 else 1)) for number, one in enumerate(part)]
        for part in parts
    ]
    tame = [one for one in off(level(wild)) if one < 5]
    assert max(tame) / min(tame) == pytest.approx(1.0, abs=0.02)


def test_bundles_of_one_name_in_two_parts_are_two_bundles() -> None:
    found = off(level(readings([0.0, 0.0, 0.0, 0.2, 0.2, 0.2])))
    assert max(found) / min(found) == pytest.approx(1.0, abs=3e-3)


def test_what_nothing_tells_stays() -> None:
    once = readings([0.0, 0.3], copies=1)
    assert level(once) == [one for part in once for one in part]
    assert level([]) == level([[]]) == []
    few = [[one for one in part if KEYS.index(one.key) < 4] for part in readings([0.0, 0.3])]
    assert [one.us for one in level(few)] == [one.us for part in few for one in part]


def test_short_kernels_do_not_tell() -> None:
    parts = readings([0.0, 0.1])
    short = OpKey("add", (1, 8, 7, 7), dtype="float32")
    with_short = [[*part, *(seen(short, number, 2.0 + number) for number in range(3))] for part in parts]
    without = [one for one in level(with_short) if one.key != short]
    assert [one.us for one in without] == pytest.approx([one.us for one in level(parts)])
