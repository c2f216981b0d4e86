"""`handset lut build`: a latency table of a device, from the networks that it is for."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import count, mask, minutes, percent, seconds, words

if TYPE_CHECKING:
    from pipeline.sweep.request import BuildRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures the kernels that networks have on a device, and those that other widths, kernel sizes, expansions and "
        "resolutions would make, in bundles as a network would leave them, until the time is up or the table tells its own "
        "kernels well enough. Writes a run folder with the table and a page about it."
    )
    parser.add_argument(
        "--for", dest="models", default=None, metavar="MODEL,...",
        help="names from `handset models`, .pt2 files or file.py:function, comma between",
    )  # fmt: skip
    parser.add_argument(
        "--grid", type=Path, default=None, metavar="FILE", help="TOML: the axes to vary; may name networks and kernels itself"
    )
    parser.add_argument(
        "--pieces", default=None, metavar="METHOD,...",
        help="the kernels too that these networks have decomposed: svd, tucker2, cp, alds; ranks between are interpolated",
    )  # fmt: skip
    parser.add_argument("--exact", action="store_true", help="only the kernels that these networks have")
    parser.add_argument("--device", default=None, help="host (the default), pixel and other profiles, a serial, or HOST:PORT")
    parser.add_argument("--runtime", default=None, help="onnxruntime, litert or tflite")
    parser.add_argument("--bundle", default=None, choices=("linux", "android"), help="for a phone (linux)")
    parser.add_argument("--aar", action="append", default=None, metavar="PATH|G:A:V", help="as of `handset bench`")
    parser.add_argument("--delegate", choices=("xnnpack", "builtin"), default=None, help="as of `handset bench`")
    parser.add_argument("--minutes", type=minutes, default=None, help="of measuring; the networks' own kernels always (15)")
    parser.add_argument(
        "--error", type=percent, default=None, metavar="PERCENT", help="leave-one-out error that is good enough (1)"
    )
    parser.add_argument(
        "--interval", type=percent, default=None, metavar="PERCENT", help="half-width of an entry's interval to reach (2)"
    )
    parser.add_argument("--threads", type=count, default=None, help="threads of the runtime (1)")
    parser.add_argument("--cpu-mask", type=mask, default=None, help="cores to run on, such as 0x2")
    parser.add_argument("--out", type=Path, default=None, metavar="T.parquet", help="the table as a file of its own too")
    parser.add_argument("--force", action="store_true", help="replace --out where it is there")
    parser.add_argument("--wait", type=seconds, default=600.0, metavar="SECONDS", help="for another bench to end (600)")
    parser.add_argument("--settle", type=seconds, default=600.0, metavar="SECONDS", help="for a phone to be quiet (600)")
    parser.add_argument("--ignore-conditions", action="store_true", help="measure a phone however hot or busy it is")
    parser.add_argument("--keep-settings", action="store_true", help="leave the phone's settings as they are")
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help="where run folders go (reports)")
    parser.add_argument("--resume", type=Path, default=None, metavar="RUN", help="go on with a build that was stopped")
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="the result document as a file of its own")
    parser.set_defaults(command=_build)


def _build(arguments: argparse.Namespace) -> int:
    from pipeline.console import Console, printable
    from pipeline.resume import stopped
    from pipeline.runfolder import PAGE, check_writable, write_json
    from pipeline.sweep.build import build

    check_writable("--json", arguments.json)
    check_writable("--out", arguments.out)
    request = _request(arguments)
    console = Console()
    try:
        document = build(request, console)
    except KeyboardInterrupt:
        if console.run_folder is not None:
            again = shlex.join(["handset", "lut", "build", "--resume", str(console.run_folder)])
            return stopped(console, again)
        raise
    if arguments.json is not None:
        write_json(arguments.json, document)
    for line in _summary(document):
        print(printable(line))
    assert console.run_folder is not None
    print(f"table: {printable(str(request.out or console.run_folder / document['table']))}")
    print(f"page:  {printable(str(console.run_folder / PAGE))}")
    return 0


def _summary(document: dict[str, Any]) -> list[str]:
    kernels, interval, error = document["kernels"], document["interval"], document["error"]
    told = "not known: too few lie between others" if error is None else f"{100 * error:.1f} %"
    lines = [
        f"{kernels['measured']:,} kernels in {document['bundles']:,} bundles, {document['seconds'] / 60:.1f} min",
        f"intervals within ±{100 * interval['asked']:g} %: {100 * interval['share_within']:.0f} % of the kernels",
        f"leave-one-out error, by time: {told}",
    ]
    if missing := document["missing"]:
        lines.append(f"{len(missing)} could not be measured: {missing[0]['key']} ({missing[0]['why']})")
    return lines


def _request(arguments: argparse.Namespace) -> BuildRequest:
    from pipeline.errors import UsageError
    from pipeline.runfolder import reopen
    from pipeline.sweep.grid import GridFile, read_grid
    from pipeline.sweep.request import USUAL, USUAL_GRID, BuildRequest, planned

    if arguments.out is not None and arguments.out.exists() and not arguments.force:
        raise UsageError(f"{arguments.out} is there already", try_="another --out, or --force to replace it")
    numbers = {"threads": arguments.threads, "cpu_mask": arguments.cpu_mask, "interval": arguments.interval}
    settings = {key: value for key, value in numbers.items() if value is not None}
    limits = {"budget_s": arguments.minutes, "error": arguments.error}
    given = {key: value for key, value in limits.items() if value is not None}
    if arguments.resume is not None:
        fixed = (
            "models", "pieces", "grid", "exact", "device", "runtime", "bundle", "aar", "delegate", "threads", "cpu_mask",
        )  # fmt: skip
        if any(getattr(arguments, name) for name in fixed):
            what = "--resume goes on with what that build was asked"
            raise UsageError(what, try_="--resume RUN, with --minutes, --error, --interval or --out if they should change")
        asked = planned(reopen(arguments.resume).plan, arguments.resume)
        return dataclasses.replace(
            asked, settings=dataclasses.replace(asked.settings, **settings), out=arguments.out, wait_s=arguments.wait,
            settle_s=arguments.settle, gates=None if arguments.ignore_conditions else asked.gates, **given,
        )  # fmt: skip
    if arguments.runtime is None:
        raise UsageError("--runtime is missing: a table is of one runtime", try_="--runtime onnxruntime, or litert")
    try:
        file = GridFile(USUAL_GRID) if arguments.grid is None else read_grid(arguments.grid)
    except OSError as error:
        raise UsageError(f"cannot read {arguments.grid}: {error.strerror}", try_="the path of a TOML file") from error
    from devices.conditions import Gates

    return BuildRequest(
        models=words(arguments.models) or file.networks,
        kernels=file.kernels,
        pieces=words(arguments.pieces),
        grid=None if arguments.exact else file.grid,
        device="host" if arguments.device is None else arguments.device,
        runtime=arguments.runtime,
        bundle=arguments.bundle or "",
        aars=tuple(arguments.aar or ()),
        delegate=arguments.delegate or "",
        settings=dataclasses.replace(USUAL, **settings),
        out=arguments.out,
        gates=None if arguments.ignore_conditions else Gates(),
        settle_s=arguments.settle,
        keep_settings=arguments.keep_settings,
        reports=arguments.reports,
        wait_s=arguments.wait,
        **given,
    )
