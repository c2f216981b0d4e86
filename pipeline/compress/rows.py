"""A linear layer in channel groups. Torch has grouped convolutions and no grouped linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class Rows(nn.Sequential):
    """1x1 convolutions over the rows of an input of shape (..., c_in); the output's is (..., c_out)."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = super().forward(input.reshape(-1, input.shape[-1], 1, 1))
        return output.reshape(*input.shape[:-1], output.shape[1])
