"""A result document as a bench run writes it, made of numbers: deterministic, realistic, and hostile where asked.

`sample()` has MobileNetV2, ResNet-20, a digits network before and after Tucker-2 in two runtimes, and one failure, as a
document of the first kind: without numerics, bundles and a trace of conditions.
`phone()` is the same with all of these: two bundles, one case that disagrees with torch, a phone that warms up.
`hostile()` is that with names that attack a page and a terminal.
"""

from __future__ import annotations

import copy
import random
import statistics
from typing import Any

import numpy as np

from latency_luts import stats
from latency_luts.stats import Launch

Document = dict[str, Any]

ONNXRUNTIME = ("onnxruntime", "1.31.1", "a1" * 32, "")
LITERT = ("litert", "2.1.4", "b2" * 32, "xnnpack")
CANARY_NS = 180_000.0
DISTURBED_OVER = 1.5
BLOCK = 26
EXPONENT = 0.4
HOSTILE = (
    "<script>alert('name')</script>",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07\x07bell\x9b2J",
    "long_" + "x" * 300,
    "abc\u202egnp.exe\u202c\u200b\u2066rtl\u2069 שלום",
    '"><img src=x onerror=alert(1)> {{ 7*7 }} [bold]markup[/bold]',
)


def conv(name: str, size: int, c_in: int, c_out: int, k: int, stride: int, groups: int, act: str) -> Document:
    out = size // stride
    macs = out * out * c_out * (c_in // groups) * k * k
    pad = k // 2
    key = (
        f"conv2d[in=1x{c_in}x{size}x{size} out={c_out} k={k}x{k} s={stride}x{stride} p={pad},{pad},{pad},{pad} d=1x1 "
        f"g={groups} act={act} add=0 dtype=float32]"
    )
    rate = 9e9 if groups > 1 else 26e9 if c_in > 3 else 14e9
    return {"name": name, "op": "conv2d", "key": key, "macs": macs, "ms": macs / rate * 1e3 + 0.004}


def small(name: str, op: str, ms: float, key: str | None = None) -> Document:
    return {"name": name, "op": op, "key": key, "macs": None, "ms": ms}


def mobilenet_v2() -> list[Document]:
    """52 convolutions, 10 additions, a mean, a linear layer and two layout changes: 66 kernels."""
    found = [small("reorder_input", "reorder_in", 0.06), conv("/features/0/conv", 224, 3, 32, 3, 2, 1, "relu6")]
    size, c_in, block = 112, 32, 1
    for expand, c_out, repeats, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            stride, wide, at = first_stride if repeat == 0 else 1, c_in * expand, f"/features/{block}/conv"
            if expand > 1:
                found.append(conv(f"{at}/0/Conv", size, c_in, wide, 1, 1, 1, "relu6"))
            found.append(conv(f"{at}/1/Conv", size, wide, wide, 3, stride, wide, "relu6"))
            size //= stride
            found.append(conv(f"{at}/2/Conv", size, wide, c_out, 1, 1, 1, "none"))
            if repeat:
                found.append(small(f"/features/{block}/Add", "add", 0.003 + c_out * size * size * 4e-8))
            c_in, block = c_out, block + 1
    found += [
        conv("/features/18/conv", 7, 320, 1280, 1, 1, 1, "relu6"),
        small("reorder_output", "reorder_out", 0.02),
        small("/pool/GlobalAveragePool", "global_avg_pool", 0.03),
        {
            "name": "/classifier/Gemm",
            "op": "linear",
            "key": "linear[in=1x1280 out=1000 dtype=float32]",
            "macs": 1_280_000,
            "ms": 0.21,
        },
    ]
    return found


def resnet20() -> list[Document]:
    found, c_in, size = [conv("/conv1/Conv", 32, 3, 16, 3, 1, 1, "relu")], 16, 32
    for stage, c_out in enumerate((16, 32, 64), start=1):
        for block in range(3):
            stride = 2 if stage > 1 and block == 0 else 1
            found.append(conv(f"/layer{stage}/{block}/conv1/Conv", size, c_in, c_out, 3, stride, 1, "relu"))
            size //= stride
            found.append(conv(f"/layer{stage}/{block}/conv2/Conv", size, c_out, c_out, 3, 1, 1, "none"))
            found.append(small(f"/layer{stage}/{block}/Add", "add", 0.004))
            c_in = c_out
    return [
        *found,
        small("/pool/ReduceMean", "mean", 0.003),
        small("/fc/Gemm", "linear", 0.002, "linear[in=1x64 out=10]"),
    ]


def digits(ranked: bool) -> list[Document]:
    found = [conv("/features/0/Conv", 32, 1, 32, 3, 1, 1, "relu"), small("/features/2/MaxPool", "max_pool", 0.006)]
    if ranked:
        found += [
            conv("/features/3/0/Conv", 16, 32, 12, 1, 1, 1, "none"),
            conv("/features/3/1/Conv", 16, 12, 20, 3, 1, 1, "none"),
            conv("/features/3/2/Conv", 16, 20, 64, 1, 1, 1, "relu"),
        ]
    else:
        found.append(conv("/features/3/Conv", 16, 32, 64, 3, 1, 1, "relu"))
    return [*found, small("/features/5/MaxPool", "max_pool", 0.004), small("/head/Gemm", "linear", 0.005)]


def interval(median: float, share: float) -> Document:
    return {"median": median, "interval": [median * (1 - share), median * (1 + share)]}


def both(canary: list[int], launch: list[int], block: list[int]) -> list[float]:
    """The mean of the canaries before and after each sample, as far as a document knows the second."""
    ends = [*zip(launch, block, strict=True), None]
    return [(c + canary[i + 1]) / 2 if ends[i] == ends[i + 1] else float(c) for i, c in enumerate(canary)]


def profile(
    network: str, runtime: tuple[str, str, str, str], layers: list[Document], speed: float, seed: int, quiet: bool
) -> Document:
    """A profile of `layers` that run at `speed` (1: as given), in 3 launches, with neighbours that disturb it.

    Its noise-corrected median is that of `latency_luts.stats`.
    """
    rng = random.Random(seed)
    reference = CANARY_NS * (1 + seed / 100)
    times = [layer["ms"] / speed * rng.uniform(0.93, 1.07) for layer in layers]
    whole_ms, n = sum(times) * 1.008, 312 if quiet else 180
    samples, canary, start, launch, kept, block, preempted = [], [], [], [], [], [], []
    now, slow = 1_000_000_000.0, 1.0
    for i in range(n):
        if i % BLOCK == 0:
            now += 4e9
        if rng.random() < ((0.2 if quiet else 0.1) if slow > 1 else (0.03 if quiet else 0.08)):
            slow = 1.0 if slow > 1 else rng.uniform(1.05, 2.0)
        noise = slow * rng.lognormvariate(0.004, 0.006)
        preempted.append(int(slow > 1.2))
        samples.append(round(whole_ms * 1e6 * noise**EXPONENT * rng.lognormvariate(0, 0.004) * (1 + preempted[-1] / 9)))
        canary.append(round(reference * noise * rng.lognormvariate(0, 0.005)))
        start.append(round(now))
        launch.append(i // (n // 3))
        block.append(1 + i % (n // 3) // BLOCK)
        kept.append(0 if i % BLOCK == 0 else 1)
        now += samples[-1] + canary[-1]
    launches = [
        Launch(*(np.array([v for v, own in zip(values, launch, strict=True) if own == number], dtype=kind)
                 for values, kind in ((samples, float), (both(canary, launch, block), float), (block, int),
                                      (preempted, int), (kept, bool))))
        for number in range(3)
    ]  # fmt: skip
    quiet_ms = [stats.corrected(one, reference, EXPONENT) / 1e6 for one in launches]
    used, counted = sum(map(len, quiet_ms)), sum(kept)
    plain = statistics.median(s for s, k in zip(samples, kept, strict=True) if k) / 1e6
    corrected = statistics.median(np.concatenate(quiet_ms).tolist())
    profiled = corrected * 1.03
    name, version, sha256, delegate = runtime
    total = sum(times)
    suffix = {"onnxruntime": "onnx", "litert": "tflite"}[name]
    width = 0.004 if quiet else 0.031
    return {
        "network": network, "runtime": name, "runtime_version": version, "runtime_sha256": sha256, "delegate": delegate,
        "artifact": {
            "file": f"{network}.{suffix}", "sha256": f"{seed:02x}" * 32, "bytes": 14_003_112,
            "converter": "torch.onnx 2.13.0 opset 20" if suffix == "onnx" else "litert-torch 0.9.0",
            "parity": {"tolerance": 1e-4, "worst_error": 2.4e-6, "errors": {"china": 1.1e-6, "flower": 2.4e-6}},
        },
        "threads": 1, "cpu_mask": "0x2", "failed": None,
        "latency_ms": {
            **interval(plain, width * 2), "confidence": 0.95, "mad": plain * 0.02, "samples": counted,
            "corrected": {**interval(corrected, width), "confidence": 0.95, "samples": used},
        },
        "samples_ns": samples, "canary_ns": canary, "start_ns": start, "preempted": preempted, "launch": launch,
        "block": block, "kept": kept,
        "warmup_ns": [round(whole_ms * 1e6 * (1 + 0.9 * 0.6**i)) for i in range(14)],
        "profiled_ms": {**interval(plain * 1.03, 0.01), "corrected": interval(profiled, 0.01)},
        "kernels_sum_ms": total, "kernels_sum_plain_ms": total * 1.02,
        "profiler_cost_ms": profiled - corrected, "between_kernels_ms": profiled - total,
        "kernels": [
            {
                "index": i, "name": layer["name"], "op": layer["op"], "key": layer["key"], "macs": layer["macs"],
                "runtime_kernel": f"{layer['op']} ({name})",
                "latency_ms": {**interval(ms * 1.02, 0.03), "corrected": interval(ms, 0.015)},
                "share": ms / total,
            }
            for i, (layer, ms) in enumerate(zip(layers, times, strict=True))
        ],
        "peak_memory_bytes": 61_000_000, "model_load_ms": 31.0,
        "conditions": [
            {"at_ns": None, "load1": 0.4, "temperature_c": None, "clocks_khz": [2_500_000, None]},
            {"at_ns": None, "load1": 0.9, "temperature_c": 41.5, "clocks_khz": [2_500_000, None]},
            {"at_ns": 1_000, "core": 1, "clock_khz": 2_600_000, "temperature_c": None, "load1": None},
            {"at_ns": 9_000, "core": 1, "clock_khz": 2_450_000, "temperature_c": None, "load1": None},
        ],
        "launch_medians_ms": [statistics.median(own.tolist()) for own in quiet_ms],
        "canary": {
            "reference_ns": reference, "reference_origin": "kept", "own_ns": reference * 1.02, "exponent": EXPONENT,
        },
        "preempted_share": sum(p > 0 for p, k in zip(preempted, kept, strict=True) if k) / counted,
        "disturbed_share": 1 - used / counted,
        "verdict": {
            "stable": quiet,
            "text": f"±{width:.1%} (asked ±1.0%) from {counted} samples in 3 launches; 3% of the samples were disturbed",
            "reasons": [] if quiet else ["the budget of 20 s ended first", "launches differ by 4.1 %"],
            "next": f"handset bench {network} --device host --budget {6 if quiet else 12}",
        },
    }  # fmt: skip


def sample() -> Document:
    """Five networks' worth of results; MobileNetV2 in litert is not stable, ResNet-20 failed there."""
    layers = {
        "mobilenet_v2": mobilenet_v2(),
        "resnet20": resnet20(),
        "digits_cnn": digits(False),
        "digits_cnn_tucker2": digits(True),
    }
    profiles = []
    for seed, (network, found) in enumerate(layers.items(), start=1):
        profiles.append(profile(network, ONNXRUNTIME, found, 1.35, seed, quiet=True))
        if network != "resnet20":
            bare = [layer for layer in found if not layer["op"].startswith("reorder")]
            profiles.append(profile(network, LITERT, bare, 1.12, seed + 10, quiet=network != "mobilenet_v2"))
    why = "litert: op STABLEHLO_COMPOSITE of node 17 is not in this runtime; try: handset export resnet20 --to onnx"
    profiles.insert(3, {"network": "resnet20", "runtime": "litert", "failed": why})
    shapes = {
        "mobilenet_v2": (224, 3, 3_504_872),
        "resnet20": (32, 3, 272_474),
        "digits_cnn": (32, 1, 98_442),
        "digits_cnn_tucker2": (32, 1, 61_030),
    }

    def accuracy(torch: float, litert: float) -> Document:
        return {
            "data": "digits, 360 test images",
            "metric": "top1",
            "torch": torch,
            "onnxruntime": torch,
            "litert": litert,
        }

    layer = {
        "layer": "features.3",
        "ranks": [20, 12],
        "params_before": 18_432,
        "params_after": 3_824,
        "relative_error": 0.213,
    }
    extra: Document = {
        "digits_cnn": {"accuracy": accuracy(0.9778, 0.9778)},
        "digits_cnn_tucker2": {
            "accuracy": accuracy(0.9694, 0.9667),
            "compressed_from": "digits_cnn",
            "compression": {"method": "tucker2", "layers": [layer]},
        },
    }
    networks = [
        {
            "name": name, "source": "zoo", "input_shape": [1, channels, size, size], "params": params,
            "macs": sum(found["macs"] or 0 for found in layers[name]),
            "accuracy": None, "compressed_from": None, "compression": None, **extra.get(name, {}),
        }
        for name, (size, channels, params) in shapes.items()
    ]  # fmt: skip
    return {
        "schema_version": 1, "kind": "bench", "handset": "0.1.0", "run": "2026-11-21-142233-host-bench",
        "created": "2026-11-21T14:22:33Z", "complete": True,
        "command": "handset bench mobilenet_v2 resnet20 digits_cnn digits_cnn_tucker2 --device host",
        "settings": {"runtimes": ["onnxruntime", "litert"], "threads": 1, "interval": 0.01, "budget_s": 6.0, "cpu_mask": 2},
        "device": {
            "name": "host", "kind": "host", "simulated": False, "model": "AMD EPYC 9B14",
            "os": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1.0", "abi": "x86_64", "cores": 2,
            "memory_bytes": 8_200_000_000,
        },
        "runner": {"sha256": "c3" * 32, "origin": "devices/native, ziglang 0.17.0, x86_64-linux-gnu.2.28"},
        "canary": {"kind": "stream4M-matmul48x64x192x5-avx2", "disturbed_over": DISTURBED_OVER},
        "networks": networks, "profiles": profiles,
        "notes": ["resnet20.onnxruntime: 2 kernels have no key; they are in no table"],
        "tables": {name: f"table-{name}-float32-t1.parquet" for name in ("onnxruntime", "litert")},
        "stages_s": {"exporting mobilenet_v2 to tflite": 13.5, "deploying it": 0.01, "measuring": 41.0, "all": 60.0},
    }  # fmt: skip


def numerics(seed: int, accuracy: Document | None, runtime: str) -> Document:
    """Answers that agree with torch's."""
    digits = accuracy is not None
    names = ["digits test 0-359"] if digits else ["china", "flower", "seed 0", "seed 1"]
    return {
        "reference": "torch", "inputs": 360 if digits else 4, "input_names": names, "max_abs_error": 2.4e-6 * seed,
        "relative_error": 3e-7 * seed, "cosine": 1 - 1e-13 * seed, "top1_agreement": 1.0, "tolerance": 1e-3, "agrees": True,
        "accuracy": None if accuracy is None else {
            "data": accuracy["data"], "metric": "top1", "device": accuracy[runtime], "reference": accuracy["torch"],
        },
    }  # fmt: skip


def trace(points: int = 120) -> Document:
    """`device_conditions` of a phone with two clusters that is throttled at its end; cores 1 to 3 are looked at twice."""
    looks: list[Document] = []
    for i in range(points):
        share = i / points
        clocks = {"0": 1_800_000 - 200_000 * (i % 7 == 3), "4": 2_800_000 - (600_000 if share > 0.7 else 0)}
        looks.append(
            {
                "at_s": 0.9 * i,
                "launch": i // 40,
                "clock_khz": clocks,
                "temperature_c": 31 + 14 * share,
                "thermal_status": None if i % 40 else int(share > 0.6),
                "load1": 1.5,
                "battery_c": None,
            }
        )
    for end in (looks[0], looks[-1]):
        end["clock_khz"] = {**end["clock_khz"], "1": 1_800_000, "2": 1_800_000, "3": 1_800_000}
    knobs = [
        {"name": "screen", "state": "set", "details": "stay_on 7 (was 0)"},
        {"name": "governor", "state": "not available", "details": ""},
    ]
    return {"set": knobs, "trace": looks, "boot_ids": ["boot-1", "boot-2"]}


def phone() -> Document:
    """Cases of two bundles on a phone; MobileNetV2 in litert was timed although it disagrees."""
    result = copy.deepcopy(sample())
    accuracies = {network["name"]: network["accuracy"] for network in result["networks"]}
    for seed, found in enumerate(result["profiles"], start=1):
        found["bundle"] = "linux" if found["runtime"] == "onnxruntime" else "android"
        found["numerics"] = numerics(seed, accuracies[found["network"]], found["runtime"])
    result["profiles"][1]["numerics"] |= {
        "max_abs_error": 3.1, "relative_error": 0.31, "cosine": 0.913, "top1_agreement": 0.5, "agrees": False,
    }  # fmt: skip
    bundle = {"abi": "arm64-v8a", "sha256": "d4" * 32, "files": {}, "pushed_bytes": 1}
    result["bundles"] = [
        {**bundle, "kind": "linux", "versions": {"onnxruntime": "1.31.1"}},
        {**bundle, "kind": "android", "versions": {"litert": "2.1.4"}},
    ]
    result["device_conditions"] = trace()
    return result


def hostile() -> Document:
    """The phone with hostile names of networks, kernels, keys, runtimes, files, devices, reasons, inputs and cores."""
    result = copy.deepcopy(phone())
    renamed = dict(zip([network["name"] for network in result["networks"]], HOSTILE, strict=False))
    for network in result["networks"]:
        network["name"] = renamed[network["name"]]
        network["compressed_from"] = renamed.get(network["compressed_from"])
    for i, found in enumerate(result["profiles"]):
        bad = HOSTILE[i % len(HOSTILE)]
        found["network"] = renamed[found["network"]]
        found["bundle"] = HOSTILE[i % 2]
        found["numerics"] |= {"reference": bad, "input_names": list(HOSTILE), "agrees": i % 2 == 0}
        if found["failed"]:
            found["failed"] = " ".join(HOSTILE)
            continue
        found |= {"cpu_mask": bad, "runtime_version": bad, "runtime_sha256": bad, "delegate": bad}
        found["canary"]["reference_origin"] = bad
        found["artifact"] |= {"file": bad, "converter": bad, "sha256": bad}
        found["artifact"]["parity"]["errors"] = {HOSTILE[2]: 1e-6}
        found["verdict"] |= {"text": bad, "reasons": list(HOSTILE), "next": f"handset bench '{bad}'"}
        for j, kernel in enumerate(found["kernels"]):
            worse = HOSTILE[j % len(HOSTILE)]
            kernel |= {"name": f"{worse}{j}", "runtime_kernel": worse, "key": worse, "op": worse if j % 2 else "conv2d"}
    result["device"] |= {"name": HOSTILE[0], "model": HOSTILE[2], "os": HOSTILE[1], HOSTILE[4]: HOSTILE[3]}
    result |= {"command": f"handset bench {HOSTILE[4]}", "run": HOSTILE[0], "created": HOSTILE[1]}
    result |= {"notes": list(HOSTILE), "tables": {bad: f"{bad}.parquet" for bad in (*HOSTILE, "javascript:alert(1)")}}
    result |= {"stages_s": {**dict.fromkeys(HOSTILE, 3.0), "all": 20.0}, "runner": dict.fromkeys(HOSTILE, HOSTILE[4])}
    result["canary"]["kind"] = HOSTILE[4]
    result["bundles"] = [{"kind": bad, "abi": bad, "sha256": bad, "versions": {bad: bad}} for bad in HOSTILE]
    result["device_conditions"]["set"] = [{"name": bad, "state": bad, "details": bad} for bad in HOSTILE]
    for look in result["device_conditions"]["trace"]:
        look["clock_khz"] = dict(zip(HOSTILE[:3], (1e6, 2e6, 3e6), strict=True))
    return result
