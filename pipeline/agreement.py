"""A device's answers against those that are right: how far apart, and whether that is near enough.

relative error = max |y - y_ref| / max |y_ref| over all outputs of one input, the worst over all inputs: the figure that
`pipeline.export.parity` has for the file on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.deploy import Deployed
from pipeline.reference_outputs import Output, Reference

Doubles = NDArray[np.float64]
Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Accuracy:
    """Share of inputs with the right class, 0-1, of the device's answers and of the reference's."""

    data: str
    device: float
    reference: float
    metric: str = "top1"


@dataclass(frozen=True)
class Agreement:
    """One case on the device against the reference.

    Args:
        case: the id of the deployed case.
        reference: "torch", "onnxruntime on this machine", "litert on this machine", or "none: why".
        inputs: how many were compared; 0 where there is no reference.
        max_abs_error, relative_error: infinite where an answer is not finite.
        cosine: of the angle between both answers, the smallest over the inputs.
        top1_agreement: the share of inputs, 0-1, whose largest output is the same; an output that the reference has
            within the tolerance of its largest counts as the largest. None where the output is not (1, classes).
        tolerance: bound on `relative_error`.
        accuracy: where the inputs' classes are known.
        failed: why there are no outputs.
    """

    case: str
    reference: str
    inputs: int
    input_names: tuple[str, ...]
    max_abs_error: float
    relative_error: float
    cosine: float
    top1_agreement: float | None
    tolerance: float
    accuracy: Accuracy | None = None
    failed: str | None = None

    @property
    def agrees(self) -> bool:
        """Also where there is nothing to compare with: `reference` says why."""
        return self.failed is None and (self.inputs == 0 or self.relative_error <= self.tolerance)

    @property
    def complaint(self) -> str:
        """One line for the user: what was found and what to try; empty where the case agrees."""
        if self.agrees:
            return ""
        if self.failed is not None:
            return f"{self.case} could not be run on the device: {self.failed}"
        found = "its answers are not finite numbers"
        if math.isfinite(self.relative_error):
            found = f"error {self.relative_error:.2g} of the largest output (bound {self.tolerance:g})"
        if self.top1_agreement is not None:
            found += f", top-1 agrees for {round(self.top1_agreement * self.inputs)} of {self.inputs} inputs"
        line = f"{self.case} disagrees with {self.reference} on this device: {found}"
        return f"{line}; try: --allow-mismatch to time it anyway"


def as_document(agreement: Agreement) -> dict[str, Any]:
    """`numerics` of a profile in the result document; what is not a finite number is None."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    accuracy = agreement.accuracy
    return {
        "reference": agreement.reference,
        "inputs": agreement.inputs,
        "input_names": list(agreement.input_names),
        "max_abs_error": finite(agreement.max_abs_error),
        "relative_error": finite(agreement.relative_error),
        "cosine": finite(agreement.cosine),
        "top1_agreement": agreement.top1_agreement,
        "tolerance": agreement.tolerance,
        "agrees": agreement.agrees,
        "accuracy": None
        if accuracy is None
        else {
            "data": accuracy.data,
            "metric": accuracy.metric,
            "device": accuracy.device,
            "reference": accuracy.reference,
        },
    }


def accuracy_row(agreements: Sequence[Agreement], cases: Sequence[Deployed]) -> dict[str, Any] | None:
    """`accuracy` of one network in the result document, from its cases; None where its classes are not known.

    A runtime that is there more than once, with another delegate or in another bundle, gives its lowest figure; each
    profile has its own.
    """
    known = {one.case: one.accuracy for one in agreements if one.accuracy is not None}
    row: dict[str, Any] = {}
    for case in cases:
        accuracy = known.get(case.id)
        if accuracy is not None:
            row |= {"data": accuracy.data, "metric": accuracy.metric, "torch": accuracy.reference}
            row[case.runtime] = min(accuracy.device, row.get(case.runtime, 1.0))
    return row or None


@dataclass(frozen=True)
class Answer:
    """What a device gave for one case: raw outputs of all inputs, one after another.

    Args:
        tensors: the (name, bytes) of each output of one inference, in their order.
    """

    data: bytes = b""
    tensors: tuple[tuple[str, int], ...] = ()
    failed: str | None = None


