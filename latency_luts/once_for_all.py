"""Tables in the form of once-for-all and ProxylessNAS: YAML, layer text -> {mean: milliseconds}, out and in.

Their unit of measurement is a layer or a whole block, ours a kernel: a block is told by
the sum of its kernels, and the other way round a block's time cannot be told apart into kernels. Blocks with squeeze and
excitation are not mapped, as runtimes run it as kernels that no layer text says. What the text does not say (dtype, the
padding k // 2, which activations, what a runtime puts between layers) is assumed as documented at `kernels`.

Facts about the format are from the public code of both projects; nothing of it is copied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from latency_luts.convert import Unmapped, imported_entry, read_text
from latency_luts.entry import Context, Entry
from latency_luts.files import one_line, refused, write_atomically
from latency_luts.key import LutError, OpKey, short
from latency_luts.once_for_all_layers import MAX_LAYERS, Style, kernels, layers_of
from latency_luts.table import LatencyTable

MAX_YAML_BYTES = 64 * 2**20

_TIME = re.compile(r"[0-9]{1,30}(\.[0-9]{0,30})?([eE][-+]?[0-9]{1,3})?|\.[0-9]{1,30}")


def export_once_for_all(
    table: LatencyTable,
    path: str | os.PathLike[str],
    names: Iterable[str] | None = None,
    *,
    style: Style = "proxyless",
    dtype: str = "float32",
) -> tuple[Unmapped, ...]:
    """Write the layers of which all kernels are in the table; what could not be said is in the answer.

    Args:
        names: layers; None for all that can be put together from the table's kernels. Those that are given may use
            interpolated kernels.

    Raises:
        TableStorageError: the folder is absent or read-only, the disk is full, ...
    """
    written: dict[str, float] = {}
    unmapped: list[Unmapped] = []
    used: set[OpKey] = set()
    for name in sorted(layers_of(table, style)) if names is None else dict.fromkeys(names):
        try:
            ways = kernels(name, style=style, dtype=dtype)
        except LutError as error:
            if names is not None:
                unmapped.append(Unmapped(name, str(error)))
            continue
        answers = [table.total(way, on_missing="report", interpolate=names is not None) for way in ways]
        best = next((each for each in answers if each.latency_ms is not None), None)
        if best is None or best.latency_ms is None:
            if names is not None:
                unmapped.append(Unmapped(name, f"the table has not {answers[0].missing[0]}"))
            continue
        written[name] = best.latency_ms
        used.update(entry.key for entry in best.entries)
    if names is None:
        unmapped += [Unmapped(str(entry.key), "no layer is made of it") for entry in table if entry.key not in used]
    lines = [f"{name}: {{mean: {latency_ms!r}}}" for name, latency_ms in written.items()]
    write_atomically(("\n".join(lines or ["{}"]) + "\n").encode(), Path(path))
    return tuple(unmapped)


def import_once_for_all(
    path: str | os.PathLike[str],
    context: Context,
    *,
    half_width: float,
    style: Style = "proxyless",
    dtype: str = "float32",
) -> tuple[LatencyTable, tuple[Unmapped, ...]]:
    """The layers that are one kernel each, and those that are not.

    Args:
        context: where the file's numbers were measured; the file does not say.
        half_width: how far off they may be, as a share of each; the file does not say. An entry's only sample is the number.

    Raises:
        TableFileError: absent, too large, a pickle, not YAML of this form; with the line.
    """
    path = Path(path)
    entries: dict[OpKey, Entry] = {}
    unmapped: list[Unmapped] = []
    for line, name, latency_ms in _layers(path):
        try:
            ways = kernels(name, style=style, dtype=dtype)
        except LutError as error:
            unmapped.append(Unmapped(name, str(error)))
            continue
        if len(ways[0]) > 1:
            unmapped.append(Unmapped(name, f"one time for {len(ways[0])} kernels cannot be told apart"))
            continue
        try:
            entry = imported_entry(ways[0][0], latency_ms * 1e6, half_width, f"once-for-all {name.partition('-')[0]}")
        except LutError as error:
            raise refused(path, f"line {line}: {error}") from error
        if entry.key in entries:
            unmapped.append(Unmapped(name, "another layer is the same kernel"))
        else:
            entries[entry.key] = entry
    return LatencyTable(context, tuple(entries.values())), tuple(unmapped)


def _layers(path: Path) -> Iterator[tuple[int, str, float]]:
    """Line, text and milliseconds of each layer. Events of the safe loader only: nothing is ever constructed from the file."""
    import yaml

    events = yaml.parse(read_text(path, MAX_YAML_BYTES), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    line = 1

    def take(*kinds: Any) -> Any:
        nonlocal line
        event = next(events)
        line = event.start_mark.line + 1
        # Neither anchors, which a bomb is made of, nor tags, which ask for a class.
        if not isinstance(event, kinds) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ValueError("it is not made of lines as `layer: {mean: milliseconds}`")
        return event

    seen: set[str] = set()
    try:
        take(yaml.StreamStartEvent)
        take(yaml.DocumentStartEvent)
        take(yaml.MappingStartEvent)
        while isinstance(layer := take(yaml.ScalarEvent, yaml.MappingEndEvent), yaml.ScalarEvent):
            if layer.value in seen or len(seen) >= MAX_LAYERS:
                raise ValueError(f"{short(layer.value)} is there twice, or there are more than {MAX_LAYERS} layers")
            seen.add(layer.value)
            at, mean = line, None
            take(yaml.MappingStartEvent)
            while isinstance(field := take(yaml.ScalarEvent, yaml.MappingEndEvent), yaml.ScalarEvent):
                value = take(yaml.ScalarEvent).value
                mean = _milliseconds(value) if field.value == "mean" else mean
            if mean is None:
                raise ValueError(f"{short(layer.value)} has no mean")
            yield at, layer.value, mean
        take(yaml.DocumentEndEvent)
        take(yaml.StreamEndEvent)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else line
        raise refused(path, f"line {line}: it is no YAML: {short(error.problem)}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise refused(path, f"line {line}: {one_line(error)}") from error


def _milliseconds(text: str) -> float:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"mean: {short(text)} is not a time of at least 0")
    return float(text)
