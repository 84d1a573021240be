"""The number of images in a batch, as a call of its own that a traced graph keeps."""

from __future__ import annotations

from torch import Tensor, fx

__all__ = ["batch_size"]


def batch_size(x: Tensor) -> int:
    """B of [B, ...]."""
    return x.shape[0]


fx.wrap("batch_size")
