"""Deployed -> raw launches: what to run, how often and when to stop.

One *launch* is one start of the on-device runner with the cases that still need samples: each network in each runtime,
once without the profiler (end to end) and once with it (kernels), interleaved in blocks of 0.1 s. After each launch
the interval of the noise-corrected median decides which cases need another; a case ends when its interval is as narrow
as asked or its budget is spent. Several launches, because a process's own memory layout is part of the noise.

Every launch is a file of raw samples in the run folder before the next begins: that is what a resumed run starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from devices.install import Installed
from devices.runner import CaseResult, RunnerResult, parse_results, read_lines
from devices.transport import Transport
from latency_luts import stats
from pipeline.deploy import Deployed
from pipeline.kernel_times import has_samples, to_launch
from pipeline.launch import OnProgress, Order, run_launch
from pipeline.recover import recover
from pipeline.settings import PROFILED, Settings

STOP_RULE_RESAMPLES = 200
"""Bootstrap resamples for deciding whether to go on; the result takes a thousand."""

LAUNCH_S = 120.0
"""A launch gets as many cases as take about that long: then the device is looked at again."""

CASES_A_LAUNCH = 1024

Before = Callable[[int], None]
"""Called with the number of each launch before it begins: waits for a quiet device, writes its conditions down."""


def measure(
    cases: Sequence[Deployed],
    device: Transport,
    installed: Mapping[str, Installed],
    settings: Settings,
    folder: Path,
    on_progress: OnProgress,
    *,
    run: str = "run",
    watch: tuple[str, ...] = (),
    before: Before = lambda number: None,
) -> list[RunnerResult]:
    """Launches until every case has its interval, its budget is spent or it has failed.

    Args:
        installed: bundle kind -> that bundle on the device.
        folder: where launches are written, `launch-NN.jsonl`; those that are there already count.
        run: what this run is called on the device; launches that it left there are brought home first.

    Raises: DeviceError (lost, runner damaged, not quiet), StorageError; KeyboardInterrupt after what was measured is in
    `folder`.
    """
    recover(device, run, folder, [case.id for case in cases], sum(case.artifact.bytes for case in cases))
    results = load_launches(folder)
    silent: set[str] = set()  # neither measured nor failed in a launch of their own: they would be asked for ever
    while active := [case for case in cases if case.id not in silent and needs_more(case.timed_id, results, settings)]:
        profiled = frozenset(case.id for case in active if _needs_kernels(case.id, results, settings))
        for some in _launches_of(active, settings):
            number = _next_number(folder)
            before(number)
            order = Order(some, installed[some[0].bundle], settings, profiled, watch)
            path = folder / f"launch-{number:02d}.jsonl"
            run_launch(order, device, run, path, on_progress)
            results.append(parse_results(read_lines(str(path))))
            told = results[-1].cases
            silent |= {
                case.id
                for case in some
                if (own := told.get(case.timed_id)) is None or not (_ended(own) or own.failed)
            }
    return results


def load_launches(folder: Path) -> list[RunnerResult]:
    """What earlier launches left in a run folder, in their order."""
    return [parse_results(read_lines(str(path))) for path in launch_files(folder)]


def launch_files(folder: Path) -> list[Path]:
    """In their order: 99 before 100."""
    return sorted(folder.glob("launch-[0-9]*.jsonl"), key=lambda path: (len(path.name), path.name))


def needs_more(case: str, results: Sequence[RunnerResult], settings: Settings) -> bool:
    """The stop rule. A case that failed in any launch gets no other.

    The samples of a launch in which the case was cut off count, but not as a launch.
    """
    own = [result.cases[case] for result in results if case in result.cases]
    if any(one.failed for one in own):
        return False
    if sum(map(_ended, own)) < settings.launches:
        return True
    launches = [to_launch(one) for one in own if has_samples(one)]
    # canaries too, as in the runner: a network of a few µs would else take minutes to spend its seconds
    if sum(float(launch.samples.sum() + launch.canary.sum()) for launch in launches) >= settings.budget_s * 1e9:
        return False
    summary = stats.summarise(
        launches, stats.canary_reference(launches), confidence=settings.confidence, resamples=STOP_RULE_RESAMPLES
    )
    return summary.corrected.half_width > settings.interval


def launches_to_go(cases: Sequence[Deployed], results: Sequence[RunnerResult], settings: Settings) -> int:
    """How many launches of single cases the minimum still asks for."""
    done = {case.id: sum(_ended(one.cases[case.id]) for one in results if case.id in one.cases) for case in cases}
    return sum(max(0, settings.launches - count) for count in done.values())


def _needs_kernels(case: str, results: Sequence[RunnerResult], settings: Settings) -> bool:
    """The first launches give kernels times enough. A case whose profiler fails is not asked again."""
    own = [result.cases[case + PROFILED] for result in results if case + PROFILED in result.cases]
    return not any(one.failed for one in own) and sum(map(_ended, own)) < settings.launches


def _ended(case: CaseResult) -> bool:
    """Whether a launch did with a case all that it was asked to."""
    return case.finished and has_samples(case)


def _launches_of(active: Sequence[Deployed], settings: Settings) -> Iterator[list[Deployed]]:
    """The cases of one bundle run together, so many at a time."""
    seconds = settings.launch_s + settings.kernels_s + 1.25 * settings.warmup_s
    count = min(CASES_A_LAUNCH, max(1, int(LAUNCH_S / max(seconds, 1e-3))))
    for bundle in dict.fromkeys(case.bundle for case in active):
        own = [case for case in active if case.bundle == bundle]
        for start in range(0, len(own), count):
            yield own[start : start + count]


def _next_number(folder: Path) -> int:
    return max((int(path.stem.removeprefix("launch-")) for path in launch_files(folder)), default=-1) + 1
