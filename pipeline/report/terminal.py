"""The short form on stdout: a row for each network and runtime, what is wrong below it, then where the rest is."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.report import counts
from pipeline.report.document import read
from pipeline.report.facts import MANY, accuracy_text, headline, mismatch_text, next_commands
from pipeline.report.ranks import ranks
from pipeline.report.sections import interval_text
from pipeline.report.text import clean, duration, plus_minus, shorten
from pipeline.report.views import Bench, Profile

WIDTH_WITHOUT_TERMINAL = 80
WIDE_FROM = 100
RANKED_FROM = 8
"""Networks of which rank correlations are told: those of fewer say little."""
_ASCII = str.maketrans(
    {"±": "~", "µ": "u", "–": "-", "−": "-", "…": ".", "×": "x", "─": "-", "━": "-", "°": " ", "\xa0": " "}
)


def terminal(
    result: Mapping[str, object],
    page: str | os.PathLike[str] | None = None,
    *,
    file: TextIO | None = None,
    width: int | None = None,
) -> None:
    """Prints a result document as a table to `file` (stdout), then its latency tables, its run folder and its page.

    A terminal gives its own width and colours; anything else gets plain text, 80 columns wide. An output that cannot
    write "±" gets the nearest plain character.

    Raises:
        UsageError: the document is no bench result of a schema that is known here, or a field in it is wrong.
    """
    out = file or sys.stdout
    console = Console(file=out, width=width, highlight=False, emoji=False, markup=False)
    if width is None and not console.is_terminal:
        console = Console(file=out, width=WIDTH_WITHOUT_TERMINAL, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        _write(console, read(result), os.fspath(page) if page is not None else "")
    text = "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
    out.write(_writable(text, getattr(out, "encoding", None) or "utf-8"))


def _writable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def _write(console: Console, bench: Bench, page: str) -> None:
    if bench.simulated:
        console.print(
            Text("SIMULATED: this is no real phone, and its times say nothing about one.", style="bold reverse")
        )
    if not bench.complete:
        console.print(Text("INCOMPLETE: this run was stopped before its end.", style="bold yellow"))
    for text in headline(bench, limit=40):
        console.print(Text(text, style="bold"))
    if bench.profiles:
        console.print(_table(bench, console.width))
    for one in ranks(bench):
        if len(one.points) >= RANKED_FROM:
            console.print(Text.assemble(("ranks     ", "dim"), counts.sentence(one)), soft_wrap=True)
            for pair in one.worst:
                console.print(Text.assemble(("          ", "dim"), counts.pair_text(*pair, limit=40)), soft_wrap=True)
    troubles = _troubles(bench)
    if troubles.row_count:
        console.print(troubles)
    for command in next_commands(bench):
        console.print(Text.assemble(("next      ", "dim"), command), soft_wrap=True)
    if bench.tables:
        names = ", ".join(shorten(file, 60) for file in bench.tables.values())
        console.print(Text.assemble(("tables    ", "dim"), names))
    if page:
        console.print(Text.assemble(("run       ", "dim"), clean(str(Path(page).parent))), soft_wrap=True)
        console.print(Text.assemble(("page      ", "dim"), clean(page)), soft_wrap=True)


def _columns(bench: Bench, wide: bool) -> dict[str, list[str]]:
    """The cells of each column of numbers by its title, one for each profile; the columns that have any."""
    accuracies = {network.name: network.accuracy for network in bench.networks}
    metrics = {accuracy.metric for accuracy in accuracies.values() if accuracy}
    metric = metrics.pop() if len(metrics) == 1 else ""
    measured = [profile.measured for profile in bench.profiles]
    columns = {
        "median": [duration(m.plain.median) if m else "" for m in measured],
        "corrected": [duration(m.corrected.median) if m and m.corrected else "" for m in measured],
        "±": [plus_minus(m.best.half_width)[1:] if m else "" for m in measured],
        "interval": [interval_text(m.best) if m and wide else "" for m in measured],
        "kernels": [duration(m.kernels_sum_ms) if m and m.kernels_sum_ms is not None else "" for m in measured],
    }
    title = metric if re.fullmatch("[A-Za-z0-9-]{1,8}", metric) and metric not in columns else "accuracy"
    columns[title] = [accuracy_text(accuracies.get(p.network), p) for p in bench.profiles]
    return {title: cells for title, cells in columns.items() if any(cells)}


def _table(bench: Bench, width: int) -> Table:
    """Numbers are never cut; what room they leave goes to the names. A narrow table has one "±", the better one.

    Where the names are whole without the kernels' sum, and only then, that column goes.
    """
    wide = width >= WIDE_FROM
    columns, gap = _columns(bench, wide), 2 if wide else 1
    verdicts = [_verdict(profile) for profile in bench.profiles]
    verdict_width = max(len("verdict"), *(len(verdict) for verdict in verdicts))
    network_width = max(len("network"), *(cell_len(p.network) for p in bench.profiles))
    runtime_width = max(len("runtime"), *(cell_len(p.label) for p in bench.profiles))

    def room_for_names() -> int:
        widths = [max(len(title), *map(len, cells)) for title, cells in columns.items()]
        return width - sum(widths) - verdict_width - gap * (len(columns) + 2)

    kernels = columns.get("kernels")
    if kernels and room_for_names() < network_width + runtime_width:
        del columns["kernels"]
        if room_for_names() < network_width + runtime_width:
            columns = _columns(bench, wide)
    room = max(20, room_for_names())
    runtime_width = min(runtime_width, max(room - network_width, 11, room * 2 // 5))
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0), collapse_padding=True, show_edge=False
    )
    table.add_column("network", no_wrap=True, width=min(network_width, room - runtime_width))
    table.add_column("runtime", no_wrap=True, width=runtime_width)
    for title, cells in columns.items():
        table.add_column(title, justify="right", no_wrap=True, min_width=max(len(title), *map(len, cells)))
    table.add_column("verdict", no_wrap=True, min_width=verdict_width)
    for row, profile in enumerate(bench.profiles):
        names = _fit(profile.network, min(network_width, room - runtime_width)), _fit(profile.label, runtime_width)
        table.add_row(*map(Text, (*names, *(cells[row] for cells in columns.values()))), verdicts[row])
    return table


def _fit(text: str, cells: int) -> str:
    """The text in at most so many cells of a terminal, where a Chinese character takes two."""
    limit = cells
    while cell_len(shorten(text, limit)) > cells and limit > 1:
        limit -= 1
    return shorten(text, limit)


def _verdict(profile: Profile) -> Text:
    if profile.measured is None:
        return Text("failed", style="bold red")
    if profile.mismatch:
        return Text("mismatch", style="bold red")
    return Text("stable", style="green") if profile.measured.stable else Text("unstable", style="bold yellow")


def _troubles(bench: Bench) -> Table:
    """A line for each profile that failed, gave wrong answers or is not stable, with why; longer ones hang.

    Of those that are not stable, the MANY widest.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    unstable = [p for p in bench.profiles if p.measured and not p.measured.stable]
    widest = sorted(unstable, key=lambda p: -p.measured.best.half_width if p.measured else 0.0)[:MANY]
    for profile in bench.profiles:
        where = f"{shorten(profile.network, 40)} in {shorten(profile.label, 40)}: "
        if profile.failed:
            table.add_row(Text("failed", style="bold red"), Text(where + shorten(profile.failed, 400)))
        if profile.mismatch and profile.numerics:
            table.add_row(
                Text("mismatch", style="bold red"), Text(where + shorten(mismatch_text(profile.numerics), 400))
            )
        if profile.measured and profile in widest:
            why = "; ".join(filter(None, (profile.measured.verdict, *profile.measured.reasons)))
            table.add_row(Text("unstable", style="bold yellow"), Text(where + shorten(why, 400)))
    if more := len(unstable) - len(widest):
        table.add_row("", Text(f"{more} more are not stable, see the page"))
    return table
