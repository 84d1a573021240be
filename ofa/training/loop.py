"""The training of a supernet, from its recipe to its weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from ofa.arch import Arch
from ofa.calibrate import calibrate
from ofa.data import Images
from ofa.errors import DataError, RecipeError
from ofa.families import space_argument
from ofa.progress import Progress, silent
from ofa.resolution import Resolution, ascending
from ofa.space import Space
from ofa.supernet import Supernet
from ofa.training.distributed import ALONE, World
from ofa.training.evaluation import check_data, evaluate
from ofa.training.guard import Setback
from ofa.training.metrics import EpochMetrics
from ofa.training.recipe import Recipe
from ofa.training.sampling import Sampler
from ofa.training.start import START
from ofa.training.state import TrainingState
from ofa.training.trainer import Trainer

__all__ = ["reference_archs", "train", "trained_resolutions"]


def train(
    supernet: Supernet,
    recipe: Recipe,
    data: Images,
    *,
    selection: Images | None = None,
    world: World = ALONE,
    state: TrainingState | None = None,
    progress: Progress = silent,
    on_metrics: Callable[[EpochMetrics], None] | None = None,
    on_state: Callable[[TrainingState], None] | None = None,
    on_setback: Callable[[Setback], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    sampler: Sampler | None = None,
    teacher: nn.Module | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[EpochMetrics]:
    """Train a supernet in place through the phases of a recipe; each phase starts from the weights of the phase before.

    Every random choice is derived from the recipe's seed and the step number. A resumed run therefore ends bit for bit as if it had
    never stopped (on a CPU, with the same number of threads and processes). If the loss is not finite or collapses, the run is rolled
    back to its last good state with half the learning rate.

    Args:
        supernet: a supernet of the recipe's space; training runs on its device.
        recipe: the recipe.
        data: the images to train on.
        selection: other images, on which the smallest, a middle and the largest network are evaluated after some epochs.
        world: the processes that train together; each calls this function with the same arguments and takes its share of every batch.
        state: the state to resume from; None starts a new run.
        progress: told of every step.
        on_metrics: called with each epoch's metrics when the epoch ends.
        on_state: called with the state to save: every ``checkpoint_steps`` steps, at every epoch's end, and every
            ``SECONDS_BETWEEN_STATES`` seconds of ``clock`` (or every step, on a GPU every ten, where those take longer).
        on_setback: called when training diverged and is rolled back.
        on_note: called with a sentence, in each epoch, when fewer processes read images than was asked for.
        sampler: draws the subnets instead of the samplers of the phases.
        teacher: the teacher that the recipe names, prepared for these images and on the supernet's device (``ofa.teachers``).
        stop: asked after every step (on a GPU every ten) and during an evaluation. Once it returns true, ``on_state`` is called with the
            state and training returns. Resumed from that state, the run ends as if it had not been stopped.
        clock: returns seconds; it times the states.

    Returns:
        The metrics of every epoch that ended in this call (and, where an evaluation is due, was evaluated).

    Raises:
        DataError: the labels do not suit the task, or the data has another number of classes or channels than the supernet.
        RecipeError: a phase is beyond the space, a teacher is missing or one too many, or training diverged too often.
        WeightsError: the state is of another space, recipe or teacher.
    """
    check_data(recipe.get_task(), supernet.space.num_classes, data)
    _check_channels(supernet, data)
    if (teacher is not None) is not (recipe.teacher not in ("", START)):
        raise RecipeError(
            f"train must be given the teacher that the recipe names, and no other, but teacher is {type(teacher).__name__} where the "
            f"recipe names '{recipe.teacher}'; pass what find_teacher(recipe).prepared(...) of ofa.teachers gives"
        )
    was_training = supernet.training
    supernet.train().synchronize(world.size > 1)
    trainer = Trainer(supernet, recipe, data, world, progress, on_state, on_setback, sampler, on_note, teacher, clock=clock)
    if stop is not None:
        trainer.stop = stop
    metrics: list[EpochMetrics] = []
    try:
        if state is not None:
            trainer.restore(state)
        elif recipe.start is not None and selection is not None and on_note is not None and recipe.evaluate_every:
            _tell_before(trainer, data, selection, on_note)
        while not trainer.stopped and (trainer.pending is not None or not trainer.finished):
            epoch = trainer.pending or trainer.epoch()
            if epoch is not None and selection is not None and world.is_first and _is_due(epoch, recipe.evaluate_every):
                epoch = _evaluated(trainer, epoch, data, selection)
            if epoch is None:
                continue
            metrics.append(epoch)
            if on_metrics is not None:
                on_metrics(epoch)
            trainer.pending = None
    finally:
        supernet.train(was_training).synchronize(False).freeze(())
    return metrics


def trained_resolutions(recipe: Recipe, space: Space) -> tuple[Resolution, ...]:
    """The resolutions that the recipe's phases draw from, in ascending order."""
    return ascending(resolution for phase in recipe.phases for resolution in phase.restrict(space).resolutions)


