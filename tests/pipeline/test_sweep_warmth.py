"""The curve between warm and cold kernels: a made-up machine whose caches are a known function, and what noise must not do."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import Context, LatencyTable, OpKey, WarmthPoint
from latency_luts.warmth import checked, cold_share
from pipeline.console import Console
from pipeline.errors import UsageError
from pipeline.runfolder import RunFolder, write_json
from pipeline.settings import Settings
from pipeline.sweep import build as building
from pipeline.sweep import part as parts
from pipeline.sweep.bundle import activation_bytes, weight_bytes
from pipeline.sweep.fold import Seen, Whole
from pipeline.sweep.measure import Readings, combine
from pipeline.sweep.plan import COLD, WARM, Limits, bundles
from pipeline.sweep.request import BuildRequest
from pipeline.sweep.warmth import LEVELS, between, curve, sample

CONTEXT = Context("a", "", "", "", "litert", "", "", "xnnpack", 1, "", "", "", "2026-01-01T00:00:00Z", False)
ADDED_US = 2.0
WARM_MS, COLD_MS = 1.0, 8.0


def conv(c_in: int, c_out: int, side: int) -> OpKey:
    return OpKey("conv2d", (1, c_in, side, side), c_out, dtype="float32")


SIZES = {112: (16, 24, 32), 56: (24, 32, 64, 96), 28: (32, 64, 128, 192), 14: (64, 96, 192, 384), 7: (128, 256, 320, 576)}
KEYS = tuple(conv(a, b, side) for side, widths in SIZES.items() for a in widths for b in widths)


# a machine whose kernels are as cold as the whole takes long: linear in its logarithm between WARM_MS and COLD_MS


def coldness(total_ms: float) -> float:
    return min(1.0, max(0.0, math.log(total_ms / WARM_MS) / math.log(COLD_MS / WARM_MS)))


def time_us(key: OpKey, cold: float) -> float:
    macs = math.prod(key.input_shape) * key.out_channels
    return 1 + macs / 20e3 + cold * (weight_bytes(key) / 3e3 + activation_bytes(key) / 15e3)


def state_of(keys: Sequence[OpKey], more_us: float = 0.0) -> float:
    """What state a model of these kernels, with producers and consumers of `more_us`, settles in."""
    cold = 0.5
    for _ in range(40):
        cold = (cold + coldness(1e-3 * (more_us + sum(time_us(key, cold) for key in keys)))) / 2
    return cold


def read(groups: Sequence[Sequence[OpKey]], noise: float = 0.0, seed: int = 0) -> Readings:
    rng, seen, whole = random.Random(seed), [], {}
    for number, group in enumerate(groups):
        cold, name = state_of(group, 2.0 * len(group)), f"bundle-{number:04d}"
        told = [time_us(key, cold) * rng.gauss(1, noise) + ADDED_US for key in group]
        seen += [Seen(key, name, us, 0.1, (int(us),), "conv") for key, us in zip(group, told, strict=True)]
        whole[name] = Whole(sum(told) + len(group) * 2 * (1.0 + ADDED_US), 3 * len(group))
    return Readings(tuple(seen), (ADDED_US, ADDED_US), {}, whole)


@functools.cache
def measured(keys: tuple[OpKey, ...], noise: float = 0.0) -> dict[Limits, list[Readings]]:
    return {
        limits: [read(bundles(keys, copies=1, limits=limits, seed=number), noise, number)]
        for number, limits in enumerate(LEVELS)
    }


def test_the_curve_is_that_of_the_machine() -> None:
    points = curve(measured(KEYS), ADDED_US)
    assert len(points) >= 4 and checked(points) == points
    assert points[0].cold == 0 and points[-1].cold == 1
    warm, cold = (sum(time_us(key, state) for key in KEYS) for state in (0.0, 1.0))
    for point in points[1:-1]:
        # the machine goes by what a model takes, the curve by what it would take if it were cold
        taken_ms = point.total_ms * (warm + point.cold * (cold - warm)) / cold
        assert point.cold == pytest.approx(coldness(taken_ms), abs=0.1)


def test_a_table_with_it_tells_networks_of_every_size() -> None:
    levels = measured(KEYS)
    found = combine(levels[COLD], levels[WARM])
    points = curve(levels, found.overhead.ns / 1e3)
    cold, warm = LatencyTable(CONTEXT, found.entries), LatencyTable(CONTEXT, found.entries, warmth=points)
    rng, misses, misses_cold = random.Random(3), [], []
    for count in (4, 6, 10, 20, 40, 80, 160):
        network = rng.choices(KEYS, k=count)
        truth = 1e-3 * sum(time_us(key, state_of(network)) for key in network)
        for table, into in ((warm, misses), (cold, misses_cold)):
            into.append(abs((table.total(network).latency_ms or 0) / truth - 1))
    assert max(misses) < 0.05 < 0.15 < max(misses_cold)


@settings(max_examples=30, deadline=None)
@given(noise=st.sampled_from([0.0, 0.02, 0.3]), seed=st.integers(0, 99), left_out=st.sets(st.sampled_from(LEVELS[1:-1])))
def test_any_curve_is_one_that_a_table_takes(noise: float, seed: int, left_out: set[Limits]) -> None:
    keys = tuple(random.Random(seed).sample(KEYS, 40))
    levels = {limits: told for limits, told in measured(keys, noise).items() if limits not in left_out}
    points = curve(levels, ADDED_US)
    assert checked(points) == points
    assert not points or (points[0].cold, points[-1].cold) == (0.0, 1.0)


def scaled(key: OpKey, where: Limits, factor: float) -> dict[Limits, list[Readings]]:
    found = {limits: list(parts) for limits, parts in measured(KEYS).items()}
    (part,) = found[where]
    seen = tuple(
        Seen(one.key, one.bundle, one.us * (factor if one.key == key else 1), 0.1, one.samples_us, "conv")
        for one in part.seen
    )
    found[where] = [Readings(seen, part.added_us, {}, part.whole)]
    return found


@pytest.mark.parametrize(("where", "factor"), [(WARM, 30.0), (LEVELS[2], 0.1), (LEVELS[2], 30.0)])
def test_a_kernel_that_was_disturbed_at_one_size_does_not_bend_the_curve(where: Limits, factor: float) -> None:
    straight, bent = curve(measured(KEYS), ADDED_US), curve(scaled(KEYS[-1], where, factor), ADDED_US)
    for total_ms in (0.2, 0.5, 1, 2, 4, 8, 16):
        assert cold_share(bent, total_ms) == pytest.approx(cold_share(straight, total_ms), abs=0.05)


def test_kernels_that_are_not_at_every_size_do_not_count() -> None:
    levels, wanted = measured(KEYS[::2]), curve(measured(KEYS[::2]), ADDED_US)
    # as explored ones, which are measured warm and cold only: one that is far off would be seen
    seen = tuple(Seen(key, "x", 1e6, 0.1, (1,), "conv") for key in (*KEYS[1::2], *KEYS[1::2]))
    odd = Readings(seen, (), {}, {"x": Whole(1e6, 1)})
    assert curve({**levels, COLD: [*levels[COLD], odd]}, ADDED_US) == wanted


def test_there_is_no_curve_without_both_ends_or_a_difference() -> None:
    levels = measured(KEYS)
    assert curve({}, 0.0) == curve({COLD: levels[COLD]}, 0.0) == curve({WARM: levels[WARM], COLD: []}, 0.0) == ()
    assert curve({WARM: levels[COLD], COLD: levels[COLD]}, ADDED_US) == ()
    backwards = {WARM: levels[COLD], COLD: levels[WARM]}
    assert curve(backwards, ADDED_US) == ()
    old = [Readings(part.seen, part.added_us, {}) for part in levels[COLD]]  # says not how long its bundles took
    assert curve({**levels, COLD: old}, ADDED_US) == ()


def one_kernel(us: Mapping[Limits, float], totals_us: Mapping[Limits, float]) -> dict[Limits, list[Readings]]:
    return {
        limits: [Readings((Seen(KEYS[0], "x", us[limits], 0, (1,), "conv"),), (), {}, {"x": Whole(totals_us[limits], 5)})]
        for limits in us
    }


def test_a_difference_within_the_noise_is_none() -> None:
    totals = {WARM: 300.0, COLD: 9000.0}
    assert curve(one_kernel({WARM: 100, COLD: 101.9}, totals), 0.0) == ()
    assert curve(one_kernel({WARM: 100, COLD: 102.1}, totals), 0.0) != ()


def test_bundles_that_take_as_long_as_each_other_are_of_one_size() -> None:
    us = {WARM: 100.0, COLD: 100.0 * 1.2}
    assert curve(one_kernel(us, {WARM: 300.0, COLD: 480.0}), 0.0) == ()
    assert curve(one_kernel(us, {WARM: 300.0, COLD: 720.0}), 0.0) == (WarmthPoint(0.36, 0.0), WarmthPoint(0.72, 1.0))


def test_the_profilers_share_is_taken_off_both_the_kernels_and_the_whole() -> None:
    us, totals = {WARM: 100.0, COLD: 150.0}, {WARM: 300.0, COLD: 6000.0}
    (low, high) = curve(one_kernel(us, totals), 10.0)
    assert low.total_ms == pytest.approx(0.25 * 140 / 90) and high.total_ms == pytest.approx(5.95)


def test_shares_never_fall_and_a_size_out_of_order_is_left_out() -> None:
    names = (WARM, LEVELS[1], LEVELS[2], LEVELS[3], COLD)
    us = dict(zip(names, (100.0, 160.0, 140.0, 110.0, 200.0), strict=True))
    totals = dict(zip(names, (100.0, 1000.0, 2000.0, 90.0 * 1.1 / 2, 9000.0), strict=True))
    points = curve(one_kernel(us, totals), 0.0)
    assert [point.cold for point in points] == pytest.approx([0, 0.5, 0.5, 1])
    assert [point.total_ms for point in points] == pytest.approx([0.2, 1.25, 2.0 * 200 / 140, 9.0])


# the sample


def test_sizes_that_few_kernels_do_not_fill_are_left_out() -> None:
    assert between(KEYS[-16:-12]) == between([]) == []
    found = between(KEYS)
    assert found == list(LEVELS[1:4]) and len(bundles(KEYS, copies=1, limits=LEVELS[4])) == len(bundles(KEYS, copies=1))


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.sampled_from(KEYS), max_size=80), count=st.integers(1, 60))
def test_a_sample_is_of_the_kernels_each_once_and_as_many_as_asked(keys: list[OpKey], count: int) -> None:
    found = sample(keys, count)
    assert set(found) <= set(keys) and len(set(found)) == len(found) == min(count, len(set(keys)))


def test_a_sample_has_every_kind_and_small_and_large_kernels_of_each() -> None:
    depthwise = [
        OpKey("conv2d", (1, n, 14, 14), n, (3, 3), padding=(1,) * 4, groups=n, dtype="float32") for n in range(8, 48)
    ]
    pool = OpKey("avg_pool2d", (1, 64, 7, 7), kernel=(7, 7), dtype="float32")
    found = sample([*KEYS, *depthwise, pool], 24)
    assert pool in found and len(found) == pytest.approx(24, abs=2)
    assert sum(key in depthwise for key in found) == pytest.approx(24 * 40 / (len(KEYS) + 41), abs=1)
    sizes = sorted(weight_bytes(key) + activation_bytes(key) for key in KEYS)
    own = [weight_bytes(key) + activation_bytes(key) for key in found if key in KEYS]
    assert min(own) < sizes[len(sizes) // 10] and max(own) > sizes[-len(sizes) // 10]


# in a build


class Machine:
    """Measures parts as the made-up machine would, and is switched off after so many."""

    def __init__(self, last: int = 1000) -> None:
        self.last = last
        self.measured: list[parts.Part] = []

    def __call__(self, part: parts.Part, *rest: object) -> tuple[Readings, float]:
        if len(self.measured) == self.last:
            raise KeyboardInterrupt
        self.measured.append(part)
        readings = read(part.groups)
        write_json(part.folder / "readings.json", parts._document(readings, 2.0))
        return readings, 2.0


def built(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, budget_s: float = 900) -> building._Build:
    monkeypatch.setattr(building, "measure", machine)
    (folder / "parts").mkdir(exist_ok=True)
    request = BuildRequest((), "host", "litert", folder, grid=None, budget_s=budget_s, settings=Settings(interval=0.05))
    bench = parts.Bench(None, None, request.settings, "run", None, 0, Console())  # type: ignore[arg-type]
    build = building._Build(request, bench, RunFolder(folder, {}), dict.fromkeys(KEYS, ("net",)), {}, CONTEXT)
    building._measure(build, lambda seconds, text: None)
    return build


def test_a_build_measures_cold_then_warm_then_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    build = built(tmp_path, machine, monkeypatch)
    order = list(dict.fromkeys((part.purpose, part.limits) for part in machine.measured))
    assert order[:5] == [("networks", COLD), ("warm", WARM), *(("states", limits) for limits in LEVELS[1:4])]
    assert {purpose for purpose, _ in order[5:]} <= {"narrow"}
    table = build.table()
    assert len(table.warmth) >= 4 and set(build.seconds) >= {"networks", "warm", "states"}
    for entry in table:
        assert entry.latency_ns_median == pytest.approx(1e3 * time_us(entry.key, 1), rel=0.01), "cold bundles only"
        assert entry.warm_ns == pytest.approx(1e3 * time_us(entry.key, 0), rel=0.2)


def test_with_no_time_left_warm_kernels_are_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    build = built(tmp_path, machine, monkeypatch, budget_s=1)
    assert list(dict.fromkeys(part.purpose for part in machine.measured)) == ["networks", "warm"]
    assert [point.cold for point in build.table().warmth] == [0, 1]
    assert all(entry.warm_ns is not None for entry in build.table())


@pytest.mark.parametrize("purpose", ["networks", "warm", "states"])
def test_a_build_that_goes_on_measures_each_part_once(purpose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = built(tmp_path / "whole", all_of_it := Machine(), monkeypatch)
    last = 1 + [part.purpose for part in all_of_it.measured].index(purpose)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path / "cut", first := Machine(last), monkeypatch)
    build = built(tmp_path / "cut", second := Machine(), monkeypatch)
    again = [part.groups for part in (*first.measured, *second.measured)]
    assert again == [part.groups for part in all_of_it.measured]
    assert build.table().warmth == whole.table().warmth


def test_a_part_keeps_its_limits_and_an_older_one_is_of_the_usual(tmp_path: Path) -> None:
    planned = parts.plan_parts([building.Round("warm", KEYS[:30], 1, WARM)], tmp_path)
    assert parts.parts_in(tmp_path) == planned and {part.limits for part in planned} == {WARM}
    path = planned[0].folder / "plan.json"
    plan = json.loads(path.read_text())
    write_json(path, {name: value for name, value in plan.items() if name != "limits"})
    assert parts.parts_in(tmp_path)[0].limits == COLD
    for damaged in ({"width": 3}, {"kernels": "many"}, {"kernels": None}, [12], "12"):
        write_json(path, plan | {"limits": damaged})
        with pytest.raises(UsageError, match="is no part of a build"):
            parts.parts_in(tmp_path)


def test_readings_are_read_again_as_they_were_kept_and_older_ones_too(tmp_path: Path) -> None:
    part = parts.Part(tmp_path, "warm", 0, (KEYS[:3],), WARM)
    readings, _ = Machine()(part)
    assert parts.readings_of(part) == (readings, 2.0)
    kept = json.loads((tmp_path / "readings.json").read_text())
    assert kept.pop("whole")
    write_json(tmp_path / "readings.json", kept)
    assert parts.readings_of(part)[0].whole == {}
    write_json(tmp_path / "readings.json", kept | {"whole": {"a": [1.0]}})
    with pytest.raises(UsageError, match="is damaged"):
        parts.readings_of(part)
