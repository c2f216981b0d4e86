"""The page of a latency table: how it was made, how far it can be trusted, and where its latencies step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from pipeline.lut import facts
from pipeline.lut.facts import NARROW, Family, Rows
from pipeline.report import table_charts, table_context
from pipeline.report.kinds import KINDS, kind_of
from pipeline.report.page import environment
from pipeline.report.text import clean, duration, percent, plural, plus_minus, signed_percent
from pipeline.runfolder import write_text

if TYPE_CHECKING:
    from latency_luts import LatencyTable, Staircase

LONGEST = 30
JUDGED = 2000
"""Kernels of families whose leave-one-out error the page tells: a second's work. `handset lut query` has no such limit."""
MOST_FAMILIES = 1000
MOST_DRAWN = 24
"""Staircases that get a drawing; a table has the others."""
MOST_STAIRCASES = 1000
GAP_STEPS = 4
MOST_MISSING = 200


@dataclass(frozen=True)
class FamilyRow:
    text: str
    slug: str
    entries: int
    times: str
    half_width: str
    wide: str
    error: str
    worst: str
    interpolates: str


@dataclass(frozen=True)
class Stairs:
    """`drawing` is None for those beyond MOST_DRAWN; `kernel` is the last one of the line that is drawn."""

    family: str
    axis: str
    step: int
    gain: str
    jump: str
    jumps: int
    drawing: Markup | None
    kernel: str


@dataclass(frozen=True)
class KernelRow:
    key: str
    slug: str
    time: str
    low: str
    high: str
    half_width: str
    samples: int
    networks: str
    runtime_kernel: str


def render_table(table: LatencyTable, page: Path, *, about: Mapping[str, Any] | None = None) -> None:
    """Writes the page of a table, whole or not at all.

    Args: about: what else is known of how it was made, such as the document of `handset lut build`: texts, numbers, lists and
    objects of these become rows of the context; `missing` ([{key, why}]) and `notes` (texts) get sections of their own.

    Raises: StorageError: the page cannot be written; an older one stays as it was.
    """
    write_text(page, page_text(table, about or {}))


def page_text(table: LatencyTable, about: Mapping[str, Any]) -> str:
    """The whole page as text."""
    rows = facts.rows_of(table)
    families = facts.families(table, rows, JUDGED)
    found = _stairs(table, rows)
    missing = [each for each in table_context.items(about.get("missing")) if isinstance(each, Mapping)]
    return environment().get_template("table.html.j2").render(
        context=table.context,
        headline=_headline(table, rows),
        figures=_figures(rows, families),
        made=table_context.made(table.context, about),
        families=[_family(family, rows) for family in families[:MOST_FAMILIES]],
        families_left=max(0, len(families) - MOST_FAMILIES),
        stairs=[each for each in found if each.drawing],
        more_stairs=[each for each in found if not each.drawing],
        smooth=len({family.text for family in families} - {each.family for each in table.staircases}),
        widths=_widths(rows),
        errors=_errors(families),
        judged=sum(family.judged is not None for family in families),
        family_count=len(families),
        longest=_longest(table, rows),
        missing=[(clean(str(each.get("key"))), clean(str(each.get("why")))) for each in missing[:MOST_MISSING]],
        missing_count=len(missing),
        notes=[clean(str(note)) for note in table_context.items(about.get("notes"))],
        narrow=plus_minus(NARROW),
        kinds=KINDS,
    )  # fmt: skip


def _headline(table: LatencyTable, rows: Rows) -> str:
    context = table.context
    where = f"{plural(len(table), 'kernel')} in {context.runtime} on {context.device}"
    middle = _middle(rows.half_widths)
    return clean(f"{where}, half of them told to {middle} or better" if middle else where)


