"""Knobs: what an unrooted shell may set on a phone so that it measures as it would in a hand.

Settings survive a restart of the phone; fixed performance and doze do not.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

UNSET = "null"
"""What `settings get` prints for a setting that is not there."""
MAX_DETAIL = 120


@dataclass(frozen=True)
class Change:
    """One value on the phone, as the phone prints it. key: a global setting, or "deviceidle", or "fixed_performance"."""

    key: str
    old: str
    new: str


class Knob(ABC):
    """Subclasses say which values they change; `scripts` does it. What a phone says passes `valid` before it goes back."""

    name: str
    keys: tuple[str, ...]
    values: re.Pattern[str]
    """What the phone may have there: short, and nothing that a shell or a program would take for something else."""
    survives_restart = True

    def valid(self, value: str) -> bool:
        return self.values.fullmatch(value) is not None

    @abstractmethod
    def wanted(self, old: str) -> str | None:
        """What to set where the phone has the valid value `old`; None: it is good as it is."""

    def took(self, change: Change, said: str, now: str) -> bool:
        """Whether the phone did it. said: what the command printed, and its exit status; now: the value afterwards."""
        return now == change.new


class FixedPerformance(Knob):
    """A clock that the phone can hold for hours, for measuring. Phones without it answer with an error.

    Nothing says whether it is on; it is off unless somebody asked for it since the phone started, so off is what it is
    put back to.
    """

    name = "fixed performance"
    keys = ("fixed_performance",)
    values = re.compile(r"true|false")
    survives_restart = False

    def wanted(self, old: str) -> str | None:
        return "true"

    def took(self, change: Change, said: str, now: str) -> bool:
        return said.endswith("status 0") and not re.search(r"fail|unknown|error|can't", said, re.IGNORECASE)


class StayAwake(Knob):
    """The screen stays on while the phone is powered by anything (1 AC, 2 USB, 4 wireless): asleep, it parks cores.

    The setting itself, not `svc power stayon true`, which sets the same: to 7 or to 15, one cannot know which, and starts
    a virtual machine for it.
    """

    name = "stay awake"
    keys = ("stay_on_while_plugged_in",)
    values = re.compile(rf"{UNSET}|[0-9]{{1,2}}", re.ASCII)

    def wanted(self, old: str) -> str | None:
        return None if old != UNSET and int(old) & 7 == 7 else "7"


class Doze(Knob):
    """No deep or light idle mode, in which the phone lets nothing run."""

    name = "doze off"
    keys = ("deviceidle",)
    values = re.compile(r"[01]")
    survives_restart = False

    def wanted(self, old: str) -> str | None:
        return "0" if old == "1" else None


class Animations(Knob):
    """Nothing moves on the screen, which would wake cores and the GPU."""

    name = "animations off"
    keys = ("window_animation_scale", "transition_animation_scale", "animator_duration_scale")
    values = re.compile(rf"{UNSET}|[0-9]{{1,2}}(\.[0-9]{{1,6}})?", re.ASCII)

    def wanted(self, old: str) -> str | None:
        return None if old != UNSET and float(old) == 0 else "0"


KNOBS: tuple[Knob, ...] = (FixedPerformance(), StayAwake(), Doze(), Animations())
KNOB_OF: dict[str, Knob] = {key: knob for knob in KNOBS for key in knob.keys}
