"""A device that measures nothing: files in a folder, and a runner that writes the lines which a real one would.

Samples are 10 ms with a little noise from a seed. It can fail a case, end badly, lose the link, be interrupted, or cut
its last line short, all of that as the real one does.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devices.bundle import BundledFile, RuntimeBundle
from devices.errors import TransferError
from devices.install import Installed
from devices.transport import CommandResult, DeviceDescription, OnOutput, Transport
from pipeline.artifact import Exported
from pipeline.deploy import Deployed

CANARY_NS = 500_000
SAMPLE_NS = 10_000_000
KERNELS = (("Convolution (NHWC, F32)", 8, 6000), ("Fully Connected (NC, F32)", 8, 3000), ("Delegate/XNNPACK", 2, 9500))
"""Name, LiteRT's event type and µs: two kernels and the node that stands for the delegate."""

Line = dict[str, Any]
Spec = Mapping[str, str]


def block(samples: Sequence[int], *, canary: int = CANARY_NS, warmup: bool = False, begin_ns: int = 0) -> Line:
    """A `block` line without its case."""
    count = len(samples)
    return {
        "type": "block",
        "warmup": int(warmup),
        "start_ns": [begin_ns + sum(samples[:i]) for i in range(count)],
        "canary_ns": [canary] * count,
        "sample_ns": [int(sample) for sample in samples],
        "preempted": [0] * count,
        "last_canary_ns": canary,
        "core": [1, 1],
        "clock_khz": [2_000_000, -1],
    }


def noisy(spread: float, *, blocks: int = 5, size: int = 8) -> Callable[[int, Spec], list[list[int]]]:
    """(launch, case) -> blocks of samples whose logarithms have that standard deviation."""

    def samples(launch: int, case: Spec) -> list[list[int]]:
        random = np.random.default_rng([launch, len(case["case"])])
        times = SAMPLE_NS * np.exp(spread * random.standard_normal((blocks, size)))
        return [[int(ns) for ns in row] for row in times]

    return samples


class FakeDevice(Transport):
    """Args:
    samples: (launch, the case's lines of the job) -> blocks of samples.
    failures: case -> why the runner could not run it.
    logs: case -> what its runtime said on stderr.
    status, stderr: how the runner ends.
    raises: what the run raises after the results are written (a lost link, Ctrl-C).
    torn: bytes cut off the end of the results.
    mute: cases of which the runner writes nothing but that they were loaded.
    """

    name = "fake"

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.workdir = str(folder)
        self.samples = settings.pop("samples", noisy(0.001))
        self.failures: Mapping[str, str] = settings.pop("failures", {})
        self.logs: Mapping[str, str] = settings.pop("logs", {})
        self.status: int = settings.pop("status", 0)
        self.stderr: bytes = settings.pop("stderr", b"")
        self.raises: list[BaseException] = settings.pop("raises", [])
        self.torn: int = settings.pop("torn", 0)
        self.mute: Sequence[str] = settings.pop("mute", ())
        assert not settings
        self.pushed: list[str] = []
        self.commands: list[tuple[str, ...]] = []
        self.jobs: list[Sequence[Spec]] = []

    def push(self, local: Path, remote: str) -> None:
        self.pushed.append(remote)
        Path(remote).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local, remote)

    def pull(self, remote: str, local: Path) -> None:
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise TransferError(f"cannot copy {remote}: {error.strerror}") from error

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, on_output: OnOutput | None = None
    ) -> CommandResult:
        self.commands.append(tuple(argv))
        if argv[0] in ("sh", "ls", "rm"):
            done = subprocess.run(argv, capture_output=True, check=False)
            return CommandResult(tuple(argv), done.returncode, done.stdout, done.stderr, 0.0)
        self._run_job(Path(argv[-1]), on_output)
        status, stderr = self.status, self.stderr
        return CommandResult(tuple(argv), status, b"", stderr, 0.0)

    def describe(self) -> DeviceDescription:
        return DeviceDescription("fake", "fake", "a model", "an OS", "6.1", "x86_64", 2, 1 << 30)

    def close(self) -> None:
        pass

    def _run_job(self, path: Path, on_output: OnOutput | None) -> None:
        head, *cases = read_job(path.read_text("utf-8"))
        launch = len(self.jobs)
        self.jobs.append(cases)
        lines = [line for case in cases for line in self._case(launch, case)]
        if not self.raises:
            lines.append({"type": "end", "stopped": 0, "elapsed_ns": 1})
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        Path(head["results"]).write_bytes(data[: len(data) - self.torn])
        if on_output is not None:
            for case in cases:
                on_output(f"case {case['case']} samples 40 timed_ns 500000000 alive 1\n".encode())
        if self.raises:
            raise self.raises.pop(0)

    def _case(self, launch: int, case: Spec) -> list[Line]:
        if case["case"] in self.logs:
            Path(case["log"]).write_text(self.logs[case["case"]], "utf-8")
        loaded: Line = {
            "type": "loaded", "load_ns": 3_000_000, "version": "1", "canary": "kind", "cpu_mask": "0x2", "inputs": [],
        }  # fmt: skip
        if case["case"] in self.failures:
            lines: list[Line] = [{"type": "failed", "signal": 0, "why": self.failures[case["case"]]}]
        elif case["case"] in self.mute:
            lines = [loaded]
        else:
            lines = [loaded, block([3 * SAMPLE_NS] * 2, warmup=True)]
            lines += [block(one, begin_ns=i * 10**9) for i, one in enumerate(self.samples(launch, case))]
            profile = ""
            if case["profile"] == "1":
                count = sum(len(line.get("sample_ns", ())) for line in lines) - 2
                if "profile_prefix" in case:
                    profile = onnx_profile(case, count + 2)
                else:
                    lines += litert_kernels(count)
            lines.append({"type": "finished", "peak_memory_bytes": 1 << 20, "profile": profile})
        return [{**line, "case": case["case"]} for line in lines]


