"""The optimizer of supernets and of networks alone: SGD with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["sgd"]


def sgd(groups: Sequence[dict[str, Any]], *, learning_rate: float, momentum: float) -> torch.optim.SGD:
    """SGD, on CPUs and NVIDIA's GPUs by torch's fused kernel: one pass over the weights in place of one for each term.

    Args:
        groups: parameter groups, each with its ``weight_decay``.
        learning_rate: of the first step.
        momentum: 0..1; Nesterov's, unless it is 0.
    """
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=has_fused_kernel(groups))


def has_fused_kernel(groups: Sequence[dict[str, Any]]) -> bool:
    """Whether there is one for all parameters."""
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
