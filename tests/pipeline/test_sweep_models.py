"""Bundles as they are written: each kernel runs as exactly the one that its key says, in both runtimes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from devices.bundle import RUNTIMES, host_bundle
from devices.host import HostTransport
from devices.install import Installed, install
from latency_luts import OpKey
from pipeline.collect import graph_file
from pipeline.deploy import Target, targets_of
from pipeline.errors import UnsupportedOp
from pipeline.kernel_times import kernel_times
from pipeline.result import launches_of
from pipeline.settings import PROFILED, Settings
from pipeline.sweep import onnx_model, tflite_model
from pipeline.sweep.bundle import BundlePlan, activation_bytes, chain_keys, numbers, weight_bytes
from pipeline.sweep.measure import Sweep, run, write_bundles, write_chains
from pipeline.sweep.reading import Measured, _places, fold

SHORT = Settings(launch_s=0.01, kernels_s=0.02, warmup_s=0.01, launches=1)
WRITERS: dict[str, Callable[..., BundlePlan]] = {"onnx": onnx_model.write_bundle, "tflite": tflite_model.write_bundle}


def key(text: str) -> OpKey:
    return OpKey.parse(text)


CONVOLUTIONS = [
    key(f"conv2d[in=1x{words} dtype=float32]")
    for words in (
        "3x32x32 out=16 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=1 act=relu6 add=0",  # a first layer
        "1x16x16 out=8 k=5x5 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=0",
        "16x14x14 out=96 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=relu6 add=0",
        "20x14x14 out=36 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=1 act=relu add=0",
        "58x9x9 out=58 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=relu add=0",  # 58 fills no block
        "32x14x14 out=32 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=32 act=relu6 add=0",
        "32x14x14 out=32 k=5x5 s=2x2 p=2,2,2,2 d=1x1 g=32 act=none add=0",
        "58x9x9 out=58 k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=58 act=none add=0",
        "24x8x8 out=24 k=3x3 s=1x1 p=2,2,2,2 d=2x2 g=1 act=none add=0",
        "60x8x8 out=240 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=3 act=none add=0",  # grouped
        "64x8x8 out=64 k=3x3 s=1x1 p=1,1,1,1 d=1x1 g=4 act=relu add=0",
        "16x15x9 out=24 k=3x3 s=2x1 p=0,1,2,1 d=1x1 g=1 act=none add=0",  # padded as only an explicit pad can
        "40x1x1 out=10 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=relu add=0",
    )
]
SHARED = [
    *CONVOLUTIONS,
    key("linear[in=1x64 out=10 act=none add=0 dtype=float32]"),
    key("add[in=1x32x14x14 act=none dtype=float32]"),
    key("mul[in=1x72x8x8 act=none dtype=float32 detail=with=1x72x1x1]"),
    key("mul[in=1x20x8x8 act=none dtype=float32]"),
    key("avg_pool[in=1x24x8x8 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]"),
    key("max_pool[in=1x64x16x16 k=2x2 s=2x2 p=0,0,0,0 dtype=float32]"),
    key("mean[in=1x40x7x7 dtype=float32 detail=axes=2,3]"),
    key("activation[in=1x64x8x8 act=relu dtype=float32]"),
    key("activation[in=1x20x8x8 act=relu6 dtype=float32]"),
    key("activation[in=1x20x8x8 act=sigmoid dtype=float32]"),
]
ONLY = {
    "onnxruntime": [
        key("conv2d[in=1x64x8x8 out=32 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=relu add=1 dtype=float32]"),
        key("conv2d[in=1x24x8x8 out=24 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=1 dtype=float32]"),
        key("conv2d[in=1x16x8x8 out=72 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=hardswish add=0 dtype=float32]"),
        key(
            "conv2d[in=1x20x8x8 out=40 k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=hardsigmoid(0.166667,0.5) add=0 dtype=float32]"
        ),
        key("linear[in=1x40 out=12 act=relu add=0 dtype=float32]"),
        key("activation[in=1x20x8x8 act=silu dtype=float32]"),
        key("activation[in=1x64 act=hardsigmoid(0.166667,0.5) dtype=float32]"),
        key("avg_pool[in=1x32x8x8 k=3x3 s=2x2 p=1,1,1,1 dtype=float32]"),
        key("concat[in=1x36x8x8 dtype=float32 detail=axis=1 out=1x72x8x8]"),
        key("concat[in=1x16x8x8 dtype=float32 detail=axis=1 out=1x48x8x8]"),
        key("reshape[in=1x60x8x8 dtype=float32 detail=out=1x3x20x8x8]"),
        key("transpose[in=1x3x20x8x8 dtype=float32 detail=perm=0,2,1,3,4]"),
        key("split[in=1x116x8x8 dtype=float32 detail=out=1x58x8x8 axis=1 num_outputs=2]"),
        key("slice[in=1x16x32x32 dtype=float32 detail=out=1x16x16x32]"),
        key("gather[in=1x24x8x8 dtype=float32 detail=axis=1]"),
        key("gather[in=1x464 dtype=float32 detail=out=1x232 axis=1]"),
        key("pad[in=1x16x8x8 dtype=float32 detail=pads=0,8,0,0,0,8,0,0]"),
        key("softmax[in=1x10 dtype=float32 detail=axis=1]"),
        key("reorder_in[in=1x64x8x8 dtype=float32]"),
        key("reorder_in[in=1x60x8x8 dtype=float32]"),
        key("reorder_out[in=1x58x8x8 dtype=float32]"),
        key("global_avg_pool[in=1x32x7x7 dtype=float32]"),
    ],
    "litert": [
        key("activation[in=1x72x8x8 act=hardswish dtype=float32]"),
        key("mul[in=1x72x1x1 act=none dtype=float32 detail=with=scalar]"),
        key("avg_pool[in=1x24x9x9 k=3x3 s=2x2 p=1,1,1,1 dtype=float32]"),
        key("concat[in=1x36x8x8 dtype=float32 detail=axis=1 with=1x36x8x8]"),
        key("concat[in=1x36x8x8 dtype=float32 detail=axis=1 with=1x20x8x8+1x8x8x8]"),
        key("pad[in=1x24x8x8 p=1,1,1,1 dtype=float32]"),
        key("pad[in=1x24x8x8 p=1,1,1,1 dtype=float32 detail=mode=value]"),
        key("pad[in=1x16x8x8 dtype=float32 detail=nhwc_pads=0:0,0:0,0:0,8:8]"),
        key("reshape[in=1x8x116x8 dtype=float32 detail=out=1x2x58x8x8]"),
        key("transpose[in=1x60x8x8 dtype=float32 detail=perm=0,3,1,2]"),
        key("transpose[in=1x2x58x8x8 dtype=float32 detail=perm=0,2,1,3,4]"),
        key("slice[in=1x116x8x8 dtype=float32 detail=out=1x58x8x8]"),
        key("strided_slice[in=1x16x8x8 dtype=float32 detail=begin=0,0,0,0 end=1,8,8,16 strides=1,2,1,1]"),
        key("gather_nd[in=24x8x1x8 dtype=float32]"),
        key("gather_nd[in=464x1 dtype=float32 detail=out=232x1]"),
        key("softmax[in=1x10 dtype=float32]"),
    ],
}
KEYS = {runtime: [*SHARED, *ONLY[runtime]] for runtime in RUNTIMES}


@dataclass(frozen=True)
class Bench:
    device: HostTransport
    installed: Installed
    target: Target

    def measured(self, sweep: Sweep, folder: Path) -> Measured:
        return fold(sweep, run(sweep, self.device, self.installed, SHORT, folder, lambda seconds, case: None), folder)


@pytest.fixture(scope="module", params=RUNTIMES)
def bench(
    request: pytest.FixtureRequest, cache_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A runtime on this machine."""
    with HostTransport(tmp_path_factory.mktemp("device")) as device:
        bundle = host_bundle(device.describe().abi, [request.param], cache_home / "handset")
        installed = install(bundle, device)
        (target,) = targets_of([installed])
        yield Bench(device, installed, target)


