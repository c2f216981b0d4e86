"""How well a table's sums tell what whole networks take: pure functions of two lists of latencies.

Kernels measured one by one do not sum to the whole: a runtime spends time between them, and a machine is a little slower or
faster than it was when the table was made. So three sums are judged: the plain one, the one times one factor for all networks,
and the one with a constant as well. Factor and constant are fitted robustly (so that a few odd networks do not move them), in
relative terms, and never on the network they are judged by: each network is predicted with what the others gave (leave one
out), or each half with what the other half gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from latency_luts.key import LutError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Folds = Literal["leave-one-out", "split-half"]

MIN_NETWORKS = 4
"""With fewer, nothing is fitted: two points determine a factor and a constant."""

WORST = 10
_ROUNDS = 50  # of reweighting; it settles after some ten


class InvalidLatencies(LutError, ValueError):
    exit_status = 2


@dataclass(frozen=True)
class Accuracy:
    """How predicted latencies compare with measured ones.

    Args:
        rmse_ms: root mean square of predicted - measured.
        rmspe: root mean square of predicted / measured - 1, a share.
        within_5, within_10: the share of networks whose prediction is at most 5 % (10 %) off.
        spearman, kendall: rank correlations, -1 ... 1 (Kendall's tau-b); None for fewer than two networks or all alike.
        bias: the median of predicted / measured - 1, a share.
    """

    rmse_ms: float
    rmspe: float
    within_5: float
    within_10: float
    spearman: float | None
    kendall: float | None
    bias: float


@dataclass(frozen=True)
class Overhead:
    """measured = constant_ms + factor * predicted, fitted to all networks: to be shown, not to be judged by."""

    constant_ms: float
    factor: float


@dataclass(frozen=True)
class Case:
    """One network; `error` is predicted / measured - 1."""

    name: str
    measured_ms: float
    predicted_ms: float
    error: float


@dataclass(frozen=True)
class Validation:
    """Args:
        count: networks.
        plain: the sums as they are.
        scaled, fitted: with a factor; with a factor and a constant; None for fewer than MIN_NETWORKS networks.
        factor, overhead: the fits to all networks, likewise.
        folds: how the fits were kept from the networks they are judged by.
        worst: the networks with the largest errors of `scaled`, or of `plain` without it; at most WORST.
    """  # fmt: skip

    count: int
    plain: Accuracy
    scaled: Accuracy | None
    fitted: Accuracy | None
    factor: float | None
    overhead: Overhead | None
    folds: Folds
    worst: tuple[Case, ...]


def validate(
    measured_ms: Sequence[float],
    predicted_ms: Sequence[float],
    names: Sequence[str] | None = None,
    *,
    folds: Folds = "leave-one-out",
    seed: int = 0,
) -> Validation:
    """Judge a table's sums by end-to-end latencies of the same networks, in the same order.

    Args:
        names: of the networks; None: their numbers from 0.
        folds: "split-half" draws two halves with `seed`.

    Raises:
        InvalidLatencies: no networks, lists of different lengths, or a latency that is not finite and above 0.
    """
    import numpy as np

    measured, predicted = _checked("measured", measured_ms), _checked("predicted", predicted_ms)
    names = [str(number) for number in range(len(measured))] if names is None else names
    if not len(measured) == len(predicted) == len(names):
        lengths = f"{len(measured)} measured and {len(predicted)} predicted latencies of {len(names)} networks"
        raise InvalidLatencies(f"a validation of {lengths} was asked", try_="one of each for each network")
    scaled = fitted = factor = overhead = None
    if len(measured) >= MIN_NETWORKS:
        factor, overhead = float(np.median(measured / predicted)), _robust_line(measured, predicted)
        parts = _parts(len(measured), folds, seed)
        scaled, fitted = predicted.copy(), predicted.copy()
        for judged, others in parts:
            scaled[judged] *= np.median(measured[others] / predicted[others])
            line = _robust_line(measured[others], predicted[others])
            fitted[judged] = line.constant_ms + line.factor * predicted[judged]
    shown = predicted if scaled is None else scaled
    order = np.argsort(-np.abs(shown / measured - 1), kind="stable")[:WORST]
    cases = (Case(names[i], float(measured[i]), float(shown[i]), float(shown[i] / measured[i] - 1)) for i in order)
    return Validation(
        count=len(measured),
        plain=accuracy(measured, predicted),
        scaled=None if scaled is None else accuracy(measured, scaled),
        fitted=None if fitted is None else accuracy(measured, fitted),
        factor=factor,
        overhead=overhead,
        folds=folds,
        worst=tuple(cases),
    )


def accuracy(measured_ms: NDArray[np.float64], predicted_ms: NDArray[np.float64]) -> Accuracy:
    """Args: (networks,) each, measured above 0."""
    import numpy as np

    error = predicted_ms / measured_ms - 1
    # a share of 5 % that is 5 % but for the last bit of a float counts as 5 %
    return Accuracy(
        rmse_ms=float(np.sqrt(np.mean((predicted_ms - measured_ms) ** 2))),
        rmspe=float(np.sqrt(np.mean(error**2))),
        within_5=float(np.mean(np.abs(error) <= 0.05 + 1e-12)),
        within_10=float(np.mean(np.abs(error) <= 0.10 + 1e-12)),
        spearman=_rank_correlation("spearman", measured_ms, predicted_ms),
        kendall=_rank_correlation("kendall", measured_ms, predicted_ms),
        bias=float(np.median(error)),
    )


def _checked(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    import numpy as np

    try:
        found = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidLatencies(f"a validation was asked with {name} latencies that are no numbers: {error}") from error
    if found.ndim != 1 or not len(found):
        raise InvalidLatencies(f"a validation was asked with {name} latencies of shape {found.shape}, not a list")
    wrong = np.flatnonzero(~(np.isfinite(found) & (found > 0)))
    if len(wrong):
        place = int(wrong[0])
        raise InvalidLatencies(
            f"a validation was asked with {name} latency {place} of {found[place]} ms, not finite and above 0"
        )
    return found


def _parts(count: int, folds: Folds, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(judged, fitted on) networks, each judged once and never by itself."""
    import numpy as np

    everyone = np.arange(count)
    if folds == "leave-one-out":
        return [(everyone[i : i + 1], np.delete(everyone, i)) for i in range(count)]
    shuffled = np.random.default_rng(seed).permutation(count)
    first, second = shuffled[: count // 2], shuffled[count // 2 :]
    return [(first, second), (second, first)]


def _robust_line(measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> Overhead:
    """Huber regression of (constant + factor * predicted) / measured on 1, by reweighting.

    Where the predictions are all alike (or there is but one), a constant cannot be told from a factor and is 0.
    """
    import numpy as np

    if np.ptp(predicted) <= 1e-9 * np.max(predicted):
        return Overhead(0.0, float(np.median(measured / predicted)))
    terms = np.stack([1 / measured, predicted / measured], axis=1)
    scale = terms.max(axis=0)
    weights, line = np.ones(len(measured)), np.zeros(2)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        line, *_ = np.linalg.lstsq(terms / scale * root[:, None], root, rcond=None)
        rest = np.abs(terms / scale @ line - 1)
        spread = 1.4826 * float(np.median(rest))
        # 1.345 spreads: 95 % as efficient as least squares where nothing is odd
        new = (
            np.minimum(1.0, 1.345 * spread / np.maximum(rest, 1e-300))
            if spread > 1e-12
            else (rest < 1e-9).astype(float)
        )
        if np.allclose(new, weights, atol=1e-6) or new.sum() < 2:
            break
        weights = new
    constant, factor = line / scale
    return Overhead(float(constant), float(factor))


def _rank_correlation(name: str, a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    import numpy as np
    from scipy import stats

    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return None
    test = stats.spearmanr if name == "spearman" else stats.kendalltau
    return float(test(a, b).statistic)
