"""Batches of the steps of a phase: their images, resolutions and seeds, derived from the recipe's seed."""

from __future__ import annotations

from collections.abc import Sequence

from ofa.data import BatchPlan, batch_indices
from ofa.resolution import Resolution
from ofa.training.distributed import World
from ofa.training.recipe import Recipe
from ofa.training.schedule import Place

__all__ = ["ARCHS", "DROPOUT", "IMPORTANCE", "epoch_plans", "importance_plans"]

_ORDER, _BATCH, ARCHS, DROPOUT, IMPORTANCE = range(5)
"""Streams of a training's random numbers, by purpose."""

_MOST_IMPORTANCE_BATCHES = 16
"""The most batches on which the importance of channels is measured."""


def epoch_plans(recipe: Recipe, images: int, place: Place, resolutions: Sequence[Resolution], world: World) -> list[BatchPlan]:
    """The batches of an epoch: this process's share of the images, a resolution shared by all processes, and a seed of its own.

    Args:
        recipe: recipe of the run.
        images: number of training images.
        place: any step of the epoch.
        resolutions: the resolutions to draw from, in pixels.
        world: the processes that train together.
    """
    order = recipe.generator("training", _ORDER, place.epoch_start)
    plans = []
    for step, index in enumerate(batch_indices(images, recipe.batch_size, order, drop_last=True), start=place.epoch_start):
        resolution = resolutions[int(recipe.rng("training", _BATCH, step).integers(len(resolutions)))]
        seed = recipe.generator("training", _BATCH, step, world.rank).initial_seed()
        plans.append(BatchPlan(world.share(index), resolution, seed))
    return plans


def importance_plans(recipe: Recipe, images: int, place: Place, resolutions: Sequence[Resolution], world: World) -> list[BatchPlan]:
    """The batches for measuring channel importance; arguments as of ``epoch_plans``, where ``place`` is the beginning of a phase."""
    order = recipe.generator("training", IMPORTANCE, place.number)
    indices = batch_indices(images, recipe.batch_size, order, drop_last=True)[:_MOST_IMPORTANCE_BATCHES]
    drawn = recipe.rng("training", IMPORTANCE, place.number).integers(len(resolutions), size=len(indices)).tolist()
    # A seed makes the loader replace broken images by others, so that all processes have equally many batches.
    return [BatchPlan(world.share(index), resolutions[number], 0) for index, number in zip(indices, drawn, strict=True)]
