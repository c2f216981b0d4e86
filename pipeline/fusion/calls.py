"""What torch's functions are called with -> the op's attributes: one entry a function that networks are made of.

The names are torch's own (`torch.nn.functional.relu`, `torch.relu_`, `Tensor.relu` and `aten.relu.default` are all relu).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.fusion.ir import Shape
from pipeline.kernels.file_op import same_padding

Bound = dict[str, Any]

ALIASES = {
    "iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "multiply": "mul", "subtract": "sub",
    "truediv": "div", "itruediv": "div", "divide": "div", "true_divide": "div", "concat": "cat", "concatenate": "cat",
    "swapaxes": "transpose", "swapdims": "transpose", "movedim": "permute", "view_as": "view", "reshape_as": "reshape",
    "clip": "clamp", "upsample": "interpolate", "constant_pad_nd": "pad", "max_pool2d_with_indices": "max_pool2d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d", "split_with_sizes": "split", "unsafe_split": "split",
    "unsafe_chunk": "chunk", "native_channel_shuffle": "channel_shuffle", "convolution": "conv2d", "rsub": "rsub",
}  # fmt: skip
"""Other spellings of an op. Underscores at both ends are gone already."""

PASSES = frozenset(
    {
        "dropout", "dropout2d", "dropout1d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "contiguous",
        "clone", "detach", "alias", "identity", "lift_fresh_copy", "requires_grad", "to", "float", "type_as", "data",
    }
)  # fmt: skip
"""What gives its input on in a network that is not trained."""

ELEMENTWISE = frozenset(
    {
        "relu", "relu6", "leaky_relu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "gelu", "elu", "prelu",
        "mish", "softplus", "hardtanh", "clamp", "clamp_min", "clamp_max", "exp", "log", "sqrt", "rsqrt", "abs", "neg",
        "square", "softmax", "log_softmax", "batch_norm", "channel_shuffle",
    }
)  # fmt: skip
"""What has its input's shape."""


ARITHMETIC = ("add", "sub", "mul", "div", "rsub")


@dataclass(frozen=True)
class Call:
    """A function's parameters in order, and what its arguments say. `shape`: of its output; None: torch is asked."""

    parameters: tuple[str, ...]
    attributes: Callable[[Bound, Shape], dict[str, Any]] = lambda bound, shape: {}
    shape: Callable[[dict[str, Any], Shape], Shape] | None = None

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Bound:
        return {**dict(zip(self.parameters, args, strict=False)), **kwargs, "rest": args[len(self.parameters) :]}


def pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _conv(bound: Bound, source: Shape) -> dict[str, Any]:
    weight = bound["weight"].shape
    if len(source) != 4 or weight[1] * int(bound.get("groups", 1)) != source[1]:
        raise ValueError(f"a convolution of {weight[1] * int(bound.get('groups', 1))} channels is given {source}")
    kernel, stride, dilation = tuple(weight[2:]), pair(bound.get("stride", 1)), pair(bound.get("dilation", 1))
    padding = bound.get("padding", 0)
    if padding == "same":
        top, bottom = same_padding(source[2], kernel[0], 1, dilation[0])
        left, right = same_padding(source[3], kernel[1], 1, dilation[1])
    elif padding == "valid":
        top = left = bottom = right = 0
    else:
        (top, left) = (bottom, right) = pair(padding)
    return {
        "kernel": tuple(map(int, kernel)),
        "stride": stride,
        "padding": (top, left, bottom, right),
        "dilation": dilation,
        "groups": int(bound.get("groups", 1)),
        "out_channels": int(weight[0]),
        "bias": bound.get("bias") is not None,
    }


def _conv_shape(attributes: dict[str, Any], source: Shape) -> Shape:
    return (source[0], attributes["out_channels"], *window_shape(attributes, source, ceil=False))


