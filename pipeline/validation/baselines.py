"""What else would have predicted the same networks: multiply-accumulates, and nn-Meter's random forests on kernel features.

Each is judged on the networks that the table is judged on, and never knows the network that it predicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latency_luts import LatencyTable, OpKey
from pipeline.errors import UnsupportedOp
from pipeline.sweep.bundle import activation_bytes, conv_output, weight_bytes
from pipeline.validation.measured import Judged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_TRAINED = 5
"""With fewer kernels of an op, its forest is one of all ops' kernels."""
MAX_TRAINED = 20_000
TREES = 100
LEAST_NS = 100.0
"""A time below it counts as it: forests predict the logarithm, and no runtime's clock tells so short a time."""


@dataclass(frozen=True)
class Predicted:
    """What one way of predicting says.

    Args:
        ms: network -> its latency; of `macs` its multiply-accumulates, which are no time before they are scaled.
        not_judged: network -> why nothing is said of it.
        note: what the reader should know.
    """

    ms: Mapping[str, float]
    not_judged: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def macs_of(key: OpKey) -> int:
    """Multiply-accumulates of a kernel; 0 for all but convolutions and linear layers.

    Raises: UnsupportedOp: a window that is larger than its input.
    """
    if key.op == "conv2d":
        height, width = conv_output(key)
        taps = key.kernel[0] * key.kernel[1] * (key.input_shape[1] // key.groups)
        return key.input_shape[0] * height * width * key.out_channels * taps
    return math.prod(key.input_shape) * key.out_channels if key.op == "linear" else 0


def by_macs(judged: Sequence[Judged]) -> Predicted:
    counts = {one.case.name: float(sum(map(macs_of, one.keys))) for one in judged}
    return Predicted(
        {name: count for name, count in counts.items() if count},
        {name: "it has no multiply-accumulates" for name, count in counts.items() if not count},
    )


def by_kernels_alone(
    judged: Sequence[Judged], alone_us: Mapping[OpKey, float], missing: Mapping[OpKey, str]
) -> Predicted:
    """The sum of kernels that were each timed in a model of its own.

    Args: missing: the kernels that could not be -> why.
    """
    found, without = {}, {}
    for one in judged:
        absent = [key for key in dict.fromkeys(one.keys) if key not in alone_us]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            without[one.case.name] = f"{absent[0]}{more}: {missing.get(absent[0], 'it was not measured')}"
        else:
            found[one.case.name] = math.fsum(alone_us[key] for key in one.keys) / 1e3
    return Predicted({name: ms for name, ms in found.items() if ms}, without)


def by_forests(judged: Sequence[Judged], table: LatencyTable, seed: int) -> Predicted:
    """nn-Meter's way: a random forest for each op on features of its kernels, trained on the table, summed over a network.

    For each network they are trained without its kernels. The forests predict the logarithm of the latency.

    Reference: L. L. Zhang et al., nn-Meter, MobiSys 2021, section 5. Differs from the paper: no adaptive sampling, the
    table's kernels are what there is; an op with fewer than MIN_TRAINED of them left shares a forest with all ops.
    """
    kernels = _Kernels(table)
    found, without = {}, {}
    pooled: set[str] = set()
    for one in judged:
        times, shared = kernels.predict(one.keys, seed)
        pooled |= shared
        if times is None:
            without[one.case.name] = f"fewer than {MIN_TRAINED} kernels of the table are not its own"
        else:
            found[one.case.name] = times
    note = f"too few kernels of {', '.join(sorted(pooled))} for a forest of their own" if pooled else ""
    return Predicted(found, without, note)


class _Kernels:
    """A table's kernels as features and logarithms; those whose sizes make no sense are left out."""

    def __init__(self, table: LatencyTable) -> None:
        import numpy as np

        step = max(1, math.ceil(len(table) / MAX_TRAINED))
        self._keys, rows, logs = [], [], []
        for entry in table.entries[::step]:
            try:
                rows.append(features(entry.key))
            except UnsupportedOp:
                continue
            self._keys.append(entry.key)
            logs.append(math.log(max(entry.latency_ns_median, LEAST_NS)))
        self._rows, self._logs = np.array(rows).reshape(len(rows), -1), np.array(logs)
        self._ops = np.array([op_type(key) for key in self._keys])

    def predict(self, keys: Sequence[OpKey], seed: int) -> tuple[float | None, set[str]]:
        """The sum in ms over `keys`, from all other kernels, and the ops that had no forest of their own."""
        import numpy as np

        own = frozenset(keys)
        others = np.array([key not in own for key in self._keys], dtype=np.bool_)
        if others.sum() < MIN_TRAINED:
            return None, set()
        shared: set[str] = set()
        total_ns = 0.0
        for op in dict.fromkeys(map(op_type, keys)):
            chosen = others & (self._ops == op)
            if chosen.sum() < MIN_TRAINED:
                chosen = others
                shared.add(op)
            asked = np.array([features(key) for key in keys if op_type(key) == op])
            total_ns += float(np.exp(self._forest(chosen, seed).predict(asked)).sum())
        return total_ns / 1e6, shared

    def _forest(self, chosen: NDArray[np.bool_], seed: int) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(TREES, random_state=seed).fit(self._rows[chosen], self._logs[chosen])


def op_type(key: OpKey) -> str:
    """What has a forest of its own: an op, and depthwise convolutions apart from the others."""
    depthwise = key.op == "conv2d" and key.groups > 1 and key.groups == key.input_shape[1]
    return "depthwise" if depthwise else key.op


def features(key: OpKey) -> list[float]:
    """Height, width, channels in and out, kernel, stride, groups, MACs, parameters, memory accesses.

    As logarithms, which change nothing for a tree and keep sizes of all magnitudes exact enough for its 32 bits.

    Raises: UnsupportedOp: a window that is larger than its input, a linear layer of a scalar.
    """
    shape = key.input_shape
    if key.op == "linear" and not shape:
        raise UnsupportedOp(f"features were asked of {key}")
    image = shape if len(shape) == 4 else (1, shape[-1] if shape else 1, 1, 1)
    params = weight_bytes(key) // 4
    values = (
        image[2], image[3], image[1], key.out_channels or image[1], math.prod(key.kernel), math.prod(key.stride),
        key.groups, macs_of(key), params, activation_bytes(key) // 4 + params,
    )  # fmt: skip
    return [math.log1p(value) for value in values]
