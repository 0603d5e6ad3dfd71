"""Normalisation of packed rows: voxels, cells, points."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class RowNorm(nn.BatchNorm1d):
    """Batch norm of [n c]; a single row, which has no spread, meets the running statistics."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the parent
        """Normalise every channel."""
        if len(input) > 1:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ConvNorm(nn.Module):
    """A sparse convolution, its batch norm and ReLU.

    Args:
        conv: Of tokens by a rulebook.
        norm: Of its rows.
    """

    def __init__(self, conv: nn.Module, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, tokens: Tensor, rules: Any) -> Tensor:  # noqa: ANN401 - as `conv` takes them
        """Convolve, normalise, cut below zero."""
        return functional.relu(self.norm(self.conv(tokens, rules)))
