"""A thousand single-kernel models: in one start of the runner, and in one start each. Cases a second of both, and the ratio.

usage: many_cases.py [--count N] [--apart N] [--rounds N]      on this machine; `measure` takes any device

A case is one convolution of its own width, written here in microseconds (ONNX by onnx.helper, TFLite by the schema that
ai-edge-litert ships), warmed up and timed a few times: what a sweep over a kernel's widths asks for. The models lie on the
device before the clock starts; it stops when the results are here and parsed, and counts everything in between.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.install import Installed
from devices.runner import Case, format_job, parse_results, read_lines
from devices.transport import CommandResult, DeviceDescription, OnOutput, Transport

SIDE = 14
"""Height and width of the input."""

SETTINGS: dict[str, Any] = {"warmup_ns": 0, "block_ns": 0, "max_samples": 3}
"""One block of three samples after three warm-ups, each with its canary: the runner's own least."""


@dataclass(frozen=True)
class Figures:
    """One runtime. Cases a second, one number a round; transport calls a case, the sending of the models included.

    together: all in one start; apart: one start each.
    """

    runtime: str
    count: int
    together_per_s: tuple[float, ...]
    apart_per_s: tuple[float, ...]
    together_trips: float
    apart_trips: float

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(self.together_per_s, self.apart_per_s, strict=True))


class Counting(Transport):
    """Another transport, its calls counted."""

    def __init__(self, inner: Transport) -> None:
        self._inner, self.name, self.workdir, self.calls = inner, inner.name, inner.workdir, 0

    def push(self, local: Path, remote: str) -> None:
        self.calls += 1
        self._inner.push(local, remote)

    def push_many(self, files: Mapping[str, Path], folder: str) -> None:
        self.calls += 1
        self._inner.push_many(files, folder)

    def pull(self, remote: str, local: Path) -> None:
        self.calls += 1
        self._inner.pull(remote, local)

    def pull_folder(self, remote: str, local: Path, **settings: Any) -> list[str]:
        self.calls += 1
        return self._inner.pull_folder(remote, local, **settings)

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        self.calls += 1
        return self._inner.run(argv, timeout_s=timeout_s, on_output=on_output)

    def describe(self) -> DeviceDescription:
        return self._inner.describe()

    def close(self) -> None:
        self._inner.close()


