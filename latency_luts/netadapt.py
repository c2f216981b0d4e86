"""Tables in the form of NetAdapt: layer -> its properties and {(c_in, c_out): seconds}, as JSON, out and in.

NetAdapt keeps them in a pickle, which runs whatever code its writer liked; it is neither written nor read here. The JSON has
the same content: an object of layers, each with `is_depthwise`, `num_in_channels`, `num_out_channels`, `kernel_size`,
`stride`, `padding`, `groups`, `layer_type_str` ("Conv2d", "Linear"), `input_feature_map_size` ([1, channels, height, width])
and `latency`, whose keys are written "c_in,c_out". Added is what NetAdapt does not tell apart and a kernel's key does:
`activation`, `fused_add`, `dtype`. Who wants the pickle's dictionary has it from `tables`.

Facts about the format are from NetAdapt's public code; nothing of it is copied.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latency_luts.convert import Unmapped, imported_entry, read_text
from latency_luts.entry import Context, Entry
from latency_luts.files import one_line, refused, write_atomically
from latency_luts.key import LutError, OpKey, short
from latency_luts.table import LatencyTable

MAX_JSON_BYTES = 64 * 2**20
MAX_LAYERS = 10_000
MAX_POINTS = 200_000  # of all layers

_FIELDS = (
    "is_depthwise", "num_in_channels", "num_out_channels", "kernel_size", "stride", "padding", "groups", "layer_type_str",
    "input_feature_map_size", "latency",
)  # fmt: skip


def tables(
    table: LatencyTable, layers: Mapping[str, OpKey] | None = None
) -> tuple[dict[str, dict[str, Any]], tuple[Unmapped, ...]]:
    """NetAdapt's dictionary, with tuples (c_in, c_out) as keys of `latency`, and the kernels that it cannot say.

    Args:
        layers: layer name -> its kernel; the layer's table has all measured kernels that differ in channels only. None: one
            layer for each group of such kernels, named by its largest one.
    """
    groups: dict[OpKey, list[Entry]] = {}
    unmapped: list[Unmapped] = []
    for entry in table:
        reason = _refusal(entry.key)
        if reason:
            unmapped.append(Unmapped(str(entry.key), reason))
        else:
            groups.setdefault(_without_channels(entry.key), []).append(entry)
    if layers is None:
        largest = [max((entry.key for entry in group), key=_channels) for group in groups.values()]
        layers = {str(key): key for key in largest}
    else:
        unmapped = []
    found: dict[str, dict[str, Any]] = {}
    for name, key in layers.items():
        group = [] if _refusal(key) else groups.get(_without_channels(key), [])
        if group:
            found[name] = _layer(key, group)
        else:
            unmapped.append(
                Unmapped(name, _refusal(key) or f"nothing that differs from {key} in channels only was measured")
            )
    return found, tuple(unmapped)


def export_netadapt(
    table: LatencyTable, path: str | os.PathLike[str], layers: Mapping[str, OpKey] | None = None
) -> tuple[Unmapped, ...]:
    """Write `tables(table, layers)` as JSON; what could not be said is in the answer.

    Raises:
        TableStorageError: the folder is absent or read-only, the disk is full, ...
    """
    found, unmapped = tables(table, layers)
    for layer in found.values():
        layer["latency"] = {f"{c_in},{c_out}": seconds for (c_in, c_out), seconds in layer["latency"].items()}
    write_atomically((json.dumps(found, indent=1) + "\n").encode(), Path(path))
    return unmapped


def import_netadapt(
    path: str | os.PathLike[str],
    context: Context,
    *,
    half_width: float,
    activation: str = "none",
    dtype: str = "float32",
) -> tuple[LatencyTable, tuple[Unmapped, ...]]:
    """The kernels of all layers, and what is none here. Layers that share a table give its kernels once.

    Args:
        context: where the file's numbers were measured; the file does not say.
        half_width: how far off they may be, as a share of each; the file does not say. An entry's only sample is the number.
        activation, dtype: of layers that do not say.

    Raises:
        TableFileError: absent, too large, a pickle, not JSON of this form; with the line, or with the layer.
    """
    path = Path(path)
    entries: dict[OpKey, Entry] = {}
    unmapped: list[Unmapped] = []
    points = 0
    for name, layer in _read(path).items():
        try:
            _check(layer)
            if layer["layer_type_str"] not in ("Conv2d", "Linear"):
                unmapped.append(Unmapped(name, f"{short(layer['layer_type_str'])} is no kernel here"))
                continue
            for channels, seconds in layer["latency"].items():
                points += 1
                if points > MAX_POINTS:
                    raise ValueError(f"there are more than {MAX_POINTS} latencies")
                if type(seconds) not in (int, float):
                    raise ValueError(f"latency {short(channels)} is {short(seconds)}, not a number of seconds")
                key = _key(layer, channels, {"activation": activation, "dtype": dtype})
                entry = imported_entry(key, seconds * 1e9, half_width, f"NetAdapt {layer['layer_type_str']}")
                if entries.setdefault(key, entry) != entry:
                    unmapped.append(
                        Unmapped(f"{name} {channels}", "another layer has another time for the same kernel")
                    )
        except (LutError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise refused(path, f"layer {short(name)}: {one_line(error)}") from error
    return LatencyTable(context, tuple(entries.values())), tuple(unmapped)


def _channels(key: OpKey) -> tuple[int, int]:
    return (key.input_shape[1], key.out_channels)


def _is_depthwise(key: OpKey) -> bool:
    return 1 < key.groups == key.input_shape[1] == key.out_channels


def _refusal(key: OpKey) -> str:
    """Why NetAdapt's properties cannot say a kernel; "" where they can."""
    if key.op == "linear" and len(key.input_shape) == 2 and not key.detail:
        return ""
    if key.op != "conv2d":
        return "only conv2d and linear have tables"
    if key.padding[:2] != key.padding[2:] or key.dilation != (1, 1) or key.detail:
        return "padding that differs from side to side, dilation and details cannot be said"
    return ""


