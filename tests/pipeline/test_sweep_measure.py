"""A sweep over a device: launches that can be brought home, resuming, what is missing and why. The device is a fake."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from devices.runner import Kernel, RunnerResult
from latency_luts import OpKey
from pipeline.deploy import Target
from pipeline.errors import CheckFailed, UnsupportedOp
from pipeline.kernel_times import KernelTimes
from pipeline.settings import Settings
from pipeline.sweep import measure, reading
from pipeline.sweep.fold import Seen
from pipeline.sweep.measure import Bundle, Sweep, run, unwritable, write_bundles, write_chains, write_walks
from pipeline.sweep.reading import Readings, combine, fold
from pipeline.sweep.walk import walks

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_runner.py")))
SETTINGS = Settings(launch_s=0.1, kernels_s=0.1, warmup_s=0.01, launches=1)
KEYS = [OpKey("conv2d", (1, 8 * i, 7, 7), 16, dtype="float32") for i in range(1, 5)]


def quiet(seconds: float, case: str) -> None:
    pass


def target(folder: Path, runtime: str = "litert") -> Target:
    return Target(FAKE["installed"](folder)["host"], runtime, "xnnpack" if runtime == "litert" else "")


def sweep_of(folder: Path, device: Any, runtime: str = "litert", groups: int = 3) -> Sweep:
    goal = target(folder, runtime)
    return Sweep(write_bundles([KEYS] * groups, goal, device, folder), write_chains(goal, device, folder, 2))


def ran(device: Any) -> list[list[str]]:
    return [list(dict.fromkeys(case["case"].removesuffix("+kernels") for case in job)) for job in device.jobs]


def test_bundles_and_chains_are_measured_once_and_removed_from_the_device(tmp_path: Path) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")
    sweep = sweep_of(tmp_path, device)
    results = run(sweep, device, FAKE["installed"](tmp_path)["host"], SETTINGS, tmp_path, quiet)
    assert sorted(ran(device)[0]) == sorted(case.id for case in sweep.cases)
    # what a bundle takes as a whole interests nobody
    plain = {case.id for case in sweep.chains}
    assert set(results[0].cases) == plain | {case.id + "+kernels" for case in sweep.cases}
    assert all((tmp_path / path).is_file() for path in ("bundle-0000.tflite", "chain-0001.tflite"))
    assert not list((tmp_path / "device" / "models").iterdir())


def test_a_sweep_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")
    one = FAKE["installed"](tmp_path)["host"]
    sweep = sweep_of(tmp_path, device)
    begun = Sweep(sweep.bundles[:1], sweep.chains[:1])
    run(begun, device, one, SETTINGS, tmp_path, quiet)
    device.pushed.clear()
    run(sweep, device, one, SETTINGS, tmp_path, quiet)
    assert set(ran(device)[1]) == {case.id for case in sweep.cases} - {case.id for case in begun.cases}
    assert sum(path.endswith(".tflite") for path in device.pushed) == 3
    device.pushed.clear()
    run(sweep, device, one, SETTINGS, tmp_path, quiet)
    assert len(device.jobs) == 2 and not device.pushed


def test_onnxruntimes_launches_are_small_enough_to_bring_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")
    sweep = sweep_of(tmp_path, device, "onnxruntime", groups=5)
    size = sweep.bundles[0].plan.model_bytes + measure.PROFILE_BYTES * len(KEYS)
    monkeypatch.setattr(measure, "LAUNCH_BYTES", 2 * size + 1)
    run(sweep, device, FAKE["installed"](tmp_path)["host"], SETTINGS, tmp_path, quiet)
    assert [sum(name.startswith("bundle") for name in names) for names in ran(device)] == [2, 2, 1]
    assert [sum(name.startswith("chain") for name in names) for names in ran(device)] == [1, 1, 0]
    monkeypatch.setattr(measure, "LAUNCH_BYTES", 1)  # one at least
    assert [len(part) for part in measure._parts(sweep.bundles)] == [1] * 5


def test_a_kernel_that_ran_as_another_one_is_missing_and_said_to_be(tmp_path: Path) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")  # its profile has two kernels of its own
    sweep = sweep_of(tmp_path, device)
    results = run(sweep, device, FAKE["installed"](tmp_path)["host"], SETTINGS, tmp_path, quiet)
    with pytest.raises(CheckFailed, match="no bundle could be measured: it ran as another kernel"):
        fold(sweep, results, tmp_path)


def test_a_bundle_that_failed_says_why(tmp_path: Path) -> None:
    names = [f"bundle-000{number}.litert" for number in range(3)]
    failures = dict.fromkeys([*names, *(f"{name}+kernels" for name in names)], "no memory")
    device = FAKE["FakeDevice"](tmp_path / "device", failures=failures)
    sweep = sweep_of(tmp_path, device)
    results = run(sweep, device, FAKE["installed"](tmp_path)["host"], SETTINGS, tmp_path, quiet)
    with pytest.raises(CheckFailed, match="no bundle could be measured: no memory"):
        fold(sweep, results, tmp_path)


def test_some_bundles_are_enough_and_the_rest_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")
    goal = target(tmp_path)
    sweep = Sweep(write_bundles([KEYS[:2], KEYS[2:], KEYS[1:3]], goal, device, tmp_path), ())

    def times(case: Any, *rest: Any) -> list[Any]:
        if case == sweep.bundles[0].case:
            raise CheckFailed("it crashed")
        return [KernelTimes(Kernel("k", 0), us, us, us, us, ()) for us in (50.0, 50.0, 20.0)]

    def seen_in(bundle: Bundle, *rest: Any) -> list[Any]:
        return [
            Seen(key, bundle.case.id, 50.0, 0.1, (49, 50, 51), "Conv")
            for key in bundle.plan.keys
            if key != KEYS[3]
        ]

    monkeypatch.setattr(reading, "_times", times)
    monkeypatch.setattr(reading, "_seen_in", seen_in)
    found = fold(sweep, [RunnerResult({}, True, 0)], tmp_path, met={KEYS[1]: ("net",)})
    assert {entry.key: entry.networks for entry in found.entries} == {KEYS[1]: ("net",), KEYS[2]: ()}
    assert found.missing == {KEYS[0]: "it crashed", KEYS[3]: "it ran as another kernel"}
    assert found.overhead.chains == 0 and found.overhead.high_ns == 50_000


def readings(us: float, added_us: float, *keys: OpKey) -> Readings:
    return Readings(tuple(Seen(key, "a", us, 0.1, (1, 2), "Conv") for key in keys), (added_us,), {KEYS[3]: "it crashed"})


def test_what_small_bundles_say_is_a_time_of_its_own_and_never_in_the_cold_one() -> None:
    cold, warm, between = readings(50, 3.0, *KEYS[:2]), readings(30, 4.0, *KEYS[1:3]), readings(40, 8.0, *KEYS)
    found = combine([cold], [warm], [between])
    assert found.overhead.ns == 5000 and found.overhead.chains == 3  # every chain counts
    told = {entry.key: (entry.latency_ns_median, entry.warm_ns) for entry in found.entries}
    assert told == {KEYS[0]: (45_000, None), KEYS[1]: (45_000, 25_000)}
    assert set(found.missing) == {KEYS[3]}


def test_what_was_never_measured_is_said(tmp_path: Path) -> None:
    device = FAKE["FakeDevice"](tmp_path / "device")
    with pytest.raises(CheckFailed, match="it was never measured"):
        fold(sweep_of(tmp_path, device), [], tmp_path)
    with pytest.raises(CheckFailed, match="there was none"):
        fold(Sweep((), ()), [], tmp_path)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_kernels_that_cannot_be_written_are_told_beforehand(tmp_path: Path, runtime: str) -> None:
    odd = OpKey("wobble", (1, 8), dtype="float32")
    int8 = dataclasses.replace(KEYS[0], dtype="int8")
    found = unwritable([*KEYS, odd, int8], target(tmp_path, runtime), tmp_path)
    assert set(found) == {odd, int8} and "wobble" in found[odd]
    assert not list(tmp_path.glob("try.*"))
    with pytest.raises(UnsupportedOp, match="wobble"):
        write_bundles([[odd]], target(tmp_path, runtime), FAKE["FakeDevice"](tmp_path / "device"), tmp_path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_walks_are_timed_without_bundles_and_a_failed_one_is_left_out(runtime: str, tmp_path: Path) -> None:
    name = f"walk-0001.{runtime}"
    device = FAKE["FakeDevice"](tmp_path / "device", failures={name: "no memory", f"{name}+kernels": "no memory"})
    sweep = Sweep((), (), write_walks(walks(3), target(tmp_path, runtime), device, tmp_path))
    results = run(sweep, device, FAKE["installed"](tmp_path)["host"], SETTINGS, tmp_path, quiet)
    assert set(ran(device)[0]) >= {case.id for case in sweep.walks}
    readings = reading.read(sweep, results, tmp_path)
    assert readings.seen == () and readings.missing == {}
    if runtime == "litert":  # onnxruntime's kernels are told from a graph that only the real one writes
        assert len(readings.walks) == 2 and all(one.us > 0 and one.kernels for one in readings.walks)
