"""`handset compress`: methods of compression side by side on one network."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import count, duration, positive, share, words

if TYPE_CHECKING:
    from pipeline.compression.request import Asked

FIXED = (
    "methods", "model", "budget", "weights", "data", "held_out", "finetune_epochs", "lr", "schedule", "rewind", "warmup",
    "batch_size", "weight_decay", "threads", "on", "bfloat16", "distill", "every", "seeds", "rounds", "lut", "device",
    "runtime", "no_measure", "measure_seconds", "reports",
)  # fmt: skip
"""What a run that goes on has been told already."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipeline.compression.budget import EXAMPLES
    from pipeline.compression.methods import METHODS

    parser.description = (
        "Makes a network smaller by one or more methods, retrains and judges it where data is given, writes each result as a "
        ".pt2 file that `handset bench` takes, measures all of them on a device, and puts accuracy beside parameters, MACs "
        "and latency on one page."
    )
    parser.add_argument("methods", nargs="?", metavar="METHOD,...", help=f"{', '.join(METHODS)}; comma between")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a name from `handset models`, or file.py:function")
    left = f"what may be left: {EXAMPLES}; comma between (50%)"
    parser.add_argument("--budget", default=None, metavar="B,...", help=left.replace("%", "%%"))
    parser.add_argument("--weights", default=None, metavar="FILE", help="as of `handset bench`")
    parser.add_argument(
        "--data", default=None, metavar="D", help="digits, or cifar10:FOLDER with train.parquet and test.parquet"
    )
    parser.add_argument(
        "--held-out", action="store_true",
        help="judge by a tenth of the training images, which are not trained on: to choose settings without the test images",
    )  # fmt: skip
    group = parser.add_argument_group("training", "SGD with Nesterov momentum, on the training images of --data.")
    group.add_argument("--finetune-epochs", type=_natural, default=None, metavar="N", help="after each compression (0)")
    group.add_argument("--lr", type=positive, default=None, help="learning rate at the start (0.02)")
    group.add_argument("--schedule", choices=("cosine", "steps"), default=None, help="of the learning rate (cosine)")
    group.add_argument(
        "--rewind", type=_natural, default=None, metavar="E",
        help="--lr and --schedule are of the original training of E epochs, whose last ones are run again",
    )  # fmt: skip
    group.add_argument(
        "--warmup", type=positive, default=None, metavar="EPOCHS", help="in which the learning rate rises (0)"
    )
    group.add_argument("--batch-size", type=count, default=None, metavar="N", help="(128)")
    group.add_argument("--weight-decay", type=positive, default=None, metavar="W", help="(5e-4)")
    group.add_argument("--threads", type=count, default=None, help="of torch (1)")
    group.add_argument("--on", default=None, metavar="DEVICE", help="where torch trains: cpu, cuda, ... (cpu)")
    group.add_argument("--bfloat16", action="store_true", help="train in bfloat16 where that is exact enough")
    group.add_argument(
        "--distill", type=share, default=None, metavar="SHARE",
        help="of the loss in which the network as it was is the teacher, 0 to 1 (0)",
    )  # fmt: skip
    group.add_argument(
        "--every", type=_every, default=None, metavar="STEPS", help="DeepTwist's distortions; or epoch (200)"
    )
    group.add_argument("--seeds", type=count, default=None, metavar="N", help="trainings of each (1)")
    group.add_argument(
        "--rounds", type=count, default=None, metavar="N", help="steps to the budget, retrained after each (1)"
    )
    group = parser.add_argument_group("latency")
    group.add_argument(
        "--lut", type=Path, default=None, metavar="T", help="a latency table: predicted times, budgets in ms"
    )
    group.add_argument("--device", default=None, help="as of `handset bench` (host)")
    group.add_argument("--runtime", default=None, help="as of `handset bench` (all that the device has)")
    group.add_argument("--no-measure", action="store_true", help="measure nothing")
    group.add_argument(
        "--measure-seconds", type=duration, default=None, metavar="S", help="of a network in a runtime (6)"
    )
    parser.add_argument(
        "--out", type=Path, default=None, metavar="F.pt2", help="the network of a single trial as a file of its own"
    )
    parser.add_argument("--force", action="store_true", help="replace --out where it is there")
    parser.add_argument("--reports", type=Path, default=None, metavar="DIR", help="where run folders go (reports)")
    parser.add_argument("--resume", type=Path, default=None, metavar="RUN", help="go on with a run that was stopped")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="PATH", help="the result document as a file of its own"
    )
    parser.set_defaults(command=_compress)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number from 0 to 999,999")
    return int(text)


