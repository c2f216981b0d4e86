"""The rounds of a table build, in their order, until the time is up or nothing is left to learn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Mapping, Sequence

from latency_luts import OpKey
from pipeline.console import Advance
from pipeline.errors import CheckFailed
from pipeline.sweep import again, sampling, walk
from pipeline.sweep.measure import unwritable
from pipeline.sweep.part import WALKS, Part, measure, parts_in, plan_groups, plan_parts, plan_walks, readings_of
from pipeline.sweep.plan import BUNDLE_SIZE, WARM, bundles
from pipeline.sweep.request import BuildRequest
from pipeline.sweep.sampling import Round
from pipeline.sweep.state import Build
from pipeline.sweep.warmth import LEAST_WALKS

MIN_ROUND = 2 * BUNDLE_SIZE
MAX_ROUND = 20 * BUNDLE_SIZE
"""Kernels in bundles of one round: few enough that what it teaches can steer the next."""

WALKS_COUNT, WALK_GUESS_S = 96, 1.2
WALKS_FROM_S = 120.0
"""Of a build's time: in a shorter one, the kernels of walks and the walks themselves would take most of it."""

RELATIVES, RELATIVES_SHARE = "relatives", 0.75
"""Of what is left of the time after the networks' own kernels: for those of the same networks at other sizes."""

WARMTH_SHARE = 0.25
"""Of what is left of the time: for a second warm copy of each kernel at most, and for walks."""


def to_vary(request: BuildRequest, own: Mapping[OpKey, tuple[str, ...]]) -> list[OpKey]:
    """All but what only pieces have."""
    asked = set(request.kernels)
    return [key for key, networks in own.items() if networks or key in asked]


def measure_rounds(build: Build, bar: Advance) -> None:
    """Parts that were planned before; then rounds until the time is up or nothing is left to learn."""
    planned = parts_in(build.parts)
    begun = {part.purpose for part in planned}
    for part in planned:
        if part.is_done:
            readings, seconds = readings_of(part)
            build.keep(part, readings, seconds)
            bar(min(seconds, build.request.budget_s), "what was measured before")
    _run_parts(build, [part for part in planned if not part.is_done], bar)
    writable = [key for key in build.own if key not in build.missing]
    walks = walk.walks(WALKS_COUNT) if build.request.budget_s >= WALKS_FROM_S else []
    keys = dict.fromkeys([*writable, *(key for some in walks for key in some)])
    if "networks" not in begun and writable:
        _run_round(build, [Round("networks", tuple(keys))], bar)
    if not build.done:
        raise CheckFailed(f"none of {len(build.own)} kernels can be measured: {next(iter(build.missing.values()))}")
    _measure_warmth(build, begun, tuple(keys), walks, bar)
    if build.related and RELATIVES not in begun:
        _measure_relatives(build, bar)
    grid = build.request.grid
    varied = [key for key in to_vary(build.request, build.own) if key not in build.missing]
    if grid is not None and "staircases" not in begun:
        new = [key for key in sampling.lines(varied) if key not in build.own]
        affordable = int(build.left_s / 2 / build.bundle_s()) * BUNDLE_SIZE // 2
        _run_round(build, [Round("staircases", tuple(new[: max(0, affordable)]))], bar)
    points: Sequence[OpKey] = sampling.candidates(varied, grid, build.table()) if grid is not None else ()
    while slots := _slots(build):
        table = build.table()
        error = sampling.error_of(table)
        if error is not None:
            build.history.append((len(table), error))
        if grid is None or (error is not None and error <= build.request.error):
            points = ()
        given_up = build.missing | dict(build.measured().missing)
        rounds = sampling.next_round(table, points, slots, build.request.settings.interval, given_up)
        if not rounds:
            break
        _run_round(build, rounds, bar)


def _measure_warmth(
    build: Build, begun: Container[str], keys: Sequence[OpKey], walks: Sequence[Sequence[OpKey]], bar: Advance
) -> None:
    """The kernels in small bundles, and networks of some of them from short to long ones."""
    if "warm" not in begun:
        there = {entry.key for entry in build.measured().entries}
        found = tuple(key for key in keys if key in there)
        twice_s = 2 * len(bundles(found, copies=1, limits=WARM)) * build.bundle_s(cold=False)
        copies = 2 if twice_s <= WARMTH_SHARE * build.left_s else 1
        _run_round(build, [Round("warm", found, copies, WARM)], bar)
    affordable = int(WARMTH_SHARE * build.left_s / WALK_GUESS_S)
    if WALKS not in begun and affordable >= LEAST_WALKS:
        _run_parts(build, plan_walks(walks[:affordable], build.parts), bar)


def _measure_relatives(build: Build, bar: Advance) -> None:
    """As many as RELATIVES_SHARE of what is left of the time allows, twice cold and once warm like all new kernels."""
    unwritten = unwritable(build.related, build.bench.target, build.folder.path)
    chosen = tuple(key for key in build.related if key not in unwritten)
    chosen = chosen[: int(RELATIVES_SHARE * build.left_s / (2 * _slot_s(build)))]
    _run_round(build, [Round(RELATIVES, chosen), Round("warm", chosen, 1, WARM)], bar)


def _slot_s(build: Build) -> float:
    """Seconds of half a new kernel: every one is in two usual bundles and in one small one."""
    warm = [part for part, _ in build.done if part.purpose == "warm"]
    kernels = sum(len(group) for part in warm for group in part.groups)
    warm_s = build.seconds["warm"] / kernels if kernels else 0.0
    return build.bundle_s() / BUNDLE_SIZE + warm_s / 2


def _slots(build: Build) -> int:
    """So many kernels in bundles fit into what is left of the time; 0 for too few to be worth it."""
    slots = min(MAX_ROUND, int(build.left_s / _slot_s(build)))
    return slots if slots >= MIN_ROUND else 0


def _run_round(build: Build, rounds: Sequence[Round], bar: Advance) -> None:
    _run_parts(build, plan_parts([one for one in rounds if one.keys], build.parts), bar)


def _run_parts(build: Build, parts: Sequence[Part], bar: Advance) -> None:
    _measure_parts(build, parts, bar)
    while retry := again.next_retry(build.done):
        _measure_parts(build, plan_groups(retry.purpose, retry.groups, retry.limits, build.parts), bar)


def _measure_parts(build: Build, parts: Sequence[Part], bar: Advance) -> None:
    for part in parts:
        told = time.monotonic()
        text = build.text(part.purpose)

        def tick(seconds: float, case: str, text: str = text) -> None:
            nonlocal told
            now = time.monotonic()
            bar(now - told, text)
            told = now

        bench = build.bench
        if part.purpose == again.TRIAL:
            bench = dataclasses.replace(bench, settings=again.trial_settings(bench.settings))
        readings, seconds = measure(part, bench, tick)
        tick(0, "")
        build.keep(part, readings, seconds)
