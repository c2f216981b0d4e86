"""What a budget on the command line means: 25%, 25%macs, 68000params, 3.5Mmacs, 0.4ms, energy=0.9, evbmf."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError

EXAMPLES = "25%, 40%macs, 68000, 3.5Mmacs, 0.4ms (with --lut), energy=0.9 or evbmf"
UNITS = ("params", "macs", "ms")
_BUDGET = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,9})?)([kMG%]?)(params|macs|ms)?")
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "%": 0.01}


@dataclass(frozen=True)
class Budget:
    """How much of a network may be left.

    Args:
        text: as it was asked.
        kind: "keep", a share of the network in `unit`; "amount", a number of them; "energy"; "evbmf".
        value: of the first three.
    """

    text: str
    kind: str
    value: float = 0.0
    unit: str = "params"

    def share(self, part: float) -> Budget:
        """The budget of a round of an iterative compression, of a share. Args: part: of the way there; 1: all of it."""
        return self if part == 1 else dataclasses.replace(self, value=self.value**part)

    def settings(self) -> dict[str, Any]:
        """As a low-rank method takes it, for all but milliseconds."""
        if self.kind == "evbmf":
            return {"ranks": "evbmf"}
        if self.kind == "energy":
            return {"energy": self.value}
        return {"keep" if self.kind == "keep" else "budget": self.value, "unit": self.unit}


def parse(text: str) -> Budget:
    """Raises: UsageError: it is none."""
    if text == "evbmf":
        return Budget(text, "evbmf")
    if text.startswith("energy="):
        value = _number(text.removeprefix("energy="))
        if 0 < value <= 1:
            return Budget(text, "energy", value)
    elif found := _BUDGET.fullmatch(text):
        number, suffix, unit = found.groups(default="")
        value, unit = float(number) * _FACTORS[suffix], unit or "params"
        if value > 0 and (suffix != "%" or value <= 1):
            return Budget(text, "keep" if suffix == "%" else "amount", value, unit)
    raise UsageError(f"{text[:60]!r} is no budget", try_=EXAMPLES)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
