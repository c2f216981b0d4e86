"""What is known while a table is built, and what that says of the time that is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latency_luts import Context, LatencyTable, OpKey, WarmthPoint
from pipeline.runfolder import RunFolder
from pipeline.sweep import again, sampling, warmth
from pipeline.sweep.part import WALKS, Bench, Part
from pipeline.sweep.plan import BUNDLE_SIZE, COLD, WARM, Limits
from pipeline.sweep.reading import Measured, Readings, combine
from pipeline.sweep.request import BuildRequest

FIRST_GUESS_S = 4.0
"""What a bundle takes, until one was measured."""


@dataclass
class Build:
    """What is known while a build goes on: parts that are done, what they said, and how long they took.

    Args:
        own: the networks' kernels -> the networks that have them.
        missing: of `own`, those that no model can be written for -> why.
        related: those of the same networks at other widths and resolutions.
        seconds: purpose of a part -> what its parts took.
        history: (kernels, leave-one-out error) after each round.
    """

    request: BuildRequest
    bench: Bench
    folder: RunFolder
    own: Mapping[OpKey, tuple[str, ...]]
    missing: dict[OpKey, str]
    context: Context
    related: Sequence[OpKey] = ()
    done: list[tuple[Part, Readings]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)

    @property
    def parts(self) -> Path:
        return self.folder.path / "parts"

    def keep(self, part: Part, readings: Readings, seconds: float) -> None:
        self.done.append((part, readings))
        self.seconds[part.purpose] = self.seconds.get(part.purpose, 0.0) + seconds

    def measured(self) -> Measured:
        walks = [readings for part, readings in self.done if part.purpose == WALKS]
        confidence = self.request.settings.confidence
        found = combine(self._readings(COLD), self._readings(WARM), walks, confidence=confidence, met=self.own)
        return dataclasses.replace(found, missing={**found.missing, **again.culprits(self.done)})

    def _readings(self, limits: Limits) -> list[Readings]:
        return [readings for part, readings in self.done if part.limits == limits and part.purpose != WALKS]

    def table(self) -> LatencyTable:
        measured = self.measured()
        return LatencyTable(self.context, measured.entries, warmth=self.warmth(measured))

    def warmth(self, measured: Measured) -> tuple[WarmthPoint, ...]:
        walks = [walk for _, readings in self.done for walk in readings.walks]
        return warmth.curve(walks, measured.entries, measured.overhead.ns / 1e3)

    @property
    def left_s(self) -> float:
        return self.request.budget_s - sum(self.seconds.values())

    @property
    def bundles(self) -> int:
        return sum(len(part.groups) for part, _ in self.done if part.purpose != WALKS)

    def bundle_s(self, *, cold: bool = True) -> float:
        """Seconds that a bundle of the usual size takes, or a smaller one; as long as the other where none was measured."""
        done = [part for part, _ in self.done if part.purpose not in (WALKS, *again.TEXTS)]
        parts = [part for part in done if (part.limits == COLD) == cold] or done
        seconds = sum(self.seconds[purpose] for purpose in {part.purpose for part in parts})
        return seconds / sum(len(part.groups) for part in parts) if parts else FIRST_GUESS_S

    def text(self, purpose: str) -> str:
        """What the bar says: what is being measured, how far off the table is and will be."""
        purpose = again.TEXTS.get(purpose, purpose)
        if not self.history:
            return purpose
        count, now = self.history[-1]
        rate = BUNDLE_SIZE / 2 / self.bundle_s()
        then = sampling.expected_error(self.history, int(count + rate * max(0.0, self.left_s) / 2))
        end = "" if then is None else f", {100 * then:.1f} % by the end"
        return f"{purpose}, error {100 * now:.1f} %{end}"
