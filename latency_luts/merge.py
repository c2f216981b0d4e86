"""Two tables of one context as one."""

from __future__ import annotations

import dataclasses
from typing import Literal

from latency_luts.entry import Context, Entry
from latency_luts.errors import ContextMismatch, InvalidTable
from latency_luts.key import short
from latency_luts.table import LatencyTable

OnDuplicate = Literal["error", "first", "second"]


def merge(a: LatencyTable, b: LatencyTable, *, on_duplicate: OnDuplicate = "error") -> LatencyTable:
    """One table with the entries of both, those of `a` first.

    `created` alone may differ (the later text is kept): it says when a table was made, not how its kernels ran. A kernel
    with the same measurement in both is one entry that names the networks of both.

    Args:
        on_duplicate: for a kernel that was measured in both, differently: refuse, or keep the entry of `a` ("first") or
            `b` ("second"). Samples are not pooled, as their noise correction belongs to the run that took them.

    Raises:
        ContextMismatch: the contexts differ; `fields` says where.
        InvalidTable: a kernel was measured in both, and `on_duplicate` is "error".
    """
    names = tuple(each.name for each in dataclasses.fields(Context) if each.name != "created")
    differ = tuple(name for name in names if getattr(a.context, name) != getattr(b.context, name))
    if differ:
        pairs = ", ".join(
            f"{name} ({short(getattr(a.context, name))}, {short(getattr(b.context, name))})" for name in differ
        )
        raise ContextMismatch(f"merging two tables was asked, and their contexts differ in {pairs}", differ)
    merged = {entry.key: entry for entry in a}
    for entry in b:
        known = merged.get(entry.key)
        merged[entry.key] = entry if known is None else _join(known, entry, on_duplicate)
    context = dataclasses.replace(a.context, created=max(a.context.created, b.context.created))
    return LatencyTable(context, tuple(merged.values()), warmth=a.warmth or b.warmth)


def _join(a: Entry, b: Entry, on_duplicate: OnDuplicate) -> Entry:
    networks = tuple(dict.fromkeys(a.networks + b.networks))
    first, second = (dataclasses.replace(entry, networks=networks) for entry in (a, b))
    if first == second or on_duplicate == "first":
        return first
    if on_duplicate == "second":
        return second
    raise InvalidTable(
        f"merging two tables was asked, and both have measured {a.key}", try_="on_duplicate='first' or 'second'"
    )
