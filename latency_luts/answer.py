"""What a table answers, and how it knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from latency_luts.entry import Entry
    from latency_luts.key import OpKey

Kind = Literal["measured", "interpolated", "missing"]


@dataclass(frozen=True)
class FamilyError:
    """How well a family's kernels are told from one another: each predicted from the others, and compared.

    Args:
        family: see `latency_luts.family`; its alignment follows the text.
        points: how many of its kernels were measured.
        tested: how many of them lie between others, and so could be predicted (at most
            `latency_luts.interpolate.MAX_TESTED` are).
        rms: root mean square of predicted / measured - 1: the leave-one-out error, a share.
        worst: the largest of them, a share.
        half_width: of the 95 % interval of one more prediction, a share: Student's t with `tested` degrees of freedom, times
            rms, times sqrt(1 + 1 / tested); or what 95 % of the errors stay within, if that is wider.
        step: channels per block that the prediction assumes, 1 where none fitted better; chosen by the same errors.
    """

    family: str
    points: int
    tested: int
    rms: float
    worst: float
    half_width: float
    step: int


@dataclass(frozen=True)
class Interpolated:
    """One kernel that was not measured, between some that were.

    Args:
        interval_ns: (low, high): the wider of the family's `error.half_width` and the neighbours' own intervals.
        neighbours: the entries that were used, nearest first.
    """

    key: OpKey
    latency_ns: float
    interval_ns: tuple[float, float]
    error: FamilyError
    neighbours: tuple[Entry, ...]


@dataclass(frozen=True)
class Bound:
    """Between which measured kernels a missing one lies, if a larger kernel is never the faster one. No latency.

    Args:
        lower: the slowest measured kernel that is nowhere larger, nor worse aligned; None: none was measured.
        upper: the fastest measured kernel that is nowhere smaller, nor better aligned; None: none was measured.
    """

    key: OpKey
    lower: Entry | None
    upper: Entry | None

    @property
    def ends_ns(self) -> tuple[float | None, float | None]:
        """The low end of `lower` and the high end of `upper`; where these contradict the order, the ends that hold both."""
        low = None if self.lower is None else self.lower.interval_ns[0]
        high = None if self.upper is None else self.upper.interval_ns[1]
        return (high, low) if low is not None and high is not None and low > high else (low, high)


@dataclass(frozen=True)
class Answer:
    """What a table says of one kernel or of a sum of kernels.

    Args:
        latency_ms: the kernel's corrected median, or the sum of them; None where a kernel is missing.
        interval_ms: (low, high); of a sum the sums of the ends, which holds however the kernels' errors are related
            (kernels measured in one session drift together), and is therefore wide. None where a kernel is missing.
        kind: the weakest of `kinds`: all measured, some interpolated, some missing.
        coverage: the share of the kernels asked, repetitions counted, that was measured: 0 ... 1, and 1 for a sum of
            nothing. See `measured_share` for the share of the milliseconds, which is unknown with a kernel missing.
        entries: the entries of the kernels asked that were measured, in that order.
        missing: the kernels that are neither measured nor between measured ones, one for each time that one was asked.
        interpolated: those that are between measured ones, likewise.
        kinds: of each kernel asked, in that order.
        bound_ms: only with `on_missing="bound"` and a kernel missing: (lower, upper) of the sum. A bound, never a latency;
            None for an end where some kernel has none.
        bounds: of each kernel in `missing`, in that order.
        cold: how cold the network leaves its kernels, 0 ... 1 (see `latency_luts.warmth`); the entries' own latencies are of 1.
    """

    latency_ms: float | None
    interval_ms: tuple[float, float] | None
    kind: Kind
    coverage: float
    entries: tuple[Entry, ...]
    missing: tuple[OpKey, ...] = ()
    interpolated: tuple[Interpolated, ...] = ()
    kinds: tuple[Kind, ...] = ()
    bound_ms: tuple[float | None, float | None] | None = None
    bounds: tuple[Bound, ...] = ()
    cold: float = 1.0

    @property
    def known_ms(self) -> float:
        """The sum over `entries` and `interpolated`, as in a large network; with kernels missing, a part of the latency and
        not an estimate of it."""
        return math.fsum(self._known_ns()) / 1e6

    @property
    def measured_share(self) -> float | None:
        """The share of the milliseconds that was measured; None with a kernel missing, 1 for a sum of nothing."""
        if self.missing:
            return None
        whole = math.fsum(self._known_ns())
        return math.fsum(entry.latency_ns_median for entry in self.entries) / whole if whole else 1.0

    @property
    def errors(self) -> tuple[FamilyError, ...]:
        """The leave-one-out errors of the families that were interpolated in, each once."""
        return tuple(dict.fromkeys(each.error for each in self.interpolated))

    def _known_ns(self) -> list[float]:
        return [entry.latency_ns_median for entry in self.entries] + [each.latency_ns for each in self.interpolated]
