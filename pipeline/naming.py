"""Which op of the model each kernel in a runtime's profile is, and so under which key its time is filed.

onnxruntime names the nodes of the graph that it really runs, and writes that graph: names match exactly. XNNPACK tells
only its own names in its own order; they are laid along the file's ops in order, each to the next op of a fitting kind,
ops that it folds away (a pad before a convolution, a reshape) passed over. Where that does not come out even, the kernels
from there on have no key, and the caller is told.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from devices.runner import Kernel
from latency_luts import OpKey
from pipeline.deploy import Deployed
from pipeline.errors import HandsetError
from pipeline.kernel_times import INTERPRETER_OP, KernelTimes
from pipeline.kernels.file_op import FileOp, snake_case
from pipeline.kernels.partition import execution_order
from pipeline.result import NamedKernel

FOLDED = {"PAD", "PADV2", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEQUANTIZE"}
"""Ops of a TFLite file that XNNPACK may fold into a neighbour."""

XNNPACK_KINDS: tuple[tuple[str, str, frozenset[str]], ...] = (
    # what its name begins with, our word for it, the TFLite ops that it can be
    ("convolution", "conv2d", frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})),
    ("deconvolution", "transpose_conv", frozenset({"TRANSPOSE_CONV"})),
    # a 1x1 convolution of stride 1 is run as a matrix product
    ("fully connected", "linear", frozenset({"CONV_2D", "FULLY_CONNECTED"})),
    ("batch matrix multiply", "matmul", frozenset({"BATCH_MATMUL"})),
    ("global average pooling", "mean", frozenset({"MEAN", "AVERAGE_POOL_2D"})),
    ("average pooling", "avg_pool", frozenset({"AVERAGE_POOL_2D"})),
    ("max pooling", "max_pool", frozenset({"MAX_POOL_2D"})),
    ("mean", "mean", frozenset({"MEAN", "AVERAGE_POOL_2D"})),
    ("sum", "sum", frozenset({"SUM", "MEAN"})),
    ("add", "add", frozenset({"ADD"})),
    ("subtract", "sub", frozenset({"SUB"})),
    ("multiply", "mul", frozenset({"MUL"})),
    ("divide", "div", frozenset({"DIV"})),
    ("maximum", "maximum", frozenset({"MAXIMUM", "RELU"})),
    ("minimum", "minimum", frozenset({"MINIMUM"})),
    ("clamp", "activation", frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"})),
    ("hardswish", "activation", frozenset({"HARD_SWISH"})),
    ("sigmoid", "activation", frozenset({"LOGISTIC"})),
    ("leakyrelu", "activation", frozenset({"LEAKY_RELU"})),
    ("leaky relu", "activation", frozenset({"LEAKY_RELU"})),
    ("prelu", "activation", frozenset({"PRELU"})),
    ("tanh", "activation", frozenset({"TANH"})),
    ("gelu", "activation", frozenset({"GELU"})),
    ("elu", "activation", frozenset({"ELU"})),
    ("exp", "exp", frozenset({"EXP"})),
    ("log", "log", frozenset({"LOG"})),
    ("softmax", "softmax", frozenset({"SOFTMAX"})),
    ("concatenate", "concat", frozenset({"CONCATENATION"})),
    ("constant pad", "pad", frozenset({"PAD", "PADV2"})),
    ("transpose", "transpose", frozenset({"TRANSPOSE"})),
    ("resize bilinear", "resize", frozenset({"RESIZE_BILINEAR"})),
    ("slice", "slice", frozenset({"SLICE", "STRIDED_SLICE", "SPLIT"})),
    ("static slice", "slice", frozenset({"SLICE", "STRIDED_SLICE"})),
    ("even split", "split", frozenset({"SPLIT"})),
    ("static reshape", "reshape", frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})),
    ("copy", "copy", frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION"})),
)


def name_kernels(case: Deployed, times: Sequence[KernelTimes], folder: Path) -> tuple[list[NamedKernel], str]:
    """Kernels with their keys, and a note where some have none ("" where all do).

    Args: folder: the run folder; holds `<case>.optimized.onnx` for onnxruntime.
    """
    try:
        if case.runtime == "onnxruntime":
            named = _from_graph(case, times, folder / f"{case.id}.optimized.onnx")
        else:
            named = _along_file(case, times)
    except (HandsetError, OSError) as error:
        return [_unknown(time) for time in times], f"kernels have no keys: {error}"
    without = [kernel.times.kernel.name for kernel in named if kernel.key is None]
    note = f"{len(without)} of {len(named)} kernels have no key: {', '.join(without[:5])}" if without else ""
    return named, note


def _from_graph(case: Deployed, times: Sequence[KernelTimes], graph: Path) -> list[NamedKernel]:
    from pipeline.kernels.onnx import keys

    shapes = {time.kernel.name: (time.kernel.inputs, time.kernel.outputs) for time in times}
    ops = keys(graph, shapes, case.artifact.path)
    return [_named(time, ops.get(time.kernel.name), time.kernel.op) for time in times]


def _along_file(case: Deployed, times: Sequence[KernelTimes]) -> list[NamedKernel]:
    from pipeline.kernels.tflite import keys

    kernels = [time.kernel for time in times]
    assigned = align(kernels, in_order(kernels, keys(case.artifact.path)))
    return [_named(time, op, time.kernel.name) for time, op in zip(times, assigned, strict=True)]


def in_order(kernels: Sequence[Kernel], ops: Sequence[FileOp]) -> list[FileOp]:
    """A file's ops as they ran: where the interpreter ran some, what XNNPACK took runs together before or behind."""
    interpreted = {kernel.name.partition(" ")[0].upper() for kernel in kernels if kernel.kind == INTERPRETER_OP}
    return execution_order(
        ops, lambda op: op.reads, lambda op: op.writes, delegated=lambda op: op.op_type not in interpreted
    )


