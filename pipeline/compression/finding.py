"""What a comparison found, in a sentence: the fastest network that loses little, or that there is none."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compression.views import Comparison, Group, Speed
from pipeline.report.text import MINUS, factor, percent, shorten

LITTLE_POINTS = 1.0
"""Of top-1: a network that loses less is one that would be used."""
_NAME_CHARACTERS = 40


def sentences(run: Comparison) -> list[str]:
    """The headline first, of the first runtime with times (without one, of the smallest network); then what is otherwise.

    As in "alds at 25 %: −0.6 points, 75 % fewer parameters, 1.5x faster in litert".
    """
    if not run.groups:
        return [f"{shorten(run.network, _NAME_CHARACTERS)} alone: nothing was compressed"]
    judged = [group for group in run.groups if run.change(group) is not None]
    usable = [group for group in judged if (run.change(group) or 0.0) > -LITTLE_POINTS]
    if judged and not usable:
        nearest = max(judged, key=lambda group: run.change(group) or 0.0)
        return [f"Nothing loses under {LITTLE_POINTS:.0f} point; the nearest is {group_text(run, nearest)}"]
    found: dict[str, str] = {}
    for group, why in _best(run, usable or run.groups):
        found.setdefault(group_text(run, group), why)
    first, *others = found
    headline = first if judged else f"Without accuracies, the {found[first]} is {first}"
    return [headline, *(f"The {found[text]} is {text}" for text in others)]


def group_text(run: Comparison, group: Group) -> str:
    parts = []
    if (change := run.change(group)) is not None:
        parts.append(f"{points_text(change)} points")
    if (removed := run.removed(group, lambda point: point.params)) is not None:
        parts.append(f"{percent(abs(removed))} {'fewer' if removed >= 0 else 'more'} parameters")
    speeds = [(runtime, speed) for runtime in run.runtimes if (speed := run.speed(group, runtime)) is not None]
    parts += [f"{speed_text(speed)} in {shorten(runtime, _NAME_CHARACTERS)}" for runtime, speed in speeds]
    return f"{group.label}: {', '.join(parts)}" if parts else group.label


def points_text(change: float) -> str:
    """A change in points with one decimal: "−0.6", "+0.2"; one that rounds to nothing has no sign."""
    text = f"{change:+.1f}".replace("-", MINUS)
    return "0.0" if text.endswith("0.0") and abs(change) < 1 else text


def speed_text(speed: Speed) -> str:
    if not speed.sure:
        return "no faster"
    return f"{factor(max(speed.ratio, 1 / speed.ratio))} {'faster' if speed.ratio > 1 else 'slower'}"


def _best(run: Comparison, groups: Sequence[Group]) -> list[tuple[Group, str]]:
    """The fastest in each runtime, then the smallest, each with what it is best at."""
    found = []
    for runtime in run.runtimes:
        speeds = [(speed.ratio, group) for group in groups if (speed := run.speed(group, runtime)) is not None]
        if speeds:
            fastest = max(speeds, key=lambda one: one[0])[1]
            found.append((fastest, f"fastest in {shorten(runtime, _NAME_CHARACTERS)}"))
    smallest = min(groups, key=lambda group: group.median(lambda point: point.params) or 0.0)
    return [*found, (smallest, "smallest")]
