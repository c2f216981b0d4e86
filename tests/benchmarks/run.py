"""make benchmark: how fast and how right handset itself is. Each figure is a ratio or a spread within one interleaved run.

usage: run.py [PART ...] [--rounds N]      all by default, in some two hours: `tables` exports 200 networks; --help lists them

A bar that is missed is printed as missed and changes nothing else: these are figures to read, not tests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import bundles  # noqa: E402
import compression  # noqa: E402
import link  # noqa: E402
import on_phone  # noqa: E402
import tables  # noqa: E402

NETWORKS = ("mobilenet_v2", "resnet20", "digits_cnn")
RUNTIMES = {"onnxruntime": "onnx", "litert": "tflite"}


def handset(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=False)


def bench(folder: Path, *words: str) -> tuple[dict, int]:
    """One `handset bench` of its own process: its document and its exit status."""
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    ended = handset("bench", *words, "--reports", str(folder), "--json", str(out))
    if not out.exists():
        sys.exit(f"handset bench {' '.join(words)} ended with {ended.returncode}: {ended.stderr}")
    return json.loads(out.read_text()), ended.returncode


def export_all(folder: Path) -> dict[tuple[str, str], Path]:
    """(network, runtime) -> a model file named so that both runtimes' files can be benched together."""
    from pipeline.export import EXPORTERS
    from pipeline.spec import resolve

    paths = {}
    for name in NETWORKS:
        network = resolve(name)
        for runtime, form in RUNTIMES.items():
            exported = EXPORTERS[form]().export(network, folder)
            paths[name, runtime] = exported.path.rename(folder / f"{name}-{runtime}.{form}")
    return paths


def own_loop(runtime: str, path: Path, mask: int, seconds: float, samples: int = 10**9) -> float:
    """Median of the runtime's own Python loop, ms."""
    words = [sys.executable, str(HERE / "own_loops.py"), runtime, str(path), hex(mask), str(seconds), str(samples)]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(ended.stdout)) / 1e6


def agreement(folder: Path, rounds: int) -> None:
    """The plain median that handset reports against the runtime's own Python loop: same file, core and thread count."""
    paths = export_all(folder)
    print(f"\nagreement: plain median / the runtime's own Python loop, {rounds} interleaved rounds (bar: within 2 %)")
    for (name, runtime), path in paths.items():
        ratios = []
        for number in range(rounds):
            words = (str(path), "--runtime", runtime, "--launches", "1", "--budget", "1")
            if number % 2:  # who goes first changes, so that a drift of the machine favours neither
                loop = own_loop(runtime, path, MASK, 1.0)
                document, _ = bench(folder, *words)
            else:
                document, _ = bench(folder, *words)
                loop = own_loop(runtime, path, MASK, 1.0)
            ratios.append(document["profiles"][0]["latency_ms"]["median"] / loop)
        ratio = statistics.median(ratios)
        verdict = "reached" if abs(ratio - 1) <= 0.02 else "MISSED"
        print(f"  {name:<14} {runtime:<12} {ratio:.4f}  (rounds {min(ratios):.3f} ... {max(ratios):.3f})  {verdict}")


def timed_s(run: Path) -> float:
    """Seconds inside inferences and canaries, warm-ups included, of a run's launches."""
    total = 0
    for launch in sorted(run.glob("launch-*.jsonl")):
        for line in launch.read_text().splitlines():
            entry = json.loads(line)
            if entry["type"] == "block":
                total += sum(entry["sample_ns"]) + sum(entry["canary_ns"]) + entry["last_canary_ns"]
    return total / 1e9


def share(folder: Path, rounds: int) -> None:
    """The share of the profiling stage's wall time that is spent inside timed inference and canaries."""
    print("\nshare of the measuring stage inside timed inference, canary included (bar: 80 %)")
    for models in (("mobilenet_v2",), NETWORKS):
        document, _ = bench(folder, *models)
        part = timed_s(folder / document["run"]) / document["stages_s"]["measuring"]
        print(f"  {' '.join(models):<36} {part:.1%}  {'reached' if part >= 0.8 else 'MISSED'}")


