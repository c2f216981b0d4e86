"""Samples beside canaries: which were disturbed, how far they follow the canary, and what is left of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency_luts.launch import (
    DISTURBED_CANARY,
    Floats,
    Launch,
    by_block,
    canary_exponent,
    canary_reference,
    corrected,
    scale,
    undisturbed,
)

REFERENCE = 500_000.0
LATENCY = st.floats(1e3, 1e9)


def launch(samples: Sequence[float] | Floats, canary: Any = REFERENCE, *, block: Any = 0, **more: Any) -> Launch:
    """A launch of these samples, all kept and none preempted unless said."""
    count = len(samples)
    return Launch(
        samples=np.array(samples, np.float64),
        canary=np.broadcast_to(np.array(canary, np.float64), count).copy(),
        block=np.broadcast_to(np.array(block, np.int64), count).copy(),
        preempted=np.broadcast_to(np.array(more.get("preempted", 0), np.int64), count).copy(),
        kept=np.broadcast_to(np.array(more.get("kept", True), np.bool_), count).copy(),
    )


def following(beta: float, *, seed: int = 0, count: int = 400, slow: float = 1.0, noise: float = 0.001) -> Launch:
    """Samples of 10 ms that follow a canary of 3 % spread to the power `beta`, in blocks of 20, all in a slow hour."""
    random = np.random.default_rng(seed)
    canary = REFERENCE * slow * np.exp(0.03 * random.standard_normal(count))
    samples = 1e7 * (canary / REFERENCE) ** beta * np.exp(noise * random.standard_normal(count))
    return launch(samples, canary, block=np.arange(count) // 20)


@pytest.mark.parametrize("beta", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("slow", [1.0, 1.2])
def test_a_planted_exponent_is_found(beta: float, slow: float) -> None:
    launches = [following(beta, seed=seed, slow=slow) for seed in range(3)]
    assert canary_exponent(launches, REFERENCE) == pytest.approx(beta, abs=0.02)


@pytest.mark.parametrize(("beta", "expected"), [(-1.0, 0.0), (2.0, 1.0)])
def test_an_exponent_stays_between_0_and_1(beta: float, expected: float) -> None:
    assert canary_exponent([following(beta)], REFERENCE) == expected


@given(st.lists(st.tuples(LATENCY, st.floats(0, 2e6), st.integers(0, 2)), max_size=30), st.floats(0, 1e6))
def test_an_exponent_of_anything_is_between_0_and_1(rows: list[tuple[float, float, int]], reference: float) -> None:
    samples, canary, block = ([row[i] for row in rows] for i in range(3))
    assert 0 <= canary_exponent([launch(samples, canary, block=block)], reference) <= 1


def test_without_a_canary_there_is_no_exponent_and_no_scale() -> None:
    one = following(1.0)
    assert canary_exponent([one], 0) == 0
    assert canary_exponent([dataclasses.replace(one, canary=np.zeros(400))], REFERENCE) == 0
    assert canary_exponent([], REFERENCE) == 0
    assert scale(one, 0, 1).tolist() == [1] * 400


def test_far_samples_do_not_pull_the_exponent() -> None:
    one = following(0.5)
    slow = np.arange(400) % 10 == 0
    pulled = dataclasses.replace(one, samples=np.where(slow, one.samples * (one.canary / REFERENCE) ** 50, one.samples))
    assert canary_exponent([pulled], REFERENCE) == pytest.approx(0.5, abs=0.05)


def test_the_scale_is_the_canary_to_its_exponent() -> None:
    one = launch([1.0, 1, 1], [REFERENCE, 4 * REFERENCE, REFERENCE / 4])
    assert scale(one, REFERENCE, 0.5).tolist() == [1, 0.5, 2]
    assert scale(one, REFERENCE, 0).tolist() == [1, 1, 1]


def test_the_reference_is_the_lower_quartile_of_the_kept_canaries() -> None:
    one = launch(np.ones(7), [0, 1, 2, 3, 4, 5, 99], kept=[True] * 6 + [False])
    assert canary_reference([one]) == 2
    assert canary_reference([one, launch([1.0], 1e6, kept=False)]) == 2
    assert canary_reference([launch([1.0], 0)]) == canary_reference([]) == 0


def test_undisturbed_leaves_out_what_the_machine_did() -> None:
    limit = DISTURBED_CANARY * REFERENCE
    canary = [REFERENCE, REFERENCE, REFERENCE, limit, limit - 1, 0]
    one = launch(np.arange(6.0), canary, preempted=[0, 2, 0, 0, 0, 0], kept=[1, 1, 0, 1, 1, 1])
    assert undisturbed(one, REFERENCE).tolist() == [True, False, False, False, True, False]
    assert undisturbed(one, 0).tolist() == [True, False, False, True, True, True]
    assert corrected(one, REFERENCE, 0).tolist() == [0, 4]
    assert corrected(one, 0, 1).tolist() == [0, 3, 4, 5]


def test_values_are_split_into_the_blocks_of_the_chosen() -> None:
    one = launch(np.arange(5.0), block=[0, 0, 1, 1, 2])
    chosen = np.array([True, True, False, True, False])
    assert [block.tolist() for block in by_block(one, one.samples[chosen], chosen)] == [[0, 1], [3]]
