"""From a result document to typed, cleaned, checked views. What comes behind this module can trust what it holds.

A document comes from a disk, its texts from phones and model files. Texts are cleaned here (`text.clean`) and escaped
where they are written; numbers are finite or an error names the field. Nothing that is missing gets a made-up value:
it is None, or the document is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pipeline.artifact import Parity
from pipeline.report import device_document as device
from pipeline.report.reader import Node
from pipeline.report.text import spaced_percents
from pipeline.report.views import (
    Accuracy,
    Artifact,
    Bench,
    Canary,
    Estimate,
    Kernel,
    Layer,
    Measured,
    NetworkRow,
    Profile,
)

SCHEMA_VERSION = 1
BESIDE = ("canary_ns", "start_ns", "preempted", "launch", "block", "kept")


def read(result: Mapping[str, object]) -> Bench:
    """The views of a result document.

    Raises:
        UsageError: it is no bench result, was written by a newer version, or a field is missing or of the wrong kind.
    """
    node = Node(result)
    if node.text("kind") != "bench":
        node.refuse("kind", "a bench result")
    if node.number("schema_version") > SCHEMA_VERSION:
        node.refuse("schema_version", f"at most {SCHEMA_VERSION}", try_="a newer handset")
    about, conditions = node.child("device"), node.maybe_child("device_conditions")
    canary = node.maybe_child("canary")
    return Bench(
        run=node.text("run"),
        created=node.text("created"),
        command=node.text("command", ""),
        handset=node.text("handset", ""),
        complete=node.flag("complete"),
        device=about.flat(),
        device_name=about.text("name"),
        simulated=about.flag("simulated"),
        memory_bytes=about.maybe_number("memory_bytes"),
        settings=node.child("settings").flat() if node.has("settings") else {},
        runner=node.child("runner").flat() if node.has("runner") else {},
        canary_kind=canary.text("kind", "") if canary else "",
        disturbed_over=canary.maybe_number("disturbed_over") if canary else None,
        tables=node.child("tables").flat() if node.has("tables") else {},
        notes=node.texts("notes"),
        stages_s=node.child("stages_s").every_number() if node.has("stages_s") else {},
        networks=[_network(child) for child in node.children("networks")],
        profiles=_labelled([_profile(child) for child in node.children("profiles")]),
        conditions=device.conditions(conditions) if conditions else None,
        bundles=[device.bundle(child) for child in node.children("bundles")],
    )


def _labelled(profiles: list[Profile]) -> list[Profile]:
    """Profiles with labels that tell a network's profiles apart: by the delegate and threads only where needed.

    The bundle is named for all where a run has several: what differs then is more than a label.
    """
    bundles = {profile.bundle for profile in profiles if profile.bundle}

    def told_by(*fields: str) -> list[str]:
        found = [" ".join(str(getattr(p, field)) for field in ("network", *fields)) for p in profiles]
        times = Counter(found)
        return [text for text in found if times[text] > 1]

    ambiguous, still = told_by("runtime", "bundle"), told_by("runtime", "bundle", "delegate")
    labelled = []
    for profile in profiles:
        label, told = profile.runtime, f"{profile.network} {profile.runtime} {profile.bundle}"
        if told in ambiguous and profile.delegate:
            label += f" {profile.delegate}"
        if f"{told} {profile.delegate}" in still and profile.threads is not None:
            label += f" t{profile.threads:.0f}"
        if len(bundles) > 1 and profile.bundle:
            label += f" ({profile.bundle})"
        labelled.append(replace(profile, label=label))
    return labelled


def _network(node: Node) -> NetworkRow:
    accuracy, compression = node.maybe_child("accuracy"), node.maybe_child("compression")
    return NetworkRow(
        name=node.text("name"),
        source=node.text("source", ""),
        input_shape=node.numbers("input_shape"),
        params=node.maybe_number("params"),
        macs=node.maybe_number("macs"),
        accuracy=_accuracy(accuracy) if accuracy else None,
        compressed_from=node.text("compressed_from", ""),
        method=compression.text("method", "") if compression else "",
        layers=[_layer(child) for child in compression.children("layers")] if compression else [],
    )


def _accuracy(node: Node) -> Accuracy:
    return Accuracy(
        data=node.text("data", ""),
        metric=node.text("metric", ""),
        torch=node.maybe_number("torch"),
        by_runtime=node.every_number(leave_out=("data", "metric", "torch")),
    )


def _layer(node: Node) -> Layer:
    return Layer(
        name=node.text("layer"),
        ranks=", ".join(f"{rank:.0f}" for rank in node.numbers("ranks")),
        params_before=node.maybe_number("params_before"),
        params_after=node.maybe_number("params_after"),
        relative_error=node.maybe_number("relative_error"),
    )


def _profile(node: Node) -> Profile:
    failed, artifact, numerics = node.text("failed", ""), node.maybe_child("artifact"), node.maybe_child("numerics")
    return Profile(
        network=node.text("network"),
        runtime=node.text("runtime"),
        label="",
        runtime_version=node.text("runtime_version", ""),
        runtime_sha256=node.text("runtime_sha256", ""),
        delegate=node.text("delegate", ""),
        artifact=_artifact(artifact) if artifact else None,
        threads=node.maybe_number("threads"),
        cpu_mask=node.text("cpu_mask", ""),
        bundle=node.text("bundle", ""),
        numerics=device.numerics(numerics) if numerics else None,
        failed=failed,
        measured=None if failed else _measured(node),
    )


def _artifact(node: Node) -> Artifact:
    parity = node.maybe_child("parity")
    return Artifact(
        file=node.text("file"),
        sha256=node.text("sha256", ""),
        bytes=node.maybe_number("bytes"),
        converter=node.text("converter", ""),
        parity=Parity(parity.number("tolerance"), parity.number("worst_error"), parity.child("errors").every_number())
        if parity
        else None,
    )


def _estimate(node: Node) -> Estimate:
    low, high = node.pair("interval")
    return Estimate(node.number("median"), low, high)


def _measured(node: Node) -> Measured:
    latency, verdict = node.child("latency_ms"), node.child("verdict")
    corrected, profiled, canary = (
        latency.maybe_child("corrected"), node.maybe_child("profiled_ms"), node.maybe_child("canary"),
    )  # fmt: skip
    conditions, samples = node.children("conditions"), node.numbers("samples_ns")
    beside = {name: node.numbers(name) for name in BESIDE}
    for name, values in beside.items():
        if values and len(values) != len(samples):
            node.refuse(name, f"{len(samples)} entries, one for each of samples_ns")
    return Measured(
        plain=_estimate(latency),
        corrected=_estimate(corrected) if corrected else None,
        confidence=latency.number("confidence"),
        samples_ns=samples,
        **beside,
        warmup_ns=node.numbers("warmup_ns"),
        canary=_canary(canary) if canary else None,
        launch_medians_ms=node.numbers("launch_medians_ms"),
        preempted_share=node.maybe_number("preempted_share"),
        disturbed_share=node.maybe_number("disturbed_share"),
        profiled=_estimate(profiled.maybe_child("corrected") or profiled) if profiled else None,
        kernels_sum_ms=node.maybe_number("kernels_sum_ms"),
        kernels_sum_plain_ms=node.maybe_number("kernels_sum_plain_ms"),
        profiler_cost_ms=node.maybe_number("profiler_cost_ms"),
        between_kernels_ms=node.maybe_number("between_kernels_ms"),
        kernels=[_kernel(child) for child in node.children("kernels")],
        kernels_missing=node.text("kernels_missing", ""),
        peak_memory_bytes=node.maybe_number("peak_memory_bytes"),
        model_load_ms=node.maybe_number("model_load_ms"),
        around=[device.around(child) for child in conditions if not child.has("at_ns")],
        block_ends=[device.block_end(child) for child in conditions if child.has("at_ns")],
        stable=verdict.flag("stable"),
        verdict=spaced_percents(verdict.text("text", "")),
        reasons=[spaced_percents(reason) for reason in verdict.texts("reasons")],
        next=verdict.text("next", ""),
    )


def _kernel(node: Node) -> Kernel:
    latency = node.child("latency_ms")
    corrected = latency.maybe_child("corrected")
    return Kernel(
        index=int(node.number("index")),
        name=node.text("name"),
        op=node.text("op"),
        runtime_kernel=node.text("runtime_kernel", ""),
        key=node.text("key", "") or None,
        plain=_estimate(latency),
        corrected=_estimate(corrected) if corrected else None,
        share=node.number("share"),
        macs=node.maybe_number("macs"),
    )


def _canary(node: Node) -> Canary:
    return Canary(
        reference_ns=node.number("reference_ns"),
        origin=node.text("reference_origin", ""),
        own_ns=node.maybe_number("own_ns"),
        exponent=node.number("exponent"),
    )