def _without_channels(key: OpKey) -> OpKey:
    """What the kernels of one layer's table share, as a key of one channel."""
    shape = (key.input_shape[0], 1, *key.input_shape[2:])
    groups = 1 if _is_depthwise(key) else key.groups
    detail = "depthwise" if _is_depthwise(key) else "" if groups == 1 else f"groups={groups}"
    return dataclasses.replace(key, input_shape=shape, out_channels=1, groups=1, detail=detail)


def _layer(key: OpKey, group: list[Entry]) -> dict[str, Any]:
    linear = key.op == "linear"
    return {
        "is_depthwise": _is_depthwise(key),
        "num_in_channels": key.input_shape[1],
        "num_out_channels": key.out_channels,
        "kernel_size": list(key.kernel),
        "stride": list(key.stride),
        "padding": list(key.padding[:2]),
        "groups": key.groups,
        "layer_type_str": "Linear" if linear else "Conv2d",
        "input_feature_map_size": [*key.input_shape, 1, 1] if linear else list(key.input_shape),
        "activation": key.activation,
        "fused_add": key.fused_add,
        "dtype": key.dtype,
        "latency": {_channels(entry.key): entry.latency_ns_median / 1e9 for entry in group},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path, MAX_JSON_BYTES), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise refused(path, f"line {error.lineno}: it is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise refused(path, f"it is no table: {one_line(error)}") from error
    if not isinstance(found, dict) or len(found) > MAX_LAYERS:
        raise refused(path, f"it is no object of at most {MAX_LAYERS} layers")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{short(name)} is there twice")
        found[name] = value
    return found


def _check(layer: Any) -> None:
    missing = [name for name in _FIELDS if not isinstance(layer, dict) or name not in layer]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    if not isinstance(layer["latency"], dict):
        raise ValueError("its latency is no object of times")


def _key(layer: dict[str, Any], channels: str, defaults: dict[str, str]) -> OpKey:
    c_in, _, c_out = channels.partition(",")
    if not (c_in.isdecimal() and c_out.isdecimal() and len(channels) < 24 and channels.isascii()):
        raise ValueError(f"latency {short(channels)} is not written c_in,c_out")
    shape = layer["input_feature_map_size"]
    if not isinstance(shape, list) or len(shape) != 4:
        raise ValueError(f"input_feature_map_size is {short(shape)}, not four numbers")
    common: dict[str, Any] = {name: layer.get(name, value) for name, value in defaults.items()}
    common["fused_add"] = layer.get("fused_add", False)
    if layer["layer_type_str"] == "Linear":
        return OpKey("linear", (shape[0], int(c_in)), int(c_out), **common)
    kernel, stride, padding = (tuple(layer[name]) for name in ("kernel_size", "stride", "padding"))
    return OpKey(
        "conv2d", (shape[0], int(c_in), shape[2], shape[3]), int(c_out), kernel, stride, (*padding, *padding),
        groups=int(c_in) if layer["is_depthwise"] is True else layer["groups"], **common,
    )  # fmt: skip