def window_shape(attributes: dict[str, Any], source: Shape, *, ceil: bool) -> tuple[int, int]:
    """(height, width) of what a window that moves over an image gives."""
    sizes = []
    for axis in (0, 1):
        stride, before, after = (
            attributes["stride"][axis],
            attributes["padding"][axis],
            attributes["padding"][axis + 2],
        )
        span = (attributes["kernel"][axis] - 1) * attributes.get("dilation", (1, 1))[axis] + 1
        room = source[2 + axis] + before + after - span
        size = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (size - 1) * stride >= source[2 + axis] + before:
            size -= 1  # the last window must begin inside the image or its padding before
        if size < 1:
            raise ValueError(f"a window of {span} is larger than what it is given, {source}")
        sizes.append(size)
    return sizes[0], sizes[1]


def _pool(bound: Bound, source: Shape) -> dict[str, Any]:
    if len(source) != 4:
        raise ValueError(f"a pool of images is given {source}")
    kernel = pair(bound["kernel_size"])
    stride = bound.get("stride")
    padding = pair(bound.get("padding", 0))
    return {
        "kernel": kernel,
        "stride": kernel if stride is None or stride == [] else pair(stride),
        "padding": (*padding, *padding),
        "dilation": pair(bound.get("dilation", 1)),
        "ceil": bool(bound.get("ceil_mode", False)),
        "count_padding": bool(bound.get("count_include_pad", True)),
    }


def _pool_shape(attributes: dict[str, Any], source: Shape) -> Shape:
    return (*source[:2], *window_shape(attributes, source, ceil=attributes["ceil"]))


def _adaptive(bound: Bound, source: Shape) -> dict[str, Any]:
    size = bound["output_size"]
    sizes = (size, size) if isinstance(size, int) or size is None else tuple(size)
    return {"size": tuple(full if one is None else int(one) for one, full in zip(sizes, source[2:], strict=True))}


def _linear(bound: Bound, source: Shape) -> dict[str, Any]:
    if bound["weight"].shape[1] != source[-1]:
        raise ValueError(f"a linear layer of {bound['weight'].shape[1]} features is given {source}")
    return {"out_channels": int(bound["weight"].shape[0]), "bias": bound.get("bias") is not None}


def _dims(value: Any, rank: int) -> tuple[int, ...]:
    found = range(rank) if value is None else (value,) if isinstance(value, int) else value
    return tuple(int(axis) % max(1, rank) for axis in found)


def _mean(bound: Bound, source: Shape) -> dict[str, Any]:
    return {"dims": _dims(bound.get("dim"), len(source)), "keepdim": bool(bound.get("keepdim", False))}


def _limits(
    low: str, high: str, default_low: float | None, default_high: float | None
) -> Callable[..., dict[str, Any]]:
    def attributes(bound: Bound, source: Shape) -> dict[str, Any]:
        return {"low": bound.get(low, default_low), "high": bound.get(high, default_high)}

    return attributes


def _number(name: str, default: float) -> Callable[..., dict[str, Any]]:
    return lambda bound, source: {name: float(bound.get(name, default))}


def _axis(default: int) -> Callable[..., dict[str, Any]]:
    return lambda bound, source: {"dim": int(bound.get("dim", default)) % max(1, len(source))}


def _split(bound: Bound, source: Shape) -> dict[str, Any]:
    sizes = bound.get("split_size_or_sections", bound.get("split_size", bound.get("split_sizes")))
    return {"dim": int(bound.get("dim", 0)) % len(source), "sizes": isinstance(sizes, list | tuple)}


def _pad(bound: Bound, source: Shape) -> dict[str, Any]:
    pads = [int(one) for one in bound["pad"]]
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)][::-1]
    full = [(0, 0)] * (len(source) - len(pairs)) + pairs
    return {"pads": tuple(full), "mode": bound.get("mode", "constant"), "value": float(bound.get("value") or 0)}


def _permutation(bound: Bound, source: Shape) -> dict[str, Any]:
    given = bound.get("dims") or bound["rest"]
    dims = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
    return {"perm": _dims(tuple(dims), len(source))}


def _swap(bound: Bound, source: Shape) -> dict[str, Any]:
    perm = list(range(len(source)))
    first, second = _dims((bound["dim0"], bound["dim1"]), len(source))
    perm[first], perm[second] = second, first
    return {"perm": tuple(perm)}


