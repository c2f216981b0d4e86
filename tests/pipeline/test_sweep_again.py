"""After a failed bundle: the kernel that fails is found and left out, the others are measured. The device is made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_luts import Context, OpKey
from pipeline.console import Console
from pipeline.errors import CheckFailed
from pipeline.runfolder import RunFolder, write_json
from pipeline.settings import Settings
from pipeline.sweep import again, part, rounds
from pipeline.sweep.fold import Seen
from pipeline.sweep.part import Bench, Part, plan_groups
from pipeline.sweep.plan import COLD, WARM, bundles
from pipeline.sweep.reading import Readings
from pipeline.sweep.request import BuildRequest
from pipeline.sweep.state import Build

KEYS = [OpKey("add", (1, channels, 14, 14), dtype="float32") for channels in range(8, 98)]
CONTEXT = Context(
    device="host", soc="a", os_build="b", abi="x86_64", runtime="litert", runtime_version="1", runtime_sha256="00" * 32,
    delegate="xnnpack", threads=1, cpu_mask="0x1", clocks="", handset_version="0", created="2026-01-01T00:00:00Z",
    simulated=False,
)  # fmt: skip

Group = Sequence[OpKey]
Fails = Callable[[Part, Group], str]
"""Why a bundle fails; "" where it does not."""


def because_of(*bad: OpKey) -> Fails:
    return lambda part, group: next((f"crashed at {key.input_shape[1]}" for key in group if key in bad), "")


class Machine:
    """Runs parts: a bundle that fails is lost with all its kernels. Is switched off after so many parts."""

    def __init__(self, fails: Fails, last: int = 10_000) -> None:
        self.fails, self.last = fails, last
        self.ran: list[tuple[Part, Settings]] = []

    def __call__(self, own: Part, bench: Bench, *rest: object) -> tuple[Readings, float]:
        if len(self.ran) == self.last:
            raise KeyboardInterrupt
        self.ran.append((own, bench.settings))
        readings = self.read(own)
        write_json(own.folder / "readings.json", part._document(readings, 1.0))
        return readings, 1.0

    def read(self, own: Part) -> Readings:
        why = [self.fails(own, group) for group in own.groups]
        seen = [
            Seen(key, f"bundle-{number}", 50.0, 0.1, (50, 50), "Add")
            for number, group in enumerate(own.groups) if not why[number] for key in group
        ]  # fmt: skip
        missing = {key: text for text, group in zip(why, own.groups, strict=True) if text for key in group}
        return Readings(tuple(seen), (1.0,), missing, failed=tuple(number for number, text in enumerate(why) if text))

    def purposes(self) -> list[str]:
        return list(dict.fromkeys(own.purpose for own, _ in self.ran))

    def groups(self, purpose: str) -> list[Group]:
        return [group for own, _ in self.ran if own.purpose == purpose for group in own.groups]


def built(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, keys: Iterable[OpKey] = KEYS) -> Build:
    monkeypatch.setattr(rounds, "measure", machine)
    (folder / "parts").mkdir(exist_ok=True)
    request = BuildRequest((), "host", "litert", folder, grid=None, budget_s=0.001, settings=Settings())
    bench = Bench(None, None, request.settings, "run", None, 0, Console())  # type: ignore[arg-type]
    build = Build(request, bench, RunFolder(folder, {}), dict.fromkeys(keys, ("net",)), {}, CONTEXT)
    rounds.measure_rounds(build, lambda seconds, text: None)
    return build


@pytest.mark.parametrize("count", [30, 90])
def test_only_the_kernels_that_fail_are_missing_each_with_its_own_reason(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = KEYS[3], KEYS[17]
    machine = Machine(because_of(*bad))
    build = built(tmp_path, machine, monkeypatch, KEYS[:count])
    found = build.measured()
    assert {entry.key for entry in found.entries} == set(KEYS[:count]) - set(bad)
    assert found.missing == {key: f"crashed at {key.input_shape[1]}" for key in bad}
    assert machine.purposes() == ["networks", "trial", "again", "warm"]
    assert all(len(group) in (1, *range(2, again.TRIED.kernels + 1)) for group in machine.groups("trial"))
    # bundles as large as they were: what is measured in them is as cold as before
    assert {part.limits for part, _ in machine.ran if part.purpose == "again"} == {COLD}
    lost = [group for group in machine.groups("networks") if set(group) & set(bad)]
    assert machine.groups("again") == [tuple(key for key in group if key not in bad) for group in lost]
    (note,) = again.notes(build.done)
    assert note == f"{len(lost)} bundles failed, whose kernels were measured again, without the 2 that fail alone"


def test_one_kernel_of_a_bundle_is_found_in_few_small_models_that_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(because_of(KEYS[5]))
    built(tmp_path, machine, monkeypatch, KEYS[:36])
    assert len(machine.groups("trial")) == 6 + 6
    tried = [settings for own, settings in machine.ran if own.purpose == "trial"]
    assert {(one.launches, one.limit_s) for one in tried} == {(1, again.TRIAL_LIMIT_S)}
    assert {one.launches for own, one in machine.ran if own.purpose != "trial"} == {Settings().launches}


def test_a_bundle_that_fails_once_is_measured_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda own, group: "lost" if own.purpose == "warm" and group[0] == own.groups[0][0] else "")
    build = built(tmp_path, machine, monkeypatch, KEYS[:30])
    assert machine.purposes() == ["networks", "warm", "again"], "its kernels ran in other bundles: nothing to look for"
    first = machine.groups("warm")[0]
    assert machine.groups("again") == [first] and machine.ran[-1][0].limits == WARM
    assert all(entry.warm_ns is not None for entry in build.table()) and not build.measured().missing


def test_a_bundle_that_is_too_large_is_measured_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda own, group: "no memory" if len(group) > 20 else "")
    build = built(tmp_path, machine, monkeypatch, KEYS[:30])
    assert machine.purposes() == ["networks", "trial", "again", "halves", "warm"]
    assert {len(group) for group in machine.groups("halves")} == {15}
    assert {entry.key for entry in build.table()} == set(KEYS[:30]) and not again.culprits(build.done)


def test_a_runtime_that_fails_at_everything_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(lambda own, group: "cannot load")
    many = [OpKey("add", (1, channels, 7, 7), dtype="float32") for channels in range(1, 1001)]
    with pytest.raises(CheckFailed, match="no bundle could be measured: cannot load"):
        built(tmp_path, machine, monkeypatch, many)
    assert len(machine.groups("trial")) == again.MAX_TRIALS and machine.purposes() == ["networks", "trial"]


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_a_build_that_goes_on_tries_nothing_twice(last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    fails = because_of(KEYS[4], KEYS[60])
    at_once = Machine(fails)
    wanted = built(whole, at_once, monkeypatch).measured()
    first, rest = Machine(fails, last), Machine(fails)
    with pytest.raises(KeyboardInterrupt):
        built(cut, first, monkeypatch)
    found = built(cut, rest, monkeypatch).measured()
    assert (found.entries, found.missing) == (wanted.entries, wanted.missing)
    ran = [own.groups for machine in (first, rest) for own, _ in machine.ran]
    assert ran == [own.groups for own, _ in at_once.ran]


def test_the_progress_says_that_it_is_once_more(tmp_path: Path) -> None:
    build = Build(None, None, RunFolder(tmp_path, {}), {}, {}, CONTEXT)  # type: ignore[arg-type]
    assert build.text("again") == "again, after a failed bundle" and build.text("networks") == "networks"


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 90),
    bad=st.sets(st.integers(0, 89), max_size=6),
    pairs=st.sets(st.tuples(st.integers(0, 89), st.integers(0, 89)), max_size=3),
    most=st.sampled_from([1, 5, 20, 100]),
)
def test_whatever_fails_it_ends_and_loses_nothing_that_can_be_measured(
    count: int, bad: set[int], pairs: set[tuple[int, int]], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Kernels that fail alone, pairs that fail together, and bundles over a size."""
    keys = KEYS[:count]
    culprits = {KEYS[number] for number in bad} & set(keys)
    enemies = [{KEYS[one], KEYS[other]} for one, other in pairs if one != other]

    def fails(own: Part, group: Group) -> str:
        wrong = set(group) & culprits or len(group) > most or any(pair <= set(group) for pair in enemies)
        return "crashed" if wrong else ""

    machine, folder, done = Machine(fails), tmp_path_factory.mktemp("parts"), []
    waiting = plan_groups("networks", bundles(keys), COLD, folder)
    steps = 0
    while waiting:
        done += [(own, machine.read(own)) for own in waiting]
        retry = again.next_retry(done)
        waiting = [] if retry is None else plan_groups(retry.purpose, retry.groups, retry.limits, folder)
        steps += 1
        assert steps < 100
    failed = sum(len(readings.failed) for own, readings in done if own.purpose == "networks")
    retried = [group for own, _ in done if own.purpose in ("again", "halves") for group in own.groups]
    assert len(retried) <= 3 * failed and again.culprits(done).keys() <= culprits
    there = {one.key for own, readings in done if own.purpose != "trial" for one in readings.seen}
    if most >= 20 and not enemies:
        assert there == set(keys) - culprits and set(again.culprits(done)) == culprits