def _every(text: str) -> int:
    if text == "epoch":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is neither a number of steps nor epoch")
    return int(text)


def _compress(arguments: argparse.Namespace) -> int:
    """Exit status: 0; 1 a trial was left out, or a network could not be measured or written; UNSTABLE."""
    from pipeline.bench_command import UNSTABLE
    from pipeline.compression.run import compress, resume_words
    from pipeline.compression.summary import summarise
    from pipeline.console import Console
    from pipeline.resume import stopped
    from pipeline.runfolder import PAGE, check_writable, write_json

    check_writable("--json", arguments.json)
    asked = _asked(arguments)
    _check_out(arguments, asked)
    console = Console()
    try:
        document = compress(asked, console)
    except KeyboardInterrupt:
        if console.run_folder is None:
            raise
        return stopped(console, resume_words(console.run_folder))
    assert console.run_folder is not None
    if arguments.json is not None:
        write_json(arguments.json, document)
    last = document["points"][-1]
    if arguments.out is not None and not last["unexported"]:
        _copy(console.run_folder / last["file"], arguments.out)
    summarise(document, console.run_folder / PAGE)
    if arguments.out is not None and last["unexported"]:
        console.say(f"{arguments.out} is not written: the network's weights are in {last['file']} of the run")
        return 1
    if asked.device and any(point["unexported"] for point in document["points"]):
        return 1
    measured = [one for point in document["points"] for one in point["measured"]]
    trials = {(one["method"], one["budget"], one["seed"]) for one in document["points"][1:]}
    if len(trials) < len(list(asked.trials())) or any(one["failed"] for one in measured):
        return 1
    return UNSTABLE if any(not one["stable"] for one in measured) else 0


def _check_out(arguments: argparse.Namespace, asked: Asked) -> None:
    from pipeline.errors import UsageError
    from pipeline.runfolder import check_writable

    if arguments.out is None:
        return
    check_writable("--out", arguments.out)
    if arguments.out.suffix != ".pt2":
        raise UsageError(
            f"--out {arguments.out} is no .pt2 file, which is what a network is written as", try_="--out F.pt2"
        )
    if len(list(asked.trials())) != 1:
        raise UsageError(
            "--out is for one method, one budget and one seed", try_="without --out: the run folder has all"
        )
    if arguments.out.exists() and not arguments.force:
        raise UsageError(f"{arguments.out} is there already", try_="another --out, or --force to replace it")


def _copy(source: Path, target: Path) -> None:
    import os
    import shutil

    from pipeline.export.base import scratch, storage

    with storage(target), scratch(target) as part:
        shutil.copyfile(source, part)
        os.replace(part, target)


def _asked(arguments: argparse.Namespace) -> Asked:
    from pipeline.compression.request import Asked, Tuning, planned
    from pipeline.errors import UsageError
    from pipeline.runfolder import reopen

    if arguments.resume is not None:
        if any(getattr(arguments, name) not in (None, False) for name in FIXED):
            raise UsageError(
                "--resume goes on with what that run was asked", try_="--resume RUN, with --json or --out alone"
            )
        return planned(reopen(arguments.resume).plan, arguments.resume)
    if arguments.methods is None or arguments.model is None:
        raise UsageError("no network was named", try_="handset compress METHOD MODEL, see --help")
    given = {
        "epochs": arguments.finetune_epochs, "lr": arguments.lr, "schedule": arguments.schedule,
        "original_epochs": arguments.rewind, "warmup": arguments.warmup, "batch_size": arguments.batch_size,
        "weight_decay": arguments.weight_decay, "threads": arguments.threads, "on": arguments.on, "every": arguments.every,
        "distill": arguments.distill,
    }  # fmt: skip
    tuning = Tuning(**_given(given), bfloat16=arguments.bfloat16)
    others = {
        "weights": arguments.weights, "data": arguments.data, "seeds": arguments.seeds, "rounds": arguments.rounds,
        "lut": None if arguments.lut is None else str(arguments.lut), "measure_s": arguments.measure_seconds,
        "device": "" if arguments.no_measure else arguments.device, "reports": arguments.reports or Path("reports"),
    }  # fmt: skip
    asked = Asked(
        words(arguments.methods), arguments.model, words(arguments.budget) or ("50%",), tuning=tuning,
        held_out=arguments.held_out, runtimes=words(arguments.runtime), **_given(others),
    )  # fmt: skip
    asked.check()
    return asked


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
