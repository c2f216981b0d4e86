"""What fuses with what, and where it was seen: data that the passes of `pipeline.fusion` read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.fusion.ir import Node

GEMM_ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSigmoid", "Softplus"})
"""onnxruntime: run by a Gemm. Not Clip: a ReLU6 behind a linear layer is a kernel of its own (1.31)."""

CONV_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh"})
"""onnxruntime: run by a convolution, in either layout. HardSwish only in the blocked one, see BLOCKED_FUSED."""

ADD_FUSED_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh"})
"""onnxruntime without the blocked layout: run by a convolution that also adds a residual."""

BLOCKED_FUSED = frozenset({"Relu", "Sigmoid", "Tanh", "HardSigmoid"})
"""onnxruntime, blocked layout: run by a convolution that adds a residual already. A Clip (ReLU6) there is not."""

BLOCKED_ELEMENTWISE = frozenset({"Relu", "Sigmoid", "Tanh", "HardSigmoid", "Gelu", "QuickGelu"})
"""onnxruntime: works on the blocked layout as it is; any other op has its input reordered back first."""

CHANNELS_OF_A_VECTOR = 4
"""onnxruntime: a convolution takes the blocked layout only where its channels are a multiple of this."""


ACTIVATION_NUMBERS = {
    "Clip": ("low", "high"),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Elu": ("alpha",),
}


def activation_attributes(node: Node) -> dict[str, Any]:
    """What onnxruntime writes into the node that runs an activation."""
    numbers = [float(node.attributes[name]) for name in ACTIVATION_NUMBERS.get(node.op, ())]
    return {"activation": node.op, "activation_params": numbers}


@dataclass(frozen=True)
class XnnpackRules:
    """How one version of XNNPACK differs from another.

    Args:
        splits_activations: arithmetic with a fused ReLU is two kernels, the second a clamp.
        flattens: a linear layer that reads an image of one pixel has it reshaped by a kernel of its own.
        interpreted: ops that it leaves to the interpreter.
    """

    splits_activations: bool
    flattens: bool
    interpreted: frozenset[str]


_INTERPRETED = frozenset(
    {
        "PADV2", "MIRROR_PAD", "RESIZE_NEAREST_NEIGHBOR", "GREATER", "GREATER_EQUAL", "SELECT", "STRIDED_SLICE",
        "GATHER_ND",
    }
)  # fmt: skip

XNNPACK = {
    "litert": XnnpackRules(True, True, _INTERPRETED),  # LiteRT 2.3
    "tflite": XnnpackRules(False, False, _INTERPRETED | {"EXP", "LOG", "GELU"}),  # TensorFlow Lite 2.16.1
}
"""STRIDED_SLICE here is one whose stride is not 1; any other is a SLICE already."""
