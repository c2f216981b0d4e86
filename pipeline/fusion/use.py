"""One kernel of a network that was never exported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latency_luts import OpKey
from pipeline.errors import UnsupportedOp
from pipeline.fusion.ir import Node


@dataclass(frozen=True)
class OpUse:
    """A kernel and where it is used.

    Args:
        macs: multiply-accumulates; 0 for all but convolutions and linear layers.
        memory_access: elements of its inputs, its output and its weights.
        module: the layer of the torch module, as in "features.0.0".
    """

    key: OpKey
    macs: int
    memory_access: int
    module: str


def use_of(key: OpKey | None, node: Node, macs: int) -> OpUse:
    """Raises: UnsupportedOp: the node has no key."""
    if key is None:
        what = f"{node.module or 'the network'} runs {node.op} on {'x'.join(map(str, node.inputs[0].shape))}"
        raise UnsupportedOp(f"{what}, which a latency table cannot name", try_="tensors of at most 8 axes")
    values = [*node.inputs, *node.outputs]
    elements = sum(math.prod(value.shape) for value in values if not value.constant)
    return OpUse(key, macs, elements + node.weights, node.module)
