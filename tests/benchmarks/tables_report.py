"""What `tables.py` measured, as lines to print: a table's sums and second measurements, judged by the same rounds."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latency_luts import OpKey, WarmthPoint, stats, validate
from latency_luts.validate import accuracy
from latency_luts.warmth import cold_share

Floats = NDArray[np.float64]

WORST = 10
NARROW = 0.02
MIB = 1 << 20
WEIGHTS = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 1 << 20))
"""MiB: what fits a core's L2, a share of the L3, and more."""


@dataclass(frozen=True)
class Judged:
    """The networks that the table knows all kernels of.

    Args:
        corrected, plain: µs, (networks, rounds).
        predicted: µs, (networks,), what the table says.
        cold: µs, (networks,), the sums of entries, each as in a large network.
        parts: for each network its (kernel, µs of its entry), in order.
    """

    rows: tuple[Mapping[str, Any], ...]
    corrected: Floats
    plain: Floats
    predicted: Floats
    cold: Floats
    parts: tuple[tuple[tuple[str, float], ...], ...]

    @property
    def truth(self) -> Floats:
        """The median of all rounds."""
        return np.asarray(np.median(self.corrected, axis=1), dtype=np.float64)

    @property
    def scaled(self) -> Floats:
        """The sums times a factor that the other networks gave."""
        return leave_one_out(self.truth, self.predicted)


def launch_of(told: Mapping[str, Any]) -> stats.Launch:
    sample = np.array(told["sample_ns"], dtype=np.float64)
    return stats.Launch(
        samples=sample,
        canary=np.array(told["canary_ns"], dtype=np.float64),
        block=np.array(told["block"], dtype=np.int64),
        preempted=np.array(told["preempted"], dtype=np.int64),
        kept=np.ones(len(sample), dtype=np.bool_),
    )


