"""Text for people: cleaned, shortened, and numbers with as many digits as they deserve."""

from __future__ import annotations

import math
import re
import unicodedata

MINUS = "\N{MINUS SIGN}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
LONGEST_TEXT = 4000

_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC: window titles, links
    r"|\x1b[ -/]*[0-~]?"
)
# Cc control, Cf format (bidirectional overrides, zero width), Cs surrogate, Co private, Cn unassigned, Zl/Zp separators
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(text: str) -> str:
    """The text without anything that moves a cursor, turns the direction of reading or cannot be seen.

    Names come from phones and from model files. Whole escape sequences go, so that no "[31m" stays behind; line
    breaks and tabs become one space.
    """
    text = _ESCAPE_SEQUENCE.sub("", text[:LONGEST_TEXT])
    text = re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)
    return "".join(c for c in text if unicodedata.category(c) not in _UNSEEN)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut in the middle: kernels' names differ at both of their ends."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 5
    return text[: limit - 1 - tail] + ELLIPSIS + (text[-tail:] if tail else "")


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, trailing zeros kept, whole numbers in full, never an exponent between 1e-4 and 1e6.

    >>> number(9.7), number(0.01234), number(1234.5)
    ('9.70', '0.0123', '1234')
    """
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)  # 9.996 becomes 10.0, which needs one decimal less
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}".replace("-", MINUS)


def duration(ms: float, digits: int = 3) -> str:
    """A time with the unit that reads best: "9.70 ms", "51.2 µs", "1.20 s"."""
    if abs(ms) >= 1000:
        return f"{number(ms / 1000, digits)} s"
    if abs(ms) >= 0.1 or ms == 0:
        return f"{number(ms, digits)} ms"
    return f"{number(ms * 1000, digits)} µs"


def percent(share: float, digits: int = 2) -> str:
    """A share of 1 in percent with `digits` digits: "12 %", "1.2 %", "125 %"; one digit less below 1 %: "0.4 %"."""
    value = share * 100
    return f"{number(value, digits if abs(value) >= 1 else max(1, digits - 1))} %"


def plus_minus(share: float) -> str:
    """A half-width with one decimal, always: the same digits as in the sentence of a verdict."""
    return f"±{share * 100:.1f} %"


def spaced_percents(text: str) -> str:
    """ "0.4%" as "0.4 %", as everything else on the page is written."""
    return re.sub(r"(?<=[0-9])%", " %", text)


def signed_percent(share: float) -> str:
    """A change: "+3.2 %", "−62 %"; a change that rounds to nothing has no sign."""
    text = percent(share)
    return text if share <= 0 or text == "0 %" else f"+{text}"


def count(value: float) -> str:
    """A number of things: "3.50 M", "98.2 k", "512"."""
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return number(value / limit) + suffix
    return f"{value:.0f}"


def size(value_bytes: float) -> str:
    for limit, suffix in ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")):
        if abs(value_bytes) >= limit:
            return number(value_bytes / limit) + suffix
    return f"{value_bytes:.0f} B"


def factor(ratio: float) -> str:
    """How much faster, for a ratio of at least 1: "1.2x", or "4 %" where a factor would hide it."""
    if ratio < 1.1:
        return percent(ratio - 1)
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def plural(n: int, noun: str, nouns: str = "") -> str:
    """ "1 sample", "17,021 samples"."""
    return f"{n} {noun}" if n == 1 else f"{n:,} {nouns or noun + 's'}"
