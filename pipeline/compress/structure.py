"""What a decomposed layer is: a chain of convolutions in place of one. Its parameters and MACs without making it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """One convolution. `padding` is (height, width), or "same" or "valid" as torch has them.

    shuffle: groups in which the input's channels stand, and from which they are dealt in turn first: nn.ChannelShuffle's.
    """

    c_in: int
    c_out: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False
    shuffle: int = 1

    @property
    def params(self) -> int:
        return self.c_out * (self.c_in // self.groups) * self.kernel[0] * self.kernel[1] + self.bias * self.c_out

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of what it makes of an input of that height and width."""
        return self._along(0, size[0]), self._along(1, size[1])

    def _along(self, axis: int, size: int) -> int:
        if self.padding == "same":
            return size
        padding = 0 if isinstance(self.padding, str) else self.padding[axis]
        return (size + 2 * padding - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1


@dataclass(frozen=True)
class Target:
    """A layer that could be decomposed. A linear layer is a 1x1 convolution over its rows.

    Args:
        kind: "conv2d" or "linear".
        whole: the layer as one convolution.
        calls: (images, height, width) of the input of each call, (1, rows, 1) of a linear layer; None where they are not
            known, because no example was given.
    """

    name: str
    kind: str
    whole: Piece
    padding_mode: str = "zeros"
    calls: tuple[tuple[int, int, int], ...] | None = None

    @property
    def groups(self) -> int:
        return self.whole.groups

    @property
    def c_in(self) -> int:
        return self.whole.c_in

    @property
    def c_out(self) -> int:
        return self.whole.c_out

    def piece(self, c_in: int, c_out: int, axes: str = "", groups: int = 1, last: bool = False) -> Piece:
        """A convolution with the layer's own kernel, stride, padding and dilation along some axes, 1 along the others.

        Args: axes: "", "h", "w" or "hw". last: it takes the layer's bias.
        """
        whole, there = self.whole, ("h" in axes, "w" in axes)

        def along(own: tuple[int, int], other: int) -> tuple[int, int]:
            return (own[0] if there[0] else other, own[1] if there[1] else other)

        padding = whole.padding if isinstance(whole.padding, str) else along(whole.padding, 0)
        return Piece(
            c_in, c_out, along(whole.kernel, 1), along(whole.stride, 1), padding, along(whole.dilation, 1), groups,
            last and whole.bias,
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One way to decompose a layer, or to leave it (no ranks, the layer itself as its one piece).

    Args:
        ranks: of the method: (rank,) or Tucker-2's (rank_out, rank_in).
        pieces: the convolutions that the layer becomes, in order.
        error: what the method expects it to lose, 0 nothing: what ranks are allocated by.
        k: groups that the input channels of a channel group are split into.
    """

    ranks: tuple[int, ...]
    pieces: tuple[Piece, ...]
    error: float = 0.0
    k: int = 1


def as_it_is(target: Target) -> Choice:
    """The choice to leave a layer alone."""
    return Choice((), (target.whole,))


def params(pieces: Sequence[Piece]) -> int:
    return sum(piece.params for piece in pieces)


def macs(pieces: Sequence[Piece], calls: Sequence[tuple[int, int, int]]) -> int:
    """Multiply-accumulates of a chain of convolutions over all calls, as `pipeline.graph.count` counts."""
    total = 0
    for images, height, width in calls:
        size = (height, width)
        for piece in pieces:
            size = piece.output_size(size)
            total += images * size[0] * size[1] * (piece.params - piece.bias * piece.c_out)
    return total


def compose(target: Target, pieces: Sequence[Piece], weights: Sequence[Tensor]) -> Tensor:
    """The one kernel that a chain of convolutions computes: (c_out, c_in / groups, k_h, k_w), in double.

    K[o, i, h, w] = sum over m of B[o, m, h, w] A[m, i, h, w], where of A and B one has height 1 and one has width 1.

    Args: weights: one a piece, as of `assemble`.
    """
    import torch

    kernel = torch.eye(target.c_in, dtype=torch.float64).reshape(target.c_in, target.c_in, 1, 1)
    for piece, weight in zip(pieces, weights, strict=True):
        dense = _dense(piece, weight.detach().double().cpu())
        kernel = kernel.unflatten(0, (piece.shuffle, -1)).transpose(0, 1).flatten(0, 1)
        kernel = torch.einsum("omab,micd->oiacbd", dense, kernel).flatten(4, 5).flatten(2, 3)
    c_out, c_in = target.c_out // target.groups, target.c_in // target.groups
    groups = [kernel[g * c_out : (g + 1) * c_out, g * c_in : (g + 1) * c_in] for g in range(target.groups)]
    return torch.cat(groups)


def _dense(piece: Piece, weight: Tensor) -> Tensor:
    """(c_out, c_in, k_h, k_w) of a grouped convolution: zeros between groups."""
    import torch

    if piece.groups == 1:
        return weight.reshape(piece.c_out, piece.c_in, *piece.kernel)
    parts = weight.reshape(piece.groups, piece.c_out // piece.groups, piece.c_in // piece.groups, *piece.kernel)
    dense = weight.new_zeros(piece.groups, parts.shape[1], piece.groups, *parts.shape[2:])
    group = torch.arange(piece.groups)
    dense[group, :, group] = parts
    return dense.reshape(piece.c_out, piece.c_in, *piece.kernel)


def assemble(layer: nn.Module, target: Target, pieces: Sequence[Piece], weights: Sequence[Tensor]) -> nn.Module:
    """The chain as modules, of the layer's type, place, mode and bias.

    Args: weights: one a piece: (c_out, c_in / groups, k_h, k_w).
    """
    import torch
    from torch import nn

    from pipeline.compress.rows import Rows

    own, bias = layer.get_parameter("weight"), layer._parameters["bias"]
    as_linear = target.kind == "linear" and all(piece.groups == piece.shuffle == 1 for piece in pieces)
    chain: list[nn.Module] = []
    for piece, weight in zip(pieces, weights, strict=True):
        if piece.shuffle > 1:
            chain.append(nn.ChannelShuffle(piece.shuffle))
        with torch.device("meta"):  # nothing is drawn: the generator of the process is left where it was
            made = _linear(piece) if as_linear else _convolution(piece, target.padding_mode)
        values = weight.reshape(made.get_parameter("weight").shape).to(own.device, own.dtype).contiguous()
        made.register_parameter("weight", nn.Parameter(values, own.requires_grad))
        if piece.bias and bias is not None:
            made.register_parameter("bias", nn.Parameter(bias.detach().clone(), bias.requires_grad))
        chain.append(made)
    whole = Rows(*chain) if target.kind == "linear" and not as_linear else nn.Sequential(*chain)
    return whole.train(layer.training)


def _linear(piece: Piece) -> nn.Module:
    from torch import nn

    return nn.Linear(piece.c_in, piece.c_out, bias=piece.bias)


def _convolution(piece: Piece, padding_mode: Any) -> nn.Module:
    from torch import nn

    return nn.Conv2d(
        piece.c_in, piece.c_out, piece.kernel, piece.stride, piece.padding, piece.dilation, piece.groups, piece.bias,
        padding_mode,
    )  # fmt: skip
