"""From a result document: what a device was like, what was brought to it and what it answered. See `document.read`."""

from __future__ import annotations

from pipeline.report.reader import Node
from pipeline.report.views import Around, BlockEnd, DeviceConditions, Moment, Numerics


def numerics(node: Node) -> Numerics:
    accuracy = node.maybe_child("accuracy")
    return Numerics(
        reference=node.text("reference"),
        inputs=node.number("inputs"),
        input_names=node.texts("input_names"),
        max_abs_error=node.maybe_number("max_abs_error"),
        relative_error=node.maybe_number("relative_error"),
        cosine=node.maybe_number("cosine"),
        top1_agreement=node.maybe_number("top1_agreement"),
        tolerance=node.maybe_number("tolerance"),
        agrees=node.flag("agrees"),
        accuracy=accuracy.maybe_number("device") if accuracy else None,
    )


def bundle(node: Node) -> tuple[str, str]:
    versions = node.child("versions").flat() if node.has("versions") else {}
    sha256 = node.text("sha256", "")
    words = [node.text("abi", ""), *(f"{name} {version}" for name, version in versions.items())]
    return node.text("kind"), ", ".join(filter(None, [*words, f"SHA-256 {sha256[:16]}" if sha256 else ""]))


def conditions(node: Node) -> DeviceConditions:
    return DeviceConditions(
        knobs=[
            (child.text("name"), ": ".join(filter(None, (child.text("state", ""), child.text("details", "")))))
            for child in node.children("set")
        ],
        trace=sorted((_moment(child) for child in node.children("trace")), key=lambda moment: moment.at_s),
        restarts=max(0, len(set(node.texts("boot_ids"))) - 1),
    )


def _clocks(node: Node) -> dict[str, float]:
    """Core -> kHz."""
    return node.child("clock_khz").every_number() if node.has("clock_khz") else {}


def _moment(node: Node) -> Moment:
    return Moment(
        at_s=node.number("at_s"),
        clock_khz=_clocks(node),
        temperature_c=node.maybe_number("temperature_c"),
        thermal_status=node.maybe_number("thermal_status"),
        load1=node.maybe_number("load1"),
    )


def around(node: Node) -> Around:
    return Around(
        load1=node.maybe_number("load1"),
        temperature_c=node.maybe_number("temperature_c"),
        clocks_khz=node.known_numbers("clocks_khz") or list(_clocks(node).values()),
    )


def block_end(node: Node) -> BlockEnd:
    return BlockEnd(node.maybe_number("core"), node.maybe_number("clock_khz"))
