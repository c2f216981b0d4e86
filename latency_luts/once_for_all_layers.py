"""The layers of once-for-all and ProxylessNAS: their texts, and the kernels of each.

    Conv-input:224x224x3-output:112x112x32          the first convolution, 3x3, stride 2
    expanded_conv-input:56x56x24-output:28x28x40-expand:3-kernel:5-stride:2-idskip:0
                                                    a block of ProxylessNAS; expand is a ratio
    expanded_conv-...-expand:96-kernel:3-stride:1-idskip:1-se:0-hs:1
                                                    one of MobileNetV3; expand is the channels in between
    Conv_1-..., Conv_2-...                          1x1 convolutions
    AvgPool2D-...                                   pooling to 1x1
    Logits-input:1x1x1280-output:1000               linear, after pooling where the input is larger than 1x1

Shapes are height x width x channels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Literal

from latency_luts.key import InvalidKey, OpKey, short
from latency_luts.table import LatencyTable

Style = Literal["proxyless", "mobilenet_v3"]

MAX_LAYERS = 200_000

_BLOCK = "expanded_conv"
_LAYER = re.compile(
    r"(?P<kind>Conv|Conv_1|Conv_2|AvgPool2D|Logits|expanded_conv)"
    r"-input:(?P<input>[1-9][0-9]{0,5}x[1-9][0-9]{0,5}x[1-9][0-9]{0,5})"
    r"-output:(?P<output>[1-9][0-9]{0,5}(?:x[1-9][0-9]{0,5}x[1-9][0-9]{0,5})?)"
    r"(?:-expand:(?P<expand>[1-9][0-9]{0,5})-kernel:(?P<kernel>[1-9][0-9]?)-stride:(?P<stride>[12])-idskip:(?P<idskip>[01])"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?"
)


def kernels(name: str, *, style: Style = "proxyless", dtype: str = "float32") -> list[tuple[OpKey, ...]]:
    """The kernels of a layer, one tuple for each way in which runtimes run it.

    A residual is added inside the last convolution, or by a kernel of its own; pooling is a mean over height and width, or an
    average pooling of that size; an activation is fused. Activations: relu6 in "proxyless"; in "mobilenet_v3" relu, and
    hardswish where the text says hs:1 and in Conv, Conv_1 and Conv_2.

    Raises:
        InvalidKey: no layer's text, or one that has no kernels here; the message says why.
    """
    match = _LAYER.fullmatch(name)
    if match is None or (match["kind"] == _BLOCK) != (match["expand"] is not None):
        raise InvalidKey(f"a once-for-all layer was asked from {short(name)}, which is not the text of one")
    kind, (height, width, c_in) = match["kind"], _numbers(match["input"])
    output = _numbers(match["output"])
    if (kind == "Logits") != (len(output) == 1):
        raise InvalidKey(f"a once-for-all layer was asked from {short(name)}, whose output has {len(output)} numbers")
    outer, inner = ("hardswish", "relu") if style == "mobilenet_v3" else ("relu6", "relu6")
    shape = (1, c_in, height, width)
    ways: list[tuple[OpKey, ...]]
    if kind == "Logits":
        linear = (OpKey("linear", (1, c_in), output[0], dtype=dtype),)
        return [linear] if (height, width) == (1, 1) else [(pool, *linear) for pool in _pools(shape, dtype)]
    c_out = output[2]
    if kind == "AvgPool2D":
        ways = [(pool,) for pool in _pools(shape, dtype)] if output == (1, 1, c_in) else []
    elif kind == _BLOCK:
        if match["se"] == "1":
            raise InvalidKey(f"{name} has squeeze and excitation, whose kernels no layer text says")
        ways = _block(shape, c_out, match, "hardswish" if match["hs"] == "1" else inner, dtype)
    else:
        size, stride = (3, 2) if kind == "Conv" else (1, 1)
        ways = [(_conv(shape, c_out, size, stride, outer, dtype),)]
    if not ways or _output(ways[0], shape) != output:
        raise InvalidKey(f"{name} has another output than its layer with padding k // 2 gives")
    return ways


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _conv(shape: tuple[int, ...], c_out: int, size: int, stride: int, act: str, dtype: str, **more: Any) -> OpKey:
    pad = (size // 2,) * 4
    return OpKey(
        "conv2d", shape, c_out, (size, size), (stride, stride), (pad[0], pad[1], pad[2], pad[3]),
        activation=act, dtype=dtype, **more,
    )  # fmt: skip


def _pools(shape: tuple[int, ...], dtype: str) -> list[OpKey]:
    size = (shape[2], shape[3])
    return [OpKey("mean", shape, dtype=dtype, detail="axes=2,3"), OpKey("avg_pool", shape, 0, size, size, dtype=dtype)]


def _block(shape: tuple[int, ...], c_out: int, match: re.Match[str], act: str, dtype: str) -> list[tuple[OpKey, ...]]:
    """A block's kernels; with a residual in both ways."""
    expand, size, stride, c_in = int(match["expand"]), int(match["kernel"]), int(match["stride"]), shape[1]
    between = expand if match["se"] is not None else c_in * expand
    wide = (1, between, *shape[2:])
    depthwise = _conv(wide, between, size, stride, act, dtype, groups=between)
    small = (1, between, _side(depthwise, 0), _side(depthwise, 1))
    head = [] if between == c_in else [_conv(shape, between, 1, 1, act, dtype)]
    last = _conv(small, c_out, 1, 1, "none", dtype)
    if match["idskip"] == "0":
        return [(*head, depthwise, last)]
    added = OpKey("add", (1, c_out, *small[2:]), dtype=dtype)
    fused = _conv(small, c_out, 1, 1, "none", dtype, fused_add=True)
    return [(*head, depthwise, fused), (*head, depthwise, last, added)]


