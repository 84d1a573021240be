"""Objects that a trainer makes for each phase (optimizer, sampler, ...), and their part in a saved state."""

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
    """Objects that the steps of a phase use.

    Attributes:
        number: index of the phase in the recipe.
        spaces: the phase's space at each resolution.
        sampler: draws the subnets.
        objective: the training objective of the subnets.
        optimizer: optimizer of the supernet's parameters.
        scaler: gradient scaler for float16; None for other precisions.
        average: moving average of the weights; None if there is none.
        guard: detects divergence.
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
        """The full state: tensors by name (not copied), and JSON values."""
        found, settings = optimizer_state(self.optimizer)
        tensors = {f"optimizer.{name}": tensor for name, tensor in found.items()}
        tensors |= {f"sampler.{name}": torch.as_tensor(array) for name, array in self.sampler.state().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in (self.average.state() if self.average else {}).items()}
        scaler = self.scaler.state_dict() if self.scaler else None
        return tensors, {"guard": asdict(self.guard), "scaler": scaler, "optimizer": settings}

    def restore(self, tensors: dict[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore what ``capture`` returned."""
        self.guard = Guard(**values["guard"])
        self.sampler.restore({name: tensor.cpu().numpy() for name, tensor in part_of(tensors, "sampler").items()})
        if self.scaler is not None:
            self.scaler.load_state_dict(values["scaler"])
        if self.average is not None:
            self.average.restore(part_of(tensors, "average"))
        found, settings = part_of(tensors, "optimizer"), values.get("optimizer")
        if settings is None:  # a state of a version that had SGD alone, with its momentum by number of parameter
            found = {f"{number}.momentum_buffer": momentum for number, momentum in part_of(tensors, "momentum").items()}
            settings = optimizer_state(self.optimizer)[1]
        restore_optimizer(self.optimizer, found, settings)


def begin_phase(
    number: int, phase: Phase, recipe: Recipe, supernet: Supernet, *, objective: Objective, sampler: Sampler | None
) -> PhaseState:
    """The state of a phase at its first step.

    Args:
        number: index of the phase in the recipe.
        phase: the phase.
        recipe: recipe of the run.
        supernet: the supernet in training.
        objective: the training objective of the subnets.
        sampler: draws the subnets instead of the phase's own sampler.
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