def compare(case: str, reference: Reference, answer: Answer) -> Agreement:
    """A device's answer against the reference's."""
    count = len(reference.inputs)
    if not reference.outputs:
        return Agreement(case, reference.name, 0, (), math.nan, math.nan, math.nan, None, reference.tolerance)
    failed = answer.failed
    pairs = [] if failed else pair_up(reference.outputs, answer, count)
    if failed is None and not pairs:
        sizes = ", ".join(str(size) for _, size in answer.tensors)
        failed = f"it gave {len(answer.data)} bytes for {count} inputs ({sizes} each), not those of {reference.name}"
    if failed is not None:
        failures = (math.inf, math.inf, math.nan, None, reference.tolerance, None, failed)
        return Agreement(case, reference.name, count, reference.input_names, *failures)
    expected, given = (np.concatenate([_rows(pair[side]) for pair in pairs], axis=1) for side in (0, 1))
    classes = _classes(pairs)
    return Agreement(
        case,
        reference.name,
        count,
        reference.input_names,
        max_abs_error=_worst(np.abs(given - expected).max(axis=1, initial=0.0), given, expected),
        relative_error=max(_relative_error(y, y_ref) for y, y_ref in zip(given, expected, strict=True)),
        cosine=float(np.min([_cosine(y, y_ref) for y, y_ref in zip(given, expected, strict=True)])),  # NaN stays
        top1_agreement=None if classes is None else _top1_agreement(*classes, reference.tolerance),
        tolerance=reference.tolerance,
        accuracy=_accuracy(reference, classes),
    )


def pair_up(expected: Sequence[Output], answer: Answer, count: int) -> list[Pair]:
    """(expected, given), each (count, *shape), for every output that both have; empty where sizes do not fit.

    By name where names tell the outputs of both sides apart and both have some, else in their order: a runtime may give
    the outputs of a file in another order than a second one does.
    """
    if len(answer.data) != count * sum(size for _, size in answer.tensors) or not count:
        return []
    rows = np.frombuffer(answer.data, np.uint8).reshape(count, -1)
    ends = np.cumsum([size for _, size in answer.tensors])
    given = [(name, rows[:, end - size : end]) for (name, size), end in zip(answer.tensors, ends, strict=True)]
    by_name = dict(given)
    told_apart = len(by_name) == len(given) and len(dict(expected)) == len(expected)
    chosen = [(values, by_name[name]) for name, values in expected if name in by_name] if told_apart else []
    if not chosen:
        chosen = [(values, raw) for (_, values), (_, raw) in zip(expected, given, strict=False)]
    if any(raw.shape[1] * count != values.nbytes for values, raw in chosen):
        return []
    return [
        (values, np.ascontiguousarray(raw).view(values.dtype.newbyteorder("<")).reshape(values.shape))
        for values, raw in chosen
    ]


def _rows(values: NDArray[Any]) -> Doubles:
    return values.reshape(len(values), -1).astype(np.float64)


def _classes(pairs: Sequence[Pair]) -> tuple[Doubles, Doubles] | None:
    """(expected, given) as (n, classes), where the network gives one number a class and nothing else."""
    if len(pairs) != 1 or pairs[0][0].ndim != 3 or pairs[0][0].shape[1] != 1 or pairs[0][0].shape[2] < 2:
        return None
    return _rows(pairs[0][0]), _rows(pairs[0][1])


def _worst(errors: Doubles, *values: Doubles) -> float:
    return float(errors.max()) if all(np.isfinite(some).all() for some in values) else math.inf


def _relative_error(given: Doubles, expected: Doubles) -> float:
    from pipeline.export.parity import relative_error

    return relative_error(given, expected)  # type: ignore[arg-type]


def _cosine(given: Doubles, expected: Doubles) -> float:
    if not (np.isfinite(given).all() and np.isfinite(expected).all()):
        return math.nan
    lengths = float(np.linalg.norm(given)), float(np.linalg.norm(expected))
    if 0.0 in lengths:
        return 1.0 if lengths == (0.0, 0.0) else 0.0
    return float(np.dot(given / lengths[0], expected / lengths[1]))


def _top1_agreement(expected: Doubles, given: Doubles, tolerance: float) -> float:
    chosen = np.take_along_axis(expected, np.nan_to_num(given, nan=-np.inf).argmax(1)[:, None], 1)[:, 0]
    near = expected.max(1) - tolerance * np.abs(expected).max(1)
    return float(((chosen >= near) & np.isfinite(given).all(1)).mean())


def _accuracy(reference: Reference, classes: tuple[Doubles, Doubles] | None) -> Accuracy | None:
    if reference.labels is None or classes is None:
        return None
    from pipeline.evaluate import top1

    return Accuracy(
        reference.data, device=top1(classes[1], reference.labels), reference=top1(classes[0], reference.labels)
    )
