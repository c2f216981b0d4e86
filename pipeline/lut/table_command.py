"""`handset lut query` and `handset lut diff`: what a latency table knows, and what changed between two.

`export` and `import` are in `pipeline.lut.convert_command`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import Console
from pipeline.errors import ModelError, UsageError
from pipeline.lut.convert_command import add_export, add_import, check_output

if TYPE_CHECKING:
    from latency_luts import Answer, Context, Diff, LatencyTable, OpKey
    from pipeline.lut.facts import Family, Rows

__all__ = ["add_diff", "add_export", "add_import", "add_query"]

SCHEMA_VERSION = 1
LIMIT = 40
"""Rows of a list that a terminal gets unless it asks for more."""
MAX_LIMIT = 1_000_000
MAX_STDIN_BYTES = 64 * 2**20
MAX_KEYS = 200_000
STDIN = "-"


def add_query(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What a latency table says of kernels or of whole networks, which need not be exported for that. Without a KEY and "
        "without --model: what the table itself is, and how far it can be trusted. Longest kernels come first."
    )
    parser.add_argument(
        "keys", nargs="*", metavar="KEY", help="a kernel's canonical text; - reads them from stdin, one a line"
    )
    parser.add_argument("--lut", type=Path, required=True, metavar="T", help="the table, a .parquet file")
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL",
        help="a name from `handset models`, a .pt2 file or file.py:function; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--on-missing", choices=("error", "report", "bound"), default="error",
        help="kernels that are neither measured nor between measured ones: refuse (the default), name them, or bound them",
    )  # fmt: skip
    parser.add_argument(
        "--no-interpolate", action="store_true", help="kernels between measured ones count as missing too"
    )
    _add_output(parser)
    parser.set_defaults(command=_query)


def add_diff(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Which kernels take another time in NEW than in OLD, by more than the noise of both tables. Exit status 0 whatever "
        "is found, unless --fail-on-change."
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="a table, a .parquet file")
    parser.add_argument("new", type=Path, metavar="NEW", help="another one, also of another device or runtime")
    parser.add_argument(
        "--minimum-effect", type=share, default=0.0, metavar="PERCENT", help="smaller changes are none, however certain"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="chance that anything is called changed where nothing is (0.05)"
    )
    parser.add_argument("--fail-on-change", action="store_true", help="exit status 1 where something changed")
    _add_output(parser)
    parser.set_defaults(command=_diff)


def share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return value


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=_limit, default=LIMIT, metavar="N", help=f"rows of a list that are printed ({LIMIT})"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="PATH", help="all of it as a file")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_LIMIT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_LIMIT:,}")
    return int(text)


def _query(arguments: argparse.Namespace) -> int:
    from latency_luts import load
    from pipeline.lut import facts, terminal
    from pipeline.runfolder import write_json

    check_output("--json", arguments.json, [arguments.lut])
    console = Console()
    table = load(arguments.lut)
    if not arguments.keys and not arguments.model:
        with console.stage("judging the families"):
            rows = facts.rows_of(table)
            families = facts.families(table, rows)
        if arguments.json is not None:
            write_json(arguments.json, _summary(arguments.lut, table, rows, families))
        terminal.print_table(arguments.lut, table, rows, families, arguments.limit)
        return 0
    answers = []
    for name, keys in _asked(arguments, table.context, console):
        answer = table.total(keys, on_missing=arguments.on_missing, interpolate=not arguments.no_interpolate)
        answers.append((name, facts.priced(keys, answer), answer))
    if arguments.json is not None:
        asked = [_answer(name, priced, answer) for name, priced, answer in answers]
        write_json(arguments.json, _document("lut_query", table=_about(arguments.lut, table), asked=asked))
    for name, priced, answer in answers:
        terminal.print_answer(name, priced, answer, arguments.limit)
    if table.context.simulated:
        terminal.print_simulated()
    return 0


def _asked(arguments: argparse.Namespace, context: Context, console: Console) -> Iterator[tuple[str, list[OpKey]]]:
    """(name, kernels) of the keys together, and of each model."""
    from latency_luts import OpKey
    from pipeline.graph import kernels
    from pipeline.spec import resolve

    texts = [text for word in arguments.keys for text in (_from_stdin() if word == STDIN else [word])]
    if len(texts) > MAX_KEYS:
        raise UsageError(f"{len(texts):,} keys were asked at once, and the bound is {MAX_KEYS:,}")
    if arguments.keys:
        yield "keys", [OpKey.parse(text) for text in texts]
    for text in arguments.model:
        with console.stage(f"looking into {text}"):
            network = resolve(text)
            if network.module is None:
                raise ModelError(
                    f"{network.name}.{network.source} is a file whose kernels only its runtime tells",
                    try_="the network as file.py:function or .pt2, or `handset bench`, which measures it",
                )
            found = kernels(network.module, network.input_shape, context.runtime, abi=context.abi)
        yield network.name, [use.key for use in found]


def _from_stdin() -> list[str]:
    if sys.stdin is None:
        raise UsageError("keys were asked from stdin, which is closed", try_="a key as an argument")
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise UsageError(f"stdin has more than {MAX_STDIN_BYTES} bytes of keys", try_="fewer of them")
    lines = [line.strip() for line in data.decode("utf-8", "backslashreplace").split("\n")]
    if not any(lines):
        raise UsageError("keys were asked from stdin, which is empty", try_="one key a line")
    return [line for line in lines if line]


def _diff(arguments: argparse.Namespace) -> int:
    from latency_luts import diff, load
    from pipeline.lut import terminal
    from pipeline.runfolder import write_json

    check_output("--json", arguments.json, [arguments.old, arguments.new])
    old, new = load(arguments.old), load(arguments.new)
    found = diff(old, new, alpha=arguments.alpha, minimum_effect=arguments.minimum_effect)
    if arguments.json is not None:
        tables = {"old": _about(arguments.old, old), "new": _about(arguments.new, new)}
        write_json(arguments.json, _document("lut_diff", **tables, **_difference(found, arguments.minimum_effect)))
    terminal.print_diff((arguments.old, old), (arguments.new, new), found, arguments.limit)
    return 1 if arguments.fail_on_change and found.verdict == "change" else 0


def _document(kind: str, **fields: Any) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "kind": kind, **fields}


def _about(path: Path, table: LatencyTable) -> dict[str, Any]:
    return {"path": str(path), "context": dataclasses.asdict(table.context), "entries": len(table)}


def _summary(path: Path, table: LatencyTable, rows: Rows, families: Sequence[Family]) -> dict[str, Any]:
    from pipeline.lut.facts import NARROW

    widths = rows.half_widths
    return _document(
        "lut_table",
        table=_about(path, table),
        narrow={"half_width": NARROW, "share": float((widths < NARROW).mean()) if len(widths) else None},
        families=[
            {
                "family": family.text,
                "entries": len(family.rows),
                "latency_ms": [float(end) / 1e6 for end in (rows.ns[family.rows].min(), rows.ns[family.rows].max())],
                "interpolating": family.interpolating,
                "leave_one_out": family.rms,
                "alignments": [dataclasses.asdict(each.error) for each in family.judged or ()],
            }
            for family in families
        ],
        staircases=[{**vars(each), "jumps": [jump._asdict() for jump in each.jumps]} for each in table.staircases],
    )


def _answer(name: str, priced: Sequence[Any], answer: Answer) -> dict[str, Any]:
    fields = ("latency_ms", "interval_ms", "kind", "coverage", "measured_share", "known_ms", "bound_ms")
    kernels = [
        {**{field: getattr(each, field) for field in each._fields if field not in ("key", "error")},
         "key": str(each.key), "leave_one_out": each.error and each.error.rms}
        for each in priced
    ]  # fmt: skip
    found = {field: getattr(answer, field) for field in fields}
    return {"name": name, **found, "missing": len(answer.missing), "kernels": kernels}


def _difference(found: Diff, minimum_effect: float) -> dict[str, Any]:
    changes = [{**vars(change), "key": str(change.key)} for change in found.changes]
    return {
        **vars(found),
        "minimum_effect": minimum_effect,
        "context": [field._asdict() for field in found.context],
        "only_old": list(map(str, found.only_old)),
        "only_new": list(map(str, found.only_new)),
        "changes": changes,
    }