def round_medians(rounds: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Corrected and plain median of each round, µs; one canary reference and one exponent for the whole session."""
    launches = [launch_of(one) for one in rounds]
    reference = stats.canary_reference(launches)
    exponent = stats.canary_exponent(launches, reference)
    corrected, plain = [], []
    for one in launches:
        plain.append(stats.median(one.samples) / 1e3)
        quiet = stats.corrected(one, reference, exponent)
        corrected.append(stats.median(quiet) / 1e3 if len(quiet) else plain[-1])
    return corrected, plain


def judged(document: Mapping[str, Any]) -> tuple[Judged, list[str]]:
    """And why each of the other networks is left out."""
    entries, rows, medians, parts, left_out = document["entries"], [], [], [], []
    count = max(len(row["rounds"]) for row in document["networks"])
    for row in document["networks"]:
        missing = [key for key in row["keys"] if key not in entries]
        if missing:
            left_out.append(f"{row['name']}: {len(missing)} kernels have no entry, {missing[0]}")
        elif len(row["rounds"]) < count or not all(one["sample_ns"] for one in row["rounds"]):
            left_out.append(f"{row['name']}: it was not measured in every round")
        else:
            rows.append(row)
            medians.append(round_medians(row["rounds"]))
            parts.append(tuple((key, float(entries[key]["us"])) for key in row["keys"]))
    corrected, plain = (np.array([one[which] for one in medians]) for which in (0, 1))
    cold = np.array([sum(us for _, us in part) for part in parts])
    predicted = np.array([_told_by(document, part) for part in parts])
    return Judged(tuple(rows), corrected, plain, predicted, cold, tuple(parts)), left_out


def _told_by(document: Mapping[str, Any], part: Sequence[tuple[str, float]]) -> float:
    """As `LatencyTable.total`: between the warm and the cold sum, µs."""
    points = [WarmthPoint(*point) for point in document.get("warmth", ())]
    cold, entries = sum(us for _, us in part), document["entries"]
    warm = sum(us if entries[key].get("warm_us") is None else entries[key]["warm_us"] for key, us in part)
    return warm + cold_share(points, cold / 1e3) * (cold - warm)


def leave_one_out(truth: Floats, predicted: Floats) -> Floats:
    ratios = truth / predicted
    return np.asarray(predicted * [np.median(np.delete(ratios, i)) for i in range(len(ratios))], dtype=np.float64)


def report(document: Mapping[str, Any]) -> list[str]:
    found, left_out = judged(document)
    seconds = document["seconds"]
    own = len(document["entries"])
    lines = [
        f"\n{document['runtime']} {document['runtime_version']}; {document['machine']}; cores {document['mask']}",
        f"  {len(found.rows)} networks of {len({row['family'] for row in found.rows})} families, "
        f"{min(found.truth) / 1e3:.2f} to {max(found.truth) / 1e3:.1f} ms, "
        f"{sum(map(len, found.parts))} kernels; {own} different ones measured in {len(document['bundles'])} bundles",
        "  seconds: " + ", ".join(f"{what} {value:.0f}" for what, value in seconds.items())
        + f"; {seconds['table'] / max(1, own):.2f} a kernel",
        f"  a kernel reads {document['overhead']['ns']:.0f} ns too long "
        f"({document['overhead']['low_ns']:.0f} ... {document['overhead']['high_ns']:.0f})",
        *(f"  left out: {line}" for line in left_out[:WORST]),
    ]  # fmt: skip
    if len(found.rows) < 4:
        return [*lines, "  too few networks to judge"]
    return [
        *lines, *_accuracies(found), *_families(found), *_groups(found), *_worst(found, document),
        *_intervals(document), *_inside(found, document), *_told(document),
    ]  # fmt: skip


def _accuracies(found: Judged) -> list[str]:
    """Within 5 %, within 10 %, root mean square error: the mean over the rounds that are taken for the truth."""
    rounds = range(found.corrected.shape[1])
    macs = np.array([float(row["macs"]) for row in found.rows])
    rows: list[tuple[str, list[Any]]] = []

    def against_each(predict: Callable[[Floats], Floats]) -> list[Any]:
        return [accuracy(found.corrected[:, j], predict(found.corrected[:, j])) for j in rounds]

    pairs = list(itertools.permutations(rounds, 2))
    rows.append(("a second round", [accuracy(found.corrected[:, j], found.corrected[:, i]) for j, i in pairs]))
    rows.append(("a second round, not corrected", [accuracy(found.plain[:, j], found.plain[:, i]) for j, i in pairs]))
    rows.append(("table, times one factor", against_each(lambda truth: leave_one_out(truth, found.predicted))))
    rows.append(("table, as it is", against_each(lambda truth: found.predicted)))
    rows.append(("table, all kernels cold, one factor", against_each(lambda truth: leave_one_out(truth, found.cold))))
    rows.append(("proportional to MACs", against_each(lambda truth: leave_one_out(truth, macs))))
    lines = [
        f"\n  {'against one round (mean over rounds)':<44}{'within 5 %':>12}{'within 10 %':>12}{'RMSPE':>9}{'bias':>9}"
    ]
    lines += [_row(name, some) for name, some in rows]
    told = validate(list(found.truth / 1e3), list(found.predicted / 1e3), [row["name"] for row in found.rows])
    others = [(found.corrected[:, j], np.median(np.delete(found.corrected, j, axis=1), axis=1)) for j in rounds]
    lines.append(f"  against the median of {len(rounds)} rounds")
    rows = [
        ("one round, by the median of the others", [accuracy(rest, one) for one, rest in others]),
        (f"table, times one factor ({told.factor:.3f})", [told.scaled]),
        ("table, as it is", [told.plain]),
        ("table, all kernels cold, one factor", [accuracy(found.truth, leave_one_out(found.truth, found.cold))]),
        ("proportional to MACs", [accuracy(found.truth, leave_one_out(found.truth, macs))]),
    ]
    if told.overhead is not None:
        line = f"table, {told.overhead.factor:.3f} x + {1e3 * told.overhead.constant_ms:.0f} us"
        rows.insert(2, (line, [told.fitted]))
    return lines + [_row(name, some) for name, some in rows]


def _row(name: str, some: Sequence[Any]) -> str:
    means = [statistics.mean(getattr(one, what) for one in some) for what in ("within_5", "within_10", "rmspe", "bias")]
    return f"    {name:<42}{means[0]:>12.0%}{means[1]:>12.0%}{means[2]:>9.1%}{means[3]:>+9.1%}"


def _families(found: Judged) -> list[str]:
    names = [row["family"] for row in found.rows]
    return ["\n  by family" + HEADING[11:], *_by(found, dict.fromkeys(names), names)]


HEADING = f"{'':<36}{'count':>6}{'error, median':>15}{'middle half':>18}{'within 5 %':>12}{'a round':>10}"


def _groups(found: Judged) -> list[str]:
    """Error by what a network is, where the error of the scaled sum is shown."""
    lines = ["\n  by size" + HEADING[9:]]
    thirds = np.quantile(found.truth, [1 / 3, 2 / 3])
    lines += _by(found, ("fast third", "middle third", "slow third"), [
        ("fast third", "middle third", "slow third")[int(np.sum(us > thirds))] for us in found.truth
    ])  # fmt: skip
    lines += _by(found, [_weights(low) for low, _ in WEIGHTS], [
        _weights(next(low for low, high in WEIGHTS if row["weight_bytes"] < high * MIB)) for row in found.rows
    ])  # fmt: skip
    short = np.array([sum(us for _, us in part if us < 20) / sum(us for _, us in part) for part in found.parts])
    halves = np.median(short)
    lines += _by(found, ("few short kernels", "many short kernels"), [
        "few short kernels" if share <= halves else "many short kernels" for share in short
    ])  # fmt: skip
    return lines


def _weights(low: int) -> str:
    high = dict(WEIGHTS)[low]
    return f"weights {low} to {high} MiB" if high < 1 << 20 else f"weights over {low} MiB"


def _by(found: Judged, names: Iterable[str], labels: Sequence[str]) -> list[str]:
    """One line a label: the scaled sum's error, and how many single rounds were within 5 % of the median of the others."""
    error = found.scaled / found.truth - 1
    again = np.mean([
        np.abs(found.corrected[:, j] / np.median(np.delete(found.corrected, j, axis=1), axis=1) - 1) <= 0.05
        for j in range(found.corrected.shape[1])
    ], axis=0)  # fmt: skip
    lines = []
    for name in names:
        own = np.array([label == name for label in labels])
        if own.any():
            low, middle, high = np.percentile(error[own], [25, 50, 75])
            lines.append(
                f"    {name:<32}{own.sum():>6}{middle:>+15.1%}{f'{low:+.1%} ... {high:+.1%}':>18}"
                f"{np.mean(np.abs(error[own]) <= 0.05):>12.0%}{np.mean(again[own]):>10.0%}"
            )
    return lines


def _worst(found: Judged, document: Mapping[str, Any]) -> list[str]:
    """The networks that the table tells worst, each with the kernel whose entry is furthest from its own profile."""
    error = found.scaled / found.truth - 1
    added = document["overhead"]["ns"] / 1e3
    lines = ["\n  furthest off, and the kernel that differs most between entry and network, us"]
    for i in np.argsort(-np.abs(error))[:WORST]:
        row = found.rows[i]
        inside = [(key, us - added) for key, us in row["inside"]]
        spread = np.ptp(found.corrected[i]) / found.truth[i]
        lines.append(
            f"    {error[i]:>+6.1%}  {row['name']:<20}{found.truth[i] / 1e3:>7.2f} ms  rounds differ by {spread:.1%}"
        )
        known = [(us - document["entries"][key]["us"], key) for key, us in inside if key in document["entries"]]
        if known:
            rest, key = max(known, key=lambda one: abs(one[0]))
            lines.append(f"            {rest:>+8.1f}  {key}")
    return lines


def _intervals(document: Mapping[str, Any]) -> list[str]:
    entries = document["entries"].values()
    halves = np.array([(one["high_us"] - one["low_us"]) / 2 / one["us"] for one in entries if one["us"] > 0])
    us = np.array([one["us"] for one in entries if one["us"] > 0])
    lines = ["\n  half-widths of the entries' intervals"]
    for name, own in (("all", us > 0), ("over 5 us", us >= 5), ("over 100 us", us >= 100)):
        if own.any():
            told = ", ".join(f"{share} % below {np.percentile(halves[own], share):.1%}" for share in SHARES)
            narrow = f"{np.mean(halves[own] < NARROW):.0%} under {NARROW:.0%}"
            lines.append(f"    {name:<12}{own.sum():>6} entries: {told}; {narrow}")
    return lines


SHARES = (25, 50, 75, 90)


def kind(text: str) -> str:
    """The kind of kernel that a row is for."""
    key = OpKey.parse(text)
    if key.op != "conv2d":
        return key.op
    channels = key.input_shape[1]
    if channels <= 3:
        return "first layer"
    if key.groups == channels:
        return f"depthwise {key.kernel[0]}x{key.kernel[1]} s{key.stride[0]}"
    weight = channels // key.groups * key.out_channels * key.kernel[0] * key.kernel[1] * 4
    name = "conv 1x1" if key.kernel == (1, 1) else "conv kxk"
    return f"{name}{', grouped' if key.groups > 1 else ''}, weights {'over' if weight > 1 << 18 else 'under'} 256 KiB"


def _inside(found: Judged, document: Mapping[str, Any]) -> list[str]:
    """Where sums and networks part: the whole against its own profile, and each kind of kernel against its entries."""
    entries, added = document["entries"], document["overhead"]["ns"] / 1e3
    whole: list[float] = []
    kinds: dict[str, list[Any]] = {}
    for row, truth in zip(found.rows, found.truth, strict=True):
        if not row["inside"]:
            continue
        whole.append(sum(us - added for _, us in row["inside"]) / truth)
        for key, us in row["inside"]:
            if key in entries:
                kinds.setdefault(kind(key), []).append((entries[key]["us"], us - added))
    if not whole:
        return []
    low, middle, high = np.percentile(whole, [25, 50, 75])
    lines = [
        f"\n  own profile, less {added:.2f} us a kernel / end to end: {middle:.3f} (middle half {low:.3f} ... {high:.3f})",
        f"  {'entry / in its network':<44}{'kernels':>8}{'share':>8}{'of sums':>9}{'middle half of kernels':>26}",
    ]
    total = sum(us for some in kinds.values() for _, us in some)
    for name, some in sorted(kinds.items(), key=lambda item: -sum(us for _, us in item[1])):
        entry, own = (np.array([one[which] for one in some]) for which in (0, 1))
        ratio = np.percentile(entry / np.maximum(own, 0.1), [25, 75])
        lines.append(
            f"    {name:<42}{len(some):>8}{own.sum() / total:>8.1%}{entry.sum() / own.sum():>9.3f}"
            f"{f'{ratio[0]:.2f} ... {ratio[1]:.2f}':>26}"
        )
    return lines


def _told(document: Mapping[str, Any]) -> list[str]:
    """Networks that ran other kernels than were told from their modules: their sums are of something else."""
    lines = []
    for row in document["networks"]:
        told, ran = Counter(row["keys"]), Counter(key for key, _ in row["inside"])
        if row["inside"] and told != ran:
            differing = next(iter((told - ran) or (ran - told)))
            lines.append(
                f"    {row['name']:<20} {(told - ran).total()} told, {(ran - told).total()} ran instead: {differing}"
            )
    return ["\n  ran other kernels than told", *lines] if lines else ["\n  all networks ran the kernels that were told"]
