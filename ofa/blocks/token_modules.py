"""Modules of transformers.

Shapes: B batch, T tokens, D channels of a token, H W rows and columns of patches, N heads.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["AddPositions", "Attention", "DotProductAttention", "TokenLinear", "TokenMean", "Tokens", "resampled"]


def resampled(grid_DHW: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A grid [D, rows, columns], interpolated linearly in both directions, so that a place in the image keeps what was learned about it.

    Two products with matrices, whose gradients are the same bits each time on GPUs too, as those of torch's own interpolation are not.
    """
    height, width = grid_DHW.shape[1:]
    return _interpolation(height, rows, grid_DHW) @ grid_DHW @ _interpolation(width, columns, grid_DHW).T


def _interpolation(size: int, wanted: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix [wanted, size] that interpolates ``size`` values at the centres of equal parts."""
    unit = torch.eye(size, dtype=like.dtype, device=like.device)
    return nn.functional.interpolate(unit.unsqueeze(0), size=wanted, mode="linear", align_corners=False)[0].T


class AddPositions(nn.Module):
    """Adds a learned embedding [D, H, W] of where each patch is; images of other sizes get those between."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, rows, columns))

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """The sum, of the input's shape."""
        rows, columns = x_BDHW.shape[2:]
        same = (rows, columns) == self.weight.shape[1:]
        return x_BDHW + (self.weight if same else resampled(self.weight, rows, columns))


class Tokens(nn.Module):
    """Patches as a sequence, row by row."""

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """Map [B, D, H, W] to [B, T, D]."""
        return x_BDHW.flatten(2).transpose(1, 2)


class TokenLinear(nn.Linear):
    """``nn.Linear`` for tokens [B, T, D], which ONNX has no single operator for."""


class TokenMean(nn.Module):
    """The mean over all tokens."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Map [B, T, D] to [B, D]."""
        return x_BTD.mean(1)


class DotProductAttention(nn.Module):
    """What each head mixes of the values, by the scaled products of queries and keys (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels

    def forward(self, query_BTD: torch.Tensor, key_BTD: torch.Tensor, value_BTD: torch.Tensor) -> torch.Tensor:
        """Map three of [B, T, heads * head channels] to one of the same shape."""
        query, key, value = (each.unflatten(2, (-1, self.head_channels)).transpose(1, 2) for each in (query_BTD, key_BTD, value_BTD))
        mixed_BNTC = nn.functional.scaled_dot_product_attention(query, key, value)
        return mixed_BNTC.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention: three linear layers, the heads, and a fourth linear layer.

    Queries, keys and values are layers of their own, so that the heads of a smaller network are leading rows of each.
    """

    def __init__(self, query: nn.Module, key: nn.Module, value: nn.Module, out: nn.Module, head_channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value
        self.heads = DotProductAttention(head_channels)
        self.out = out

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Map [B, T, D] to [B, T, outputs]."""
        result: torch.Tensor = self.out(self.heads(self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)))
        return result