def _keep(attributes: dict[str, Any], source: Shape) -> Shape:
    return source


CALLS: dict[str, Call] = {
    "conv2d": Call(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _conv, _conv_shape),
    "conv_transpose2d": Call(
        ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
        lambda bound, source: {
            "kernel": tuple(bound["weight"].shape[2:]),
            "stride": pair(bound.get("stride", 1)),
            "padding": pair(bound.get("padding", 0)) * 2,
            "output_padding": pair(bound.get("output_padding", 0)),
            "dilation": pair(bound.get("dilation", 1)),
            "groups": int(bound.get("groups", 1)),
        },
    ),
    "linear": Call(("input", "weight", "bias"), _linear, lambda found, source: (*source[:-1], found["out_channels"])),
    "max_pool2d": Call(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), _pool, _pool_shape),
    "avg_pool2d": Call(
        ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"), _pool, _pool_shape
    ),
    "adaptive_avg_pool2d": Call(
        ("input", "output_size"), _adaptive, lambda found, source: (*source[:2], *found["size"])
    ),
    "mean": Call(("input", "dim", "keepdim"), _mean),
    "hardtanh": Call(("input", "min_val", "max_val"), _limits("min_val", "max_val", -1.0, 1.0), _keep),
    "clamp": Call(("input", "min", "max"), _limits("min", "max", None, None), _keep),
    "leaky_relu": Call(("input", "negative_slope"), _number("negative_slope", 0.01), _keep),
    "elu": Call(("input", "alpha"), _number("alpha", 1.0), _keep),
    "gelu": Call(
        ("input", "approximate"), lambda bound, source: {"approximate": bound.get("approximate", "none")}, _keep
    ),
    "softmax": Call(("input", "dim"), _axis(-1), _keep),
    "cat": Call(("tensors", "dim"), _axis(0)),
    "chunk": Call(("input", "chunks", "dim"), _split),
    "split": Call(("input", "split_size_or_sections", "dim"), _split),
    "index_select": Call(("input", "dim", "index"), _axis(0)),
    "permute": Call(("input",), _permutation),
    "transpose": Call(("input", "dim0", "dim1"), _swap),
    "pad": Call(("input", "pad", "mode", "value"), _pad),
    "channel_shuffle": Call(("input", "groups"), lambda bound, source: {"groups": int(bound["groups"])}, _keep),
    "getitem": Call(("input", "index")),
    "slice": Call(("input", "dim", "start", "end", "step")),
    "select": Call(("input", "dim", "index")),
    "interpolate": Call(
        ("input", "size", "scale_factor", "mode", "align_corners"),
        lambda bound, source: {
            "mode": bound.get("mode", "nearest"),
            "align_corners": bool(bound.get("align_corners")),
        },
    ),
    "pixel_shuffle": Call(("input", "upscale_factor"), lambda bound, source: {"factor": int(bound["upscale_factor"])}),
    "adaptive_max_pool2d": Call(
        ("input", "output_size"), _adaptive, lambda found, source: (*source[:2], *found["size"])
    ),
    **{name: Call(("input", "other")) for name in ARITHMETIC},
    **{
        name: Call(("input",), shape=_keep) for name in ("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid")
    },
    **{name: Call(("input",), shape=_keep) for name in ("tanh", "mish", "softplus", "prelu", "batch_norm")},
    **{name: Call(("input",)) for name in ("view", "reshape", "flatten", "squeeze", "unsqueeze")},
}


def _cut(bound: Bound, rank: int, place: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * (int(bound.get("dim", 0)) % max(1, rank)), place)


CUTS: dict[str, Callable[[Bound, int], Any]] = {
    "getitem": lambda bound, rank: bound["index"],
    "slice": lambda bound, rank: _cut(
        bound, rank, slice(bound.get("start"), bound.get("end"), int(bound.get("step", 1)))
    ),
    "select": lambda bound, rank: _cut(bound, rank, int(bound["index"])),
}
"""What cuts a tensor -> the index in x[...] that says the same: graphs of aten ops, as .pt2 files hold, have no x[...]."""
