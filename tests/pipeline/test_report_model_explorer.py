"""Node data for Model Explorer: keyed by the nodes of the model file, each kernel's time on one of them."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from pipeline.artifact import sha256_file
from pipeline.errors import CheckFailed, StorageError
from pipeline.kernels import tflite as tflite_kernels
from pipeline.naming import FOLDED, XNNPACK_KINDS
from pipeline.report import model_explorer
from pipeline.report.model_explorer import Written
from pipeline.report.nodes import onnx_nodes, tflite_nodes

SAMPLE = runpy.run_path(str(Path(__file__).with_name("report_sample.py")))
Document = dict[str, Any]


def optimised(model: Path, folder: Path) -> tuple[Path, list[str]]:
    """The graph that onnxruntime runs here, and the names of its nodes in order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return folder / "optimised.onnx", [node.name for node in onnx.load(folder / "optimised.onnx").graph.node]


def xnnpack(model: Path) -> list[str]:
    """What XNNPACK would call the ops of a file, pads and reshapes folded, activations of additions apart."""
    found = []
    for op in tflite_kernels.keys(model):
        if op.op_type in FOLDED:
            continue
        found.append(next(prefix.capitalize() for prefix, _, ops in XNNPACK_KINDS if op.op_type in ops) + " (NC, F32)")
        if op.op_type == "ADD" and op.key is not None and op.key.activation != "none":
            found.append("Clamp (NC, F32)")
    return found


def case(model: Path, runtime: tuple[str, ...], names: list[str], run: Path, network: str = "small") -> Document:
    """A result of one network in one runtime whose kernels have these names; its model file is in the run's folder."""
    layers = [SAMPLE["small"](name, "conv2d", 0.001 * (i + 1)) | {"macs": 1000} for i, name in enumerate(names)]
    profile = SAMPLE["profile"](network, runtime, layers, 1.0, 1, quiet=True)
    (run / "artifacts").mkdir(exist_ok=True)
    place = run / "artifacts" / f"{network.encode().hex()[:20]}{model.suffix}"
    place.write_bytes(model.read_bytes())
    profile["artifact"] |= {"file": place.name, "sha256": sha256_file(place)}
    result: Document = SAMPLE["sample"]()
    return result | {"profiles": [profile]}


@pytest.fixture
def onnx_run(small_files: Any, tmp_path: Path) -> tuple[Document, Path]:
    graph, names = optimised(small_files["onnx"].path, tmp_path)
    graph.rename(tmp_path / "small.onnxruntime.optimized.onnx")
    return case(small_files["onnx"].path, SAMPLE["ONNXRUNTIME"], names, tmp_path), tmp_path


def data(one: Written, metric: str) -> Document:
    (path,) = [path for path in one.files if path.name.endswith(f".{metric}.json")]
    ((graph, found),) = json.loads(path.read_text("utf-8")).items()
    assert set(found) <= {"name", "results", "gradient", "without_node_ms"} and found["name"] == metric
    assert all(set(result) <= {"value", "fused"} for result in found["results"].values())
    return {"graph": graph, **found}


def test_the_nodes_of_an_onnx_file_are_its_names(onnx_run: tuple[Document, Path]) -> None:
    result, run = onnx_run
    (one,) = model_explorer.write(result, run)
    graph = onnx.load(run / "artifacts" / result["profiles"][0]["artifact"]["file"]).graph
    found = data(one, "latency_ms")
    assert found["graph"] == graph.name and found["gradient"][0]["stop"] == 0 and found["gradient"][-1]["stop"] == 1
    assert set(found["results"]) <= {node.name for node in graph.node}
    assert {"stem", "depthwise", "point", "mix", "grouped", "linear"} <= set(found["results"])
    assert one.nodes == len(found["results"])


def test_every_node_of_an_onnx_file_is_in_one_kernel(onnx_run: tuple[Document, Path]) -> None:
    result, run = onnx_run
    (one,) = model_explorer.write(result, run)
    graph = onnx.load(run / "artifacts" / result["profiles"][0]["artifact"]["file"]).graph
    results = data(one, "latency_ms")["results"]
    where = Counter([*results, *(node for row in results.values() for node in row["fused"])])
    assert where == Counter(node.name for node in graph.node)
    relus = {node.input[0]: node.name for node in graph.node if node.op_type == "Relu"}
    (added,) = [node for node in graph.node if node.op_type == "Add"]
    assert relus["stem"] in results["stem"]["fused"]
    if added.name not in results:  # where this processor has a kernel that adds
        assert set(results["mix"]["fused"]) >= {added.name, relus[added.name]}