def help_time(folder: Path, rounds: int) -> None:
    """handset --help, a process of its own each time."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        handset("--help")
        times.append(time.perf_counter() - start)
    middle = statistics.median(times)
    print(
        f"\nhandset --help: {middle:.3f} s, slowest {max(times):.3f} s (bar: 0.3 s)  {'reached' if middle < 0.3 else 'MISSED'}"
    )


def page(folder: Path, rounds: int) -> None:
    """From the command to the page, with everything installed."""
    start = time.perf_counter()
    document, status = bench(folder)
    seconds = time.perf_counter() - start
    print(
        f"\nmake bench to the page: {seconds:.0f} s, status {status} (bar: 120 s)  {'reached' if seconds <= 120 else 'MISSED'}"
    )
    for stage, took in document["stages_s"].items():
        if took >= 1:
            print(f"  {took:6.1f} s  {stage}")


def reproducibility(folder: Path, rounds: int) -> None:
    """24 separate bench runs of MobileNetV2: how far do their noise-corrected medians lie apart?

    Beside each, in the same minute, the median of 200 runs of the runtime's own loop: what one would have without us.
    """
    paths = export_all(folder)
    runs = max(rounds, 24) if rounds >= 5 else rounds
    print(
        f"\nreproducibility: {runs} separate runs of mobilenet_v2 (bar: standard deviation 1.5 %, or a verdict of unstable)"
    )
    files = {runtime: paths["mobilenet_v2", runtime] for runtime in RUNTIMES}
    corrected: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    plain: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    loops: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
    stable: dict[str, list[bool]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(runs):
        document, _status = bench(folder, *map(str, files.values()))
        for profile in document["profiles"]:
            corrected[profile["runtime"]].append(profile["latency_ms"]["corrected"]["median"])
            plain[profile["runtime"]].append(profile["latency_ms"]["median"])
            stable[profile["runtime"]].append(profile["verdict"]["stable"])
        for runtime, path in files.items():
            loops[runtime].append(own_loop(runtime, path, MASK, 60, 200))
    for runtime in RUNTIMES:
        good = [ms for ms, fine in zip(corrected[runtime], stable[runtime], strict=True) if fine]
        reached = spread(good)[0] <= 0.015
        print(f"  {runtime}: {sum(stable[runtime])} of {runs} runs called stable")
        rows = {
            "own loop, 200 runs": loops[runtime],
            "plain median": plain[runtime],
            "noise-corrected": corrected[runtime],
        }
        for what, values in (rows | {"noise-corrected, stable runs": good}).items():
            deviation, width = spread(values)
            print(
                f"    {what:<30} std {deviation:6.2%}  spread {width:6.1%}  median {statistics.median(values or [0]):.3f} ms"
            )
        print(f"    {'reached' if reached else 'MISSED'}")


def spread(values: list[float]) -> tuple[float, float]:
    """Standard deviation and range, as shares of the median; zeros for fewer than two values."""
    if len(values) < 2:
        return 0.0, 0.0
    middle = statistics.median(values)
    return statistics.stdev(values) / middle, (max(values) - min(values)) / middle


PARTS: dict[str, Callable[[Path, int], None]] = {
    "help": help_time,
    "share": share,
    "page": page,
    "agreement": agreement,
    "reproducibility": reproducibility,
    **bundles.PARTS,
    **compression.PARTS,
    **link.PARTS,
    **on_phone.PARTS,
    **tables.PARTS,
}


def main() -> None:
    global MASK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of a comparison (5)")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    from devices import open_device
    from devices.conditions import cpu_mask

    with open_device("host") as device:
        MASK = cpu_mask(device, threads=1)
        about = device.describe()
    print(f"{about.model}, {about.cores} cores, {about.os}; one thread on cores {MASK:#x}")
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), arguments.rounds)


MASK = 0

if __name__ == "__main__":
    main()
