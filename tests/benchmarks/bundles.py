"""Do kernels in bundles take as long as in a network? MobileNetV2 in both runtimes, each way beside the network in one run.

usage: bundles.py [--rounds N] [--runtime R] [--mask M]      about 40 seconds a round and runtime

Ways: each kernel alone in a loop; bundles in random order of bare kernels, with a producer of each input, with a producer and
a consumer of each output; and these in the order of a network, from large tensors to small ones. Kernels are compared as the
profiler reads them; the sum, less the profiler's share, also with the latency of the network without the profiler.

What was seen for this one network, on a shared machine with 1 MiB of L2 a core and something else running most of the time:

onnxruntime: the order decides. In random order depthwise kernels, the strided ones first, read 10 to 40 % high, with producers
and consumers too, and 10 % high even between a network's own convolutions; from large tensors to small ones most are
within a few %, but 144x56x56 still read 0 to 30 % high, and how much changed with the load. It fits that a small kernel
then no longer writes where a tensor larger than the L2 was just before; that was not measured by itself.
XNNPACK: the order changes little; a producer and a consumer are what counts.
Both: tensors of more than 1 MiB (112x112) read 5 to 20 % low and the first layer 2 to 9 %, perhaps because in a network their
memory was not used for longest: not tried. The last linear layer (5 MB of weights) differs as much in the network itself, from
one run to the next. Additions of shortcuts (XNNPACK, 1 to 6 µs each) read 20 to 30 % low with an operand written three
branches before, 40 % low with one written just before.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.bundle import host_bundle
from devices.conditions import cpu_mask
from devices.discovery import cache_dir
from devices.host import HostTransport
from devices.install import Installed, install
from devices.runner import RunnerResult
from latency_luts import OpKey, stats
from pipeline.artifact import Exported
from pipeline.deploy import Deployed, Target, case_of, deploy, targets_of
from pipeline.kernel_times import KernelTimes, kernel_times, to_launch
from pipeline.launch import Order, run_launch
from pipeline.naming import name_kernels
from pipeline.profiling import load_launches
from pipeline.result import launches_of
from pipeline.settings import PROFILED, Settings
from pipeline.sweep.fold import smooth_us, whole_us
from pipeline.sweep.measure import Bundle, write_bundles, write_chains
from pipeline.sweep.plan import Limits, bundles
from pipeline.sweep.reading import added_us, kernels_in

NETWORK = "mobilenet_v2"
RUNTIMES = ("onnxruntime", "litert")
WAYS: Mapping[str, tuple[bool, bool, bool]] = {
    # producers, consumers, random order
    "bare": (False, False, True),
    "producer": (True, False, True),
    "both": (True, True, True),
    "ordered": (True, True, False),
}
COPIES = 2
AT_ONCE = 8
"""Cases a launch: onnxruntime's graphs and profiles all come home, and there is a limit to that."""
CONFIDENCE = 0.95
FURTHEST = 8


@dataclass(frozen=True)
class Times:
    """One round: the network's kernels in order, in µs as profiled; its latency in µs; and each way's time for a key.

    added_us: by how much a kernel reads longer than it takes, from chains of small ones.
    """

    kernels: tuple[tuple[OpKey, float], ...]
    whole_us: float
    ways: Mapping[str, Mapping[OpKey, float]]
    added_us: float


def kind(key: OpKey) -> str:
    """The family that a row of the result is for."""
    if key.op != "conv2d":
        return key.op
    if key.input_shape[1] <= 3:
        return "first layer"
    if key.groups > 1:
        return f"depthwise s{key.stride[0]}"
    size = key.input_shape[1] * key.out_channels * key.kernel[0] * key.kernel[1] * 4
    return "conv, weights over 256 KiB" if size > 1 << 18 else "conv, smaller weights"


def experiment(runtime: str, exported: Exported, rounds: int, folder: Path, mask: int = 0) -> list[Times]:
    """The rounds of one runtime. Args: mask: cores to run on; 0 for those that handset would choose."""
    with HostTransport(folder / "device") as device:
        installed = install(host_bundle(platform.machine(), [runtime], cache_dir()), device)
        (target,) = targets_of([installed])
        settings = Settings(
            cpu_mask=mask or cpu_mask(device, threads=1), launch_s=0.2, kernels_s=0.4, warmup_s=0.1, launches=1
        )
        first = case_of(exported, target, device, name_bundle=False)
        networks = [dataclasses.replace(first, id=f"network-{number}") for number in range(4)]
        deploy(networks[:1], device)
        keys = _keys_of(networks[0], device, installed, settings, folder)
        found = []
        for number in range(rounds):
            own = folder / f"round-{number}"
            own.mkdir()
            found.append(_round(keys, networks, target, device, installed, settings, own, 100 * number))
        return found


