"""From the host's memory to a device's."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["moved"]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; itself if it lies there.

    A GPU fetches from page-locked memory alone while the host goes on: from any other memory the host waits until all kernels that
    were launched before have ended.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