@pytest.mark.parametrize(("producers", "consumers"), itertools.product((False, True), repeat=2))
def test_each_kernel_runs_as_what_its_key_says(bench: Bench, tmp_path: Path, producers: bool, consumers: bool) -> None:
    keys = KEYS[bench.target.runtime]
    halves = [keys[0::2], keys[1::2]]
    some = write_bundles(halves, bench.target, bench.device, tmp_path, producers=producers, consumers=consumers)
    measured = bench.measured(Sweep(some, ()), tmp_path)
    assert measured.missing == {}
    assert {entry.key for entry in measured.entries} == set(keys)


def test_branches_run_from_large_tensors_to_small_ones(bench: Bench, tmp_path: Path) -> None:
    keys = [replace(CONVOLUTIONS[2], input_shape=(1, 16, side, side)) for side in (56, 28, 14, 7, 3)]
    (bundle,) = write_bundles([keys[::-1]], bench.target, bench.device, tmp_path, seed=1)
    results = run(Sweep((bundle,), ()), bench.device, bench.installed, SHORT, tmp_path, lambda seconds, case: None)
    times = kernel_times(launches_of(bundle.case.id + PROFILED, results), 0, 0.95)
    places = bundle.plan.by_place()
    ran = [
        places[place]
        for place, op in _places(bundle.case, times, tmp_path)
        if place in places and op and op.key in keys
    ]
    assert ran == keys == list(bundle.plan.keys)


