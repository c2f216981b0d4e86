"""Two tables of one context as one."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest

from latency_luts import Context, ContextMismatch, InvalidTable, LatencyTable, LutError, merge

MADE = runpy.run_path(str(Path(__file__).with_name("test_luts_store.py")))
TABLE: LatencyTable = MADE["TABLE"]
CONTEXT: Context = MADE["CONTEXT"]
entry = MADE["entry"]


def test_merging_keeps_all_entries_and_the_later_date() -> None:
    later = dataclasses.replace(CONTEXT, created="2026-12-01T00:00:00Z")
    merged = merge(LatencyTable(later, (entry(1),)), LatencyTable(CONTEXT, (entry(2),)))
    assert merged == LatencyTable(later, (entry(1), entry(2)))


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Context) if each.name != "created"])
def test_each_field_of_the_context_keeps_tables_apart(name: str) -> None:
    value = {"threads": 4, "simulated": True}.get(name, "other")
    other = dataclasses.replace(CONTEXT, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ContextMismatch, match=name) as caught:
        merge(TABLE, LatencyTable(other, ()))
    assert caught.value.fields == (name,)


def test_all_differing_fields_are_named() -> None:
    other = dataclasses.replace(CONTEXT, device="host", threads=2, delegate="")
    with pytest.raises(ContextMismatch) as caught:
        merge(TABLE, LatencyTable(other, ()))
    assert caught.value.fields == ("device", "delegate", "threads")
    assert "'pixel', 'host'" in str(caught.value)


def test_the_same_measurement_merges_and_names_the_networks_of_both() -> None:
    a, b = (LatencyTable(CONTEXT, (entry(1, networks=networks),)) for networks in (("x", "y"), ("y", "z")))
    assert merge(a, b).entries == (entry(1, networks=("x", "y", "z")),)
    assert merge(TABLE, TABLE) == TABLE


def test_two_measurements_of_one_kernel_need_a_decision() -> None:
    a, b = (LatencyTable(CONTEXT, (entry(1, latency),)) for latency in (10.0, 20.0))
    with pytest.raises(InvalidTable, match="both have measured add") as caught:
        merge(a, b)
    assert isinstance(caught.value, LutError)
    assert merge(a, b, on_duplicate="first") == a
    assert merge(a, b, on_duplicate="second") == b
