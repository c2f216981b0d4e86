"""How long asking and loading takes: `python tests/latency_luts/measure_speed.py [ENTRIES] [SAMPLES]`. Asserts nothing.

Prints the median of several repetitions of: loading a table of ENTRIES kernels (100,000) with SAMPLES samples each (20); the
first interpolation, which sorts all of them into families; `total()` of 60 kernels that are all measured, partly
interpolated, with keys that were just made (as a search has them).
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from latency_luts import Context, Entry, LatencyTable, OpKey, load, save

CONTEXT = Context(
    device="made up", soc="", os_build="", abi="x86_64", runtime="onnxruntime", runtime_version="1", runtime_sha256="",
    delegate="", threads=1, cpu_mask="", clocks="", handset_version="0", created="2026-11-21", simulated=False,
)  # fmt: skip


def conv(c_in: int, c_out: int, size: int, kernel: int, groups: int, activation: str) -> OpKey:
    pad = (kernel // 2,) * 4
    shape = (1, c_in, size, size)
    kinds = {"kernel": (kernel, kernel), "padding": pad, "groups": groups, "activation": activation, "dtype": "float32"}
    return OpKey("conv2d", shape, c_out, **kinds)  # type: ignore[arg-type]


def entries(count: int, samples: int) -> list[Entry]:
    draw = random.Random(0)
    made: dict[OpKey, Entry] = {}
    while len(made) < count:
        size, kernel = draw.choice([7, 10, 14, 20, 28, 40, 56]), draw.choice([1, 3, 5])
        activation = draw.choice(["none", "relu6"])
        c_in, c_out = 8 * draw.randint(1, 64), 8 * draw.randint(1, 64)
        key = conv(c_in, c_out, size, kernel, 1, activation)
        ns = 2000 + 0.01 * c_in * c_out * size**2 * kernel**2 * draw.uniform(0.98, 1.02)
        taken = tuple(int(ns * draw.uniform(0.98, 1.1)) for _ in range(samples))
        made[key] = Entry(key, ns, (0.99 * ns, 1.01 * ns), taken, ("a network", "another"), "Conv")
    return list(made.values())


def median_s(work: Callable[[], object], repetitions: int) -> float:
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main(count: int = 100_000, samples: int = 20) -> None:
    made = entries(count, samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        start = time.perf_counter()
        save(LatencyTable(CONTEXT, made), path)
        saving_s, size = time.perf_counter() - start, path.stat().st_size
        load(path)  # pyarrow's own start
        loading_s = median_s(lambda: load(path), 5)
        table = load(path)
    print(
        f"{count} entries of {samples} samples, {size / 2**20:.0f} MiB: save {saving_s:.2f} s, load {loading_s:.2f} s"
    )
    draw = random.Random(1)
    measured = [entry.key for entry in draw.sample(made, 60)]
    between = [conv(104 + 8 * i, 64 + 8 * i, 24, 1, 1, "relu6") for i in range(20)]
    start = time.perf_counter()
    table.lookup(between[0])
    print(f"the first interpolation (all into families, one fitted): {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    table.total(between)
    print(f"the next 19 in its family: {(time.perf_counter() - start) / 19 * 1e3:.2f} ms each")
    for name, keys in (("measured", measured), ("a third interpolated", measured[:40] + between)):
        table.total(keys)
        fresh = [[OpKey.parse(str(key)) for key in keys] for _ in range(200)]
        same_s = median_s(lambda keys=keys: table.total(keys), 2000)  # type: ignore[misc]
        turns = iter(fresh)
        fresh_s = median_s(lambda turns=turns: table.total(next(turns)), 200)  # type: ignore[misc]
        print(f"total() of 60 kernels, {name}: {same_s * 1e6:.0f} us, with keys just made {fresh_s * 1e6:.0f} us")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