def widths(count: int) -> list[tuple[int, int]]:
    """Channels in and out, all different: 8 to 47 in, from 8 out."""
    return [(8 + i % 40, 8 + i // 40) for i in range(count)]


def onnx_model(c_in: int, c_out: int) -> bytes:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def image(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, SIDE, SIDE])

    weight = np.random.default_rng(1).random((c_out, c_in, 3, 3), dtype=np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node], "g", [image("x", c_in)], [image("y", c_out)], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tflite_model(c_in: int, c_out: int) -> bytes:
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    def made(kind: str, **fields: Any) -> Any:
        table = getattr(schema, kind)()
        for name, value in fields.items():
            assert hasattr(table, name), f"{kind} has no {name}"
            setattr(table, name, value)
        return table

    def tensor(name: str, shape: tuple[int, ...], buffer: int) -> Any:
        return made("TensorT", name=name, shape=list(shape), type=schema.TensorType.FLOAT32, buffer=buffer)

    def constant(values: Any) -> Any:
        return made("BufferT", data=np.frombuffer(values.tobytes(), np.uint8))

    conv = schema.BuiltinOperator.CONV_2D
    code = made("OperatorCodeT", builtinCode=conv, deprecatedBuiltinCode=conv, version=1)
    options = made(
        "Conv2DOptionsT", padding=schema.Padding.SAME, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1
    )
    kind = schema.BuiltinOptions.Conv2DOptions
    operator = made(
        "OperatorT", opcodeIndex=0, inputs=[0, 1, 2], outputs=[3], builtinOptionsType=kind, builtinOptions=options
    )
    shapes = {"x": (1, SIDE, SIDE, c_in), "w": (c_out, 3, 3, c_in), "b": (c_out,), "y": (1, SIDE, SIDE, c_out)}
    tensors = [tensor(name, shapes[name], {"w": 1, "b": 2}.get(name, 0)) for name in "xwby"]
    graph = made("SubGraphT", name="main", inputs=[0], outputs=[3], operators=[operator], tensors=tensors)
    weight = np.random.default_rng(1).random(shapes["w"], dtype=np.float32)
    buffers = [schema.BufferT(), constant(weight), constant(np.zeros(c_out, np.float32))]
    model = made("ModelT", version=3, operatorCodes=[code], subgraphs=[graph], buffers=buffers)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


MODELS: dict[str, Callable[[int, int], bytes]] = {"onnxruntime": onnx_model, "litert": tflite_model}


def measure(
    device: Transport, installed: Installed, folder: Path, *, count: int = 1000, apart: int = 50, rounds: int = 3
) -> list[Figures]:
    """Both ways in turn, for each runtime of the bundle that there is a model for.

    Args: folder: for files of its own, on this machine. apart: how many cases are started one by one in a round.
    """
    remote = f"{device.workdir}/many"
    figures = []
    try:
        for runtime in (name for name in MODELS if name in installed.libraries):
            files = {}
            for i, (c_in, c_out) in enumerate(widths(count)):
                files[f"{runtime}-{i}"] = folder / f"{runtime}-{i}"
                files[f"{runtime}-{i}"].write_bytes(MODELS[runtime](c_in, c_out))
            figures.append(_compare(device, installed, runtime, files, remote, folder, apart, rounds))
    finally:
        device.run(["rm", "-rf", remote], timeout_s=60)
    return figures


def _compare(
    device: Transport, installed: Installed, runtime: str, files: dict[str, Path], remote: str, folder: Path, apart: int,
    rounds: int,
) -> Figures:  # fmt: skip
    library = installed.libraries[runtime]
    cases = [
        Case(id=name, model=f"{remote}/{name}", runtime=runtime, library=library, group=i, **SETTINGS)
        for i, name in enumerate(files)
    ]
    some = cases[:: max(1, len(cases) // apart)][:apart]
    speeds: dict[str, list[float]] = {"together": [], "apart": []}
    trips = {}
    for number in range(rounds):
        for way in sorted(speeds, reverse=number % 2 == 0):  # who goes first changes
            counting = Counting(device)
            chosen = cases if way == "together" else some
            counting.push_many({case.id: files[case.id] for case in chosen}, remote)
            start = time.perf_counter()
            for batch in [chosen] if way == "together" else [[case] for case in chosen]:
                launch(counting, installed, batch, remote, folder)
            speeds[way].append(len(chosen) / (time.perf_counter() - start))
            trips[way] = counting.calls / len(chosen)
    return Figures(
        runtime, len(cases), tuple(speeds["together"]), tuple(speeds["apart"]), trips["together"], trips["apart"]
    )


def launch(device: Transport, installed: Installed, cases: Sequence[Case], remote: str, folder: Path) -> None:
    """One start of the runner, in the pipeline's own steps: the job goes there, its folder comes back, nothing stays."""
    job, brought = folder / "job", folder / "brought"
    job.write_text(format_job(cases, f"{remote}/launch/results.jsonl"), "utf-8")
    device.push(job, f"{remote}/launch/job")
    ended = device.run([*installed.start, f"{remote}/launch/job"], timeout_s=600)
    if ended.status:
        raise SystemExit(f"the runner ended with {ended.status}: {ended.stderr.decode('utf-8', 'replace')[-300:]}")
    shutil.rmtree(brought, ignore_errors=True)
    device.pull_folder(f"{remote}/launch", brought)
    device.run(["rm", "-rf", f"{remote}/launch"], timeout_s=30)
    parsed = parse_results(read_lines(str(brought / "results.jsonl")))
    bad = [case.id for case in cases if not parsed.cases[case.id].finished]
    if bad or not parsed.complete:
        raise SystemExit(f"{len(bad)} cases did not finish: {parsed.cases[bad[0]].failed if bad else 'stopped'}")


def report(figures: Sequence[Figures]) -> list[str]:
    """Lines to print."""
    lines = []
    for one in figures:
        together, apart = statistics.median(one.together_per_s), statistics.median(one.apart_per_s)
        ratio = statistics.median(one.ratios)
        lines.append(
            f"  {one.runtime:<12} {one.count} together {together:6.1f} a second, one start each {apart:6.1f}: {ratio:.1f}x"
            f" (rounds {min(one.ratios):.1f} ... {max(one.ratios):.1f}); round trips a case {one.together_trips:.3f}"
            f" and {one.apart_trips:.2f}  {'reached' if ratio >= 5 else 'MISSED'}"
        )
    return lines


def main() -> None:
    import platform

    from devices.bundle import host_bundle
    from devices.discovery import cache_dir
    from devices.host import HostTransport
    from devices.install import install

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="cases in one start (1000)")
    parser.add_argument("--apart", type=int, default=50, help="cases started one by one in a round (50)")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, HostTransport(Path(folder, "device")) as device:
        installed = install(host_bundle(platform.machine(), sorted(MODELS), cache_dir()), device)
        figures = measure(device, installed, Path(folder), count=given.count, apart=given.apart, rounds=given.rounds)
    print(f"{given.count} single-kernel models in one start of the runner against one start each (bar: 5x)")
    print("\n".join(report(figures)))


if __name__ == "__main__":
    main()
