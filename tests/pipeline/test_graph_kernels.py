"""The proof of `pipeline.graph.kernels`: the list without an export against the runtime's own profile, kernel by kernel.

One network of each family of the zoo and all of `graph_networks.py` are exported, run with the runtime's profiler and named as
a run's report does. The list must be the same, in the same order. `recorded_kernels.json` holds the same for what this machine
cannot run: onnxruntime on arm64 and on an x86_64 without AVX-512 (both under qemu-user), TensorFlow Lite 2.16.1 (Android 9's
libc in a chroot), from the same exports.
"""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from devices.bundle import host_bundle
from devices.host import HostTransport
from devices.install import install
from devices.runner import parse_results, read_lines
from pipeline.artifact import Exported, Network, sha256_file
from pipeline.deploy import RUNTIME_FORMATS, case_of, deploy, targets_of
from pipeline.errors import UnsupportedOp
from pipeline.export import EXPORTERS
from pipeline.export.base import trace
from pipeline.export.quiet import quiet
from pipeline.fusion import nchwc
from pipeline.graph import kernels
from pipeline.kernel_times import kernel_times
from pipeline.launch import Order, run_launch
from pipeline.models import MODELS
from pipeline.models import build as build_model
from pipeline.naming import name_kernels
from pipeline.settings import PROFILED, Settings

SUITE = runpy.run_path(str(Path(__file__).with_name("graph_networks.py")))
RECORDED = json.loads(Path(__file__).with_name("recorded_kernels.json").read_text())
RECORDED_ASKED: dict[str, dict[str, Any]] = {
    "onnxruntime 1.31.1 arm64": {"runtime": "onnxruntime", "abi": "arm64-v8a"},
    "onnxruntime 1.31.1 x86_64 without AVX-512": {"runtime": "onnxruntime", "abi": "x86_64", "block": 8},
    "tflite 2.16.1": {"runtime": "tflite"},
}

_HASHED = (
    "which of several tensors is reordered back first changes from process to process: onnxruntime numbers these nodes in "
    "the order of a hash table of addresses"
)
ZOO_HASHED = ("densenet40", "shufflenet_v2")
KNOWN_DIFFERENCES = {(name, "onnxruntime"): _HASHED for name in ("dense", "inception", "shuffle_v2_odd", *ZOO_HASHED)}
"""(network, runtime) -> why the order, never what is in the list, may differ. Without an entry the lists are equal."""


ZOO = [
    "condensenet50_cifar10", "densenet40", "digits_cnn", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1",
    "resnet18", "resnet20", "shufflenet_v1_g3", "shufflenet_v2", "squeezenet_1_1", "squeezenext_23v5", "vgg11_cifar",
]
"""One of each family, which together have all that the zoo has: an export to TFLite alone takes some ten seconds."""


def built(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    if name in MODELS:
        return SUITE["as_trained"](lambda: build_model(name)), MODELS[name].input_shape
    module: tuple[torch.nn.Module, tuple[int, ...]] = SUITE["build"](name)
    return module


def profiled(name: str, runtime: str, folder: Path, cache: Path) -> list[str]:
    """The keys of the kernels that a runtime really ran, in its order."""
    module, shape = built(name)
    format_name = RUNTIME_FORMATS[runtime]
    model = folder / f"{name}.{format_name}"
    with quiet():  # converted only: how exactly a runtime computes it is asked elsewhere
        converter = EXPORTERS[format_name]().convert(trace(Network(name, "python", shape, module=module)), model)
    size, digest = model.stat().st_size, sha256_file(model)
    artifact = Exported(name, format_name, model, digest, size, shape, (), converter)
    device = HostTransport(folder / "device")
    installed = install(host_bundle(device.describe().abi, [runtime], cache / "handset"), device)
    (target,) = targets_of([installed])
    case = case_of(artifact, target, device, name_bundle=False)
    deploy([case], device)
    order = Order([case], installed, Settings(launch_s=0.01, kernels_s=0.01, warmup_s=0.01), frozenset([case.id]))
    path = folder / "launch-00.jsonl"
    run_launch(order, device, "0123456789abcdef", path, lambda seconds, name: None)
    times = kernel_times([parse_results(read_lines(str(path))).cases[case.id + PROFILED]], 0, 0.95)
    named, note = name_kernels(case, times, folder)
    assert note == "", "every kernel has a key"
    return [str(kernel.key) for kernel in named]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("name", [*SUITE["NETWORKS"], *ZOO])
def test_the_list_is_what_the_runtime_runs(name: str, runtime: str, tmp_path: Path, cache_home: Path) -> None:
    ran = profiled(name, runtime, tmp_path, cache_home)
    told = [str(use.key) for use in kernels(*built(name), runtime)]
    if (name, runtime) in KNOWN_DIFFERENCES:
        assert Counter(told) == Counter(ran)
    else:
        assert told == ran


@pytest.mark.parametrize("label", RECORDED["lists"])
def test_the_list_is_what_was_recorded_elsewhere(label: str) -> None:
    recorded = RECORDED["lists"][label]
    assert set(recorded) >= set(SUITE["NETWORKS"])
    for name, numbers in recorded.items():
        # recorded before a PADV2 was told from a PAD
        told = [str(use.key).replace(" detail=mode=value", "") for use in kernels(*built(name), **RECORDED_ASKED[label])]
        assert told == [RECORDED["keys"][number] for number in numbers], name


def test_every_family_of_the_zoo_is_among_them() -> None:
    def family(name: str) -> str:
        return MODELS[name].builder

    assert {family(name) for name in ZOO} == {family(name) for name in MODELS}


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_what_is_not_told_is_refused_by_its_name(runtime: str) -> None:
    class Summed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x, 1)

    with pytest.raises(UnsupportedOp, match="the network calls cumsum on 1x3x8x8"):
        kernels(Summed(), (1, 3, 8, 8), runtime)


def test_the_order_is_open_only_where_that_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbering the reordered tensors the other way round changes the order of exactly the networks that are listed."""
    names = [*SUITE["NETWORKS"], *ZOO]
    as_told = {name: kernels(*built(name), "onnxruntime", abi="x86_64", block=16) for name in names}
    finish = nchwc._Layout.finish

    def reversed_finish(layout: Any) -> None:
        layout.blocked = dict(reversed(layout.blocked.items()))
        finish(layout)

    monkeypatch.setattr(nchwc._Layout, "finish", reversed_finish)
    changed = set()
    for name in names:
        other = kernels(*built(name), "onnxruntime", abi="x86_64", block=16)
        assert Counter(other) == Counter(as_told[name])
        if other != as_told[name]:
            changed.add((name, "onnxruntime"))
    assert changed == set(KNOWN_DIFFERENCES)