def align(kernels: Sequence[Kernel], ops: Sequence[FileOp]) -> list[FileOp | None]:
    """For each kernel the file's op that it runs, in order; None from the first one on that fits no op."""
    assigned: list[FileOp | None] = []
    position = 0
    folded: dict[int, FileOp] = {}  # a tensor that was never made -> the op that would have made it
    for kernel in kernels:
        fits = _fitting(kernel)
        split = _split_activation(kernel, assigned[-1] if assigned else None)
        if split is not None:
            assigned[-1:] = split
            continue
        start = position
        while position < len(ops) and ops[position].op_type not in fits and ops[position].op_type in FOLDED:
            folded.update(dict.fromkeys(ops[position].writes, ops[position]))
            position += 1
        flat = _flattened(kernel, ops[position]) if position < len(ops) else None
        if flat is not None:
            assigned.append(flat)
        elif position < len(ops) and ops[position].op_type in fits:
            assigned.append(_with_pad(_as_read(ops[position], assigned), folded))
            position += 1
        else:
            position = start
            return assigned + [None] * (len(kernels) - len(assigned))
    if any(op.op_type not in FOLDED for op in ops[position:]):
        # ops are left over: some kernel stood for two, and which one cannot be told
        return [None] * len(kernels)
    return assigned


def _with_pad(op: FileOp, folded: Mapping[int, FileOp]) -> FileOp:
    """The op as it runs with a pad of its input folded in: the pad's input, and both paddings in one."""
    pad = next((folded[tensor] for tensor in op.reads if tensor in folded), None)
    if pad is None or pad.key is None or pad.key.op != "pad" or pad.key.detail or op.key is None:
        return op
    if op.key.op != "conv2d":
        return op
    top, left, bottom, right = (a + b for a, b in zip(op.key.padding, pad.key.padding, strict=True))
    key = dataclasses.replace(op.key, input_shape=pad.key.input_shape, padding=(top, left, bottom, right))
    return dataclasses.replace(op, key=key)


def _flattened(kernel: Kernel, op: FileOp) -> FileOp | None:
    """A linear layer that reads an image has it reshaped to rows first, by a kernel that the file does not have."""
    if op.op_type != "FULLY_CONNECTED" or op.key is None or not kernel.name.lower().startswith("static reshape"):
        return None
    rows = f"out={'x'.join(map(str, _rows(op.key)))}"
    key = OpKey("reshape", op.key.input_shape, dtype=op.key.dtype, detail=rows)
    return FileOp(op.index, f"{op.name}_rows", "RESHAPE", key, None, op.reads)


def _rows(key: OpKey) -> tuple[int, int]:
    """(rows, features) of an image of one pixel."""
    return key.input_shape[0], math.prod(key.input_shape[1:])


def _as_read(op: FileOp, assigned: Sequence[FileOp | None]) -> FileOp:
    """A linear layer behind the kernel that `_flattened` found reads rows."""
    before = assigned[-1] if assigned else None
    if before is None or before.name != f"{op.name}_rows" or op.key is None:
        return op
    return dataclasses.replace(op, key=dataclasses.replace(op.key, input_shape=_rows(op.key)))


def _split_activation(kernel: Kernel, before: FileOp | None) -> tuple[FileOp, FileOp] | None:
    """An addition with a fused ReLU of the file is two kernels in XNNPACK: the sum, then a clamp. Both, or None."""
    if not kernel.name.lower().startswith("clamp") or before is None or before.key is None:
        return None
    if before.key.op not in ("add", "sub", "mul") or before.key.activation == "none":
        return None
    plain = dataclasses.replace(before, key=dataclasses.replace(before.key, activation="none"))
    clamp = OpKey("activation", before.key.input_shape, activation=before.key.activation, dtype=before.key.dtype)
    return plain, FileOp(before.index, f"{before.name}_clamp", "CLAMP", clamp, None)


def _fitting(kernel: Kernel) -> frozenset[str]:
    if kernel.kind == INTERPRETER_OP:
        return frozenset({kernel.name.partition(" ")[0].upper()})
    name = kernel.name.lower()
    return next((ops for prefix, _, ops in XNNPACK_KINDS if name.startswith(prefix)), frozenset())


def _named(time: KernelTimes, op: FileOp | None, runtime_kernel: str) -> NamedKernel:
    if op is None or op.key is None:
        return (
            _unknown(time) if op is None else NamedKernel(time, snake_case(op.op_type), runtime_kernel, None, op.macs)
        )
    return NamedKernel(time, op.key.op, runtime_kernel, op.key, op.macs)


def _unknown(time: KernelTimes) -> NamedKernel:
    kernel = time.kernel
    name = kernel.name.lower()
    word = next((word for prefix, word, _ in XNNPACK_KINDS if name.startswith(prefix)), "")
    plain = word or snake_case(kernel.op or re.sub(r"[^A-Za-z]+", " ", kernel.name).strip() or "unknown")
    return NamedKernel(time, plain, kernel.op or kernel.name, None, None)