def _side(key: OpKey, side: int) -> int:
    return (key.input_shape[2 + side] + 2 * key.padding[side] - key.kernel[side]) // key.stride[side] + 1


def _output(way: tuple[OpKey, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """(height, width, channels) after a layer's convolutions or pooling."""
    if way[0].op != "conv2d":
        return (1, 1, shape[1])
    last = [key for key in way if key.op == "conv2d"][-1]
    return (_side(last, 0), _side(last, 1), last.out_channels)


def layers_of(table: LatencyTable, style: Style) -> set[str]:
    """The layers that may be put together from a table's kernels, at most MAX_LAYERS."""
    names = itertools.islice(itertools.chain(_singles(table), _blocks(table, style)), MAX_LAYERS)
    return set(names)


def _singles(table: LatencyTable) -> Iterator[str]:
    for key in (entry.key for entry in table):
        c_in = key.input_shape[1] if len(key.input_shape) in (2, 4) else 0
        if key.op == "linear" and len(key.input_shape) == 2:
            yield f"Logits-input:1x1x{c_in}-output:{key.out_channels}"
        elif key.op in ("mean", "avg_pool") and len(key.input_shape) == 4:
            yield f"AvgPool2D-input:{_hwc(key)}-output:1x1x{c_in}"
        elif key.op == "conv2d":
            kind = "Conv" if key.kernel == (3, 3) else "Conv_2" if key.input_shape[2:] == (1, 1) else "Conv_1"
            yield f"{kind}-input:{_hwc(key)}-output:{_hwc(key, after=True)}"


def _blocks(table: LatencyTable, style: Style) -> Iterator[str]:
    convs = [entry.key for entry in table if entry.key.op == "conv2d" and entry.key.kernel[0] == entry.key.kernel[1]]
    points = [key for key in convs if key.kernel == (1, 1) and key.groups == 1]
    for middle in (key for key in convs if 1 < key.groups == key.input_shape[1] == key.out_channels):
        between, hwc = middle.out_channels, _hwc(middle, after=True)
        # Who expands into it, or nobody: then the block's input is its own.
        before = [
            key for key in points if (key.out_channels, *key.input_shape[2:]) == (between, *middle.input_shape[2:])
        ]
        after = [key for key in points if _hwc(key) == hwc and key.activation == "none"]
        for c_in, last in itertools.product({key.input_shape[1] for key in before} | {between}, after):
            block = f"-kernel:{middle.kernel[0]}-stride:{middle.stride[0]}"
            shapes = (
                f"{_BLOCK}-input:{middle.input_shape[2]}x{middle.input_shape[3]}x{c_in}-output:{_hwc(last, after=True)}"
            )
            same = c_in == last.out_channels and middle.stride == (1, 1)
            for skip in range(1 + same):
                if style == "mobilenet_v3":
                    acts = int(middle.activation == "hardswish")
                    yield f"{shapes}-expand:{between}{block}-idskip:{skip}-se:0-hs:{acts}"
                elif between % c_in == 0:
                    yield f"{shapes}-expand:{between // c_in}{block}-idskip:{skip}"


def _hwc(key: OpKey, *, after: bool = False) -> str:
    _, channels, height, width = key.input_shape
    return f"{_side(key, 0)}x{_side(key, 1)}x{key.out_channels}" if after else f"{height}x{width}x{channels}"
