"""How well do a table's sums tell the latency of networks that it was not built from? A table of bundles against end to end.

usage: tables.py [--runtime R] [--networks N] [--seed N] [--mask M] [--keep DIR] [--out FILE]      or --again FILE

Random networks of a dozen families (held_out.py) are exported; their distinct kernels, told from the torch modules, are
measured in bundles. Before, between and after the parts of that sweep every network is timed end to end, in rounds spread
over the whole session; once each is profiled, to tell what a kernel takes inside. A prediction, which is the sum of a
network's entries, is judged as a second measurement is: by one round, and by the median of all. 100 networks take half an
hour in onnxruntime and half of that in LiteRT; `--keep` saves exporting them, which takes as long, the next time.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import held_out
import tables_report

from devices.bundle import host_bundle
from devices.conditions import cpu_mask
from devices.discovery import cache_dir
from devices.host import HostTransport
from devices.install import install
from devices.transport import Transport
from latency_luts import stats
from pipeline.artifact import Exported, Network, sha256_file
from pipeline.console import Console
from pipeline.deploy import RUNTIME_FORMATS, Deployed, Target, case_of, deploy, targets_of
from pipeline.kernel_times import kernel_times, to_launch
from pipeline.launch import Order, run_launch
from pipeline.naming import name_kernels
from pipeline.profiling import load_launches
from pipeline.result import launches_of
from pipeline.runfolder import write_json
from pipeline.settings import PROFILED, Settings
from pipeline.sweep.fold import Seen, Walk, smooth_us
from pipeline.sweep.measure import Bundle, Sweep, run, unwritable, write_bundles, write_chains, write_walks
from pipeline.sweep.part import WALK_KERNELS_S, WALK_S
from pipeline.sweep.plan import COLD, WARM, Limits, bundles, distinct
from pipeline.sweep.reading import Readings, combine, read
from pipeline.sweep.request import USUAL
from pipeline.sweep.walk import walks
from pipeline.sweep.warmth import curve

NETWORKS = 100
RUNTIMES = ("onnxruntime", "litert")
COPIES = 2
WALKS_COUNT = 96
"""Random networks of their own kernels, for the curve between warm and cold: none is like those that are held out."""
BUNDLES_A_PART, SMALL_BUNDLES_A_PART, CHAINS_A_PART = 12, 48, 2
PROFILED_AT_ONCE = 8
"""Networks a launch with the profiler: onnxruntime's graphs and profiles all come home, and there is a limit to that."""
CONFIDENCE = 0.95
SWEEP = dataclasses.replace(USUAL, launches=1)
SMALL = dataclasses.replace(SWEEP, kernels_s=0.15, warmup_s=0.05)
"""Of bundles that take well under a ms: as many inferences as others have in four times as long."""
WALKED = dataclasses.replace(SWEEP, launch_s=WALK_S, kernels_s=WALK_KERNELS_S)
END_TO_END = Settings(launch_s=0.4, kernels_s=0.3, warmup_s=0.1, launches=1)


