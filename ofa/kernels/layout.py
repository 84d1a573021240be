"""How the kernels read tensors."""

from __future__ import annotations

__all__ = ["GROUP"]

GROUP = 8
"""Channels that one thread reads at once, so their number must be a multiple."""
