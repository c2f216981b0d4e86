"""NetAdapt's tables as JSON, and never as a pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from latency_luts import Context, Entry, LatencyTable, OpKey, TableFileError, export_netadapt, import_netadapt, netadapt

CONTEXT = Context(
    device="pixel", soc="", os_build="", abi="arm64-v8a", runtime="litert", runtime_version="2.1.0", runtime_sha256="",
    delegate="xnnpack", threads=1, cpu_mask="", clocks="", handset_version="0.1.0", created="2026-11-21", simulated=False,
)  # fmt: skip


def conv(c_in: int, c_out: int, **more: Any) -> OpKey:
    return OpKey("conv2d", (1, c_in, 14, 14), c_out, **{"activation": "relu6", "dtype": "float32", **more})


def depthwise(channels: int) -> OpKey:
    return conv(channels, channels, kernel=(3, 3), padding=(1, 1, 1, 1), groups=channels)


def linear(c_in: int, c_out: int) -> OpKey:
    return OpKey("linear", (1, c_in), c_out, dtype="float32")


def entry(key: OpKey, ns: float) -> Entry:
    return Entry(key, ns, (0.95 * ns, 1.05 * ns), (int(ns),), (), "Conv")


KEYS = [conv(8, 8), conv(8, 16), conv(16, 16), depthwise(8), depthwise(16), linear(8, 10), linear(16, 10)]
TABLE = LatencyTable(
    CONTEXT,
    (
        *(entry(key, 1e6 * (i + 1)) for i, key in enumerate(KEYS)),
        entry(OpKey("add", (1, 8, 14, 14), dtype="float32"), 1e3),
        entry(conv(8, 8, padding=(0, 0, 1, 1)), 1e3),
    ),
)


def test_the_dictionary_is_netadapts() -> None:
    found, unmapped = netadapt.tables(TABLE)
    assert list(found) == [str(conv(16, 16)), str(depthwise(16)), str(linear(16, 10))]
    assert found[str(conv(16, 16))] == {
        "is_depthwise": False, "num_in_channels": 16, "num_out_channels": 16, "kernel_size": [1, 1], "stride": [1, 1],
        "padding": [0, 0], "groups": 1, "layer_type_str": "Conv2d", "input_feature_map_size": [1, 16, 14, 14],
        "activation": "relu6", "fused_add": False, "dtype": "float32",
        "latency": {(8, 8): 0.001, (8, 16): 0.002, (16, 16): 0.003},
    }  # fmt: skip
    assert found[str(depthwise(16))]["is_depthwise"] and found[str(depthwise(16))]["groups"] == 16
    assert found[str(linear(16, 10))]["layer_type_str"] == "Linear"
    assert found[str(linear(16, 10))]["input_feature_map_size"] == [1, 16, 1, 1]
    assert [each.name.partition("[")[0] for each in unmapped] == ["add", "conv2d"]


def test_layers_of_a_network_have_its_names() -> None:
    layers = {
        "model.0": conv(16, 24),
        "model.1": depthwise(24),
        "model.2": conv(16, 24),
        "model.3": conv(8, 8, kernel=(3, 3)),
    }
    found, unmapped = netadapt.tables(TABLE, {**layers, "add": OpKey("add", (1, 8, 14, 14), dtype="float32")})
    assert list(found) == ["model.0", "model.1", "model.2"] and found["model.0"] == found["model.2"]
    assert found["model.0"]["num_out_channels"] == 24 and set(found["model.1"]["latency"]) == {(8, 8), (16, 16)}
    assert [each.name for each in unmapped] == ["model.3", "add"]


def test_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    export_netadapt(TABLE, path)
    stored = json.loads(path.read_text())
    assert stored[str(conv(16, 16))]["latency"] == {"8,8": 0.001, "8,16": 0.002, "16,16": 0.003}
    back, unmapped = import_netadapt(path, CONTEXT, half_width=0.05)
    assert unmapped == () and {each.key for each in back} == set(KEYS)
    for each in back:
        assert each.latency_ns_median == pytest.approx(TABLE.lookup(each.key).known_ms * 1e6)


LAYER: dict[str, Any] = {
    "is_depthwise": False, "num_in_channels": 16, "num_out_channels": 16, "kernel_size": [3, 3], "stride": [2, 2],
    "padding": [1, 1], "groups": 1, "layer_type_str": "Conv2d", "input_feature_map_size": [1, 16, 14, 14],
    "latency": {"8,16": 0.5},
}  # fmt: skip


def _import(path: Path, content: object, **more: Any) -> tuple[LatencyTable, tuple[Any, ...]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return import_netadapt(path, CONTEXT, **{"half_width": 0.1, **more})


def test_a_file_of_netadapts_own_fields(tmp_path: Path) -> None:
    """Without what was added, with fields of its own, a layer twice, and one that is no kernel here."""
    shuffled = {**LAYER, "before_squared_pixel_shuffle_factor": 1}
    other = {**LAYER, "latency": {"8,16": 0.75}}
    layers = {"a": shuffled, "b": shuffled, "c": {**LAYER, "layer_type_str": "ConvTranspose2d"}, "d": other}
    table, unmapped = _import(tmp_path / "table.json", layers, activation="relu", dtype="int8")
    (only,) = table
    assert only.key == OpKey(
        "conv2d", (1, 8, 14, 14), 16, (3, 3), (2, 2), (1, 1, 1, 1), activation="relu", dtype="int8"
    ) and only.latency_ns_median == 5e8  # fmt: skip
    assert [each.name for each in unmapped] == ["c", "d 8,16"]
    depth = {**LAYER, "is_depthwise": True, "groups": 16, "latency": {"8,8": 1}}
    table, _ = _import(tmp_path / "table.json", {"a": depth})
    assert table.entries[0].key.groups == 8


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "it is empty"), ("{", "line 1"),
        ("[]", "no object"), ('{"a": 1, "a": 2}', "'a' is there twice"), ('{"a": []}', "'a'"),
        ('{"a": {}}', "has no is_depthwise"), ("{\n\n!", "line 3"), ("[" * 99999, "no table"), ('{"a": NaN}', "'a'"),
        ({"a": {**LAYER, "latency": []}}, "no object of times"), ({"a": {**LAYER, "latency": {"8": 1}}}, "c_in,c_out"),
        ({"a": {**LAYER, "latency": {"8,-1": 1}}}, "c_in,c_out"), ({"a": {**LAYER, "latency": {"8,16": -1}}}, "at least 0"),
        ({"a": {**LAYER, "latency": {"8,16": float("nan")}}}, "at least 0"),
        ({"a": {**LAYER, "latency": {"8,16": "1"}}}, "not a number"),
        ({"a": {**LAYER, "latency": {"8,16": True}}}, "not a number"), ({"a": {**LAYER, "latency": {"8,16": 10**400}}}, "'a'"),
        ({"a": {**LAYER, "latency": {"8,16": 1e300}}}, "at least 0"), ({"a": {**LAYER, "latency": {"0,16": 1}}}, "input_shape"),
        ({"a": {**LAYER, "kernel_size": 3}}, "'a'"), ({"a": {**LAYER, "kernel_size": [3.5, 3]}}, "kernel"),
        ({"a": {**LAYER, "input_feature_map_size": [1, 2]}}, "four numbers"), ({"a": {**LAYER, "groups": 3}}, "groups"),
        ({"a": {**LAYER, "stride": ["2", 2]}}, "stride"), ({"a": {**LAYER, "dtype": "F"}}, "dtype"),
        ({"a\n": {**LAYER, "layer_type_str": []}, "b": {}}, "has no"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: object, found: str) -> None:
    with pytest.raises(TableFileError, match=found) as caught:
        _import(tmp_path / "table.json", content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_netadapts_own_pickle_is_refused_without_opening_it(tmp_path: Path, protocol: int) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "opened",))

    path = tmp_path / "lut.pkl"
    for content in ({"layer": {"latency": {(8, 16): 0.5}}}, [{(3, 16): 442368}], Trap()):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(TableFileError, match="it is a pickle, which could run code"):
            import_netadapt(path, CONTEXT, half_width=0.1)
    assert not (tmp_path / "opened").exists()


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"a": {**LAYER, "latency": {f"{n},8": 1 for n in range(1, 9)}}, "b": LAYER}
    bounds = (("MAX_LAYERS", 1, "at most 1"), ("MAX_POINTS", 7, "more than 7"), ("MAX_JSON_BYTES", 9, "larger"))
    for bound, value, found in bounds:
        with monkeypatch.context() as patch:
            patch.setattr(netadapt, bound, value)
            with pytest.raises(TableFileError, match=found):
                _import(tmp_path / "table.json", content)
