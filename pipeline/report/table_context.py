"""How a latency table was made: its context, and whatever else is known, as rows for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.report.text import ELLIPSIS, clean

if TYPE_CHECKING:
    from latency_luts import Context

MOST_ITEMS = 12
"""Of a list or an object."""
MOST_DEEP = 4

_TEXTS = {
    "device": "device", "soc": "SoC", "os_build": "system", "abi": "ABI", "runtime": "runtime",
    "runtime_version": "version", "runtime_sha256": "library's SHA-256", "delegate": "delegate", "threads": "threads",
    "cpu_mask": "cores", "clocks": "clocks", "handset_version": "handset", "created": "created",
}  # fmt: skip
_ELSEWHERE = frozenset(("schema_version", "kind", "missing", "notes", "created", "handset"))


def made(context: Context, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value). Args: about: see `pipeline.report.table_page.render_table`."""
    found = [(what, str(getattr(context, name))) for name, what in _TEXTS.items()]
    rows = [(what, clean(text) or "not known") for what, text in found if text or what not in ("delegate", "cores")]
    more = ((name, value) for name, value in about.items() if name not in _ELSEWHERE)
    return rows + [(clean(str(name)).replace("_", " "), _words(value)) for name, value in more]


def items(value: object) -> Sequence[Any]:
    """The items of a list; none of anything else, which a document from elsewhere may hold in its place."""
    return value if isinstance(value, list | tuple) else ()


def _words(value: object, depth: int = 0) -> str:
    if isinstance(value, Mapping | list | tuple):
        if depth == MOST_DEEP:
            return ELLIPSIS
        more = f" and {len(value) - MOST_ITEMS:,} more" if len(value) > MOST_ITEMS else ""
        if isinstance(value, Mapping):
            pairs = [(clean(str(name)).replace("_", " "), each) for name, each in list(value.items())[:MOST_ITEMS]]
            return ", ".join(f"{name} {_words(each, depth + 1)}" for name, each in pairs) + more
        return "; ".join(_words(each, depth + 1) for each in value[:MOST_ITEMS]) + more
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "not known"
    return "not known" if value is None else clean(str(value))
