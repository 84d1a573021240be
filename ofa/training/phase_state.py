"""What a trainer makes anew for each phase, and what of it a state holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ofa.resolution import Resolution
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.average import WeightAverage
from ofa.training.evaluation import device_of
from ofa.training.guard import Guard
from ofa.training.optimizer import optimizer_state, restore_optimizer
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import Sampler, make_sampler
from ofa.training.state import part_of
from ofa.training.step import Objective, gradient_scaler

__all__ = ["PhaseState", "begin_phase"]


@dataclass(eq=False, kw_only=True)
class PhaseState:
    """What the steps of a phase work with.

    Attributes:
        number: which phase of the recipe.
        spaces: what is drawn from, by resolution.
        sampler: draws the subnets.
        objective: what the subnets are to learn.
        optimizer: of the supernet's parameters.
        scaler: of the gradients of float16; None for other precisions.
        average: of the weights; None without.
        guard: watches the loss.
    """

    number: int
    spaces: Mapping[Resolution, Space]
    sampler: Sampler
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: WeightAverage | None
    guard: Guard = field(default_factory=Guard)

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that decides how the phase goes on: tensors by name, which are no copies, and JSON values."""
        found, settings = optimizer_state(self.optimizer)
        tensors = {f"optimizer.{name}": tensor for name, tensor in found.items()}
        tensors |= {f"sampler.{name}": torch.as_tensor(array) for name, array in self.sampler.state().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in (self.average.state() if self.average else {}).items()}
        scaler = self.scaler.state_dict() if self.scaler else None
        return tensors, {"guard": asdict(self.guard), "scaler": scaler, "optimizer": settings}

    def restore(self, tensors: dict[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go to what ``capture`` gave."""
        self.guard = Guard(**values["guard"])
        self.sampler.restore({name: tensor.cpu().numpy() for name, tensor in part_of(tensors, "sampler").items()})
        if self.scaler is not None:
            self.scaler.load_state_dict(values["scaler"])
        if self.average is not None:
            self.average.restore(part_of(tensors, "average"))
        found, settings = part_of(tensors, "optimizer"), values.get("optimizer")
        if settings is None:  # of a version that knew SGD alone, and kept its momentum by the number of the parameter
            found = {f"{number}.momentum_buffer": momentum for number, momentum in part_of(tensors, "momentum").items()}
            settings = optimizer_state(self.optimizer)[1]
        restore_optimizer(self.optimizer, found, settings)


def begin_phase(
    number: int, phase: Phase, recipe: Recipe, supernet: Supernet, *, objective: Objective, sampler: Sampler | None
) -> PhaseState:
    """What the steps of a phase work with at its first step.

    Args:
        number: which phase of the recipe.
        phase: the phase.
        recipe: of the run.
        supernet: that is trained.
        objective: what the subnets are to learn.
        sampler: draws the subnets in place of what the phase says.
    """
    space = phase.restrict(supernet.space)
    groups = supernet.parameter_groups(recipe.optimizer.weight_decay, recipe.start.factors if recipe.start else None)
    return PhaseState(
        number=number,
        spaces={resolution: space.restrict(resolution=(resolution,)) for resolution in space.resolutions},
        sampler=sampler or make_sampler(phase.sampling, supernet.space, coupled_genes=phase.coupled),
        objective=objective,
        optimizer=recipe.optimizer.make(groups, phase.learning_rate),
        scaler=gradient_scaler(recipe.precision, device_of(supernet)),
        average=WeightAverage(supernet, recipe.weight_averaging) if recipe.weight_averaging else None,
    )
