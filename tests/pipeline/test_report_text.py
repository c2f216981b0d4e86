"""Texts: what a phone or a model file says may neither move a cursor nor grow; numbers keep their digits."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import text


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07name", "name"),
        ("\x9b2Jname\x07", "name"),
        ("a\r\n\tb\u2028c", "a b c"),
        ("abc\u202egnp.exe\u202c\u200b\u2066", "abcgnp.exe"),
        ("conv2d naïve 畳み込み שלום", "conv2d naïve 畳み込み שלום"),
        ("\x1b[", ""),
    ],
)
def test_clean(dirty: str, cleaned: str) -> None:
    assert text.clean(dirty) == cleaned


@settings(deadline=None)
@given(st.text() | st.from_regex(r"(\x1b\[[0-9;]{0,3}[a-zA-Z]|[a-z])*", fullmatch=True))
def test_clean_leaves_nothing_unseen_and_is_idempotent(dirty: str) -> None:
    cleaned = text.clean(dirty)
    assert {unicodedata.category(c) for c in cleaned} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} == set()
    assert text.clean(cleaned) == cleaned


def test_clean_bounds_the_length() -> None:
    assert len(text.clean("x" * 100_000)) == text.LONGEST_TEXT


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(1, 40))
def test_shorten_keeps_both_ends_within_the_limit(whole: str, limit: int) -> None:
    short = text.shorten(whole, limit)
    assert len(short) <= limit
    if len(whole) <= limit:
        assert short == whole
    else:
        head, tail = short.split(text.ELLIPSIS)[0], short.rsplit(text.ELLIPSIS)[-1]
        assert whole.startswith(head)
        assert whole.endswith(tail)


@settings(deadline=None)
@given(st.floats(1e-4, 9e5), st.integers(2, 5))
def test_number_is_within_half_of_its_last_digit(value: float, digits: int) -> None:
    written = text.number(value, digits)
    assert "e" not in written
    assert math.isclose(float(written), value, rel_tol=0.5 * 10.0 ** (1 - digits) * 1.001)
    if value < 10 ** (digits - 1):
        assert len(written.replace(".", "").lstrip("0")) == digits


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (text.number(9.996), "10.0"),
        (text.number(1234.5), "1234"),
        (text.number(0), "0"),
        (text.number(-0.5), "−0.500"),
        (text.duration(9.7), "9.70 ms"),
        (text.duration(0.0512), "51.2 µs"),
        (text.duration(1200), "1.20 s"),
        (text.percent(0.004), "0.4 %"),
        (text.percent(0.0123), "1.2 %"),
        (text.percent(0.975, 3), "97.5 %"),
        (text.percent(1.0), "100 %"),
        (text.signed_percent(-0.62), "−62 %"),
        (text.signed_percent(0.032), "+3.2 %"),
        (text.signed_percent(0.0), "0 %"),
        (text.count(3_504_872), "3.50 M"),
        (text.count(512), "512"),
        (text.size(14_003_112), "13.4 MiB"),
        (text.factor(1.04), "4.0 %"),
        (text.factor(1.24), "1.2x"),
        (text.factor(12.4), "12x"),
        (text.plural(1, "launch", "launches"), "1 launch"),
        (text.plural(3, "launch", "launches"), "3 launches"),
    ],
)
def test_numbers_for_people(written: str, expected: str) -> None:
    assert written == expected
