"""`handset bench`: export, deploy, profile, table, report."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any

from pipeline.arguments import count, duration, mask, percent, seconds, words

UNSTABLE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Exports networks, times them on a device in each runtime, end to end and kernel by kernel, and writes a run "
        "folder with JSON, a latency table and an HTML page. Without a MODEL: a default set, done in two minutes."
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="a name from `handset models`, a path to a .onnx, .tflite or .pt2 file, or file.py:function",
    )  # fmt: skip
    parser.add_argument(
        "--zoo", action="store_true",
        help="all networks of `handset models` instead of a MODEL, each for a short time (--budget 2), and how far MACs and "
        "parameters tell their latencies",
    )  # fmt: skip
    parser.add_argument(
        "--weights", action="append", default=None, metavar="FILE|MODEL=FILE",
        help="a state_dict of torchvision's, timm's, the authors' or its own for the MODEL, a zoo name or file.py:function: "
        ".pt, .pth and the like, or .safetensors; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--device", default=None, help="host (the default), pixel and other profiles, a phone's serial, or HOST:PORT"
    )
    parser.add_argument(
        "--runtime", default=None, help="onnxruntime, litert, tflite; comma between (all that the bundle has)"
    )
    parser.add_argument(
        "--bundle", default=None, help="for a phone: linux (the default), android, or linux,android side by side"
    )
    parser.add_argument(
        "--aar", action="append", default=None, metavar="PATH|G:A:V",
        help="the Android library of the android bundle, a file or Maven coordinates; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--delegate", choices=("xnnpack", "builtin"), default=None, help="what runs LiteRT's and TFLite's kernels (xnnpack)"
    )
    parser.add_argument("--threads", type=count, default=None, help="threads of the runtime (1)")
    parser.add_argument(
        "--cpu-mask", type=mask, default=None, help="cores to run on, such as 0x2; the device decides otherwise"
    )
    parser.add_argument(
        "--interval",
        type=percent,
        default=None,
        metavar="PERCENT",
        help="half-width of the median's interval to reach (1)",
    )
    parser.add_argument(
        "--budget", type=seconds, default=None, metavar="SECONDS", help="of timed inference at most for one case (6)"
    )
    parser.add_argument("--launches", type=count, default=None, help="starts of the runner at least (3)")
    parser.add_argument(
        "--limit", type=duration, default=None, metavar="SECONDS", help="an inference that takes longer has hung (60)"
    )
    parser.add_argument(
        "--wait", type=seconds, default=600.0, metavar="SECONDS", help="for another bench on the device to end (600)"
    )
    parser.add_argument(
        "--settle", type=seconds, default=600.0, metavar="SECONDS",
        help="for a phone to be cool, charged and idle enough (600)",
    )  # fmt: skip
    parser.add_argument("--ignore-conditions", action="store_true", help="measure a phone however hot or busy it is")
    parser.add_argument("--keep-settings", action="store_true", help="leave the phone's settings as they are")
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="time models whose outputs on the device are not torch's"
    )
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), metavar="DIR", help="where run folders go (reports)"
    )
    parser.add_argument("--resume", type=Path, default=None, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="PATH", help="the result document as a file of its own"
    )
    parser.set_defaults(command=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from pipeline.bench import bench
    from pipeline.console import Console
    from pipeline.report import terminal
    from pipeline.resume import stopped
    from pipeline.runfolder import check_writable, write_json

    check_writable("--json", arguments.json)
    request = _request(arguments)
    console = Console()
    try:
        document = bench(request, console)
    except KeyboardInterrupt:
        if console.run_folder is not None:
            again = shlex.join(["handset", "bench", "--resume", str(console.run_folder)])
            return stopped(console, again)
        raise
    if arguments.json is not None:
        write_json(arguments.json, document)
    assert console.run_folder is not None
    terminal(document, page=console.run_folder / "index.html")
    stable = all(profile["failed"] is None and profile["verdict"]["stable"] for profile in document["profiles"])
    if any(profile["failed"] for profile in document["profiles"]):
        return 1
    return 0 if stable else UNSTABLE


def _request(arguments: argparse.Namespace) -> Any:
    from devices.conditions import Gates
    from pipeline.errors import UsageError
    from pipeline.request import ZOO, Request, planned
    from pipeline.runfolder import reopen
    from pipeline.settings import Settings

    numbers = {
        "threads": arguments.threads,
        "cpu_mask": arguments.cpu_mask,
        "interval": arguments.interval,
        "budget_s": arguments.budget,
        "launches": arguments.launches,
        "limit_s": arguments.limit,
    }
    given = {key: value for key, value in numbers.items() if value is not None}
    if arguments.zoo and arguments.models:
        raise UsageError(
            f"--zoo is the whole zoo, and {arguments.models[0]} was asked too", try_="--zoo without a MODEL, or without --zoo"
        )
    if arguments.resume is None:
        for option, text in (("--runtime", arguments.runtime), ("--bundle", arguments.bundle)):
            if text is not None and not words(text):
                raise UsageError(f"{option} {text!r} names nothing", try_=f"without {option}")
        return Request(
            models=tuple(arguments.models),
            weights=tuple(arguments.weights or ()),
            zoo=arguments.zoo,
            device="host" if arguments.device is None else arguments.device,
            runtimes=words(arguments.runtime),
            bundles=words(arguments.bundle),
            aars=tuple(arguments.aar or ()),
            delegate=arguments.delegate or "",
            gates=None if arguments.ignore_conditions else Gates(),
            settle_s=arguments.settle,
            keep_settings=arguments.keep_settings,
            allow_mismatch=arguments.allow_mismatch,
            settings=Settings(**{**(ZOO if arguments.zoo else {}), **given}),
            reports=arguments.reports,
            wait_s=arguments.wait,
        )
    fixed = (arguments.models, arguments.device, arguments.runtime, arguments.bundle, arguments.aar, arguments.delegate)
    if any(fixed) or arguments.weights or arguments.zoo:
        raise UsageError(
            "--resume goes on with what that run was asked", try_="--resume RUN without models, device, runtime, bundle"
        )
    plan = reopen(arguments.resume).plan
    if arguments.threads is not None or arguments.cpu_mask is not None:
        raise UsageError(
            "--threads and --cpu-mask cannot change in the middle of a run", try_="a new run, or --resume without them"
        )
    asked = planned(plan, arguments.resume)
    return dataclasses.replace(
        asked,
        gates=None if arguments.ignore_conditions else asked.gates,
        settle_s=arguments.settle,
        keep_settings=asked.keep_settings or arguments.keep_settings,
        allow_mismatch=asked.allow_mismatch or arguments.allow_mismatch,
        settings=dataclasses.replace(asked.settings, **given),
        wait_s=arguments.wait,
    )