def test_a_chain_is_as_many_kernels_as_it_says_and_tells_the_overhead(bench: Bench, tmp_path: Path) -> None:
    chains = write_chains(bench.target, bench.device, tmp_path, 2)
    groups = write_bundles([SHARED[:2]], bench.target, bench.device, tmp_path)
    sweep = Sweep(groups, chains)
    longer = replace(SHORT, launch_s=0.2)  # so that there are quiet samples on a busy machine too
    results = run(sweep, bench.device, bench.installed, longer, tmp_path, lambda seconds, case: None)
    times = kernel_times(launches_of(chains[0].id + PROFILED, results), 0, 0.95)
    assert len(chain_keys(0)) <= len(times) <= len(chain_keys(0)) + 2  # onnxruntime's reorders
    found = fold(sweep, results, tmp_path).overhead
    assert found.chains == 2 and found.low_ns <= found.ns <= found.high_ns
    # some µs at most: within what two chains can tell, which is told beside it
    assert found.low_ns < 50_000 and found.high_ns > -2_000


def test_onnxruntime_keeps_the_graph_and_reorders_are_found_in_it(cache_home: Path, tmp_path: Path) -> None:
    with HostTransport(tmp_path / "device") as device:
        installed = install(host_bundle(device.describe().abi, ["onnxruntime"], cache_home / "handset"), device)
        (target,) = targets_of([installed])
        (bundle,) = write_bundles([[CONVOLUTIONS[2]]], target, device, tmp_path, producers=False, consumers=False)
        run(Sweep((bundle,), ()), device, installed, SHORT, tmp_path, lambda seconds, case: None)
        places = onnx_model.reorder_places(graph_file(tmp_path, bundle.case.id))
    assert sorted(places.values()) == ["k0_act", "k0_from"]


# what stands in the files


@pytest.mark.parametrize("form", WRITERS)
def test_the_same_arguments_give_the_same_bytes_and_another_seed_another_order(tmp_path: Path, form: str) -> None:
    files = [tmp_path / name for name in "abc"]
    plans = [WRITERS[form](SHARED, file, order_seed=seed) for file, seed in zip(files, (1, 1, 2), strict=True)]
    assert files[0].read_bytes() == files[1].read_bytes() and plans[0] == plans[1]
    assert plans[0].keys != plans[2].keys and set(plans[0].keys) == set(plans[2].keys) == set(SHARED)
    assert plans[0].model_bytes == files[0].stat().st_size
    assert len(set(plans[0].places)) == len(SHARED)


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_is_little_more_than_its_weights(tmp_path: Path, form: str) -> None:
    large = OpKey("conv2d", (1, 320, 7, 7), 1280, dtype="float32")
    plan = WRITERS[form]([large], tmp_path / "large")
    assert weight_bytes(large) == 4 * 1280 * 321
    assert weight_bytes(large) <= plan.model_bytes <= weight_bytes(large) + 40_000


def test_a_first_layer_has_no_producer_and_a_cold_input(tmp_path: Path) -> None:
    import onnx

    onnx_model.write_bundle(CONVOLUTIONS[:1], tmp_path / "x.onnx", producers=True, consumers=False)
    graph = onnx.load(tmp_path / "x.onnx").graph
    assert [node.op_type for node in graph.node] == ["Conv", "Clip"]
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]


