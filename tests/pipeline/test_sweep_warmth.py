"""The curve between warm and cold kernels: a made-up machine whose caches are a known function, and what noise must not do."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Sequence
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
from pipeline.sweep import part as parts
from pipeline.sweep import rounds
from pipeline.sweep.bundle import activation_bytes, weight_bytes
from pipeline.sweep.fold import Seen, Walk
from pipeline.sweep.plan import COLD, WARM, bundles
from pipeline.sweep.reading import Measured, Readings, combine
from pipeline.sweep.request import BuildRequest
from pipeline.sweep.sampling import Round
from pipeline.sweep.state import Build
from pipeline.sweep.walk import walks
from pipeline.sweep.warmth import LEAST_WALKS, curve

CONTEXT = Context("a", "", "", "", "litert", "", "", "xnnpack", 1, "", "", "", "2026-01-01T00:00:00Z", False)
ADDED_US = 2.0
WARM_MS, COLD_MS = 1.0, 4.0


def conv(c_in: int, c_out: int, side: int) -> OpKey:
    return OpKey("conv2d", (1, c_in, side, side), c_out, dtype="float32")


SIZES = {112: (16, 24, 32), 56: (24, 32, 64, 96), 28: (32, 64, 128, 192), 14: (64, 96, 192, 384), 7: (128, 256, 320, 576)}
KEYS = tuple(conv(a, b, side) for side, widths in SIZES.items() for a in widths for b in widths)
WALKS = walks(96)
WALKED = tuple(dict.fromkeys(key for one in WALKS for key in one))


# a machine whose kernels are as cold as the whole takes long: linear in its logarithm between WARM_MS and COLD_MS


def coldness(total_ms: float) -> float:
    return min(1.0, max(0.0, math.log(total_ms / WARM_MS) / math.log(COLD_MS / WARM_MS)))


def time_us(key: OpKey, cold: float) -> float:
    macs = math.prod(key.input_shape) // key.groups * key.out_channels * math.prod(key.kernel) // math.prod(key.stride)
    return 1 + macs / 40e3 + cold * (weight_bytes(key) / 3e3 + activation_bytes(key) / 15e3)


def state_of(keys: Sequence[OpKey]) -> float:
    """What state a network of these kernels settles in."""
    cold = 0.5
    for _ in range(40):
        cold = (cold + coldness(1e-3 * sum(time_us(key, cold) for key in keys))) / 2
    return cold


def read(groups: Sequence[Sequence[OpKey]], cold: float) -> Readings:
    seen = [
        Seen(key, f"bundle-{number:04d}", us := time_us(key, cold) + ADDED_US, 0.1, (int(us),), "conv")
        for number, group in enumerate(groups)
        for key in group
    ]
    return Readings(tuple(seen), (ADDED_US, ADDED_US), {})


def walked(some: Sequence[Sequence[OpKey]], noise: float = 0.0, seed: int = 0) -> list[Walk]:
    rng, found = random.Random(seed), []
    for keys in some:
        cold = state_of(keys)
        times = [time_us(key, cold) for key in keys]
        kernels = tuple((key, us + ADDED_US) for key, us in zip(keys, times, strict=True))
        found.append(Walk(sum(times) * rng.gauss(1, noise), kernels))
    return found


@functools.cache
def table() -> Measured:
    keys = [*WALKED, *KEYS]
    return combine([read(bundles(keys, copies=2), 1.0)], [read(bundles(keys, copies=1, limits=WARM), 0.0)])


def curve_of(some: Sequence[Walk]) -> tuple[WarmthPoint, ...]:
    return curve(some, table().entries, ADDED_US)


def test_the_curve_is_that_of_the_machine() -> None:
    points = curve_of(walked(WALKS))
    assert len(points) >= 6 and checked(points) == points
    assert points[0].cold < 0.05 and points[-1].cold > 0.95
    misses = [cold_share(points, 1e-3 * sum(time_us(key, 1.0) for key in keys)) - state_of(keys) for keys in WALKS]
    # the machine goes by what a network takes, the curve by what it would take if it were cold
    assert abs(sum(misses) / len(misses)) < 0.03 and max(map(abs, misses)) < 0.25


def test_a_table_with_it_tells_networks_of_every_size() -> None:
    cold = LatencyTable(CONTEXT, table().entries)
    warm = LatencyTable(CONTEXT, table().entries, warmth=curve_of(walked(WALKS)))
    rng, misses, misses_cold = random.Random(3), [], []
    for count in (2, 4, 10, 20, 40, 80):
        network = rng.choices(KEYS, k=count)
        truth = 1e-3 * sum(time_us(key, state_of(network)) for key in network)
        for one, into in ((warm, misses), (cold, misses_cold)):
            into.append(abs((one.total(network).latency_ms or 0) / truth - 1))
    assert max(misses) < 0.05 < 0.1 < max(misses_cold)


@settings(max_examples=30, deadline=None)
@given(noise=st.sampled_from([0.0, 0.05, 0.5]), seed=st.integers(0, 99), count=st.integers(0, 96))
def test_any_curve_is_one_that_a_table_takes(noise: float, seed: int, count: int) -> None:
    points = curve_of([one for one in walked(WALKS[:count], noise, seed) if one.us > 0])
    assert checked(points) == points
    assert bool(points) or count < 2 * LEAST_WALKS


@pytest.mark.parametrize("factor", [0.1, 3.0, 100.0])
def test_some_disturbed_walks_do_not_bend_the_curve(factor: float) -> None:
    straight = walked(WALKS)
    bent = [Walk(one.us * (factor if number % 12 == 0 else 1), one.kernels) for number, one in enumerate(straight)]
    for total_ms in (0.2, 0.5, 1, 2, 4, 8, 16):
        assert cold_share(curve_of(bent), total_ms) == pytest.approx(cold_share(curve_of(straight), total_ms), abs=0.15)


def test_what_the_table_does_not_know_of_a_walk_counts_as_it_was_read() -> None:
    some = walked(WALKS)
    with_more = [Walk(one.us + 3.0, (*one.kernels, (None, 3.0 + ADDED_US))) for one in some]
    for before, after in zip(curve_of(some), curve_of(with_more), strict=True):
        assert after.total_ms == pytest.approx(before.total_ms + 0.003, rel=1e-3)
        assert after.cold == pytest.approx(before.cold, abs=0.02)
    unknown = [Walk(one.us, tuple((None, us) for _, us in one.kernels)) for one in some]
    assert curve_of(unknown) == () and curve_of([*some, *unknown]) == curve_of(some)


def test_there_is_no_curve_of_few_walks_or_without_a_difference() -> None:
    some = walked(WALKS)
    assert curve_of(some[:LEAST_WALKS]) != () == curve_of(some[: LEAST_WALKS - 1])
    warm = [read([[key] for key in WALKED], 0.0)]
    assert curve(some, combine(warm, warm).entries, ADDED_US) == ()
    assert curve(some, combine(warm).entries, ADDED_US) == (), "no entry has a second time"


# walks


def test_walks_are_networks_from_short_to_long_and_the_same_every_time() -> None:
    assert walks(96) == list(WALKS) and walks(96, 1) != list(WALKS)
    for keys in WALKS:
        for before, after in itertools.pairwise(keys):
            side = before.input_shape[2] // before.stride[0]
            assert after.input_shape == (1, before.out_channels, side, side)
    lengths = sorted(map(len, WALKS))
    assert lengths[0] <= 4 and lengths[-1] >= 90 and 10 < lengths[48] < 25
    assert len(WALKED) < 70, "they share their kernels: a table need not measure many more"


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
        if part.purpose == parts.WALKS:
            readings = Readings((), (ADDED_US,), {}, tuple(walked(part.groups)))
        else:
            readings = read(part.groups, 0.0 if part.limits == WARM else 1.0)
        write_json(part.folder / "readings.json", parts._document(readings, 2.0))
        return readings, 2.0


def built(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, budget_s: float = 900) -> Build:
    monkeypatch.setattr(rounds, "measure", machine)
    (folder / "parts").mkdir(exist_ok=True)
    request = BuildRequest((), "host", "litert", folder, grid=None, budget_s=budget_s, settings=Settings(interval=0.6))
    bench = parts.Bench(None, None, request.settings, "run", None, 0, Console())  # type: ignore[arg-type]
    build = Build(request, bench, RunFolder(folder, {}), dict.fromkeys(KEYS, ("net",)), {}, CONTEXT)
    rounds.measure_rounds(build, lambda seconds, text: None)
    return build


def test_a_build_measures_cold_then_warm_then_walks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    build = built(tmp_path, machine, monkeypatch)
    order = list(dict.fromkeys((part.purpose, part.limits) for part in machine.measured))
    assert order[:3] == [("networks", COLD), ("warm", WARM), (parts.WALKS, COLD)]
    assert {purpose for purpose, _ in order[3:]} <= {"narrow"}
    table = build.table()
    assert len(table.warmth) >= 6 and set(build.seconds) >= {"networks", "warm", parts.WALKS}
    for entry in table:
        assert entry.latency_ns_median == pytest.approx(1e3 * time_us(entry.key, 1), rel=0.01), "cold bundles only"
        assert entry.warm_ns == pytest.approx(1e3 * time_us(entry.key, 0), rel=0.01)


def test_with_no_time_left_warm_kernels_are_measured_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    build = built(tmp_path, machine, monkeypatch, budget_s=1)
    assert list(dict.fromkeys(part.purpose for part in machine.measured)) == ["networks", "warm"]
    assert build.table().warmth == () and {entry.key for entry in build.table()} == set(KEYS)
    assert all(entry.warm_ns is not None for entry in build.table())


@pytest.mark.parametrize("purpose", ["networks", "warm", "walks"])
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
    planned = parts.plan_parts([Round("warm", KEYS[:30], 1, WARM)], tmp_path)
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
    part = parts.Part(tmp_path, parts.WALKS, 0, WALKS[:3])
    readings, _ = Machine()(part)
    odd = Walk(3.0, ((None, 1.5), (KEYS[0], 1.5)))
    write_json(tmp_path / "readings.json", parts._document(Readings((), (), {}, (*readings.walks, odd)), 2.0))
    assert parts.readings_of(part)[0].walks == (*readings.walks, odd)
    kept = json.loads((tmp_path / "readings.json").read_text())
    assert kept.pop("walks")
    write_json(tmp_path / "readings.json", kept)
    assert parts.readings_of(part)[0].walks == ()
    for damaged in ([[1.0]], [[1.0, [["conv", 2.0]]]], [["a", []]], 3):
        write_json(tmp_path / "readings.json", kept | {"walks": damaged})
        with pytest.raises(UsageError, match="is damaged"):
            parts.readings_of(part)
