"""The batch size as a function that torch.fx keeps as a call in traced graphs."""

from __future__ import annotations

from torch import Tensor, fx

__all__ = ["batch_size"]


def batch_size(x: Tensor) -> int:
    """B of [B, ...]."""
    return x.shape[0]


fx.wrap("batch_size")