def _keys_of(
    case: Deployed, device: HostTransport, installed: Installed, settings: Settings, folder: Path
) -> list[OpKey]:
    """The network's distinct kernels, from a first short launch."""
    _launch([case], device, installed, dataclasses.replace(settings, launch_s=0.01, kernels_s=0.05), folder)
    named, note = name_kernels(case, _kernels(case, load_launches(folder)), folder)
    if note:
        print(f"  {note}")
    return list(dict.fromkeys(one.key for one in named if one.key is not None))


def _round(
    keys: Sequence[OpKey], networks: Sequence[Deployed], target: Target, device: HostTransport, installed: Installed,
    settings: Settings, folder: Path, seed: int,
) -> Times:  # fmt: skip
    singles = [[key] for key in keys]
    alone = write_bundles(singles, target, device, folder, producers=False, consumers=False, name="alone")
    deals = bundles(keys, copies=COPIES, limits=Limits(kernels=60), seed=seed)
    written: dict[str, Sequence[Bundle]] = {"alone": alone}
    for way, (producers, consumers, random_order) in WAYS.items():
        written[way] = write_bundles(
            deals, target, device, folder, seed=seed, name=way, producers=producers, consumers=consumers,
            random_order=random_order,
        )  # fmt: skip
    together = [bundle.case for copy in zip(*(written[way] for way in WAYS), strict=True) for bundle in copy]
    chains = write_chains(target, device, folder)
    cases = [*together, *chains, *(bundle.case for bundle in alone)]
    for number, start in enumerate(range(0, len(cases), AT_ONCE)):
        # the network beside every few cases, so that it sees the same minutes
        some = [networks[number % len(networks)], *cases[start : start + AT_ONCE]]
        deploy(some, device)
        _launch(some, device, installed, settings, folder, number)
    return _read(written, networks, chains, load_launches(folder), folder)


def _launch(
    cases: Sequence[Deployed],
    device: HostTransport,
    installed: Installed,
    settings: Settings,
    folder: Path,
    number: int = 0,
) -> None:
    order = Order(cases, installed, settings, frozenset(case.id for case in cases))
    run_launch(order, device, folder.name, folder / f"launch-{number:02d}.jsonl", lambda seconds, case: None)


def _kernels(case: Deployed, results: Sequence[RunnerResult]) -> list[KernelTimes]:
    profiled = launches_of(case.id + PROFILED, results)
    return kernel_times(profiled, stats.canary_reference([to_launch(one) for one in profiled]), CONFIDENCE)


def _read(
    written: Mapping[str, Sequence[Bundle]], networks: Sequence[Deployed], chains: Sequence[Deployed],
    results: Sequence[RunnerResult], folder: Path,
) -> Times:  # fmt: skip
    lists, wholes = [], []
    for network in networks:
        times = _kernels(network, results)
        named, _ = name_kernels(network, times, folder)
        lists.append([(one.key, smooth_us(time)) for one, time in zip(named, times, strict=True)])
        wholes.append(whole_us(launches_of(network.id, results), CONFIDENCE))
    quiet = [us for us in wholes if us is not None]
    whole = statistics.median(quiet) if quiet else math.nan
    kernels = [(row[0][0], statistics.median(us for _, us in row)) for row in zip(*lists, strict=True)]
    told = [added for chain in chains if (added := added_us(chain, results, CONFIDENCE)) is not None]
    ways = {}
    for way, some in written.items():
        by_key: dict[OpKey, list[float]] = {}
        for bundle in some:
            for one in kernels_in(bundle, results, folder, CONFIDENCE):
                by_key.setdefault(one.key, []).append(one.us)
        ways[way] = {key: statistics.mean(values) for key, values in by_key.items()}
    added = statistics.mean(told) if told else math.nan
    return Times(tuple((key, us) for key, us in kernels if key is not None), whole, ways, added)


