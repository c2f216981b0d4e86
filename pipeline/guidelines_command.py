"""`handset guidelines`: where networks do not follow ShuffleNetV2's guidelines, and what following them would save."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import Console, printable
from pipeline.errors import UsageError
from pipeline.guidelines.experiment.command import add_arguments as add_experiment_arguments
from pipeline.guidelines.experiment.command import is_experiment, run_experiment
from pipeline.guidelines.finding import RULES
from pipeline.lut.convert_command import check_output

if TYPE_CHECKING:
    from latency_luts import LatencyTable
    from pipeline.guidelines import Finding

SCHEMA_VERSION = 1
LIMIT = 20
TOLD = 3
"""Reasons why there is no saving of which a terminal is told; --json has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Checks networks against ShuffleNetV2's guidelines (Ma et al., ECCV 2018): "
        + "; ".join(f"{rule.upper()}, {told}" for rule, told in RULES.items())
        + ". Nothing is exported or run, but by --experiment. With a table each finding says what its rewrite would save on "
        "that device; what would save most comes first. Exit status 0 whatever is found, unless --fail-on."
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL",
        help="a name from `handset models`, a path to a .onnx, .tflite or .pt2 file, or file.py:function",
    )
    parser.add_argument("--lut", type=Path, default=None, metavar="T", help="a latency table, a .parquet file")
    parser.add_argument(
        "--fail-on", type=_rules, default=(), metavar="RULE,...", help="exit status 1 where one of these finds something"
    )
    parser.add_argument(
        "--limit", type=_limit, default=LIMIT, metavar="N", help=f"findings of a network that are printed ({LIMIT})"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="all of it as a file")
    add_experiment_arguments(parser)
    parser.set_defaults(command=_guidelines)


def _rules(text: str) -> tuple[str, ...]:
    from pipeline.arguments import words

    asked = words(text.lower())
    if not asked or not set(asked) <= set(RULES):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a list of {', '.join(RULES)}")
    return asked


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number from 1 to 999,999")
    return int(text)


def _guidelines(arguments: argparse.Namespace) -> int:
    from latency_luts import load
    from pipeline.runfolder import write_json

    if is_experiment(arguments):
        return run_experiment(arguments)
    if not arguments.models:
        raise UsageError("no network was named", try_="a MODEL, see `handset models`, or --experiment")
    files = [Path(text.rpartition(":")[0] or text) for text in arguments.models]
    check_output("--json", arguments.json, [*files, *([arguments.lut] if arguments.lut else [])])
    if (twice := Counter(arguments.models).most_common(1)[0])[1] > 1:
        raise UsageError(f"{twice[0]} was asked {twice[1]} times", try_="each model once")
    console = Console()
    table = None if arguments.lut is None else load(arguments.lut)
    found = [(text, *_checked(text, table, console)) for text in arguments.models]
    if arguments.json is not None:
        write_json(arguments.json, _document(arguments, table, found))
    for index, (text, _, findings) in enumerate(found):
        if index:
            print()
        _print(text, findings, table is not None, arguments.limit)
    if table is not None and table.context.simulated:
        from pipeline.lut.terminal import print_simulated

        print_simulated()
    return 1 if any(each.rule in arguments.fail_on for _, _, findings in found for each in findings) else 0


def _checked(text: str, table: LatencyTable | None, console: Console) -> tuple[tuple[int, ...], list[Finding]]:
    """A network of the zoo is looked at as it is built: its weights do not matter, and need not be trained or settled."""
    from pipeline.guidelines import check, check_file
    from pipeline.models import MODELS, build
    from pipeline.spec import resolve

    with console.stage(f"looking into {text}"):
        if text in MODELS:
            shape = MODELS[text].input_shape
            return shape, check(build(text), shape, table)
        network = resolve(text)
        if network.module is not None:
            return network.input_shape, check(network.module, network.input_shape, table)
        assert network.path is not None
        return network.input_shape, check_file(network.path, table)


def _print(text: str, findings: Sequence[Finding], priced: bool, limit: int) -> None:
    from pipeline.report.text import number, percent, plural

    by_rule = Counter(each.rule for each in findings)
    counts = ", ".join(f"{by_rule[rule]} of {rule.upper()}" for rule in RULES if by_rule[rule])
    print(printable(f"{text}: {plural(len(findings), 'finding')}{f', {counts}' if counts else ''}"))
    shown = findings[:limit]
    if not shown:
        return
    rows = [("rule", "where", "measured", "bound", *(("saves",) if priced else ()), "what", "rewrite")]
    for each in shown:
        shares = each.rule == "g4"
        values = [percent(value) if shares else f"{value:,.0f}" for value in (each.measured, each.bound)]
        saves = ("" if each.saving_ms is None else f"{number(each.saving_ms)} ms",) if priced else ()
        part = f", {percent(each.time_share)} of the time" if each.time_share is not None else ""
        rows.append((each.rule.upper(), each.where, *values, *saves, each.quantity + part, each.suggestion))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = range(2, 5 if priced else 4)
    for row in rows:
        cells = zip(row, widths, strict=True)
        line = "  ".join(f"{c:>{w}}" if i in right else f"{c:<{w}}" for i, (c, w) in enumerate(cells))
        print(printable(line.rstrip()))
    if len(findings) > len(shown):
        print(f"{len(findings) - len(shown):,} more; --limit {len(findings)} prints them")
    notes = Counter(each.note for each in findings if each.note)
    told = notes.most_common(TOLD)
    for note, times in told:
        print(printable(f"no saving for {plural(times, 'finding')}: {note}"))
    if left := notes.total() - sum(times for _, times in told):
        print(f"no saving for {plural(left, 'more finding')}; --json has the reasons")


def _document(
    arguments: argparse.Namespace,
    table: LatencyTable | None,
    found: Sequence[tuple[str, tuple[int, ...], Sequence[Finding]]],
) -> dict[str, Any]:
    about = table and {"path": str(arguments.lut), "context": dataclasses.asdict(table.context), "entries": len(table)}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "guidelines",
        "table": about,
        "fail_on": list(arguments.fail_on),
        "models": [
            {
                "name": text,
                "input_shape": list(shape),
                "findings": [{**dataclasses.asdict(each), "excess": each.excess} for each in findings],
            }
            for text, shape, findings in found
        ],
    }
