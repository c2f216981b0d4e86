"""Which samples the noise-corrected median is made of, and what each becomes, as `latency_luts.stats` has it.

The same formula on what a result document holds, with the document's own thresholds, so that an old result is drawn
as it was counted. One thing is not in the document: the canary after the last sample of a block; there the one before
stands for both.
"""

from __future__ import annotations

from pipeline.report.views import Measured


def kept(measured: Measured) -> list[bool]:
    """Which samples the plain median is made of."""
    return [bool(keep) for keep in measured.kept] or [True] * len(measured.samples_ns)


def canaries_ns(measured: Measured) -> list[float]:
    """For each sample the mean of the canaries just before and just after; empty where none was timed."""
    before, last = measured.canary_ns, len(measured.canary_ns) - 1
    launch = measured.launch or [0.0] * len(before)
    block = measured.block or [0.0] * len(before)
    return [
        (own + before[i + 1]) / 2 if i < last and launch[i] == launch[i + 1] and block[i] == block[i + 1] else own
        for i, own in enumerate(before)
    ]


def undisturbed(measured: Measured, disturbed_over: float | None) -> list[bool]:
    """Which samples the noise-corrected median is made of.

    Args: disturbed_over: the canary, over its reference, from which on it was itself interrupted; None: no canary.
    """
    usable = kept(measured)
    if measured.preempted:
        usable = [use and times == 0 for use, times in zip(usable, measured.preempted, strict=True)]
    canary = measured.canary
    if canary is None or canary.reference_ns <= 0 or disturbed_over is None or not measured.canary_ns:
        return usable
    limit = disturbed_over * canary.reference_ns
    return [use and 0 < ns < limit for use, ns in zip(usable, canaries_ns(measured), strict=True)]


def corrected_ms(measured: Measured, disturbed_over: float | None) -> list[float]:
    """The undisturbed samples, each as it would be with a canary of the reference; empty without such an estimate."""
    if measured.corrected is None:
        return []
    chosen, canary = undisturbed(measured, disturbed_over), measured.canary
    if canary is None or canary.reference_ns <= 0 or not measured.canary_ns:
        return [ns / 1e6 for ns, use in zip(measured.samples_ns, chosen, strict=True) if use]
    return [
        ns / 1e6 * (canary.reference_ns / max(own, 1.0)) ** canary.exponent
        for ns, own, use in zip(measured.samples_ns, canaries_ns(measured), chosen, strict=True)
        if use
    ]
