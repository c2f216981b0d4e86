"""Once more after a bundle failed: which kernel it was, and the others without it. Pure functions of what was measured.

A kernel that crashes its runtime takes all kernels of its bundle along. Those that no other bundle cleared are tried in a few
small models and then alone; what fails alone is left out, with a reason of its own. Then each failed bundle is measured again
as it was but for those. One that fails again, though each of its kernels works (memory, time), is measured in halves, which
are a little less cold. There it ends: a failed bundle is measured at most twice more, and no kernel is tried three times.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latency_luts import OpKey
from pipeline.settings import Settings
from pipeline.sweep.part import WALKS, Part
from pipeline.sweep.plan import Limits
from pipeline.sweep.reading import Readings

TRIAL, AGAIN, HALVES = "trial", "again", "halves"
TEXTS = {
    TRIAL: "looking for the kernel that failed its bundle",
    AGAIN: "again, after a failed bundle",
    HALVES: "again in halves, after a failed bundle",
}
"""Purposes of these parts -> what the progress says."""

TRIED = Limits(kernels=6)
"""About the square root of a usual bundle: so few models find one kernel of it."""

MAX_TRIALS = 96
"""Models in a build: a runtime that fails at everything is not asked for each kernel."""

TRIAL_LIMIT_S = 15.0
"""What hangs a small model need not be waited for as long as for a bundle."""

Done = Sequence[tuple[Part, Readings]]
Group = tuple[OpKey, ...]


@dataclass(frozen=True)
class Retry:
    """Bundles to measure next, all of one purpose and size."""

    purpose: str
    groups: tuple[Group, ...]
    limits: Limits


def next_retry(done: Done) -> Retry | None:
    """What to measure once more; None where nothing failed or all was tried."""
    failed = list(_failed(done))
    if not failed:
        return None
    return _trial(done, failed) or _again(done, failed)


def culprits(done: Done) -> dict[OpKey, str]:
    """The kernels that fail alone -> why."""
    return {
        group[0]: readings.missing[group[0]]
        for part, readings in done
        if part.purpose == TRIAL
        for number in readings.failed
        if len(group := part.groups[number]) == 1
    }


def trial_settings(settings: Settings) -> Settings:
    """Once, and not for long: whether it runs is all that is asked."""
    return dataclasses.replace(settings, launches=1, limit_s=min(settings.limit_s, TRIAL_LIMIT_S))


def notes(done: Done) -> list[str]:
    """What the reader of a table should know of failed bundles."""
    bundles = sum(part.purpose not in TEXTS for part, _ in _failed(done))
    if not bundles:
        return []
    found = len(culprits(done))
    left = f"without the {found} that {'fails' if found == 1 else 'fail'} alone" if found else "once more"
    return [f"{bundles} bundle{'s' if bundles > 1 else ''} failed, whose kernels were measured again, {left}"]


def _failed(done: Done) -> Iterator[tuple[Part, Group]]:
    for part, readings in done:
        for number in readings.failed:
            yield part, part.groups[number]


def _cleared(done: Done) -> set[OpKey]:
    """Kernels of a bundle that did not fail."""
    return {
        key
        for part, readings in done
        if part.purpose != WALKS  # of which nobody says that one failed
        for number, group in enumerate(part.groups)
        if number not in readings.failed
        for key in group
    }


def _trial(done: Done, failed: Sequence[tuple[Part, Group]]) -> Retry | None:
    models = sum(len(part.groups) for part, _ in done if part.purpose == TRIAL)
    known = _cleared(done) | culprits(done).keys()
    suspects = dict.fromkeys(key for _, group in failed for key in group if key not in known)
    tried = {key for part, group in failed if part.purpose == TRIAL for key in group}
    new = [key for key in suspects if key not in tried]
    size = TRIED.kernels if new else 1
    keys = new or list(suspects)
    groups = [tuple(keys[start : start + size]) for start in range(0, len(keys), size)]
    chosen = tuple(groups[: max(0, MAX_TRIALS - models)])
    return Retry(TRIAL, chosen, TRIED) if chosen else None


def _again(done: Done, failed: Sequence[tuple[Part, Group]]) -> Retry | None:
    """Of the failed bundles of one size, those that were not measured again yet."""
    cleared = _cleared(done)
    wanted: dict[tuple[str, Limits], Counter[Group]] = {}
    for part, group in failed:
        rest = tuple(key for key in group if key in cleared)
        if part.purpose not in TEXTS and rest:
            wanted.setdefault((AGAIN, part.limits), Counter())[rest] += 1
        if part.purpose == AGAIN and len(group) > 1:
            wanted.setdefault((HALVES, part.limits), Counter()).update((group[::2], group[1::2]))
    for (purpose, limits), groups in wanted.items():
        parts = (part for part, _ in done if (part.purpose, part.limits) == (purpose, limits))
        if left := groups - Counter(group for part in parts for group in part.groups):
            return Retry(purpose, tuple(left.elements()), limits)
    return None
