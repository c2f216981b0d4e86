"""Tucker-2: a convolution becomes 1x1, k x k, 1x1.

Reference: Kim, Park, Yoo, Choi, Yang, Shin, "Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications", ICLR 2016, section 3.1: W ~ C x_1 U_out x_2 U_in, with U_out (c_out, r_out), U_in (c_in, r_in) and a
core C (r_out, r_in, k_h, k_w). The decomposition itself is tensorly's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.compress.base import Compressed, Compressor, LayerDecision
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

HOOI_ITERATIONS = 50


@dataclass(frozen=True)
class TuckerFactors:
    """core: (rank_out, rank_in, k_h, k_w); out_factor: (c_out, rank_out); in_factor: (c_in, rank_in)."""

    core: Tensor
    out_factor: Tensor
    in_factor: Tensor
    relative_error: float


def tucker2(weight: Tensor, rank_out: int, rank_in: int, method: str = "hooi") -> TuckerFactors:
    """Decomposes the first two modes of a kernel.

    Args:
        weight: (c_out, c_in, k_h, k_w).
        rank_out, rank_in: 1 ... c_out and 1 ... c_in; at full rank the product is the kernel again.
        method: "hosvd" takes the singular vectors of each unfolding; "hooi" refines them in turn.

    Raises: UsageError: a rank out of its range, an unknown method, or a kernel that is not finite.
    """
    import torch
    from tensorly.decomposition import partial_tucker
    from threadpoolctl import threadpool_limits

    c_out, c_in = weight.shape[:2]
    if not (1 <= rank_out <= c_out and 1 <= rank_in <= c_in):
        raise UsageError(
            f"Tucker-2 ranks ({rank_out}, {rank_in}) do not fit a kernel of {c_out} x {c_in} channels",
            try_=f"1 ... {c_out} and 1 ... {c_in}",
        )
    if method not in ("hooi", "hosvd"):
        raise UsageError(f"Tucker-2 has no method {method!r}", try_="hooi or hosvd")
    if not torch.isfinite(weight).all():
        raise UsageError("the kernel holds NaN or infinity and cannot be decomposed")
    iterations = HOOI_ITERATIONS if method == "hooi" and weight.any() else 0  # without iterations it is the HOSVD
    weight = weight.detach()
    array = weight.double().numpy()
    # one thread: some hundred small SVDs took 40 s instead of 1 where two threads shared a busy machine
    with threadpool_limits(1), warnings.catch_warnings():
        # said of a kernel that is flatter than its ranks
        warnings.filterwarnings("ignore", "Trying to compute SVD with n_eigenvecs")
        (core, (out_factor, in_factor)), _ = partial_tucker(
            array,
            rank=[rank_out, rank_in],
            modes=[0, 1],
            n_iter_max=iterations,
            init="svd",
            tol=1e-8,
            random_state=0,  # fills up a factor of more ranks than its unfolding has
        )
    core, out_factor, in_factor = (torch.from_numpy(factor.copy()) for factor in (core, out_factor, in_factor))
    rebuilt = torch.einsum("abhw,oa,ib->oihw", core, out_factor, in_factor)
    norm = float(torch.linalg.norm(weight.double()))
    error = float(torch.linalg.norm(rebuilt - weight.double())) / norm if norm else 0.0
    return TuckerFactors(core.to(weight.dtype), out_factor.to(weight.dtype), in_factor.to(weight.dtype), error)


class Tucker2(Compressor):
    """Replaces named convolutions.

    Args: ranks: layer name -> (rank_out, rank_in). Only dense (groups 1) convolutions can be named.
    """

    name = "tucker2"

    def __init__(self, *, ranks: Mapping[str, tuple[int, int]], method: str = "hooi") -> None:
        self.ranks = dict(ranks)
        self.method = method

    def apply(self, model: nn.Module) -> Compressed:
        from torch import nn

        smaller = copy.deepcopy(model)
        convolutions = {name: m for name, m in smaller.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1}
        layers = []
        for name, (rank_out, rank_in) in self.ranks.items():
            if name not in convolutions:
                raise UsageError(f"there is no dense convolution {name!r}", try_=", ".join(list(convolutions)[:8]))
            layer = convolutions[name]
            factors = tucker2(layer.weight, rank_out, rank_in, self.method)
            replacement = _three_convolutions(layer, factors)
            parent, _, last = name.rpartition(".")
            setattr(smaller.get_submodule(parent), last, replacement)
            layers.append(
                LayerDecision(name, (rank_out, rank_in), _params(layer), _params(replacement), factors.relative_error)
            )
        settings: dict[str, Any] = {"ranks": self.ranks, "method": self.method}
        return Compressed(smaller, self.name, settings, _params(model), _params(smaller), tuple(layers))


def _three_convolutions(layer: nn.Conv2d, factors: TuckerFactors) -> nn.Sequential:
    from torch import nn

    rank_out, rank_in = factors.core.shape[:2]
    shrink = nn.Conv2d(layer.in_channels, rank_in, 1, bias=False)
    settings: dict[str, Any] = {
        name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    core = nn.Conv2d(rank_in, rank_out, bias=False, **settings)
    grow = nn.Conv2d(rank_out, layer.out_channels, 1, bias=layer.bias is not None)
    shrink.weight.data = factors.in_factor.T[:, :, None, None].contiguous()
    core.weight.data = factors.core.contiguous()
    grow.weight.data = factors.out_factor[:, :, None, None].contiguous()
    if layer.bias is not None and grow.bias is not None:
        grow.bias.data = layer.bias.data.clone()
    return nn.Sequential(shrink, core, grow).train(layer.training)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
