"""Sorts channels by importance before a phase that opens widths."""

from __future__ import annotations

from collections.abc import Callable

from ofa.data import Images, load_batches
from ofa.importance import IMPORTANCES, Examples
from ofa.supernet import Supernet
from ofa.training.distributed import World
from ofa.training.evaluation import device_of
from ofa.training.phase import Phase
from ofa.training.plans import IMPORTANCE, importance_plans
from ofa.training.recipe import Recipe
from ofa.training.schedule import Place

__all__ = ["order_channels"]


def order_channels(
    supernet: Supernet, recipe: Recipe, data: Images, place: Place, *, world: World, workers: int, tell: Callable[[str], None]
) -> None:
    """Sort the channels of a supernet by the recipe's importance criterion, equally on all processes.

    Args:
        supernet: the supernet in training; the outputs of the preceding phase's subnets stay the same.
        recipe: recipe of the run; its seed draws the (unaugmented) images that some criteria need.
        data: the images to train on.
        place: the beginning of the phase.
        world: the processes that train together; each takes its share of each batch.
        workers: number of processes that read images.
        tell: called with a short text for every batch.
    """
    importance = IMPORTANCES.get(recipe.importance)
    before = recipe.phases[place.number - 1] if place.number else Phase(name="largest", epochs=1, learning_rate=1)
    trained = before.restrict(supernet.space)
    generator = recipe.generator("training", IMPORTANCE, place.number)
    if not importance.needs_images:
        supernet.reorder_channels(trained, supernet.channel_scores(importance, generator=generator))
        return
    plans = importance_plans(recipe, len(data), place, trained.resolutions, world)
    loader = load_batches(data, plans, device=device_of(supernet), workers=workers)

    def progress(done: int, total: int, text: str = "") -> None:
        tell(f"{place.phase.name}: {text}, batch {done} of {total}")

    try:
        examples = Examples(loader, len(plans), recipe.get_task().loss)
        scores = list(supernet.channel_scores(importance, examples, generator=generator, progress=progress))
    finally:
        loader.close()
    for scores_U in scores:
        if scores_U is not None:
            world.average_(scores_U)
    supernet.reorder_channels(trained, scores)
