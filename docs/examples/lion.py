"""An optimizer: Lion (Chen et al., NeurIPS 2023), which steps by the sign of a mean gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ofa.training import Optimizer


class LionSteps(torch.optim.Optimizer):
    """Algorithm 2 of the paper; the mean is in the state of each parameter, so that a run that was cut off goes on bit for bit."""

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step all parameters that have a gradient; a trainer gives no closure."""
        for group in self.param_groups:
            ahead, kept = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(mean.lerp(parameter.grad, 1 - ahead).sign_(), alpha=group["lr"])
                    mean.lerp_(parameter.grad, 1 - kept)


@dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """The settings, which a recipe and a run hold; a learning rate a tenth of AdamW's is common.

    Attributes:
        name: says which optimizer it is.
        weight_decay: of convolution and linear weights.
        betas: decays of the mean: before its sign is taken, and as it is kept (0..1).
    """

    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)

    def make(self, groups: Any, learning_rate: float) -> LionSteps:
        """The optimizer of some groups of parameters, each with its ``weight_decay``."""
        return LionSteps(groups, learning_rate, self.betas)