def test_inputs_of_producers_are_small_and_shared(tmp_path: Path) -> None:
    import onnx

    from pipeline.tflite_file import read

    same_side = [one for one in CONVOLUTIONS if one.input_shape[2:] == (14, 14)]
    onnx_model.write_bundle(same_side, tmp_path / "x.onnx")
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [[size.dim_value for size in one.type.tensor_type.shape.dim] for one in model.graph.input] == [
        [1, 1, 14, 14]
    ]
    tflite_model.write_bundle(same_side, tmp_path / "x.tflite")
    parsed = read(tmp_path / "x.tflite")
    assert [parsed.tensors[number].shape for number in parsed.inputs] == [(1, 14, 14, 1)]
    assert [operator.op for operator in parsed.operators[:3]] == ["ADD", parsed.operators[1].op, "MEAN"]


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "bad",
    [
        OpKey("wobble", (1, 8), dtype="float32"),
        OpKey("conv2d", (1, 8, 4, 4), 8, dtype="int8"),
        OpKey("conv2d", (1, 8, 4, 4), 8, activation="wobble", dtype="float32"),
        OpKey("conv2d", (1, 8, 4, 4), 8, (7, 7), dtype="float32"),
        OpKey("conv2d", (1, 1 << 14, 1, 1), 1 << 14, dtype="float32"),
        OpKey("mean", (1, 8, 4, 4), dtype="float32"),
        OpKey("mean", (1, 8, 4, 4), dtype="float32", detail="axes=two"),
        OpKey("concat", (1, 8, 4, 4), dtype="float32", detail="axis=1 out=1x8x4x4"),
        OpKey("add", (1, 8, 4, 4), dtype="float32", detail="with=wide"),
        OpKey("transpose", (1, 8, 4, 4), dtype="float32", detail="perm=0,9"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused_by_its_name(tmp_path: Path, form: str, bad: OpKey) -> None:
    with pytest.raises(UnsupportedOp) as caught:
        WRITERS[form]([bad], tmp_path / "x")
    assert "\n" not in str(caught.value) and not (tmp_path / "x").exists()
    assert str(bad)[:20] in str(caught.value) or "MiB" in str(caught.value)


@pytest.mark.parametrize("form", WRITERS)
def test_a_bundle_of_none_or_too_many_is_refused(tmp_path: Path, form: str) -> None:
    for keys in ([], SHARED * 3):
        with pytest.raises(UnsupportedOp, match=f"with {len(keys)} kernels; try: 1 to 60"):
            WRITERS[form](keys, tmp_path / "x")


def test_numbers_are_no_denormals_and_repeat() -> None:
    import numpy as np

    values = numbers((3, 200_000), 5)
    assert values.shape == (3, 200_000) and values.dtype == np.float32
    assert values.min() >= 0.01 and values.max() <= 0.02 and len(np.unique(values)) > 100_000
    assert (values == numbers((3, 200_000), 5)).all() and (values != numbers((3, 200_000), 6)).any()


def test_sizes_of_a_key() -> None:
    depthwise = CONVOLUTIONS[6]
    assert weight_bytes(depthwise) == 4 * 32 * (25 + 1)
    assert activation_bytes(depthwise) == 4 * (32 * 14 * 14 + 32 * 7 * 7)
    assert weight_bytes(SHARED[13]) == 4 * 10 * 65 and activation_bytes(SHARED[13]) == 4 * (64 + 10)
    assert weight_bytes(SHARED[14]) == 0


@pytest.mark.parametrize(
    ("form", "op", "detail"),
    [
        ("onnx", "concat", "axis=1 out=1x20x9x9"),
        ("tflite", "concat", "axis=1 with=1x8x9x9"),
        ("onnx", "reshape", "out=1x8x7x7"),
        ("tflite", "reshape", "out=1x8x7x7"),
        ("onnx", "gather", "out=1x4x7x7 axis=1"),
        ("tflite", "gather_nd", "out=1x4x14x14"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(tmp_path: Path, form: str, op: str, detail: str) -> None:
    with pytest.raises(UnsupportedOp):
        WRITERS[form]([OpKey(op, (1, 8, 14, 14), dtype="float32", detail=detail)], tmp_path / "x")