def report(runtime: str, rounds: Sequence[Times]) -> list[str]:
    """Lines to print: each way against the network, by family, and the kernels that are furthest off."""
    ways = list(rounds[0].ways)
    count = len(rounds[0].kernels)
    lines = [f"\n{runtime}: {NETWORK}, {count} kernels, {len(rounds)} rounds; each way / network (spread over rounds)"]
    lines.append(f"  {'':<28}{'network':>10}" + "".join(f"{way:>22}" for way in ways))
    families = sorted({kind(key) for key, _ in rounds[0].kernels})
    for name in (*families, "all"):
        chosen = [[(key, us) for key, us in one.kernels if name in (kind(key), "all")] for one in rounds]
        total = statistics.median(sum(us for _, us in rows) for rows in chosen)
        cells = []
        for way in ways:
            ratios = [_ratio(rows, one.ways[way]) for rows, one in zip(chosen, rounds, strict=True)]
            cells.append(f"{statistics.median(ratios):8.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
        lines.append(f"  {name:<28}{total:>8.0f}us" + "".join(f"{cell:>22}" for cell in cells))
    lines.append(_against_whole(rounds, ways, count))
    added = [one.added_us for one in rounds]
    lines.append(f"  a kernel reads {statistics.median(added):.2f} us too long ({min(added):.2f} ... {max(added):.2f})")
    lines += ["", f"  furthest from the network ({ways[-1]}), in µs of the whole:"]
    return lines + _furthest(rounds, ways)


def _against_whole(rounds: Sequence[Times], ways: Sequence[str], count: int) -> str:
    """The sum less the profiler's share against end to end, over the rounds in which that could be told."""
    told = [one for one in rounds if not math.isnan(one.whole_us + one.added_us)]
    if not told:
        return "  sum / end to end: not told, something else ran on the core all the time"
    cells = []
    for way in ways:
        ratios = [(_sum(one.kernels, one.ways[way]) - count * one.added_us) / one.whole_us for one in told]
        cells.append(f"{statistics.median(ratios):8.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    whole = statistics.median(one.whole_us for one in told)
    return f"  {'sum / end to end':<28}{whole:>8.0f}us" + "".join(f"{cell:>22}" for cell in cells)


def _furthest(rounds: Sequence[Times], ways: Sequence[str]) -> list[str]:
    rows = []
    for key in dict.fromkeys(key for key, _ in rounds[0].kernels):
        network = [statistics.mean(us for other, us in one.kernels if other == key) for one in rounds]
        times = sum(other == key for other, _ in rounds[0].kernels)
        cells = [
            statistics.median(one.ways[way].get(key, 0.0) / us for one, us in zip(rounds, network, strict=True))
            for way in ways
        ]
        us = statistics.median(network)
        rows.append((abs(cells[-1] - 1) * us * times, us, times, cells, key))
    rows.sort(key=lambda row: -row[0])
    return [
        f"  {us:8.1f}us x{times}"
        + "".join(f"  {way} {cell:.2f}" for way, cell in zip(ways, cells, strict=True))
        + f"  {key}"
        for _, us, times, cells, key in rows[:FURTHEST]
    ]


def _sum(kernels: Sequence[tuple[OpKey, float]], way: Mapping[OpKey, float]) -> float:
    """Of what the way has; a kernel that it has not counts as in the network."""
    return sum(way.get(key, us) for key, us in kernels)


def _ratio(kernels: Sequence[tuple[OpKey, float]], way: Mapping[OpKey, float]) -> float:
    return _sum(kernels, way) / sum(us for _, us in kernels)


def in_bundles(folder: Path, rounds: int, runtimes: Sequence[str] = RUNTIMES, mask: int = 0) -> None:
    """The sum of MobileNetV2's kernels, measured in four ways, against the same kernels in the network."""
    from pipeline.deploy import RUNTIME_FORMATS
    from pipeline.export import EXPORTERS
    from pipeline.spec import resolve

    network = resolve(NETWORK)
    for runtime in runtimes:
        own = folder / runtime
        own.mkdir(parents=True)
        exported = EXPORTERS[RUNTIME_FORMATS[runtime]]().export(network, own)
        print("\n".join(report(runtime, experiment(runtime, exported, rounds, own, mask))), flush=True)


PARTS: dict[str, Callable[[Path, int], None]] = {"bundles": in_bundles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--mask", type=lambda text: int(text, 0), default=0, help="cores to run on, as in 0x1")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        in_bundles(Path(folder), given.rounds, [given.runtime] if given.runtime else RUNTIMES, given.mask)


if __name__ == "__main__":
    main()
