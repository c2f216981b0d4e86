"""What changed between two tables, and whether it is more than noise.

Each kernel that both have measured is one test of log(new / old) against 0. Its standard error comes from both intervals, and
is never less than what the runtime's clock can tell (its tick / sqrt(12)), nor than what kernels scatter beyond their
intervals when the two tables are laid side by side: intervals know the noise within a session, not between two. That scatter
is estimated robustly from all kernels after their common factor is taken out, so a few that changed do not widen it. All
tests together, with the one of the common factor, are held to `alpha` by Holm's method: the chance that anything at all is
called changed where nothing did is at most that.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from latency_luts.entry import Context
from latency_luts.errors import InvalidTable
from latency_luts.key import OpKey, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latency_luts.entry import Entry
    from latency_luts.table import LatencyTable

ENOUGH = 8
"""Kernels from which on their scatter can be told; with fewer the intervals are believed."""

COARSEST_TICK_NS = 1000
"""The runtimes report whole microseconds; that all samples of a kernel are multiples of more is chance."""

_MOST_LOG = 100.0

_Z = 1.959963984540054  # an interval of 95 % reaches that many standard errors to either side


class Field(NamedTuple):
    """A field of the context that differs."""

    name: str
    old: object
    new: object


@dataclass(frozen=True)
class Change:
    """A kernel that takes another time.

    Args:
        ratio: new / old, above 0.
        interval: of the ratio, 95 %.
        p_value: adjusted by Holm over all tests; at most `Diff.alpha`.
        beyond_factor: whether it changed by something else than all kernels did.
    """

    key: OpKey
    old_ns: float
    new_ns: float
    ratio: float
    interval: tuple[float, float]
    p_value: float
    beyond_factor: bool


@dataclass(frozen=True)
class Diff:
    """Args:
        context: fields that differ, `created` too.
        only_old, only_new: kernels that one table has.
        compared: kernels that both have, with a time above 0 in both: 0 is what a coarse clock says of a short kernel.
        changes: those that changed, the largest changes first.
        factor: the median of new / old over all compared, and its 95 % interval; None for no kernels.
        factor_p_value: of a factor of 1, adjusted like the others.
        scatter: how many times wider kernels scatter around the factor than their intervals allow, at least 1.
        alpha: the chance of any false alarm.
        verdict: "change" if a kernel or the factor changed, else "noise".
    """  # fmt: skip

    context: tuple[Field, ...]
    only_old: tuple[OpKey, ...]
    only_new: tuple[OpKey, ...]
    compared: int
    changes: tuple[Change, ...]
    factor: float | None
    factor_interval: tuple[float, float] | None
    factor_p_value: float | None
    scatter: float
    alpha: float
    verdict: Literal["noise", "change"]


def diff(old: LatencyTable, new: LatencyTable, *, alpha: float = 0.05, minimum_effect: float = 0.0) -> Diff:
    """Compare two tables, also of different contexts; the answer tells which fields of theirs differ.

    Args:
        alpha: the chance that anything is called changed where nothing is.
        minimum_effect: changes of a smaller share are not called changes, however certain.

    Raises:
        InvalidTable: alpha is not between 0 and 1, or `minimum_effect` is negative.
    """
    if not 0 < alpha < 1 or not 0 <= minimum_effect < math.inf:
        asked = f"alpha={short(alpha)} and minimum_effect={short(minimum_effect)}"
        raise InvalidTable(f"a comparison was asked with {asked}", try_="alpha=0.05, minimum_effect=0.02")
    before, after = {entry.key: entry for entry in old}, {entry.key: entry for entry in new}
    pairs = [(entry, after[key]) for key, entry in before.items() if key in after]
    pairs = [(a, b) for a, b in pairs if a.latency_ns_median > 0 and b.latency_ns_median > 0]
    changes, factor, interval, p_value, scatter = _test(pairs, alpha, minimum_effect)
    shifted = p_value is not None and p_value <= alpha and factor is not None and abs(factor - 1) >= minimum_effect
    names = [each.name for each in dataclasses.fields(Context)]
    fields = ((name, getattr(old.context, name), getattr(new.context, name)) for name in names)
    return Diff(
        context=tuple(Field(*each) for each in fields if each[1] != each[2]),
        only_old=tuple(key for key in before if key not in after),
        only_new=tuple(key for key in after if key not in before),
        compared=len(pairs),
        changes=changes,
        factor=factor,
        factor_interval=interval,
        factor_p_value=p_value,
        scatter=scatter,
        alpha=alpha,
        verdict="change" if changes or shifted else "noise",
    )


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's adjusted p-values: those at most alpha are the rejected ones, with a family-wise error of at most alpha."""
    import numpy as np

    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _test(
    pairs: list[tuple[Entry, Entry]], alpha: float, minimum_effect: float
) -> tuple[tuple[Change, ...], float | None, tuple[float, float] | None, float | None, float]:
    """(changes, factor, its interval, its adjusted p-value, scatter)."""
    import numpy as np
    from scipy.special import erfc

    if not pairs:
        return (), None, None, None, 1.0
    logs = np.array([math.log(b.latency_ns_median / a.latency_ns_median) for a, b in pairs])
    errors = np.array([math.hypot(_relative_error(a), _relative_error(b)) for a, b in pairs])
    common = float(np.median(logs))
    scatter = max(1.0, 1.4826 * float(np.median(np.abs(logs - common) / errors))) if len(pairs) >= ENOUGH else 1.0
    errors = errors * scatter
    # A median's standard error is 1.2533 times a mean's; kernels of different errors count by the typical one.
    common_error = 1.2533 * float(np.median(errors)) / math.sqrt(len(pairs))
    chances = erfc(np.abs(np.append(logs / errors, common / common_error)) / math.sqrt(2))
    adjusted = holm(chances)
    beyond = holm(erfc(np.abs(logs - common) / errors / math.sqrt(2)))
    found = [
        Change(
            key=a.key,
            old_ns=a.latency_ns_median,
            new_ns=b.latency_ns_median,
            ratio=math.exp(log),
            interval=(_exp(log - _Z * error), _exp(log + _Z * error)),
            p_value=float(p_value),
            beyond_factor=bool(apart <= alpha),
        )
        for (a, b), log, error, p_value, apart in zip(pairs, logs, errors, adjusted[:-1], beyond, strict=True)
        if p_value <= alpha and abs(math.exp(log) - 1) >= minimum_effect
    ]
    found.sort(key=lambda change: -abs(math.log(change.ratio)))
    ends = (_exp(common - _Z * common_error), _exp(common + _Z * common_error))
    return tuple(found), math.exp(common), ends, float(adjusted[-1]), scatter


def _exp(log: float) -> float:
    """Of a kernel that is far shorter than the clock's tick nothing is known, which a finite number can say too."""
    return math.exp(min(log, _MOST_LOG))


def _relative_error(entry: Entry) -> float:
    """The standard error of a median as a share of it, no less than the clock's tick allows."""
    low, high = entry.interval_ns
    tick = min(math.gcd(*entry.samples_ns) or 1, COARSEST_TICK_NS)
    return max((high - low) / 2 / _Z, tick / math.sqrt(12)) / entry.latency_ns_median
