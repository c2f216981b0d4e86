"""What is known of a network without exporting or running it: its kernels in a runtime, and its counts."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.counting import CONVENTION, Counts, Layer, count_graph
from pipeline.errors import UsageError
from pipeline.fusion.use import OpUse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.fusion.ir import Graph

__all__ = ["Counts", "Layer", "OpUse", "count", "count_macs", "kernels", "nchwc_block"]

RUNTIMES = ("onnxruntime", "litert", "tflite")

_X86 = frozenset({"x86_64", "amd64", "AMD64", "x86", "i686"})


def kernels(
    model: nn.Module, example: Tensor | Sequence[int], runtime: str, *, abi: str = "", block: int | None = None
) -> list[OpUse]:
    """The kernels that a runtime will run for one inference, in its order: what a latency table is asked with.

    Nothing is exported, nothing is computed: some 20 ms for MobileNetV2. The keys are those that `pipeline.naming` gives
    to the runtime's own profile of the exported network. A network that was not trained is taken for one that was: its
    normalisations have a shift and a scale.

    Args:
        example: a tensor of the input's shape, or the shape (NCHW for images). Its values do not matter.
        runtime: "onnxruntime", "litert" or "tflite", the latter two with XNNPACK.
        abi: of the device ("arm64-v8a", "x86_64"); empty: this machine's. It matters for onnxruntime alone.
        block: channels of a block of onnxruntime's layout on an x86_64: 16 with AVX-512, else 8; None: as `nchwc_block`.

    Raises:
        UsageError: there is no such runtime.
        ModelError: the network fails on that input, or depends on values.
        UnsupportedOp: it calls something whose kernels are not known beforehand.
    """
    from pipeline.fusion.tracing import trace

    _check_runtime(runtime)
    return kernels_of(trace(model, _shape(example)), runtime, abi=abi, block=block)


def kernels_of(graph: Graph, runtime: str, *, abi: str = "", block: int | None = None) -> list[OpUse]:
    """The same of a network that was traced or read from a file; its graph is used up by this."""
    from pipeline.fusion import onnxruntime, xnnpack
    from pipeline.fusion.rules import XNNPACK

    _check_runtime(runtime)
    if runtime == "onnxruntime":
        return onnxruntime.kernels(graph, nchwc_block(abi) if block is None else block)
    return xnnpack.kernels(graph, XNNPACK[runtime])


def _check_runtime(runtime: str) -> None:
    if runtime not in RUNTIMES:
        raise UsageError(f"kernels were asked for the runtime {runtime!r}", try_=", ".join(RUNTIMES))


def nchwc_block(abi: str = "") -> int:
    """Channels of a block of onnxruntime's layout NCHWc on a device; 0 where it has none, as on arm64.

    For an x86_64 this machine's: 16 where it has AVX-512, else 8.
    """
    if (abi or platform.machine()) not in _X86:
        return 0
    return 16 if platform.machine() in _X86 and _has_avx512() else 8


@cache
def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text("ascii", "replace").split()
    except OSError:
        return False


def count(model: nn.Module, example: Tensor | Sequence[int], convention: str = CONVENTION, unit: str = "mac") -> Counts:
    """Parameters, operations and memory accesses of one inference, layer by layer; nothing is computed.

    A convolution has c_out * h_out * w_out * (c_in / groups) * k_h * k_w multiply-accumulates, a linear layer rows * in *
    out. A layer that is called twice counts twice; functional calls count too.

    Args:
        example: as of `kernels`.
        convention: "conv+linear", followed by any of "+bias" (an addition for each output of a layer that has one), "+bn"
            (one operation for each output of a batch normalisation), "+activation" (one for each output) and "+pool" (one
            for each element of each window, padding included; a global or adaptive pool reads each input once).
        unit: "mac", or "flop": a multiply-accumulate is two, every other operation is one in both.

    Raises:
        UsageError: another convention or unit.
        ModelError: the network fails on that input.
    """
    from pipeline.fusion.tracing import trace

    params = sum(weight.numel() for weight in model.parameters())
    return count_graph(trace(model, _shape(example)), params, convention, unit)


def _shape(example: Tensor | Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(example, "shape", example))


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one forward pass: convolution and linear layers only, without bias.

    A convolution: c_out * h_out * w_out * (c_in / groups) * k_h * k_w; a linear layer: rows * in * out. Layers that
    are called twice count twice. Functional calls (`F.conv2d`) are not seen: see `count`, which sees them.
    """
    import torch
    from torch import nn

    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(add) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            module(torch.zeros(input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return total
