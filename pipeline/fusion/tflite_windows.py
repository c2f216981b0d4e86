"""Convolutions and pools as litert_torch lowers them: most of it is about what TFLite cannot pad by itself."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.fusion.ir import Value
from pipeline.fusion.tflite_stored import Stored, unknown
from pipeline.kernels.tflite_keys import window_padding


def convolution(s: Stored) -> None:
    """A PAD, where it pads, and a convolution without: whether the two are one again is decided later."""
    found = s.node.attributes
    source = pad(s, s.source, found["padding"])
    channels = source.shape[3]
    depthwise = found["groups"] == channels == found["out_channels"]
    s.add(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [source],
        s.sink,
        kernel=found["kernel"],
        stride=found["stride"],
        dilation=found["dilation"],
        padding=(0, 0, 0, 0),
        groups=found["groups"],
    )
    node, new = s.node, s.nodes[-1]
    new.weights, new.weight_id = node.weights, node.weight_id
    if not found["bias"]:
        new.weights += found["out_channels"]  # TFLite's convolutions always have one


def pad(s: Stored, value: Value, padding: Sequence[int], op: str = "PAD") -> Value:
    """(top, left, bottom, right) around an image with the channels last."""
    top, left, bottom, right = padding
    if not any(padding):
        return value
    n, h, w, c = value.shape
    padded = Value((n, h + top + bottom, w + left + right, c), value.dtype)
    return s.add(op, [value], padded, pads=((0, 0), (top, bottom), (left, right), (0, 0)))


def pool(s: Stored) -> None:
    """With SAME where that pads alike; else over an image that was padded. An average counts its padding, unless told."""
    found = s.node.attributes
    padding, extra = found["padding"], _over_edge(s)
    average = s.node.op == "avg_pool2d"
    whole = (*padding[:2], padding[2] + extra[0], padding[3] + extra[1])
    same = window_padding(
        True, (s.source.shape[1], s.source.shape[2]), found["kernel"], found["stride"], found["dilation"]
    )
    name = "AVERAGE_POOL_2D" if average else "MAX_POOL_2D"
    windows = {"kernel": found["kernel"], "stride": found["stride"]}
    outside = any(padding) and (not average or not found["count_padding"])
    if not any(whole):
        s.add(name, s.inputs, s.sink, padding=(0, 0, 0, 0), **windows)
    elif whole == same and (outside or not average):
        s.add(name, s.inputs, s.sink, padding=same, **windows)
    elif not average:
        s.add(name, [pad(s, s.source, whole, "PADV2")], s.sink, padding=(0, 0, 0, 0), **windows)
    elif outside or (any(extra) and any(padding)):
        raise unknown(s.node)
    else:
        padded = pad(s, s.source, whole)
        if not any(extra):
            s.add(name, [padded], s.sink, padding=(0, 0, 0, 0), **windows)
            return
        mean = s.add(name, [padded], s.like(s.sink), padding=(0, 0, 0, 0), **windows)
        s.add("MUL", [mean, Value((1, *s.sink.shape[1:3], 1), "float32", True)], s.sink)


def _over_edge(s: Stored) -> tuple[int, int]:
    """By how much the last windows of a pool with ceil_mode reach over the padded image: (rows, columns)."""
    found, extra = s.node.attributes, []
    for axis in (0, 1):
        size = s.source.shape[1 + axis] + found["padding"][axis] + found["padding"][axis + 2]
        reach = (s.sink.shape[1 + axis] - 1) * found["stride"][axis] + found["kernel"][axis]
        extra.append(max(0, reach - size) if found["ceil"] else 0)
    return extra[0], extra[1]


def adaptive_pool(s: Stored) -> None:
    size, source = s.node.attributes["size"], s.node.inputs[0].shape
    if size == (1, 1):
        s.add("MEAN", s.inputs, s.sink, axes=tuple(sorted((s.axis(2), s.axis(3)))))
        return
    if source[2] % size[0] or source[3] % size[1]:
        raise unknown(s.node)
    kernel = (source[2] // size[0], source[3] // size[1])
    s.add("AVERAGE_POOL_2D", s.inputs, s.sink, kernel=kernel, stride=kernel, padding=(0, 0, 0, 0))
