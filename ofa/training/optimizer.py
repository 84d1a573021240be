"""The optimizer of supernets and of networks alone: SGD with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["momenta", "restore_momenta", "sgd"]


def sgd(groups: Sequence[dict[str, Any]], *, learning_rate: float, momentum: float) -> torch.optim.SGD:
    """SGD, on CPUs and NVIDIA's GPUs by torch's fused kernel: one pass over the weights in place of one for each term.

    Args:
        groups: parameter groups, each with its ``weight_decay``.
        learning_rate: of the first step.
        momentum: 0..1; Nesterov's, unless it is 0.
    """
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0, fused=has_fused_kernel(groups))


def momenta(optimizer: torch.optim.SGD, parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """The momentum of each parameter that has one, by the parameter's number; the optimizer's own tensors."""
    found = ((str(number), optimizer.state[parameter].get("momentum_buffer")) for number, parameter in enumerate(parameters))
    return {number: momentum for number, momentum in found if momentum is not None}


def restore_momenta(optimizer: torch.optim.SGD, parameters: Iterable[nn.Parameter], saved: Mapping[str, Tensor]) -> None:
    """Give the parameters copies of what ``momenta`` gave."""
    for number, parameter in enumerate(parameters):
        if str(number) in saved:
            optimizer.state[parameter]["momentum_buffer"] = saved[str(number)].to(parameter.device, copy=True)


def has_fused_kernel(groups: Sequence[dict[str, Any]]) -> bool:
    """Whether there is one for all parameters."""
    return all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
