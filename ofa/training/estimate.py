"""What a run will cost, from a few of its steps."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ofa.data import BatchPlan, Images, default_workers, measure_loader
from ofa.errors import RecipeError
from ofa.supernet import Supernet
from ofa.training.distributed import ALONE, World
from ofa.training.evaluation import device_of
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe
from ofa.training.sampling import Repeated, make_sampler
from ofa.training.trainer import Trainer

__all__ = ["PhaseEstimate", "estimate_phases", "loader_rate", "peak_memory"]

_UNTIMED = {"cpu": 2, "cuda": 10}
"""Steps before the timed ones, in which memory is fetched and kernels are chosen (on a GPU also loaded)."""
_DRAWS_ON_GPU = 3
"""There a block takes longer the first two times, so all are met that often in the untimed steps."""


@dataclass(frozen=True, kw_only=True)
class PhaseEstimate:
    """What a phase will cost.

    Attributes:
        phase: the phase.
        steps: of the phase.
        step_ms: mean of the timed steps, in ms.
        images_per_s: training images a second.
        duration_s: expected wall-clock seconds.
    """

    phase: Phase
    steps: int
    step_ms: float
    images_per_s: float
    duration_s: float


def estimate_phases(supernet: Supernet, recipe: Recipe, data: Images, *, steps: int = 6, world: World = ALONE) -> Iterator[PhaseEstimate]:
    """Take a few steps of every phase, on weights that are thrown away.

    Args:
        supernet: an untrained one; it is trained on, so do not use it afterwards.
        recipe: the run.
        data: its training images.
        steps: how many to time.
        world: the processes that train together.

    Yields:
        one estimate a phase.
    """
    supernet.train().synchronize(world.size > 1)
    for phase in recipe.phases:
        yield _estimate(supernet, recipe, phase, data, steps, world)


def _estimate(supernet: Supernet, recipe: Recipe, phase: Phase, data: Images, steps: int, world: World) -> PhaseEstimate:
    # Alone, the phase begins from the largest network. Its epoch never ends here, so nothing else of the recipe matters.
    phase_alone, sampler = replace(phase, reorder_channels=False), None
    if device_of(supernet).type == "cuda":
        resolutions = phase.restrict(supernet.space).resolutions
        phase_alone = replace(phase_alone, resolutions=resolutions[len(resolutions) // 2 :][:1])
        sampler = Repeated(make_sampler(phase.sampling, supernet.space, coupled_genes=phase.coupled), _DRAWS_ON_GPU)
    told: list[tuple[int, float]] = []
    alone = replace(recipe, phases=(phase_alone,))
    trainer = Trainer(supernet, alone, data, world, lambda done, *_: told.append((done, time.perf_counter())), own_sampler=sampler)
    available = trainer.schedule.steps_per_epoch
    if available < 3:
        raise RecipeError(
            f"an epoch must have at least 3 steps to be timed, but {phase.name} has {available} of {recipe.batch_size} images; lower "
            "batch_size"
        )
    untimed = min(_UNTIMED[trainer.device.type], available - 1)
    # A step is known to be done only when progress is told, so time is taken from one telling to another.
    trainer.steps_between_readings = untimed
    trainer.epoch(until=min(untimed + steps, available))
    (first, since), (last, until) = next(each for each in told if each[0] >= untimed), told[-1]
    step_s = (until - since) / (last - first)
    return PhaseEstimate(
        phase=phase,
        steps=trainer.schedule.total,
        step_ms=1e3 * step_s,
        images_per_s=min(recipe.batch_size, len(data)) / step_s,
        duration_s=trainer.schedule.total * step_s,
    )


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process (on a CPU) or its tensors (on a GPU) have held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def loader_rate(recipe: Recipe, data: Images, world: World = ALONE, *, batches: int = 20) -> float:
    """Training images a second that the loader makes when no step waits for it: to be well above the steps' own rate."""
    resolution = recipe.get_space(data.num_classes).resolutions[-1]
    index = torch.arange(min(recipe.batch_size, len(data)))
    plans = [BatchPlan(world.share((index + number * len(index)) % len(data)), resolution, number) for number in range(batches)]
    workers = default_workers(data) if recipe.workers is None else recipe.workers
    return measure_loader(data, plans, augmentation=recipe.augmentation, device=world.device, workers=workers)