@dataclass
class Bench:
    """One runtime of this machine, what it measures, and what it has measured so far."""

    device: Transport
    target: Target
    mask: int
    folder: Path
    console: Console
    cases: Mapping[str, Deployed]
    launches: dict[str, list[stats.Launch]] = field(default_factory=dict)
    inside: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    readings: dict[Limits | None, list[Readings]] = field(default_factory=dict)
    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_seconds(self, what: str, begun: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - begun

    def settings(self, usual: Settings, seed: int) -> Settings:
        return dataclasses.replace(usual, cpu_mask=self.mask, seed=seed)

    def end_to_end(self, number: int) -> None:
        """One launch of every network, without the profiler."""
        begun = time.monotonic()
        order = Order(list(self.cases.values()), self.target.installed, self.settings(END_TO_END, number + 1))
        path = self.folder / "rounds" / f"launch-{number:02d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        run_launch(order, self.device, "rounds", path, lambda seconds, case: None)
        told = load_launches(path.parent)[number]
        for name, case in self.cases.items():
            found = launches_of(case.id, [told])
            if found:
                self.launches.setdefault(name, []).append(to_launch(found[0]))
        self.add_seconds("end to end", begun)

    def profile(self) -> None:
        """What each kernel takes inside its network, with the profiler's share."""
        begun, cases = time.monotonic(), list(self.cases.items())
        for start in range(0, len(cases), PROFILED_AT_ONCE):
            some, own = cases[start : start + PROFILED_AT_ONCE], self.folder / f"inside-{start:04d}"
            own.mkdir()
            settings = dataclasses.replace(self.settings(END_TO_END, start + 1), launch_s=0.03)
            only = [case for _, case in some]
            order = Order(only, self.target.installed, settings, frozenset(case.id for case in only))
            run_launch(order, self.device, own.name, own / "launch-00.jsonl", lambda seconds, case: None)
            results = load_launches(own)
            for name, case in some:
                profiled = launches_of(case.id + PROFILED, results)
                reference = stats.canary_reference([to_launch(one) for one in profiled])
                times = kernel_times(profiled, reference, CONFIDENCE)
                named, _ = name_kernels(case, times, own)
                self.inside[name] = [(str(one.key), smooth_us(time_)) for one, time_ in zip(named, times, strict=True)]
            shutil.rmtree(own)
        self.add_seconds("profiling networks", begun)

    def part(self, number: int, limits: Limits | None, groups: Sequence[Sequence[Any]]) -> None:
        """Some bundles and chains, or walks where there are no limits; what was read of them is what stays."""
        begun, own = time.monotonic(), self.folder / f"part-{number:03d}"
        own.mkdir()
        write = (self.target, self.device, own)
        written = write_bundles(groups, *write, seed=1000 * number, name=f"part{number:03d}") if limits else ()
        sweep = Sweep(written, write_chains(*write, CHAINS_A_PART), () if limits else write_walks(groups, *write))
        usual = WALKED if limits is None else SMALL if limits == WARM else SWEEP
        settings = self.settings(usual, number + 1)
        results = run(
            sweep, self.device, self.target.installed, settings, own, lambda seconds, case: None, run=own.name
        )
        self.readings.setdefault(limits, []).append(read(sweep, results, own, CONFIDENCE))
        for bundle in written if limits else ():
            self.bundles[bundle.case.id] = self._about(bundle, results, number, limits)
        shutil.rmtree(own)
        self.add_seconds("table", begun)

    def _about(self, bundle: Bundle, results: Sequence[Any], number: int, limits: Limits) -> dict[str, Any]:
        profiled = [to_launch(one) for one in launches_of(bundle.case.id + PROFILED, results)]
        return {
            "part": number,
            "weight_limit_bytes": limits.weight_bytes,
            "kernels": len(bundle.plan.keys),
            "canary_ns": stats.canary_reference(profiled),
        }


def exported(networks: Sequence[held_out.HeldOut], form: str, folder: Path, console: Console) -> dict[str, Exported]:
    """Their files, made anew only where `folder` has none of the same networks; converted, not compared with torch."""
    from pipeline.export import EXPORTERS
    from pipeline.export.base import trace
    from pipeline.export.quiet import quiet

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, one in enumerate(networks):
        path = folder / f"{one.name}-{_digest(one)}.{form}"
        if not path.exists():
            console.say(f"exporting {one.name} to {form}, {number + 1} of {len(networks)}")
            part = folder / f".{os.getpid()}.{path.name}"
            with quiet():
                traced = trace(Network(one.name, "python", one.input_shape, module=one.module))
                EXPORTERS[form]().convert(traced, part)
            os.replace(part, path)
        size, digest = path.stat().st_size, sha256_file(path)
        found[one.name] = Exported(one.name, form, path, digest, size, one.input_shape, (), "held_out")
    return found


def _digest(one: held_out.HeldOut) -> str:
    digest = hashlib.sha256(f"{one.module!r}{one.input_shape}".encode())
    for weight in one.module.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()[:12]


def session(
    runtime: str, count: int, seed: int, rounds: int, folder: Path, keep: Path, mask: int = 0
) -> dict[str, Any]:
    """Everything of one runtime: the document that `tables_report.report` prints."""
    from pipeline.graph import count as count_of
    from pipeline.graph import kernels

    console = Console()
    networks = held_out.networks(count, seed)
    lists = {one.name: [use.key for use in kernels(one.module, one.input_shape, runtime)] for one in networks}
    files = exported(networks, RUNTIME_FORMATS[runtime], keep, console)
    folder.mkdir(parents=True, exist_ok=True)
    with HostTransport(folder / "device") as device:
        installed = install(host_bundle(platform.machine(), [runtime], cache_dir()), device)
        (target,) = targets_of([installed])
        cases = {name: case_of(file, target, device, name_bundle=False) for name, file in files.items()}
        deploy(list(cases.values()), device)
        bench = Bench(device, target, mask or cpu_mask(device, threads=1), folder, console, cases)
        met = distinct(lists)
        cannot = unwritable(met, target, folder)
        walked = walks(WALKS_COUNT, seed)
        keys = dict.fromkeys([*(key for key in met if key not in cannot), *(key for one in walked for key in one)])
        _interleave(bench, _parts(list(keys), walked, seed), rounds)
        about = device.describe()
    cold, warm = bench.readings[COLD], bench.readings[WARM]
    ways = bench.readings[None]
    measured = combine(cold, warm, ways, confidence=CONFIDENCE)
    told = [one for part in ways for one in part.walks]
    warmth = curve(told, measured.entries, measured.overhead.ns / 1e3)
    seen: dict[str, list[Seen]] = {}
    for one in (one for part in cold for one in part.seen):
        seen.setdefault(str(one.key), []).append(one)
    counts = {one.name: count_of(one.module, one.input_shape) for one in networks}
    return {
        "schema_version": 1,
        "runtime": runtime,
        "runtime_version": next(iter(cases.values())).runtime_version,
        "machine": f"{about.model}, {about.cores} cores, {about.os}",
        "mask": hex(bench.mask),
        "seed": seed,
        "seconds": bench.seconds,
        "overhead": dataclasses.asdict(measured.overhead),
        "warmth": [list(point) for point in warmth],
        "walks": [_walk(one) for one in told],
        "missing": {str(key): why for key, why in {**measured.missing, **cannot}.items()},
        "bundles": bench.bundles,
        "entries": {
            str(entry.key): {
                "us": entry.latency_ns_median / 1e3,
                "low_us": entry.interval_ns[0] / 1e3,
                "high_us": entry.interval_ns[1] / 1e3,
                "warm_us": None if entry.warm_ns is None else entry.warm_ns / 1e3,
                "seen": [[one.bundle, one.us, one.half_us] for one in seen[str(entry.key)]],
            }
            for entry in measured.entries
        },
        "networks": [
            {
                "name": one.name,
                "family": one.family,
                "input_shape": list(one.input_shape),
                "macs": counts[one.name].macs,
                "weight_bytes": 4 * counts[one.name].params,
                "keys": [str(key) for key in lists[one.name]],
                "inside": [list(row) for row in bench.inside.get(one.name, [])],
                "rounds": [_samples(launch) for launch in bench.launches.get(one.name, [])],
            }
            for one in networks
        ],
    }


def _parts(
    keys: Sequence[Any], walked: Sequence[Sequence[Any]], seed: int
) -> list[tuple[Limits | None, Sequence[Sequence[Any]]]]:
    """The bundles of both sizes and the walks, some at a time; those of one kind spread over the whole session."""
    placed: list[tuple[float, Limits | None, Sequence[Sequence[Any]]]] = []
    for limits in (COLD, WARM, None):
        copies = COPIES if limits == COLD else 1
        groups = bundles(keys, copies=copies, limits=limits, seed=seed) if limits else walked
        size = SMALL_BUNDLES_A_PART if limits == WARM else BUNDLES_A_PART
        parts = [groups[start : start + size] for start in range(0, len(groups), size)]
        placed += [((number + 0.5) / len(parts), limits, part) for number, part in enumerate(parts)]
    return [(limits, part) for _, limits, part in sorted(placed, key=lambda one: one[0])]


def _interleave(bench: Bench, parts: Sequence[tuple[Limits | None, Sequence[Sequence[Any]]]], rounds: int) -> None:
    """The parts of the sweep, with the rounds end to end spread evenly between them and the profiles half-way."""
    due = [round(number * len(parts) / max(1, rounds - 1)) for number in range(rounds)]
    for number in range(len(parts) + 1):
        for which in (which for which, place in enumerate(due) if place == number):
            bench.console.say(f"{bench.target.runtime}: end to end, round {which + 1} of {rounds}")
            bench.end_to_end(which)
        if number == len(parts) // 2:
            bench.profile()
        if number < len(parts):
            bench.console.say(f"{bench.target.runtime}: bundles, part {number + 1} of {len(parts)}")
            bench.part(number, *parts[number])


def _walk(one: Walk) -> list[Any]:
    return [one.us, [[str(key) if key else None, us] for key, us in one.kernels]]


def _samples(launch: stats.Launch) -> dict[str, list[float]]:
    """The kept samples of one round, ns, as integers: plenty for any estimate."""
    return {
        "sample_ns": [int(ns) for ns in launch.samples[launch.kept]],
        "canary_ns": [int(ns) for ns in launch.canary[launch.kept]],
        "block": [int(number) for number in launch.block[launch.kept]],
        "preempted": [int(times) for times in launch.preempted[launch.kept]],
    }


def tables(
    folder: Path, rounds: int, runtimes: Sequence[str] = RUNTIMES, count: int = NETWORKS, seed: int = 0, mask: int = 0,
    keep: Path | None = None, out: Path | None = None,
) -> None:  # fmt: skip
    """Measures, writes everything down where `out` says so (the runtime's name added), and prints the report."""
    for runtime in runtimes:
        document = session(runtime, count, seed, max(2, rounds), folder / runtime, keep or folder / "keep", mask)
        if out:
            write_json(out.with_name(f"{out.stem}-{runtime}{out.suffix}"), document)
        print("\n".join(tables_report.report(document)), flush=True)


PARTS: dict[str, Callable[[Path, int], None]] = {"tables": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--networks", type=int, default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mask", type=lambda text: int(text, 0), default=0, help="cores to run on, as in 0x1")
    parser.add_argument("--keep", type=Path, help="where exported networks are, or are kept for the next time")
    parser.add_argument("--out", type=Path, help="everything measured, as JSON, the runtime's name added")
    parser.add_argument("--again", type=Path, help="print the report of such a file and measure nothing")
    given = parser.parse_args()
    if given.again:
        print("\n".join(tables_report.report(json.loads(given.again.read_text()))))
        return
    runtimes = [given.runtime] if given.runtime else RUNTIMES
    with tempfile.TemporaryDirectory() as folder:
        tables(Path(folder), given.rounds, runtimes, given.networks, given.seed, given.mask, given.keep, given.out)


if __name__ == "__main__":
    main()
