"""The tables of a validation's page: cells of text from what the document says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pipeline.report.charts import Bar, axis, bars, unit_of
from pipeline.report.reader import Node
from pipeline.report.scales import from_zero
from pipeline.report.text import duration, percent, signed_percent, size

DRAWN_BY = ("table", "alone", "forest", "macs")
"""Ways of predicting by their marks: circle, diamond, square, triangle."""


def shape_of(name: str) -> int:
    return DRAWN_BY.index(name) if name in DRAWN_BY else 0


def requirement(node: Node) -> dict[str, Any] | None:
    asked = node.maybe_child("requirement")
    if asked is None:
        return None
    return {
        "met": asked.flag("met"),
        "asked": percent(asked.number("within5_asked")),
        "found": percent(asked.number("within5_found")),
        "judged": asked.text("judged"),
    }


def predictor(node: Node) -> dict[str, Any]:
    """A row for each of plain, scaled and with a constant."""
    rows = []
    for how, words in (("plain", "as it is"), ("scaled", "one factor"), ("fitted", "factor and constant")):
        found = node.maybe_child(how)
        if found is None:
            continue
        rank, kendall = found.maybe_number("spearman"), found.maybe_number("kendall")
        rows.append(
            {
                "how": words,
                "within_5": percent(found.number("within_5")),
                "within_10": percent(found.number("within_10")),
                "rmspe": percent(found.number("rmspe")),
                "rmse": duration(found.number("rmse_ms")),
                "bias": signed_percent(round(found.number("bias"), 4)),
                "spearman": "" if rank is None else f"{rank:.3f}",
                "kendall": "" if kendall is None else f"{kendall:.3f}",
                "fit": _fit(node, how),
            }
        )
    return {
        "label": node.text("label"),
        "shape": shape_of(node.text("name")),
        "count": f"{node.number('count'):.0f}",
        "rows": rows,
        "note": node.text("note", ""),
    }


def _fit(node: Node, how: str) -> str:
    factor, line = node.maybe_number("factor"), node.maybe_child("overhead")
    if how == "scaled" and factor is not None:
        return f"× {factor:.3f}"
    if how == "fitted" and line is not None:
        return f"{duration(line.number('constant_ms'))} + {line.number('factor'):.3f} ×"
    return ""


def families(nodes: Sequence[Node]) -> tuple[list[dict[str, Any]], Markup, str]:
    longest = max((one.number(name) for one in nodes for name in ("table_ms", "profile_ms")), default=0.0)
    unit, factor = unit_of(longest)
    scale = from_zero([factor * longest])
    rows = []
    for one in nodes:
        label, table, profile = one.text("label"), one.number("table_ms"), one.number("profile_ms")
        relative = one.maybe_number("relative")
        drawn = [
            Bar(factor * profile, "before", f"{label} in the profiles: {duration(profile)}"),
            Bar(factor * table, "after", f"{label} in the table: {duration(table)}"),
        ]
        rows.append(
            {
                "label": label,
                "kernels": f"{one.number('kernels'):.0f}",
                "chart": bars(scale, drawn, f"{label}: profile {duration(profile)}, table {duration(table)}"),
                "table": duration(table),
                "profile": duration(profile),
                "difference": duration(one.number("difference_ms")),
                "relative": "" if relative is None else signed_percent(relative),
                "share": signed_percent(round(one.number("share"), 4)),
            }
        )
    return rows, axis(scale, unit), unit


def worst(node: Node) -> dict[str, Any]:
    parts = node.child("footprint")
    facts = [
        ("table's sum", _maybe(node, "table_ms")),
        ("own profile", _maybe(node, "profile_ms")),
        ("table less profile", _maybe(node, "table_minus_profile_ms")),
        ("profile less end to end", _maybe(node, "profile_minus_measured_ms")),
        ("the profiler adds to the whole", _maybe(node, "profiler_cost_ms")),
        ("interpolated", percent(node.number("interpolated_share"))),
        ("largest kernel", size(parts.number("largest_kernel_bytes"))),
        ("model file", _size(parts, "model_bytes")),
        ("peak memory", _size(parts, "peak_memory_bytes")),
    ]
    return {
        "name": node.text("name"),
        "error": signed_percent(node.number("error")),
        "measured": duration(node.number("measured_ms")),
        "predicted": duration(node.number("predicted_ms")),
        "facts": [(what, text) for what, text in facts if text],
        "kernels": [
            {
                "key": one.text("key"),
                "label": one.text("label"),
                "times": f"{one.number('times'):.0f}",
                "kind": one.text("kind", "") or "not told",
                "table": duration(one.number("table_ms")),
                "profile": duration(one.number("profile_ms")),
                "difference": duration(one.number("difference_ms")),
            }
            for one in node.children("kernels")
        ],
    }


def left_out(node: Node) -> dict[str, Any]:
    return {
        "name": node.text("name"),
        "reason": node.text("reason"),
        "measured": _maybe(node, "measured_ms"),
        "missing": node.texts("missing"),
    }


def listed(node: Node) -> dict[str, Any] | None:
    """How the kernels that were told differ from the profile's; None where they are the same, or only one is known."""
    found = node.maybe_child("listed")
    if found is None or found.flag("same"):
        return None
    rows = [
        (key, f"{float(times):.0f}", where)
        for where, name in (("told alone", "only_told"), ("profile alone", "only_profile"))
        for key, times in found.child(name).every_number().items()
    ]
    return {"name": node.text("name"), "reordered": found.flag("reordered"), "rows": rows}


def _maybe(node: Node, name: str) -> str:
    value = node.maybe_number(name)
    return "" if value is None else duration(value)


def _size(node: Node, name: str) -> str:
    value = node.maybe_number(name)
    return "" if value is None else size(value)