def _middle(half_widths: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    middle = float(np.median(half_widths)) if len(half_widths) else np.inf
    return plus_minus(middle) if np.isfinite(middle) else ""


def _figures(rows: Rows, families: Sequence[Family]) -> list[tuple[str, str]]:
    """(value, what): the few numbers that say how good a table is."""
    found = [(f"{len(rows.ns):,}", "kernel" if len(rows.ns) == 1 else "kernels"), (f"{len(families):,}", "families")]
    if len(rows.ns):
        narrow = (rows.half_widths < NARROW).mean()
        found.append((percent(float(narrow)), f"of the kernels told to {plus_minus(NARROW)} or better"))
    if len(rows.ns) and all(family.judged is not None for family in families):
        between = sum(family.interpolating for family in families) / len(rows.ns)
        found.append((percent(between), "of the kernels in families that interpolate"))
    judged = [each for family in families for each in family.judged or ()]
    if judged:
        everything = np.concatenate([each.errors for each in judged])
        by_time = np.average(everything**2, weights=np.concatenate([each.ns for each in judged]))
        found.append((percent(float(np.sqrt(by_time))), "leave-one-out error by time, root mean square"))
        found.append((percent(float(np.median(everything))), "leave-one-out error, median"))
    return found


def _family(family: Family, rows: Rows) -> FamilyRow:
    ns, widths = rows.ns[family.rows], rows.half_widths[family.rows]
    low, high = duration(ns.min() / 1e6), duration(ns.max() / 1e6)
    ninth = float(np.quantile(widths, 0.9, method="higher"))
    known = family.judged is not None
    part = f"{family.interpolating} of {len(ns)}" if family.interpolating else "no"
    rms, worst = family.rms, max((each.error.worst for each in family.judged or ()), default=0.0)
    return FamilyRow(
        text=family.text,
        slug=kind_of(family.text.partition("[")[0], rows.texts[int(family.rows[0])]).slug,
        entries=len(ns),
        times=low if low == high else f"{low} – {high}",
        half_width=_middle(widths) or "not known",
        wide=plus_minus(ninth) if np.isfinite(ninth) else "not known",
        error="" if rms is None else percent(rms),
        worst="" if rms is None else percent(worst),
        interpolates="not judged" if not known else "yes" if family.interpolating == len(ns) else part,
    )


def _stairs(table: LatencyTable, rows: Rows) -> list[Stairs]:
    """The highest steps first."""
    order = sorted(table.staircases, key=lambda each: -_jump(each))[:MOST_STAIRCASES]
    return [_stair(each, rows, number < MOST_DRAWN) for number, each in enumerate(order)]


def _jump(staircase: Staircase) -> float:
    return float(np.median([jump.ratio for jump in staircase.jumps])) - 1 if staircase.jumps else 0.0


def _stair(staircase: Staircase, rows: Rows, draw: bool) -> Stairs:
    drawing, kernel = None, ""
    if draw:
        counts, chosen = facts.line(rows, staircase)
        if len(counts) > 1:
            dense = _densest(counts, staircase.step)
            kernel = rows.texts[int(chosen[dense][-1])]
            title = f"Latency against {staircase.axis}, steps of {staircase.step}: {kernel}"
            ms = (rows.ns[chosen[dense]] / 1e6).tolist()
            drawing = table_charts.stairs(counts[dense].tolist(), ms, staircase.step, title)
    return Stairs(
        staircase.family, staircase.axis, staircase.step, percent(staircase.gain), signed_percent(_jump(staircase)),
        len(staircase.jumps), drawing, kernel,
    )  # fmt: skip


def _densest(counts: np.ndarray[Any, np.dtype[np.int64]], step: int) -> slice:
    """The longest part without gaps of many steps: one kernel far away would press all others together."""
    cuts = [0, *(np.flatnonzero(np.diff(counts) > GAP_STEPS * step) + 1).tolist(), len(counts)]
    longest = max(pairwise(cuts), key=lambda ends: ends[1] - ends[0])
    return slice(*longest) if longest[1] - longest[0] > 1 else slice(None)


def _widths(rows: Rows) -> Markup | None:
    widths = rows.half_widths[np.isfinite(rows.half_widths)]
    if not len(widths):
        return None
    longest = max(0.05, float(np.quantile(widths, 0.95)))
    middle = float(np.median(widths))
    marks = [(NARROW, plus_minus(NARROW)), (min(middle, longest), f"median {plus_minus(middle)}")]
    title = f"Half-widths of {plural(len(widths), 'interval')}, median {plus_minus(middle)}"
    return table_charts.columns(widths.tolist(), longest, marks, title)


def _errors(families: Sequence[Family]) -> Markup | None:
    judged = [each for family in families for each in family.judged or ()]
    if not judged:
        return None
    ms, shares = np.concatenate([each.ns for each in judged]) / 1e6, np.concatenate([each.errors for each in judged])
    rms = float(np.sqrt(np.mean(shares**2)))
    title = f"Leave-one-out errors of {plural(len(ms), 'kernel')}, root mean square {percent(rms)}"
    return table_charts.errors(ms.tolist(), shares.tolist(), rms, title)


def _longest(table: LatencyTable, rows: Rows) -> list[KernelRow]:
    found = []
    for row in np.argsort(-rows.ns, kind="stable")[:LONGEST]:
        entry, width = table.entries[int(row)], float(rows.half_widths[row])
        low, high = entry.interval_ns
        found.append(
            KernelRow(
                key=rows.texts[row],
                slug=kind_of(entry.key.op, rows.texts[row]).slug,
                time=duration(entry.latency_ns_median / 1e6),
                low=duration(low / 1e6),
                high=duration(high / 1e6),
                half_width=plus_minus(width) if np.isfinite(width) else "not known",
                samples=len(entry.samples_ns),
                networks=clean(", ".join(entry.networks)),
                runtime_kernel=clean(entry.runtime_kernel),
            )
        )
    return found
