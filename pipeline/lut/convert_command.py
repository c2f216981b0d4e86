"""`handset lut export` and `handset lut import`: latency tables in the formats of others, and from them."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import count, percent
from pipeline.console import Console, printable
from pipeline.errors import CheckFailed, ModelError, UsageError

if TYPE_CHECKING:
    from latency_luts import Context, LatencyTable, OpKey, Unmapped

SCHEMA_VERSION = 1
FORMATS = ("csv", "once-for-all", "netadapt")
STYLES = ("proxyless", "mobilenet_v3")
TOLD = 5
"""Items that could not be mapped of which a terminal is told; --json has all."""
MAX_LAYERS_BYTES = 64 * 2**20

TEXTS = {
    "device": "name of the device", "soc": "its SoC", "os_build": "its system", "abi": "its ABI, such as arm64-v8a",
    "runtime": "onnxruntime, litert or tflite, to be asked with --model", "runtime_version": "its version",
    "runtime_sha256": "the SHA-256 of its library", "delegate": "xnnpack, ...", "cpu_mask": "the cores, such as 0x80",
    "clocks": "what is known of the clocks",
}  # fmt: skip
"""Fields of a context that are texts -> what a user is told of them."""


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes a table as CSV, which `handset lut import` reads back exactly, as once-for-all's YAML or as NetAdapt's tables "
        "in JSON. What the format cannot say is listed."
    )
    parser.add_argument("--lut", type=Path, required=True, metavar="T", help="the table, a .parquet file")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument(
        "--layers", type=Path, default=None, metavar="FILE",
        help="once-for-all: the layers to write, one a line; all that the table's kernels make where it is not given",
    )  # fmt: skip
    parser.add_argument(
        "--model", default=None, metavar="MODEL",
        help="netadapt: the network whose layers are written, under their names in its module",
    )  # fmt: skip
    _add_names(parser)
    _add_output(parser)
    parser.set_defaults(command=_export)


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes a table of files in other formats. These do not say where they were measured: --context-from or --device and "
        "--runtime do. The table says that it was imported, and is never merged with a measured one."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="all measured in one context")
    parser.add_argument("--from", dest="source", choices=FORMATS, required=True, help="the format")
    parser.add_argument(
        "--half-width", type=percent, default=None, metavar="PERCENT",
        help="once-for-all, netadapt: how far off the numbers may be; their files do not say",
    )  # fmt: skip
    _add_names(parser)
    parser.add_argument("--activation", default="none", help="netadapt: of layers that do not say (none)")
    parser.add_argument(
        "--context-from", type=Path, default=None, metavar="T", help="a table measured in the same place and way"
    )
    for name, help_ in TEXTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=None, help=help_)
    parser.add_argument("--threads", type=count, default=None, help="threads of the runtime (1)")
    _add_output(parser)
    parser.set_defaults(command=_import)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--style", choices=STYLES, default=STYLES[0], help=f"once-for-all: how layers are written ({STYLES[0]})"
    )
    parser.add_argument("--dtype", default="float32", help="of layers, which do not say (float32)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace --out where it is there")
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="what was done, as a file")


def _export(arguments: argparse.Namespace) -> int:
    from latency_luts import export_csv, export_netadapt, export_once_for_all, load

    _check_outputs(arguments, [arguments.lut])
    table = load(arguments.lut)
    if table.context.simulated:
        raise UsageError(
            f"{arguments.lut} is not measured but simulated, which {arguments.to} cannot say",
            try_="a table that was measured",
        )
    _only_for(arguments.to, "once-for-all", "--layers", arguments.layers)
    _only_for(arguments.to, "netadapt", "--model", arguments.model)
    unmapped: Sequence[Unmapped] = ()
    if arguments.to == "csv":
        export_csv(table, arguments.out)
    elif arguments.to == "once-for-all":
        names = None if arguments.layers is None else _layer_names(arguments.layers)
        unmapped = export_once_for_all(table, arguments.out, names, style=arguments.style, dtype=arguments.dtype)
    else:
        layers = None if arguments.model is None else _layers_of(arguments.model, table.context)
        unmapped = export_netadapt(table, arguments.out, layers)
    return _done(arguments, "lut_export", arguments.to, len(table), unmapped)


def _import(arguments: argparse.Namespace) -> int:
    from latency_luts import merge, save

    _check_outputs(arguments, arguments.files)
    context = _context(arguments)
    found = [_read(arguments, path, context) for path in arguments.files]
    table, unmapped = found[0][0], [each for _, some in found for each in some]
    for other, _ in found[1:]:
        table = merge(table, other)
    if not len(table):
        why = f": {unmapped[0].name}: {unmapped[0].reason}" if unmapped else ""
        raise CheckFailed(f"no kernel is in {', '.join(map(str, arguments.files))}{why}")
    save(table, arguments.out)
    return _done(arguments, "lut_import", arguments.source, len(table), unmapped)


def _read(arguments: argparse.Namespace, path: Path, context: Context) -> tuple[LatencyTable, Sequence[Unmapped]]:
    from latency_luts import import_csv, import_netadapt, import_once_for_all

    if arguments.source == "csv":
        return import_csv(path, context), ()
    if arguments.half_width is None:
        raise UsageError(f"{arguments.source} does not say how far off its numbers may be", try_="--half-width 5")
    if arguments.source == "once-for-all":
        return import_once_for_all(
            path, context, half_width=arguments.half_width, style=arguments.style, dtype=arguments.dtype
        )
    return import_netadapt(
        path, context, half_width=arguments.half_width, activation=arguments.activation, dtype=arguments.dtype
    )


def _context(arguments: argparse.Namespace) -> Context:
    """Where the files were measured, as the user says; it says of itself that the numbers were imported."""
    from datetime import UTC, datetime

    from latency_luts import Context, load
    from pipeline.version import VERSION

    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*TEXTS, "threads")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.context_from is not None:
        known = dataclasses.asdict(load(arguments.context_from).context)
    elif "device" in given and "runtime" in given:
        known = {**dict.fromkeys(TEXTS, ""), "threads": 1, "simulated": False}
    else:
        raise UsageError(
            "an import was asked without saying where the numbers were measured",
            try_="--context-from T, or --device and --runtime",
        )
    imported = f"imported from {arguments.source} by {VERSION}"
    return Context(
        **{**known, "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "handset_version": imported, **given}
    )


def _layer_names(path: Path) -> list[str]:
    from latency_luts.convert import read_text

    return [line.strip() for line in read_text(path, MAX_LAYERS_BYTES, "list of layers").split("\n") if line.strip()]


def _layers_of(text: str, context: Context) -> dict[str, OpKey]:
    """Layer -> its kernel, of those kernels that come from a layer with weights."""
    from pipeline.graph import kernels
    from pipeline.spec import resolve

    with Console().stage(f"looking into {text}"):
        network = resolve(text)
        if network.module is None:
            raise ModelError(
                f"{network.name}.{network.source} has no module whose layers have names", try_="file.py:function"
            )
        found = kernels(network.module, network.input_shape, context.runtime, abi=context.abi)
    return {use.module: use.key for use in found if use.macs}


def _only_for(asked: str, format_: str, option: str, value: object) -> None:
    if value is not None and asked != format_:
        raise UsageError(f"{option} is for {format_}, and {asked} was asked", try_=f"--to {format_}")


def check_output(option: str, path: Path | None, sources: Sequence[Path]) -> None:
    """Before anything is read or priced. Raises: UsageError: it is a file that is read. StorageError: not writable."""
    from pipeline.runfolder import check_writable

    check_writable(option, path)
    # `Path.resolve` would raise at links that lead to each other
    if path is not None and any(os.path.realpath(path) == os.path.realpath(source) for source in sources):
        raise UsageError(f"{option} {path} is a file that is read", try_="another path")


def _check_outputs(arguments: argparse.Namespace, sources: Sequence[Path]) -> None:
    check_output("--out", arguments.out, sources)
    check_output("--json", arguments.json, [*sources, arguments.out])
    if arguments.out.exists() and not arguments.force:
        raise UsageError(f"--out {arguments.out} is there already", try_="--force, or another path")


def _done(arguments: argparse.Namespace, kind: str, format_: str, entries: int, unmapped: Sequence[Unmapped]) -> int:
    from pipeline.runfolder import write_json

    if arguments.json is not None:
        left = [each._asdict() for each in unmapped]
        document = {"schema_version": SCHEMA_VERSION, "kind": kind, "format": format_, "out": str(arguments.out)}
        write_json(arguments.json, {**document, "entries": entries, "unmapped": left})
    if unmapped:
        console = Console()
        more = f", the first {TOLD}" if len(unmapped) > TOLD else ""
        console.say(f"{len(unmapped):,} could not be mapped{more}:")
        for each in unmapped[:TOLD]:
            console.say(f"  {each.name}: {each.reason}")
    print(printable(str(arguments.out)))
    return 0