def reference_archs(space: Space, resolutions: Sequence[Resolution]) -> dict[str, Arch]:
    """The smallest, a middle and the largest network of a space, at the first, the middle and the last of ``resolutions``."""
    middle = {gene.name: (len(gene.values) - 1) // 2 for stage in space.stages for gene in stage.genes}
    middle |= {gene.name: (len(gene.values) - 1) // 2 for gene in space.network}
    depth = (min(len(stage.depths) for stage in space.stages) - 1) // 2
    return {
        "smallest": space.smallest(resolutions[0]),
        "middle": space.uniform(resolution=space.resolutions.index(resolutions[(len(resolutions) - 1) // 2]), depth=depth, genes=middle),
        "largest": space.largest(resolutions[-1]),
    }


def _is_due(epoch: EpochMetrics, every: int) -> bool:
    return epoch.epoch == epoch.epochs or (every > 0 and epoch.epoch % every == 0)


def _evaluated(trainer: Trainer, epoch: EpochMetrics, data: Images, selection: Images) -> EpochMetrics | None:
    """The epoch's metrics with the accuracies of three networks of the space; None if training is to stop."""
    accuracies = _accuracies(trainer, data, selection)
    if accuracies is None:
        return None
    trainer.note = f", {trainer.recipe.get_task().metric} " + " / ".join(f"{accuracy:.1%}" for accuracy in accuracies.values())
    return replace(
        epoch,
        smallest_accuracy=accuracies["smallest"],
        middle_accuracy=accuracies["middle"],
        largest_accuracy=accuracies["largest"],
    )


def _tell_before(trainer: Trainer, data: Images, selection: Images, on_note: Callable[[str], None]) -> None:
    """Report the scores of networks that start from trained weights before the first step, after calibration only."""
    trainer.begin()  # may reorder channels
    accuracies = _accuracies(trainer, data, selection) if trainer.world.is_first else None
    if accuracies is not None:
        words = ", ".join(f"{accuracy:.1%} {name}" for name, accuracy in accuracies.items())
        on_note(f"before the first step, only calibrated: {trainer.recipe.get_task().metric} {words}")


def _accuracies(trainer: Trainer, data: Images, selection: Images) -> dict[str, float] | None:
    """The accuracies of three networks of the space, calibrated; None if training is to stop."""
    few = selection.subset(torch.arange(min(len(selection), trainer.recipe.evaluation_images)))
    archs = reference_archs(trainer.supernet.space, trained_resolutions(trainer.recipe, trainer.supernet.space))
    accuracies, task = dict[str, float](), trainer.recipe.get_task()
    with trainer.averaged():
        for name, arch in archs.items():
            if trainer.stops_here():
                return None
            words = f"evaluating the {name} network, {len(accuracies) + 1} of {len(archs)}"
            trainer.progress(trainer.step, trainer.schedule.total, words)
            network = trainer.supernet.extract(arch)
            calibrate(network, data, resolution=arch.resolution)
            accuracies[name] = evaluate(network, few, resolution=arch.resolution, task=task)
    return accuracies


def _check_channels(supernet: Supernet, data: Images) -> None:
    channels = len(data.normalization[0])
    if channels != supernet.space.in_channels:
        raise DataError(
            f"images must have the channels of the space, but {supernet.space.name} has {supernet.space.in_channels} and the data "
            f"{channels}; make a space of {channels} with: ofa space {space_argument(supernet.space)} --channels {channels} -o FILE.json"
        )
