"""Modules of transformers.

Shapes: B batch, T tokens, D channels of a token, H W rows and columns of patches, N heads.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["AddPositions", "Attention", "DotProductAttention", "TokenLinear", "TokenMean", "Tokens", "resampled"]


def resampled(grid_DHW: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Interpolate a grid of position embeddings bilinearly, so that a place in the image keeps its embedding at every resolution.

    Computed as two matrix products, because their gradients are deterministic on GPUs, unlike the gradients of ``interpolate``.

    Args:
        grid_DHW: embeddings [D, H, W].
        rows: of the result.
        columns: of the result.

    Returns:
        The grid [D, rows, columns].
    """
    height, width = grid_DHW.shape[1:]
    return _interpolation(height, rows, grid_DHW) @ grid_DHW @ _interpolation(width, columns, grid_DHW).T


def _interpolation(size: int, wanted: int, like: torch.Tensor) -> torch.Tensor:
    """The matrix [wanted, size] of linear interpolation from ``size`` to ``wanted`` cells, by their centres (``align_corners=False``)."""
    unit = torch.eye(size, dtype=like.dtype, device=like.device)
    return nn.functional.interpolate(unit.unsqueeze(0), size=wanted, mode="linear", align_corners=False)[0].T


class AddPositions(nn.Module):
    """Adds learned position embeddings [D, H, W]; they are interpolated for images of other sizes."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, rows, columns))

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """The sum, of the input's shape."""
        rows, columns = x_BDHW.shape[2:]
        same = (rows, columns) == self.weight.shape[1:]
        return x_BDHW + (self.weight if same else resampled(self.weight, rows, columns))


class Tokens(nn.Module):
    """Flattens patches to a sequence of tokens, row by row."""

    def forward(self, x_BDHW: torch.Tensor) -> torch.Tensor:
        """Map [B, D, H, W] to [B, T, D]."""
        return x_BDHW.flatten(2).transpose(1, 2)


class TokenLinear(nn.Linear):
    """``nn.Linear`` on tokens [B, T, D]; a class of its own because ONNX has no single operator for it."""


class TokenMean(nn.Module):
    """The mean over all tokens."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Map [B, T, D] to [B, D]."""
        return x_BTD.mean(1)


class DotProductAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, head_channels: int) -> None:
        super().__init__()
        self.head_channels = head_channels

    def forward(self, query_BTD: torch.Tensor, key_BTD: torch.Tensor, value_BTD: torch.Tensor) -> torch.Tensor:
        """Map query, key and value, each [B, T, heads * head_channels], to a tensor of the same shape."""
        query, key, value = (each.unflatten(2, (-1, self.head_channels)).transpose(1, 2) for each in (query_BTD, key_BTD, value_BTD))
        mixed_BNTC = nn.functional.scaled_dot_product_attention(query, key, value)
        return mixed_BNTC.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention: linear layers for queries, keys and values, multi-head attention, and an output layer.

    Queries, keys and values have separate layers, so that the heads of a smaller network are the leading rows of each.
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