def test_times_add_up_with_what_is_no_node(onnx_run: tuple[Document, Path]) -> None:
    result, run = onnx_run
    (one,) = model_explorer.write(result, run)
    found, total = data(one, "latency_ms"), result["profiles"][0]["kernels_sum_ms"]
    rest = sum(one.without_node_ms.values())
    assert found["without_node_ms"] == one.without_node_ms
    assert all("Reorder" in name for name in one.without_node_ms)
    assert one.nodes_ms + rest == pytest.approx(total)
    assert sum(row["value"] for row in found["results"].values()) == pytest.approx(one.nodes_ms, abs=1e-4)
    shares = data(one, "share_percent")["results"]
    assert sum(row["value"] for row in shares.values()) == pytest.approx(100 * one.nodes_ms / total, abs=0.1)
    for node, row in data(one, "gmacs_per_s")["results"].items():
        ms = found["results"][node]["value"]
        kernels = round(row["value"] * ms * 1e6 / 1000)
        assert kernels >= 1 and row["value"] == pytest.approx(kernels * 1000 / ms / 1e6, rel=0.05, abs=0.001)


def test_what_ran_a_node_is_told_in_words(onnx_run: tuple[Document, Path]) -> None:
    result, run = onnx_run
    (one,) = model_explorer.write(result, run)
    words = data(one, "kernel")["results"]
    fused = data(one, "latency_ms")["results"]["stem"]["fused"]
    assert words["stem"]["value"] == "conv2d (onnxruntime)"
    assert fused and all(words[node]["value"] == "in stem" for node in fused)


def graph_file(path: Path, *nodes: onnx.NodeProto) -> Path:
    image = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 16, 8, 8)) for name in ("x", "last")]
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft.nchwc", 1)]
    graph = onnx.helper.make_graph(list(nodes), "net", image[:1], image[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), path)
    return path


def test_a_sum_and_an_activation_fused_into_a_blocked_convolution_are_its_own(tmp_path: Path) -> None:
    """As onnxruntime writes it on a processor with a blocked layout: named after the convolution, not after its end."""
    node, blocked = onnx.helper.make_node, "com.microsoft.nchwc"
    model = graph_file(
        tmp_path / "model.onnx",
        node("Conv", ["x", "w"], ["first"], name="first"),
        node("Conv", ["first", "w"], ["second"], name="second"),
        node("Add", ["second", "first"], ["sum"], name="sum"),
        node("Relu", ["sum"], ["end"], name="end"),
        node("Conv", ["end", "w"], ["last"], name="last"),
    )
    ran = graph_file(
        tmp_path / "ran.onnx",
        node("Conv", ["x", "w"], ["token_0"], name="first_nchwc", domain=blocked),
        node(
            "Conv", ["token_0", "w", "", "token_0"], ["token_1"], name="second_nchwc", domain=blocked, activation="Relu"
        ),
        node("Conv", ["token_1", "w"], ["token_2"], name="last_nchwc", domain=blocked),
        node("ReorderOutput", ["token_2"], ["last"], name="ReorderOutput", domain=blocked),
    )
    nodes = onnx_nodes(model, ran, ["first_nchwc", "second_nchwc", "last_nchwc", "ReorderOutput", "unheard of"])
    assert nodes.anchors == ("first", "second", "last", None, None)
    assert nodes.fused == {"second": ("sum", "end")} and nodes.graph == "net"


def test_a_nameless_node_has_the_adapters_name(small_files: Any, tmp_path: Path) -> None:
    model = onnx.load(small_files["onnx"].path)
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, tmp_path / "bare.onnx")
    graph, _ = optimised(tmp_path / "bare.onnx", tmp_path)
    named = [node for node in onnx.load(graph).graph.node if node.name and not node.op_type.startswith("Reorder")]
    nodes = onnx_nodes(tmp_path / "bare.onnx", graph, [node.name for node in named])
    numbers = {f"<node_{i}>" for i in range(len(model.graph.node))}
    assert named and set(nodes.anchors) <= numbers


def test_the_nodes_of_a_tflite_file_are_the_numbers_of_its_ops(small_files: Any) -> None:
    path = small_files["tflite"].path
    ops = tflite_kernels.keys(path)
    interpreted = tflite_nodes(path, [op.op_type for op in ops])
    assert interpreted.anchors == tuple(str(i) for i in range(len(ops)))
    assert interpreted.graph == "main" and interpreted.fused == {}


