"""`handset guidelines --experiment`: the paper's tables on a device."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from pipeline.arguments import count, duration, seconds, words
from pipeline.bench_command import UNSTABLE
from pipeline.guidelines.finding import RULES

NAMES = (*RULES, "table8")
"""Of `paper.TABLES`, which is made only where it is needed."""
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "the paper's tables on a device",
        "Measures the networks of the paper's Tables 1 to 4 (g1 to g4) and 8 (table8) end to end, batch 1, one thread, beside "
        "the paper's speeds on ARM; says which guidelines hold there and what is ordered otherwise. Without a MODEL.",
    )
    group.add_argument(
        "--experiment", type=_tables, default=None, metavar="TABLE,...", help=f"{', '.join(NAMES)} or {ALL}"
    )
    group.add_argument("--device", default=None, help="as of `handset bench` (host)")
    group.add_argument("--runtime", default=None, help="as of `handset bench` (all that the device has)")
    group.add_argument(
        "--budget",
        type=duration,
        default=None,
        metavar="SECONDS",
        help="of timed inference at most for one network (6)",
    )
    group.add_argument("--launches", type=count, default=None, help="starts of the runner at least (3)")
    group.add_argument("--reports", type=Path, default=None, metavar="DIR", help="where run folders go (reports)")
    group.add_argument("--resume", type=Path, default=None, metavar="RUN", help="go on with a run that was stopped")
    group.add_argument(
        "--wait", type=seconds, default=None, metavar="SECONDS", help="for another bench on the device to end (600)"
    )


def _tables(text: str) -> tuple[str, ...]:
    asked = words(text.lower())
    unknown = [name for name in asked if name not in (*NAMES, ALL)]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f"{(unknown or [text])[0][:60]!r} is not one of {', '.join(NAMES)}, {ALL}")
    return tuple(name for name in NAMES if name in asked or ALL in asked)


def is_experiment(arguments: argparse.Namespace) -> bool:
    """Whether the tables were asked for.

    Raises: UsageError: options of theirs without them, or a MODEL and its options with them.
    """
    from pipeline.errors import UsageError

    asked = arguments.experiment is not None or arguments.resume is not None
    own = ("device", "runtime", "budget", "launches", "reports", "wait")
    others = ("lut", "fail_on")
    given = [name for name in (others if asked else own) if getattr(arguments, name) not in (None, ())]
    if asked and arguments.models:
        raise UsageError(
            f"--experiment has networks of its own, and {str(arguments.models[0])[:80]} was named too",
            try_="handset guidelines MODEL, or --experiment without a MODEL",
        )
    if given:
        option = f"--{given[0].replace('_', '-')}"
        if asked:
            raise UsageError(f"{option} is not for --experiment", try_=f"without {option}")
        raise UsageError(f"{option} is only for --experiment", try_=f"--experiment {NAMES[0]}")
    return asked


def run_experiment(arguments: argparse.Namespace) -> int:
    """Exit status: 0 whatever the guidelines came out as; 1 a network could not be measured; UNSTABLE."""
    from pipeline.console import Console
    from pipeline.guidelines.experiment.measure import PAGE, experiment, resume_words
    from pipeline.guidelines.experiment.summary import summarise
    from pipeline.resume import stopped
    from pipeline.runfolder import check_writable, write_json

    check_writable("--json", arguments.json)
    asked = _asked(arguments)
    console = Console()
    try:
        document = experiment(asked, console)
    except KeyboardInterrupt:
        if console.run_folder is None:
            raise
        return stopped(console, resume_words(console.run_folder))
    if arguments.json is not None:
        write_json(arguments.json, document)
    assert console.run_folder is not None
    summarise(document, console.run_folder / PAGE)
    if document["counts"]["failed"]:
        return 1
    return UNSTABLE if document["counts"]["unstable"] else 0


def _asked(arguments: argparse.Namespace) -> Any:
    from pipeline.errors import UsageError
    from pipeline.guidelines.experiment.measure import Asked, models_of, resumed, settings_of
    from pipeline.request import Request

    wait_s = 600.0 if arguments.wait is None else arguments.wait
    if arguments.resume is None:
        if arguments.runtime is not None and not words(arguments.runtime):
            raise UsageError(f"--runtime {arguments.runtime!r} names nothing", try_="without --runtime")
        request = Request(
            models=models_of(arguments.experiment),
            device=arguments.device or "host",
            runtimes=words(arguments.runtime),
            settings=settings_of(arguments.budget, arguments.launches),
            reports=arguments.reports or Path("reports"),
            wait_s=wait_s,
        )
        return Asked(arguments.experiment, request)
    if any((arguments.experiment, arguments.device, arguments.runtime, arguments.reports)):
        raise UsageError(
            "--resume goes on with what that run was asked", try_="--resume RUN without --experiment, device, runtime"
        )
    asked = resumed(arguments.resume)
    before = asked.request.settings
    settings = settings_of(arguments.budget or before.budget_s, arguments.launches or before.launches)
    return dataclasses.replace(asked, request=dataclasses.replace(asked.request, settings=settings, wait_s=wait_s))
