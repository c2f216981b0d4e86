"""The command line: one subcommand a stage, each a few lines over one public function.

Exit status: 0 good, 1 a check failed, 2 usage, 3 no such device or lost it, 4 measured but unstable, 130 stopped by
Ctrl-C. Nothing heavy is imported before a subcommand runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.console import printable
from pipeline.version import VERSION

STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit status and never raises for what a user or a device did wrong."""
    _open_streams()
    parser = make_parser()
    arguments = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with _stopped_by_signals():
            status = command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("handset: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # whoever read our output has gone; nothing more can be said to them
        _drop_stdout()
        return 0
    except OSError as error:
        # stdout on a full disk, or a file that no stage speaks for
        _drop_stdout()
        what = f" {_one_line(str(error.filename))}" if error.filename is not None else ""
        print(f"handset: cannot read or write{what}: {error.strerror or error}", file=sys.stderr)
        return 1
    except Exception as error:
        exit_status = getattr(error, "exit_status", None)
        if not isinstance(exit_status, int):
            raise
        print(f"handset: {_one_line(str(error))}", file=sys.stderr)
        return exit_status


def _open_streams() -> None:
    """A stream that was closed (`>&-`) becomes /dev/null, before some other file is opened under its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for the process's life)


def _drop_stdout() -> None:
    """What is still buffered goes nowhere, so that the interpreter's end does not fail on it again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """`kill` and a lost terminal stop a command as Ctrl-C does: the device is put in order and launches stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup ignores SIGHUP, and that stays so
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """A wrong argument is one line too, as every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"handset: {_one_line(message)}; try: {self.prog} --help\n")


def _one_line(text: str) -> str:
    """Text from phones and model files may hold anything; a terminal gets one printable line of it."""
    return printable(" ".join(text.split()))[:1000]


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="handset", description="From a PyTorch network to per-kernel latencies on a phone, and back.")
    parser.add_argument("--version", action="version", version=f"handset {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_bench(commands.add_parser("bench", help="export, deploy, profile, table, report"))
    _add_models(commands.add_parser("models", help="the networks that are known by name"))
    _add_devices(commands.add_parser("devices", help="what can be measured on"))
    _add_bundle(commands.add_parser("bundle", help="what phones are given to run models: build, show, clean"))
    _add_compress(commands.add_parser("compress", help="low-rank methods side by side: accuracy, size and measured latency"))
    _add_lut(commands.add_parser("lut", help="latency tables: build, query, validate, diff, export, import"))
    _add_guidelines(commands.add_parser("guidelines", help="ShuffleNetV2's G1-G4: where a network breaks them, and its price"))
    _add_search(commands.add_parser("search", help="which change to make: ranks, as a front of accuracy against latency"))
    _add_report(commands.add_parser("report", help="the page of a run or a table; a run for Perfetto and Model Explorer"))
    return parser


def _add_bench(parser: argparse.ArgumentParser) -> None:
    from pipeline.bench_command import add_arguments

    add_arguments(parser)


def _add_compress(parser: argparse.ArgumentParser) -> None:
    from pipeline.compress_command import add_arguments

    add_arguments(parser)


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    from pipeline.bundle_command import add_arguments

    add_arguments(parser)


def _add_lut(parser: argparse.ArgumentParser) -> None:
    from pipeline.lut.command import add_arguments

    add_arguments(parser)


def _add_guidelines(parser: argparse.ArgumentParser) -> None:
    from pipeline.guidelines_command import add_arguments

    add_arguments(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    from pipeline.search_command import add_arguments

    add_arguments(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="the list as a file")
    parser.set_defaults(command=_models)


def _models(arguments: argparse.Namespace) -> int:
    from pipeline.models import MODELS
    from pipeline.runfolder import write_json

    fields = ("params", "macs", "top1", "reference")
    rows: list[dict[str, Any]] = [
        {"name": name, "input_shape": list(spec.input_shape)} | {field: getattr(spec, field) for field in fields}
        for name, spec in MODELS.items()
    ]
    if arguments.json is not None:
        write_json(arguments.json, {"schema_version": 1, "kind": "models", "models": rows})
    width = max(len(row["name"]) for row in rows)
    print(f"{'name':<{width}} {'input':<14} {'params':>11} {'MACs':>14} {'top-1':>6}  reference")
    for row in rows:
        shape = "x".join(map(str, row["input_shape"]))
        top1 = "" if row["top1"] is None else f"{row['top1']:.2f}"
        print(f"{row['name']:<{width}} {shape:<14} {row['params']:>11,} {row['macs']:>14,} {top1:>6}  {row['reference']}")
    return 0


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="the list as a file")
    parser.set_defaults(command=_devices)


def _devices(arguments: argparse.Namespace) -> int:
    import dataclasses

    from devices import list_devices
    from pipeline.runfolder import write_json

    found = list_devices()
    if arguments.json is not None:
        devices = [dataclasses.asdict(device) for device in found]
        write_json(arguments.json, {"schema_version": 1, "kind": "devices", "devices": devices})
    for device in found:
        if device.state != "device":
            print(f"{printable(device.name):<12} {_one_line(device.state)}: not ready to be measured on")
            continue
        memory = "" if device.memory_bytes is None else f", {device.memory_bytes / 2**30:.0f} GiB"
        about = f"{device.model}, {device.cores} cores{memory}, {device.abi}, {device.os}"
        about += "; emulated: its times are not a phone's" if device.simulated else ""
        print(f"{printable(device.name):<12} {_one_line(about)}")
    return 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    from pipeline.report_command import add_arguments

    add_arguments(parser)
