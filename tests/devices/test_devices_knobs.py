"""Knobs and their journal: what a phone says is checked before it goes back, and a journal that nobody wrote is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.conditions.journal import MAX_BYTES, Journal, format_journal, parse_journal
from devices.conditions.knobs import KNOB_OF, KNOBS, Change, FixedPerformance

BOOT, OTHER = "90f5b588-5587-46d6-bf6f-8d66d9b613c4", "00000000-5587-46d6-bf6f-8d66d9b613c4"
PLAIN = re.compile(r"[a-z0-9.]{1,9}")


def test_keys_and_names_are_each_ones_own() -> None:
    assert len(KNOB_OF) == sum(len(knob.keys) for knob in KNOBS) == 6
    assert len({knob.name for knob in KNOBS}) == len(KNOBS) == 4
    assert all(re.fullmatch(r"[a-z_]+", key) for key in KNOB_OF), "they become words of a command"


@pytest.mark.parametrize("key", KNOB_OF)
@given(value=st.text(max_size=12) | st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,7})?", fullmatch=True) | st.just("null"))
def test_a_valid_value_is_a_short_plain_word_and_what_is_wanted_is_valid(key: str, value: str) -> None:
    knob = KNOB_OF[key]
    if knob.valid(value):
        assert PLAIN.fullmatch(value)
        wanted = knob.wanted(value)
        assert wanted is None or (knob.valid(wanted) and wanted != value)


@pytest.mark.parametrize(
    "value", ["", "0; reboot", "$(id)", "`id`", "-1", "0\n", "1e9", "٣", "0 1", "999", "nul", "--help"]
)
def test_what_could_be_more_than_a_value_is_not_valid(value: str) -> None:
    assert not any(knob.valid(value) for knob in KNOBS)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("stay_on_while_plugged_in", {"0": "7", "null": "7", "1": "7", "7": None, "15": None}),
        ("deviceidle", {"1": "0", "0": None}),
        ("window_animation_scale", {"1.0": "0", "null": "0", "0.5": "0", "0": None, "0.0": None}),
        ("fixed_performance", {"false": "true"}),
    ],
)
def test_what_is_wanted(key: str, wanted: dict[str, str | None]) -> None:
    assert {old: KNOB_OF[key].wanted(old) for old in wanted} == wanted


@pytest.mark.parametrize(
    ("said", "took"),
    [
        ("status 0", True),
        ("status 255", False),
        ("", False),
        ("Failed to set FIXED_PERFORMANCE mode\nstatus 0", False),
        ("Unknown command: set-fixed-performance-mode-enabled\nstatus 0", False),
        ("cmd: Can't find service: power\nstatus 20", False),
        ("status 0\nand more", False),
    ],
)
def test_whether_fixed_performance_took(said: str, took: bool) -> None:
    assert FixedPerformance().took(Change("fixed_performance", "false", "true"), said, "") is took


# The journal.

CHANGES = (
    Change("fixed_performance", "false", "true"),
    Change("stay_on_while_plugged_in", "null", "7"),
    Change("deviceidle", "1", "0"),
    Change("animator_duration_scale", "0.5", "0"),
)


@given(st.sampled_from([None, BOOT]), st.sets(st.sampled_from(CHANGES)))
def test_round_trip(boot_id: str | None, changes: set[Change]) -> None:
    text = format_journal(boot_id, sorted(changes, key=lambda one: one.key))
    assert len(text) < MAX_BYTES
    back = parse_journal(text)
    assert (back.boot_id, set(back.changes)) == (boot_id, changes)


def test_a_restart_undoes_what_it_undoes() -> None:
    settings = [one for one in CHANGES if one.key not in ("fixed_performance", "deviceidle")]
    assert Journal(BOOT, CHANGES).still_there(OTHER) == settings
    for written, now in ((BOOT, BOOT), (None, BOOT), (BOOT, None)):
        assert Journal(written, CHANGES).still_there(now) == list(CHANGES)


def document(**changed: Any) -> str:
    entries = {"stay_on_while_plugged_in": {"old": "0", "new": "7"}}
    return json.dumps({"schema_version": 1, "boot_id": BOOT, "entries": entries, **changed})


BAD = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 8000,
    "a number of 5000 digits": "1" * 5000,
    "huge": document(more="x" * MAX_BYTES),
    "newer": document(schema_version=2),
    "true is no version": document(schema_version=True),
    "1.0 is no version": document(schema_version=1.0),
    "a boot id": document(boot_id="x"),
    "a boot id with more": document(boot_id=BOOT + "\n"),
    "a boot id's type": document(boot_id=[BOOT]),
    "no entries": document(entries=None),
    "entries as a list": document(entries=[["deviceidle", "1", "0"]]),
    "no knob": document(entries={"adb_enabled": {"old": "0", "new": "1"}}),
    "a path": document(entries={"../x": {"old": "0", "new": "1"}}),
    "an option": document(entries={"--user": {"old": "0", "new": "1"}}),
    "no object": document(entries={"deviceidle": "1"}),
    "no new": document(entries={"deviceidle": {"old": "1"}}),
    "types": document(entries={"deviceidle": {"old": 1, "new": 0}}),
    "metacharacters": document(entries={"stay_on_while_plugged_in": {"old": "0; reboot", "new": "7"}}),
    "metacharacters in new": document(entries={"stay_on_while_plugged_in": {"old": "0", "new": "$(reboot)"}}),
    "a line end": document(entries={"stay_on_while_plugged_in": {"old": "0\n", "new": "7"}}),
    "digits of another script": document(entries={"stay_on_while_plugged_in": {"old": "٣", "new": "7"}}),
    "another knob's value": document(entries={"deviceidle": {"old": "1.0", "new": "0"}}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_journal_that_nobody_wrote_is_refused(name: str) -> None:
    assert parse_journal(document()).changes == (Change("stay_on_while_plugged_in", "0", "7"),)
    with pytest.raises(ValueError):
        parse_journal(BAD[name])


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)).map(json.dumps))
def test_any_text_is_a_journal_or_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_journal(text)