def test_what_xnnpack_folds_is_part_of_the_kernel_that_reads_it(small_files: Any) -> None:
    path = small_files["tflite"].path
    ops = tflite_kernels.keys(path)
    nodes = tflite_nodes(path, xnnpack(path))
    assert None not in nodes.anchors
    folded = {str(op.index) for op in ops if op.op_type in FOLDED}
    assert folded and {node for rest in nodes.fused.values() for node in rest} == folded
    for anchor, rest in nodes.fused.items():
        for node in rest:
            assert set(ops[int(node)].writes) & set(ops[int(anchor)].reads)


def test_kernels_that_cannot_be_told_have_no_node(small_files: Any, tmp_path: Path) -> None:
    path = small_files["tflite"].path
    names = xnnpack(path)
    result = case(path, SAMPLE["LITERT"], [*names[:2], "Wobble", *names[3:]], tmp_path)
    (one,) = model_explorer.write(result, tmp_path)
    assert one.nodes == 2 and one.without_node_ms["Wobble"] > 0 and len(data(one, "latency_ms")["results"]) == 2


def test_a_model_that_is_gone_or_another_one_is_told(onnx_run: tuple[Document, Path], small_files: Any) -> None:
    result, run = onnx_run
    good = result["profiles"][0]
    other = good | {"artifact": good["artifact"] | {"sha256": "00" * 32}, "network": "other"}
    gone = good | {"artifact": good["artifact"] | {"file": "../../etc/gone.onnx"}, "network": "gone"}
    unknown = good | {"network": "unknown"}
    found = model_explorer.write(result | {"profiles": [good, other, gone, unknown]}, run)
    assert [one.model is None for one in found] == [False, True, True, True]
    assert "not the file that was measured" in found[1].why
    assert f"{run / 'artifacts' / 'gone.onnx'} is not there" in found[2].why
    assert "unknown.onnxruntime.optimized.onnx is not there" in found[3].why
    with pytest.raises(CheckFailed, match=r"other in onnxruntime: .* not the file"):
        model_explorer.write(result | {"profiles": [other]}, run)


def test_a_run_without_kernels_says_why(tmp_path: Path) -> None:
    result = SAMPLE["sample"]()
    failed = result["profiles"][3]
    with pytest.raises(CheckFailed, match="can be put on a model: resnet20 in litert: litert: op STABLEHLO"):
        model_explorer.write(result | {"profiles": [failed]}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_damaged_is_told(onnx_run: tuple[Document, Path]) -> None:
    result, run = onnx_run
    (run / "small.onnxruntime.optimized.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckFailed, match="small.onnxruntime.optimized.onnx is no ONNX model"):
        model_explorer.write(result, run)


def test_names_may_be_anything(small_files: Any, tmp_path: Path) -> None:
    path = small_files["tflite"].path
    names = ["../../up", "..", "a/b", "a:b", "</script>\x1b[31m", "x" * 5000]
    results = [case(path, SAMPLE["LITERT"], xnnpack(path), tmp_path, network=name) for name in names]
    found = model_explorer.write(results[0] | {"profiles": [one["profiles"][0] for one in results]}, tmp_path)
    files = [path for one in found for path in one.files]
    assert len(set(files)) == len(files) == 4 * len(names)
    assert all(path.parent == tmp_path / "model_explorer" and path.name.isascii() for path in files)
    assert not any(path.name.startswith((".", "-")) or len(path.name) > 140 for path in files)


def test_what_is_simulated_says_so(small_files: Any, tmp_path: Path) -> None:
    path = small_files["tflite"].path
    result = case(path, SAMPLE["LITERT"], xnnpack(path), tmp_path)
    result["device"]["simulated"] = True
    (one,) = model_explorer.write(result, tmp_path)
    for file in one.files:
        assert json.loads(file.read_text("utf-8"))["main"]["name"].endswith("(SIMULATED)")


def test_a_folder_that_cannot_be_made_is_one_line(small_files: Any, tmp_path: Path) -> None:
    path = small_files["tflite"].path
    result = case(path, SAMPLE["LITERT"], xnnpack(path), tmp_path)
    (tmp_path / "model_explorer").write_text("in the way")
    with pytest.raises(StorageError, match="cannot make"):
        model_explorer.write(result, tmp_path)
