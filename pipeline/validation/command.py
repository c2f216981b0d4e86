"""`handset lut validate`: end-to-end latencies of networks against what a table makes of their kernels."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.arguments import count, mask, percent, seconds
from pipeline.bench_command import UNSTABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures networks end to end where a latency table was made, and says how well the sum of the table's kernels tells "
        "what they take: beside kernels timed alone, random forests and MACs, with a run folder, JSON and an HTML page."
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="a name from `handset models`, a path to a .onnx, .tflite or .pt2 file, or file.py:function",
    )  # fmt: skip
    parser.add_argument(
        "--lut", type=Path, required=True, metavar="PATH", help="the table; its runtime is the one used"
    )
    parser.add_argument("--device", default=None, help="as of `handset bench`; must be the table's (host)")
    parser.add_argument(
        "--bundle",
        default=None,
        choices=("linux", "android"),
        help="for a phone: the one that the table was made with (linux)",
    )
    parser.add_argument(
        "--aar", action="append", default=None, metavar="PATH|G:A:V", help="as of `handset bench`; may be given again"
    )
    parser.add_argument(
        "--allow-other-context", action="store_true",
        help="go on where device, runtime or settings are not the table's; document and page say so",
    )  # fmt: skip
    parser.add_argument(
        "--require-within5", type=_share, default=None, metavar="SHARE",
        help="exit with 1 unless at least that share of the networks, 0 to 1, is within 5 %%",
    )  # fmt: skip
    parser.add_argument(
        "--interpolate", action=argparse.BooleanOptionalAction, default=True,
        help="answer kernels between measured ones (on)",
    )  # fmt: skip
    parser.add_argument("--no-isolated", action="store_true", help="do not measure each kernel alone as well")
    parser.add_argument("--seed", type=_seed, default=None, metavar="N", help="of forests and of written models (1)")
    parser.add_argument("--cpu-mask", type=mask, default=None, help="cores to run on, such as 0x2 (the table's)")
    parser.add_argument(
        "--interval",
        type=percent,
        default=None,
        metavar="PERCENT",
        help="half-width of the median's interval to reach (1)",
    )
    parser.add_argument(
        "--budget", type=seconds, default=None, metavar="SECONDS", help="of timed inference at most for one network (6)"
    )
    parser.add_argument("--launches", type=count, default=None, help="starts of the runner at least (3)")
    parser.add_argument(
        "--wait", type=seconds, default=600.0, metavar="SECONDS", help="for another bench on the device to end (600)"
    )
    parser.add_argument(
        "--settle", type=seconds, default=600.0, metavar="SECONDS",
        help="for a phone to be cool, charged and idle enough (600)",
    )  # fmt: skip
    parser.add_argument("--ignore-conditions", action="store_true", help="measure a phone however hot or busy it is")
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), metavar="DIR", help="where run folders go (reports)"
    )
    parser.add_argument("--resume", type=Path, default=None, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="the document as a file of its own")
    parser.set_defaults(command=_validate)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2147483647")
    return int(text)


def _validate(arguments: argparse.Namespace) -> int:
    from pipeline.console import Console
    from pipeline.resume import stopped
    from pipeline.runfolder import check_writable, write_json
    from pipeline.validation import PAGE
    from pipeline.validation.run import Asked, resume_words, validate_table
    from pipeline.validation.summary import summarise

    check_writable("--json", arguments.json)
    asked = Asked(
        lut=arguments.lut,
        request=_request(arguments),
        allow_other_context=arguments.allow_other_context,
        within5=arguments.require_within5,
        interpolate=arguments.interpolate,
        isolated=not arguments.no_isolated,
    )
    console = Console()
    try:
        document = validate_table(asked, console)
    except KeyboardInterrupt:
        if console.run_folder is None:
            raise
        return stopped(console, resume_words(arguments.lut, console.run_folder))
    if arguments.json is not None:
        write_json(arguments.json, document)
    assert console.run_folder is not None
    summarise(document, console.run_folder / PAGE)
    return _status(document)


def _status(document: dict[str, Any]) -> int:
    """Raises: CheckFailed: what was required of the table was not found."""
    from pipeline.validation.judge import Requirement

    required = document["requirement"]
    if required is not None:
        Requirement(required["within5_asked"], required["within5_found"], required["judged"]).check()
    if document["counts"]["failed"]:
        return 1
    return UNSTABLE if required is None and document["counts"]["unstable"] else 0


def _request(arguments: argparse.Namespace) -> Any:
    from devices.conditions import Gates
    from pipeline.errors import UsageError
    from pipeline.request import Request, planned
    from pipeline.runfolder import reopen
    from pipeline.settings import Settings

    numbers = {
        "cpu_mask": arguments.cpu_mask,
        "interval": arguments.interval,
        "budget_s": arguments.budget,
        "launches": arguments.launches,
        "seed": arguments.seed,
    }
    given = {key: value for key, value in numbers.items() if value is not None}
    if arguments.resume is None:
        if not arguments.models:
            raise UsageError("no network was named to validate the table by", try_="a MODEL, see `handset models`")
        return Request(
            models=tuple(arguments.models),
            device="host" if arguments.device is None else arguments.device,
            runtimes=(),
            bundles=() if arguments.bundle is None else (arguments.bundle,),
            aars=tuple(arguments.aar or ()),
            gates=None if arguments.ignore_conditions else Gates(),
            settle_s=arguments.settle,
            settings=Settings(**given),
            reports=arguments.reports,
            wait_s=arguments.wait,
        )
    fixed = (arguments.models, arguments.device, arguments.bundle, arguments.aar)
    if any(fixed) or arguments.cpu_mask is not None or arguments.seed is not None:
        raise UsageError(
            "--resume goes on with what that run was asked",
            try_="--resume RUN without models, device, bundle, cores and seed",
        )
    asked = planned(reopen(arguments.resume).plan, arguments.resume)
    if not asked.models:
        raise UsageError(f"{arguments.resume} is a bench of the default set", try_="a new run with a MODEL")
    return dataclasses.replace(
        asked,
        gates=None if arguments.ignore_conditions else asked.gates,
        settle_s=arguments.settle,
        settings=dataclasses.replace(asked.settings, **given),
        wait_s=arguments.wait,
    )
