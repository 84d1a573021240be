"""Copies from the host's memory to a device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["moved"]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; the same tensor if it is there already.

    Only copies from page-locked memory are asynchronous. For any other memory, the host waits until all previously launched kernels have
    ended.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
