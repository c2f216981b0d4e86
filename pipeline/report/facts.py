"""What a result says, in sentences and numbers, without any drawing. The page and the terminal both speak from here."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.kinds import KINDS, Kind, kind_of
from pipeline.report.text import duration, factor, percent, plus_minus, shorten, signed_percent
from pipeline.report.views import Accuracy, Bench, Estimate, Kernel, Measured, NetworkRow, Numerics, Profile

MANY = 8
"""Networks, above which the headline is of all of them."""


@dataclass(frozen=True)
class Case:
    """A profile that was measured, with its measurement at hand."""

    profile: Profile
    measured: Measured


def cases(profiles: list[Profile]) -> list[Case]:
    return [Case(profile, profile.measured) for profile in profiles if profile.measured is not None]


def comparable(a: Measured, b: Measured) -> tuple[Estimate, Estimate]:
    """The estimates of two measurements on one footing: both noise-corrected, or both plain."""
    return (a.corrected, b.corrected) if a.corrected and b.corrected else (a.plain, b.plain)


def headline(bench: Bench, limit: int = 48) -> list[str]:
    """One sentence for each network, in the document's order; names are cut to `limit` characters.

    Of more than MANY networks one sentence for all that were measured, and one for each of the others.
    """
    measured = [network for network in bench.networks if cases(bench.of(network.name))]
    if len(bench.networks) <= MANY or not measured:
        return [_sentence(bench, network, limit) for network in bench.networks] or ["No network was measured."]
    others = [_sentence(bench, network, limit) for network in bench.networks if network not in measured]
    return [_of_many(bench, measured, limit), *others]


def _of_many(bench: Bench, networks: list[NetworkRow], limit: int) -> str:
    best = [min(cases(bench.of(one.name)), key=lambda case: case.measured.best.median) for one in networks]
    fast, slow = (pick(best, key=lambda case: case.measured.best.median) for pick in (min, max))
    ends = [f"{duration(one.measured.best.median)} ({shorten(one.profile.network, limit)})" for one in (fast, slow)]
    every = cases(bench.profiles)
    unstable = sum(not case.measured.stable for case in every)
    doubt = f"; {unstable} of {len(every)} latencies are not stable" if unstable else ""
    labels = list(dict.fromkeys(case.profile.label for case in every))
    where = f" in {shorten(labels[0], limit)}" if len(labels) == 1 else ", each in the runtime that is faster for it"
    return f"{len(networks)} networks take {ends[0]} to {ends[1]}{where}{doubt}"


def _sentence(bench: Bench, network: NetworkRow, limit: int) -> str:
    name = shorten(network.name, limit)
    measured = sorted(cases(bench.of(network.name)), key=lambda case: case.measured.best.median)
    failed = [profile for profile in bench.of(network.name) if profile.failed]
    if not measured:
        why = shorten(failed[0].failed, 160) if failed else "it was not run"
        return f"{name} could not be measured: {why}"
    best = measured[0]
    sure = plus_minus(best.measured.best.half_width) + ("" if best.measured.stable else ", not stable")
    sure += ", wrong answers" if best.profile.mismatch else ""
    text = f"{name} takes {duration(best.measured.best.median)} ({sure}) in {shorten(best.profile.label, limit)}"
    if len(measured) > 1:
        second = measured[1]
        speed = compared(*comparable(best.measured, second.measured))
        text += f", {speed} in {shorten(second.profile.label, limit)}"
        text += ", whose answers are wrong" if second.profile.mismatch else ""
    elif failed:
        text += f"; it failed in {shorten(failed[0].label, limit)}"
    before = parent_case(bench, network, best.profile.label)
    if before:
        speed = compared(*comparable(best.measured, before.measured))
        text += f", and is {speed} {shorten(network.compressed_from, limit)}"
    return text


def compared(faster: Estimate, slower: Estimate) -> str:
    """ "1.2x faster than", or "as fast, within the noise, as" where the two intervals overlap."""
    if faster.overlaps(slower):
        return "as fast, within the noise, as"
    if faster.median <= slower.median:
        return f"{factor(slower.median / faster.median)} faster than"
    return f"{factor(faster.median / slower.median)} slower than"


def parent_case(bench: Bench, network: NetworkRow, label: str) -> Case | None:
    """The measurement, in the same runtime, of the network that this one was compressed from."""
    parents = cases(bench.of(network.compressed_from)) if network.compressed_from else []
    return next((case for case in parents if case.profile.label == label), None)


def speed_up(before: Measured, after: Measured) -> Estimate:
    """How many times faster `after` is, with the widest interval that the two intervals allow."""
    old, new = comparable(before, after)
    return Estimate(old.median / new.median, old.low / new.high, old.high / new.low)


def accuracy_of(accuracy: Accuracy | None, profile: Profile) -> float | None:
    """The profile's own accuracy where it has one, else its runtime's; None where it was not measured."""
    if profile.numerics and profile.numerics.accuracy is not None:
        return profile.numerics.accuracy
    return accuracy.by_runtime.get(profile.runtime) if accuracy else None


def accuracy_text(accuracy: Accuracy | None, profile: Profile) -> str:
    """ "97.5 %", or an empty text where it was not measured."""
    value = accuracy_of(accuracy, profile)
    return "" if value is None else score(value)


def score(value: float) -> str:
    return percent(value, 3) if 0 <= value <= 1 else f"{value:g}"


def accuracy_change(accuracy: Accuracy, profile: Profile) -> str:
    """The difference to torch in percentage points, or "" where one of the two is missing."""
    value = accuracy_of(accuracy, profile)
    if value is None or accuracy.torch is None:
        return ""
    points = (value - accuracy.torch) * 100
    return "same" if abs(points) < 0.005 else f"{signed_percent(points / 100)[:-2]} points"


def numerics_text(numerics: Numerics) -> str:
    """ "3.0e-07 of torch, top-1 4/4", or why there is nothing to compare with."""
    if not numerics.inputs:
        return f"not compared: {numerics.reference.removeprefix('none: ')}"
    error = "not finite against" if numerics.relative_error is None else f"{numerics.relative_error:.1e} of"
    top1 = top1_text(numerics)
    return f"{error} {numerics.reference}" + (f", top-1 {top1}" if top1 else "")


def top1_text(numerics: Numerics) -> str:
    """ "4/4": for how many inputs the largest output is the same; empty where there are no classes."""
    if numerics.top1_agreement is None:
        return ""
    return f"{numerics.top1_agreement * numerics.inputs:.0f}/{numerics.inputs:.0f}"


def mismatch_text(numerics: Numerics) -> str:
    """What is wrong with the answers of a device, as a sentence after a name."""
    text = f"disagrees with {numerics.reference} on this device"
    if numerics.relative_error is None:
        text += ": its answers are not finite numbers"
    else:
        bound = f" (bound {numerics.tolerance:g})" if numerics.tolerance is not None else ""
        text += f": error {numerics.relative_error:.2g} of the largest output{bound}"
    top1 = top1_text(numerics)
    return text + (f", top-1 agrees for {top1.replace('/', ' of ')} inputs" if top1 else "")


def mismatches(bench: Bench) -> list[tuple[str, str, str]]:
    """(network, runtime, what is wrong) of the profiles that were timed although their answers are wrong."""
    return [(p.network, p.label, mismatch_text(p.numerics)) for p in bench.profiles if p.mismatch and p.numerics]


def kernel_ms(measured: Measured) -> list[float]:
    """One time for each kernel: noise-corrected where all kernels have one, else plain for all of them."""
    corrected = [kernel.corrected.median for kernel in measured.kernels if kernel.corrected]
    if len(corrected) == len(measured.kernels):
        return corrected
    return [kernel.plain.median for kernel in measured.kernels]


def by_kind(measured: Measured) -> list[tuple[Kind, float]]:
    """The ms of each kind that there are kernels of, longest first; 0 where all were too short for the clock."""
    sums: dict[str, float] = {}
    for kernel, ms in zip(measured.kernels, kernel_ms(measured), strict=True):
        slug = kind_of(kernel.op, kernel.key).slug
        sums[slug] = sums.get(slug, 0.0) + ms
    return sorted(((KINDS[slug], ms) for slug, ms in sums.items()), key=lambda item: -item[1])


def kernel_duration(ms: float) -> str:
    """The runtimes' clocks tick in whole µs: what they count as 0 took less than one."""
    return duration(ms) if ms > 0 else "< 1 µs"


def value_range(values: list[float], unit: str, scale: float = 1.0) -> str:
    """ "1.80 – 2.60 GHz" for what was read during a measurement, "not readable" where nothing was."""
    if not values:
        return "not readable"
    low, high = f"{min(values) * scale:.2f}", f"{max(values) * scale:.2f}"
    return f"{low} {unit}" if low == high else f"{low} – {high} {unit}"


def gmacs_per_s(kernel: Kernel, ms: float) -> float | None:
    return kernel.macs / ms / 1e6 if kernel.macs and ms > 0 else None


def next_commands(bench: Bench) -> list[str]:
    """What to type next, each once: what unstable profiles ask for first, else what the stable ones suggest."""
    measured = [case.measured for case in cases(bench.profiles)]
    ordered = [m.next for m in measured if not m.stable] or [m.next for m in measured]
    return list(dict.fromkeys(text for text in ordered if text))
