"""Memory access of the kernels."""

from __future__ import annotations

__all__ = ["GROUP"]

GROUP = 8
"""Channels that one thread reads at once; the number of channels must be a multiple of it."""
