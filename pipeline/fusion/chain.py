"""The kernels of one layer, whole or as a chain, without a network around it: a runtime's own rules over a few ops.

A convolution stands between two 1x1 convolutions of its own channels, so that a layout that a runtime keeps from layer to
layer is given to it and asked of it. What the neighbours have is the same for the layer and for its chain, and cancels.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from latency_luts import OpKey
from pipeline.fusion.ir import Graph, Node, Shape, Value
from pipeline.graph import kernels_of
from pipeline.kernels.file_op import same_padding

if TYPE_CHECKING:
    from pipeline.compress.structure import Piece
    from pipeline.fusion.use import OpUse

WEIGHTED = ("conv2d", "linear")
FIRST, NEIGHBOUR = "0", "neighbour"
"""Modules of the kernels of such a graph: of the first convolution, and of those around the layer."""


@dataclass(frozen=True)
class Place:
    """One call of a layer in a network.

    Args:
        key: its kernel there, with what the runtime fused into it.
        shape: of what the layer is given: (images, channels, height, width), or (..., channels) for a linear one.
    """

    key: OpKey
    shape: Shape


def places(graph: Graph, runtime: str, block: int) -> dict[str, tuple[Place, ...]]:
    """Layer -> its calls. Args: graph: of the traced network, which is used up by this; the rest as of `chain`."""
    shapes: dict[str, list[Shape]] = {}
    for node in graph.nodes:
        if node.op in WEIGHTED:
            shapes.setdefault(node.module, []).append(node.inputs[0].shape)
    found: dict[str, tuple[Place, ...]] = {}
    for use in kernels_of(graph, runtime, block=block):
        if use.key.op in WEIGHTED and use.module in shapes:
            one = Place(use.key, _given(use.key.input_shape, shapes[use.module]))
            found[use.module] = (*found.get(use.module, ()), one)
    return found


def _given(read: Shape, shapes: Sequence[Shape]) -> Shape:
    """Which of a layer's inputs it is that the kernel reads in this shape: before a padding, or with its rows in one axis."""
    return min(shapes, key=lambda shape: (shape != read, math.prod(shape) != math.prod(read)))


def chain(place: Place, whole: Piece, pieces: Sequence[Piece], runtime: str, block: int) -> list[OpKey]:
    """The kernels that a chain of convolutions has in the place of a layer, its convolutions in order.

    The first one takes what padding the layer's kernel took from before it, the last one its activation and its addition.
    What only moves data is among them: between the convolutions, and at the ends where the chain needs another layout than
    the layer does. What the chain spares its neighbours is not taken off.

    Args:
        whole: the layer as one convolution.
        block: channels of a block of onnxruntime's layout NCHWc, 0 where it has none.

    Differs from the network: its neighbours are taken for blocked where their channels can be, whatever becomes of them. Where
    the layer runs in blocks and the chain's last convolution does not, the addition and the activation behind them, which
    may then be fused elsewhere or be kernels of their own, are taken for fused as before. Behind a linear layer in channel
    groups the activation, a kernel of its own there, is left out.
    """
    alone, around = _alone(place, whole, runtime, block)
    shared, last = Counter(around), str(len(pieces) - 1)
    keys = []
    for use in _kernels(place, pieces, runtime, block):
        if use.key.op in WEIGHTED:
            keys += [] if use.module == NEIGHBOUR else [_in_place(use, place.key, alone, last)]
        elif shared[use.key] > 0:
            shared[use.key] -= 1
        else:
            keys.append(use.key)
    return keys


@lru_cache(maxsize=1024)
def _alone(place: Place, whole: Piece, runtime: str, block: int) -> tuple[OpKey, tuple[OpKey, ...]]:
    """The layer's kernel without its network, and those that only move data for it and its neighbours."""
    uses = _kernels(place, [whole], runtime, block)
    (own,) = (use.key for use in uses if use.key.op in WEIGHTED and use.module == FIRST)
    return own, tuple(use.key for use in uses if use.key.op not in WEIGHTED)


