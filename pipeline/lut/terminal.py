"""What `handset lut` says on stdout: aligned, escaped, and never more than `limit` rows of a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.console import printable
from pipeline.lut.facts import NARROW, Family, Priced, Rows
from pipeline.report.text import duration, number, percent, plural, plus_minus, signed_percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from latency_luts import Answer, Context, Diff, LatencyTable
    from latency_luts.staircase import Jump

SIMULATED = "SIMULATED: these numbers are not measurements"


def print_table(path: Path, table: LatencyTable, rows: Rows, families: Sequence[Family], limit: int) -> None:
    """What a table is: where it is from, its families and its staircases."""
    _print_facts([("table", str(path)), *about(table.context), *_extent(rows), ("staircases", _staircases(table))])
    if table.context.simulated:
        print_simulated()
    stairs = [
        (str(each.step), _jump(each.jumps), percent(each.gain), each.axis, each.family) for each in table.staircases
    ]
    if stairs:
        print()
        _print_rows((">step", ">jump", ">explained", "axis", "family"), stairs, limit)
    if families:
        print()
        header = (">kernels", ">shortest", ">longest", ">median ±", ">left-out error", "interpolates", "family")
        _print_rows(header, [_family(family, rows) for family in families], limit)


def about(context: Context) -> list[tuple[str, str]]:
    """(what, value): how a table was made."""
    library = f" {context.runtime_version}" if context.runtime_version else ""
    digest = f", library {context.runtime_sha256[:16]}" if context.runtime_sha256 else ""
    where = ", ".join(filter(None, (context.device, context.soc, context.abi, context.os_build)))
    mask = f"mask {context.cpu_mask}" if context.cpu_mask else "not pinned"
    return [
        ("device", where),
        ("runtime", f"{context.runtime}{library}, {context.delegate or 'no delegate'}{digest}"),
        ("ran on", f"{plural(context.threads, 'thread')}, {mask}, clocks {context.clocks or 'not known'}"),
        ("created", f"{context.created} by handset {context.handset_version or 'of an unknown version'}"),
    ]


def print_answer(name: str, priced: Sequence[Priced], answer: Answer, limit: int) -> None:
    """A sum of kernels, and these, what is missing first and then the longest."""
    print(printable(f"{name}: {_total(answer)}"))
    order = sorted(priced, key=lambda each: (each.latency_ms is not None, -each.times * (each.latency_ms or 0.0)))
    if order:
        header = (">times", ">each", ">±", "known as", ">share", "kernel")
        _print_rows(header, map(_kernel, order), limit, len(order))


def print_simulated() -> None:
    print(SIMULATED)


def print_diff(old: tuple[Path, LatencyTable], new: tuple[Path, LatencyTable], found: Diff, limit: int) -> None:
    both = [(what, f"{path}, {plural(len(table), 'kernel')}") for what, (path, table) in (("old", old), ("new", new))]
    differ = [(each.name, f"{_cell(each.old)} -> {_cell(each.new)}") for each in found.context]
    factor = "no kernel is in both"
    if found.factor is not None and found.factor_interval is not None:
        low, high = found.factor_interval
        factor = f"{found.factor:.4f} ({low:.4f} ... {high:.4f}), new / old over {plural(found.compared, 'kernel')}"
    scatter = f"{number(found.scatter)} times as wide as the intervals of the tables"
    count = plural(len(found.changes), "kernel")
    verdict = f"{found.verdict}: {count} changed" if found.verdict == "change" else "noise: nothing changed"
    _print_facts([*both, *differ, ("factor", factor), ("scatter", scatter), ("verdict", verdict)])
    if any(table.context.simulated for _, table in (old, new)):
        print_simulated()
    if found.changes:
        print()
        rows = (
            (
                signed_percent(change.ratio - 1), f"{change.interval[0]:.3f} ... {change.interval[1]:.3f}",
                f"{change.p_value:.1e}", duration(change.old_ns / 1e6), duration(change.new_ns / 1e6),
                "by itself" if change.beyond_factor else "as all", str(change.key),
            )
            for change in found.changes
        )  # fmt: skip
        header = (">change", "new / old", ">p", ">old", ">new", "changed", "kernel")
        _print_rows(header, rows, limit, len(found.changes))
    for what, keys in (("only in old", found.only_old), ("only in new", found.only_new)):
        if keys:
            print()
            _print_rows((f"{what}: {plural(len(keys), 'kernel')}",), ((str(key),) for key in keys), limit, len(keys))


def _extent(rows: Rows) -> list[tuple[str, str]]:
    if not len(rows.ns):
        return [("kernels", "none")]
    widths = rows.half_widths
    text = f"{len(widths):,}, {duration(rows.ns.min() / 1e6)} ... {duration(rows.ns.max() / 1e6)}"
    narrow = percent(float((widths < NARROW).mean())) if (widths < NARROW).any() else "none"
    return [
        ("kernels", text),
        ("told to", f"{plus_minus(NARROW)} or better: {narrow} of them; half of them: {_half(widths)}"),
    ]


def _half(widths: NDArray[np.float64]) -> str:
    middle = float(np.median(widths))
    return plus_minus(middle) if np.isfinite(middle) else "unknown"


def _staircases(table: LatencyTable) -> str:
    return f"{len(table.staircases):,}" if table.staircases else "none found"


def _jump(jumps: Iterable[Jump]) -> str:
    ratios = [jump.ratio for jump in jumps]
    return signed_percent(float(np.median(ratios)) - 1) if ratios else ""


def _family(family: Family, rows: Rows) -> tuple[str, ...]:
    ns = rows.ns[family.rows] / 1e6
    rms = family.rms
    part = (
        "no"
        if not family.interpolating
        else "yes"
        if family.interpolating == len(ns)
        else f"{family.interpolating} of {len(ns)}"
    )
    return (
        f"{len(ns):,}", duration(ns.min()), duration(ns.max()), _half(rows.half_widths[family.rows]),
        "" if rms is None else percent(rms), part, family.text,
    )  # fmt: skip


def _total(answer: Answer) -> str:
    counts = Counter(answer.kinds)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("measured", "interpolated", "missing") if counts[kind])
    of = f"{plural(len(answer.kinds), 'kernel')}: {kinds}" if kinds else "no kernels"
    if answer.latency_ms is not None and answer.interval_ms is not None:
        low, high = answer.interval_ms
        share = f", {percent(answer.measured_share)} of the time measured" if answer.measured_share is not None else ""
        return f"{duration(answer.latency_ms, 4)} ({duration(low, 4)} ... {duration(high, 4)}), {of}{share}"
    if answer.bound_ms is not None:
        return f"not known; bounds: {_range(answer.bound_ms)}, {of}"
    return f"not known; what is known sums to {duration(answer.known_ms, 4)}, {of}"


def _range(ends_ms: tuple[float | None, float | None]) -> str:
    low, high = (None if end is None else duration(end, 4) for end in ends_ms)
    if low is None and high is None:
        return "none"
    return f"{low} ... {high}" if low and high else f"at least {low}" if low else f"at most {high}"


def _kernel(each: Priced) -> tuple[str, ...]:
    if each.latency_ms is None or each.interval_ms is None:
        known = "missing" if each.bound_ms is None else f"missing, bounds: {_range(each.bound_ms)}"
        return (str(each.times), "", "", known, "", str(each.key))
    low, high = each.interval_ms
    half = plus_minus((high - low) / 2 / each.latency_ms) if each.latency_ms else ""
    known = each.kind if each.error is None else f"{each.kind}, left-out error {percent(each.error.rms)}"
    share = "" if each.share is None else percent(each.share)
    return (str(each.times), duration(each.latency_ms), half, known, share, str(each.key))


def _cell(value: object) -> str:
    return str(value) if str(value) else "nothing"


def _print_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        print(printable(f"{name:<{width}}  {text}"))


def _print_rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], limit: int, count: int | None = None) -> None:
    """Columns below their names, numbers (">") to the right; of more than `limit` rows the first, and how many are left."""
    shown = [row for row, _ in zip(rows, range(limit), strict=False)]
    lines = [tuple(name.removeprefix(">") for name in header), *shown]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, header, strict=True)
        text = "  ".join(f"{cell:>{width}}" if name[:1] == ">" else f"{cell:<{width}}" for cell, width, name in cells)
        print(printable(text.rstrip()))
    left = (len(rows) if count is None and isinstance(rows, Sequence) else count or 0) - len(shown)
    if left > 0:
        print(f"{left:,} more; --limit {len(shown) + left} prints them")
