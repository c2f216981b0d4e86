"""once-for-all's layer texts: which kernels they are, and what cannot be said."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import yaml

from latency_luts import (
    Context,
    Entry,
    InvalidKey,
    InvalidTable,
    LatencyTable,
    OpKey,
    TableFileError,
    export_once_for_all,
    import_once_for_all,
    once_for_all,
)
from latency_luts.once_for_all import kernels

CONTEXT = Context(
    device="pixel", soc="", os_build="", abi="arm64-v8a", runtime="litert", runtime_version="2.1.0", runtime_sha256="",
    delegate="xnnpack", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip
BLOCK = "expanded_conv-input:56x56x24-output:28x28x40-expand:3-kernel:5-stride:2-idskip:0"
UNEXPANDED = (
    "expanded_conv-input:56x56x72-output:28x28x40-expand:1-kernel:5-stride:2-idskip:0"  # the block's last two kernels
)
RESIDUAL = "expanded_conv-input:28x28x40-output:28x28x40-expand:120-kernel:3-stride:1-idskip:1-se:0-hs:1"


def entry(text: str, ns: float) -> Entry:
    return Entry(OpKey.parse(text), ns, (0.9 * ns, 1.1 * ns), (int(ns),), (), "Conv")


def conv(shape: str, out: int, more: str = "k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=relu6 add=0") -> str:
    return f"conv2d[in=1x{shape} out={out} {more} dtype=float32]"


def test_a_block_is_three_kernels() -> None:
    assert [list(map(str, way)) for way in kernels(BLOCK)] == [
        [
            conv("24x56x56", 72),
            conv("72x56x56", 72, "k=5x5 s=2x2 p=2,2,2,2 d=1x1 g=72 act=relu6 add=0"),
            conv("72x28x28", 40, "k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=0"),
        ]
    ]


def test_a_residual_is_inside_the_last_convolution_or_a_kernel_of_its_own() -> None:
    fused, apart = ([str(key) for key in way] for way in kernels(RESIDUAL, style="mobilenet_v3"))
    assert fused[-1] == conv("120x28x28", 40, "k=1x1 s=1x1 p=0,0,0,0 d=1x1 g=1 act=none add=1")
    assert apart[-1] == "add[in=1x40x28x28 act=none dtype=float32]" and len(apart) == 4
    assert "act=hardswish" in fused[0] and "act=hardswish" in fused[1]
    assert "act=relu " in str(kernels(RESIDUAL.replace("hs:1", "hs:0"), style="mobilenet_v3")[0][0])


def test_a_block_that_does_not_expand_has_two_kernels() -> None:
    text = "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0"
    assert [len(way) for way in kernels(text)] == [2]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "Conv-input:224x224x3-output:112x112x32",
            conv("3x224x224", 32, "k=3x3 s=2x2 p=1,1,1,1 d=1x1 g=1 act=relu6 add=0"),
        ),
        ("Conv_1-input:7x7x320-output:7x7x1280", conv("320x7x7", 1280)),
        ("Conv_2-input:1x1x960-output:1x1x1280", conv("960x1x1", 1280)),
        ("Logits-input:1x1x1280-output:1000", "linear[in=1x1280 out=1000 act=none add=0 dtype=float32]"),
        ("AvgPool2D-input:7x7x960-output:1x1x960", "mean[in=1x960x7x7 dtype=float32 detail=axes=2,3]"),
    ],
)
def test_single_layers(text: str, wanted: str) -> None:
    assert str(kernels(text)[0][0]) == wanted and len(kernels(text)[0]) == 1


def test_the_classifier_of_proxylessnas_has_the_pooling_in_it() -> None:
    assert [[key.op for key in way] for way in kernels("Logits-input:7x7x1280-output:1000")] == [
        ["mean", "linear"], ["avg_pool", "linear"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "Conv", "conv-input:224x224x3-output:112x112x32", BLOCK[:-2], BLOCK + "-se:1", BLOCK + "-se:1-hs:0", BLOCK + "\n",
        BLOCK.replace("28x28x40", "29x29x40"), BLOCK.replace("stride:2", "stride:3"), BLOCK.replace("56x56x24", "0x56x24"),
        "Conv_1-input:7x7x320-output:1280", "Logits-input:1x1x1280-output:1x1x1000", "Conv_1-input:7x7x320-output:6x7x1280",
        "AvgPool2D-input:7x7x960-output:1x1x96", "Conv-input:7x7x3-output:4x4x8-expand:1-kernel:3-stride:1-idskip:0",
        BLOCK.replace("24", "9" * 99),
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        kernels(text)
    assert "\n" not in str(caught.value)


TABLE = LatencyTable(
    CONTEXT,
    (
        *(entry(str(key), 1e6 * (i + 1)) for i, key in enumerate(kernels(BLOCK)[0])),
        entry(conv("320x7x7", 1280), 5e6),
        entry("linear[in=1x1280 out=1000 act=none add=0 dtype=float32]", 7e5),
        entry("mean[in=1x1280x7x7 dtype=float32 detail=axes=2,3]", 1e5),
        entry("reorder_in[in=1x8x8x8 dtype=float32]", 1e3),
        entry(conv("24x56x56", 48, "k=5x5 s=1x1 p=2,2,2,2 d=1x1 g=1 act=relu6 add=0"), 1e3),
    ),
)


def test_what_can_be_put_together_is_written_as_the_projects_read_it(tmp_path: Path) -> None:
    unmapped = export_once_for_all(TABLE, tmp_path / "table.yaml")
    found = yaml.safe_load((tmp_path / "table.yaml").read_text())
    assert found == {
        BLOCK: {"mean": 6.0},
        UNEXPANDED: {"mean": 5.0},
        "Conv_1-input:56x56x24-output:56x56x72": {"mean": 1.0},
        "Conv_1-input:7x7x320-output:7x7x1280": {"mean": 5.0},
        "Logits-input:1x1x1280-output:1000": {"mean": 0.7},
        "AvgPool2D-input:7x7x1280-output:1x1x1280": {"mean": 0.1},
    }
    assert {each.name.partition("[")[0] for each in unmapped} == {"reorder_in", "conv2d"} and len(unmapped) == 2


def test_layers_that_are_asked_for_are_written_or_named(tmp_path: Path) -> None:
    other = BLOCK.replace("28x28x40", "28x28x48")
    logits = "Logits-input:7x7x1280-output:1000"
    unmapped = export_once_for_all(TABLE, tmp_path / "table.yaml", [BLOCK, other, "nonsense", logits, BLOCK])
    assert yaml.safe_load((tmp_path / "table.yaml").read_text()) == {
        BLOCK: {"mean": 6.0},
        logits: {"mean": pytest.approx(0.8)},
    }
    assert [each.name for each in unmapped] == [other, "nonsense"] and "the table has not conv2d" in unmapped[0].reason
    export_once_for_all(LatencyTable(CONTEXT, ()), tmp_path / "empty.yaml")
    assert yaml.safe_load((tmp_path / "empty.yaml").read_text()) == {}


def test_a_residual_of_the_table_is_found_in_either_way(tmp_path: Path) -> None:
    for way in kernels(RESIDUAL, style="mobilenet_v3"):
        table = LatencyTable(CONTEXT, tuple(entry(str(key), 1e6) for key in way))
        export_once_for_all(table, tmp_path / "table.yaml", style="mobilenet_v3")
        found = yaml.safe_load((tmp_path / "table.yaml").read_text())
        assert found[RESIDUAL] == {"mean": float(len(way))}


def test_layers_of_one_kernel_come_back(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    export_once_for_all(TABLE, path)
    back, unmapped = import_once_for_all(path, CONTEXT, half_width=0.1)
    assert {each.name: each.reason for each in unmapped} == {
        BLOCK: "one time for 3 kernels cannot be told apart", UNEXPANDED: "one time for 2 kernels cannot be told apart",
    }  # fmt: skip
    assert len(back) == 4
    for each in back:
        original = TABLE.lookup(each.key)
        assert each.latency_ns_median == pytest.approx(original.known_ms * 1e6)
        assert each.interval_ns == pytest.approx((0.9 * each.latency_ns_median, 1.1 * each.latency_ns_median))
        assert each.runtime_kernel.startswith("once-for-all ")


def test_files_as_the_projects_have_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(
        "Conv-input:224x224x3-output:112x112x32:\n  count: 120\n  mean: 4.25\n"
        "Logits-input:7x7x1280-output:1000: {count: 3, mean: 1, min: .5}\n"
        f"? {BLOCK}\n: mean: 12.5\n"
        "Zero-input:1x1x1-output:1x1x1: {mean: 0}\n'Conv_2-input:1x1x9-output:1x1x9': {mean: 1e-2}\n"
    )
    table, unmapped = import_once_for_all(path, CONTEXT, half_width=0.05, dtype="int8")
    assert [entry.latency_ns_median for entry in table] == [4.25e6, 1e4] and all(
        each.key.dtype == "int8" for each in table
    )
    assert [each.name.partition("-")[0] for each in unmapped] == ["Logits", "expanded_conv", "Zero"]


NAME = "Conv-input:224x224x3-output:112x112x32"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it is empty"), ("[]", "line 1"), ("just text", "line 1"), (f"{NAME}: 3", "line 1"), (f"{NAME}: [1]", "line 1"),
        (f"{NAME}: {{count: 1}}", "has no mean"), (f"{NAME}: {{mean: abc}}", "line 1: .*mean"),
        (f"{NAME}: {{mean: -1}}", "mean"), (f"{NAME}: {{mean: .nan}}", "mean"), (f"{NAME}: {{mean: .inf}}", "mean"),
        (f"{NAME}: {{mean: 1e999}}", "not a finite"),
        (f"{NAME}: {{mean: {{a: 1}}}}", "line 1"), (f"{NAME}: {{mean: 1}}\n{NAME}: {{mean: 2}}\n", "line 2: .*twice"),
        ("a: &x {mean: 1}\nb: *x\n", "line 1"), (f"{NAME}: &x\n  mean: 1\n", "layer: {mean"),
        (f"{NAME}: !!python/name:os {{}}", "line 1"),
        ("!!python/object/apply:os.system ['true']", "line 1"), (f"{NAME}: {{mean: !!float 1}}", "line 1"),
        (f"{NAME}: {{mean: 1}}\n---\n{NAME}: {{mean: 1}}\n", "line 2"), (f"{NAME}: {{mean: 1\n", "line 2: it is no YAML"),
        ("[" * 9999, "line 1"), ("a: {" * 9999, "line 1"), ("\ta: 1", "line 1"),
        (b"\xff", "UTF-8"), ("a\0", "line 1"), (pickle.dumps({}), "pickle"),
    ],
)  # fmt: skip
def test_other_files_are_refused_with_the_line(tmp_path: Path, text: str | bytes, found: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TableFileError) as caught:
        import_once_for_all(path, CONTEXT, half_width=0.1)
    assert re.search(found, str(caught.value)) and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_sizes_and_the_spread_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("".join(f"Conv_1-input:7x7x{n}-output:7x7x8: {{mean: 1}}\n" for n in range(1, 9)))
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises((TableFileError, InvalidTable), match="half_width"):
            import_once_for_all(path, CONTEXT, half_width=share)
    for bound, value, found in (("MAX_LAYERS", 7, "more than 7"), ("MAX_YAML_BYTES", 99, "larger than 99")):
        with monkeypatch.context() as patch:
            patch.setattr(once_for_all, bound, value)
            with pytest.raises(TableFileError, match=found):
                import_once_for_all(path, CONTEXT, half_width=0.1)