def _in_place(use: OpUse, own: OpKey, alone: OpKey, last: str) -> OpKey:
    """A kernel of the chain as it is in the network. Args: own, alone: the layer's kernel in the network and without it."""
    key = use.key
    if key.op != own.op:
        return key
    if use.module == FIRST:
        key = _with_padding(key, own, alone)
    if use.module == last:
        key = dataclasses.replace(key, activation=own.activation, fused_add=own.fused_add)
    return key


def _with_padding(key: OpKey, own: OpKey, alone: OpKey) -> OpKey:
    """What a padding before the layer adds to its own, or what is left of it where other layers read the padded image too."""
    if key.input_shape != alone.input_shape:  # rows, which a product with a bias has in one axis
        return key
    if key.padding == alone.padding:
        return dataclasses.replace(key, input_shape=own.input_shape, padding=own.padding)
    top, left, bottom, right = (there - here for there, here in zip(own.padding, alone.padding, strict=True))
    if min(top, left, bottom, right) < 0:  # the image is padded for the others alone
        return key
    before = key.padding
    padding = (before[0] + top, before[1] + left, before[2] + bottom, before[3] + right)
    return dataclasses.replace(key, input_shape=own.input_shape, padding=padding)


def _kernels(place: Place, pieces: Sequence[Piece], runtime: str, block: int) -> list[OpUse]:
    """Of a graph of these convolutions, whose modules are "0", "1", ..."""
    made = _Chain(place.shape)
    if place.key.op == "conv2d":
        made.neighbour()
        made.convolutions(pieces)
        made.neighbour()
    else:
        made.rows(pieces)
    return kernels_of(Graph(made.nodes, made.source, made.sink), runtime, block=block)


class _Chain:
    """A graph that grows op by op, in torch's ops."""

    def __init__(self, shape: Shape) -> None:
        self.source = self.sink = Value(shape)
        self.nodes: list[Node] = []

    def add(self, op: str, shape: Shape, module: str = "", **attributes: Any) -> None:
        output = Value(shape)
        self.nodes.append(Node(op, [self.sink], [output], attributes, module))
        self.sink = output

    def neighbour(self) -> None:
        window = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
        shape = self.sink.shape
        self.add("conv2d", shape, NEIGHBOUR, **window, groups=1, out_channels=shape[1], bias=False)

    def convolutions(self, pieces: Sequence[Piece]) -> None:
        for number, piece in enumerate(pieces):
            if piece.shuffle > 1:
                self.add("channel_shuffle", self.sink.shape, groups=piece.shuffle)
            images, _, height, width = self.sink.shape
            shape = (images, piece.c_out, *piece.output_size((height, width)))
            self.add(
                "conv2d", shape, str(number), kernel=piece.kernel, stride=piece.stride, dilation=piece.dilation,
                padding=_padding(piece, (height, width)), groups=piece.groups, out_channels=piece.c_out, bias=piece.bias,
            )  # fmt: skip

    def rows(self, pieces: Sequence[Piece]) -> None:
        """A linear layer, or as `pipeline.compress.rows` has it in channel groups."""
        shape = self.sink.shape
        if all(piece.groups == piece.shuffle == 1 for piece in pieces):
            for number, piece in enumerate(pieces):
                self.add("linear", (*shape[:-1], piece.c_out), str(number), out_channels=piece.c_out, bias=piece.bias)
            return
        self.add("reshape", (math.prod(shape[:-1]), shape[-1], 1, 1))
        self.convolutions(pieces)
        self.add("reshape", (*shape[:-1], pieces[-1].c_out))


def _padding(piece: Piece, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right)."""
    if piece.padding == "same":
        (top, bottom), (left, right) = (same_padding(size[i], piece.kernel[i], 1, piece.dilation[i]) for i in (0, 1))
        return top, left, bottom, right
    height, width = (0, 0) if isinstance(piece.padding, str) else piece.padding
    return height, width, height, width
