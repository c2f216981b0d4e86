"""Predicted beside measured: each way of predicting judged on the same networks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latency_luts import Validation, validate
from latency_luts.validate import MIN_NETWORKS
from pipeline.errors import CheckFailed
from pipeline.report.text import percent
from pipeline.validation.baselines import Predicted
from pipeline.validation.measured import Judged

TABLE, ALONE, FOREST, MACS = "table", "alone", "forest", "macs"

LABELS = {
    TABLE: "the table's sum",
    ALONE: "kernels timed alone",
    FOREST: "random forests",
    MACS: "MACs",
}
"""Ways of predicting, in the order in which they are shown."""


@dataclass(frozen=True)
class Verdict:
    """How well one way of predicting does.

    Args:
        validation: None where it says nothing of any network.
        plain_ms: network -> what it says; empty for MACs, which are no time.
        scaled_ms: network -> that, times the factor that the other networks give; empty for fewer than MIN_NETWORKS.
    """

    name: str
    predicted: Predicted
    validation: Validation | None
    plain_ms: Mapping[str, float]
    scaled_ms: Mapping[str, float]


@dataclass(frozen=True)
class Requirement:
    """What share of the networks was asked to be within 5 %, and what was found.

    Args: judged: which sums: "scaled", or "plain" for fewer than MIN_NETWORKS networks.
    """

    asked: float
    found: float
    judged: str

    @property
    def met(self) -> bool:
        return self.found >= self.asked

    def check(self) -> None:
        """Raises: CheckFailed: it is not met."""
        if not self.met:
            raise CheckFailed(
                f"{percent(self.asked, 3)} of the networks within 5 % were asked of the table's {self.judged} sums,"
                f" {percent(self.found, 3)} were found",
                try_="a table with more of their kernels measured, or a quieter device",
            )


def judge(name: str, predicted: Predicted, judged: Sequence[Judged]) -> Verdict:
    """Args: judged: the networks that the table is judged by; `predicted` may know fewer."""
    known = [one for one in judged if one.case.name in predicted.ms]
    names = [one.case.name for one in known]
    measured = [one.measured_ms for one in known]
    values = [predicted.ms[name] for name in names]
    if not known or (name == MACS and len(known) < MIN_NETWORKS):
        return Verdict(name, predicted, None, {}, {})
    return Verdict(
        name,
        predicted,
        validate(measured, values, names),
        {} if name == MACS else dict(zip(names, values, strict=True)),
        dict(zip(names, scaled(measured, values), strict=True)) if len(known) >= MIN_NETWORKS else {},
    )


def scaled(measured: Sequence[float], predicted: Sequence[float]) -> list[float]:
    """Each prediction times the median of measured / predicted of all others, as `latency_luts.validate` judges it."""
    ratios = [a / b for a, b in zip(measured, predicted, strict=True)]
    return [value * statistics.median(ratios[:i] + ratios[i + 1 :]) for i, value in enumerate(predicted)]


def required(asked: float | None, table: Validation) -> Requirement | None:
    if asked is None:
        return None
    if table.scaled is None:
        return Requirement(asked, table.plain.within_5, "plain")
    return Requirement(asked, table.scaled.within_5, "scaled")