def read_job(text: str) -> list[dict[str, str]]:
    """A job file's sections: key -> rest of the line; the first one is the job's own."""
    sections: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "case":
            sections.append({})
        sections[-1][key] = value
    return sections


def litert_kernels(count: int) -> list[Line]:
    kernels = [{"name": name, "index": i, "kind": kind} for i, (name, kind, _) in enumerate(KERNELS)]
    times = [us for _, _, us in KERNELS]
    lines: list[Line] = [{"type": "kernel_list", "list": 1, "kernels": kernels}]
    return lines + [{"type": "kernels", "list": 1, "sample": i, "us": times} for i in range(count)]


def onnx_profile(case: Spec, runs: int) -> str:
    """onnxruntime's own profile of that many inferences (warm-up included), and the graph it ran."""
    details = {"op_name": "Conv", "node_index": "0", "input_type_shape": [], "output_type_shape": []}
    events: list[Line] = []
    for run in range(runs):
        node = {"cat": "Node", "name": "/conv_kernel_time", "dur": 9000, "ts": 10 * run, "args": details}
        events += [node, {"cat": "Session", "name": "model_run", "dur": 9500, "ts": 10 * run + 1}]
    path = f"{case['profile_prefix']}_2026-11-21_14-22-33.json"
    Path(path).write_text(json.dumps(events), "utf-8")
    if "optimized_model" in case:
        Path(case["optimized_model"]).write_bytes(b"the optimised graph")
    return path


def bundle(folder: Path) -> RuntimeBundle:
    libraries = {name: BundledFile(folder / f"{name}.so", f"{name}-sha", "here") for name in ("onnxruntime", "litert")}
    return RuntimeBundle(
        "host", "x86_64", BundledFile(folder / "runner", "runner-sha", "here"), libraries, dict.fromkeys(libraries, "1.0")
    )


def installed(folder: Path) -> dict[str, Installed]:
    libraries = {name: f"/lib/{name}.so" for name in ("onnxruntime", "litert")}
    return {"host": Installed(bundle(folder), ("runner",), libraries)}


def exported(folder: Path, network: str = "net", format: str = "tflite", content: bytes = b"a model") -> Exported:
    path = folder / f"{network}.{format}"
    path.write_bytes(content)
    return Exported(network, format, path, "5" * 64, len(content), (1, 8, 8, 1), (1, 10), "a converter 1.0")


def deployed(folder: Path, network: str = "net", runtime: str = "litert") -> Deployed:
    artifact = exported(folder, network, {"litert": "tflite", "onnxruntime": "onnx"}[runtime])
    return Deployed(
        f"{network}.{runtime}", artifact, runtime, "xnnpack" if runtime == "litert" else "",
        str(artifact.path), f"/lib/{runtime}.so", f"{runtime}-sha", "1.0",
    )  # fmt: skip
