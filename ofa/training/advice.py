"""Warnings about recipes that are valid but probably not intended. Each is one sentence with a next step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ofa.space import Gene, Space
from ofa.training.phase import Phase
from ofa.training.recipe import Recipe

__all__ = ["recipe_warnings"]

_FEW_STEPS = 20


def recipe_warnings(recipe: Recipe, images: int | None = None) -> tuple[str, ...]:
    """Warnings about settings of a recipe that are probably mistakes.

    Args:
        recipe: the recipe.
        images: number of training images; None leaves out the warnings that depend on it.

    Returns:
        One sentence for each warning.
    """
    space = recipe.get_space()
    found = [sentence for phase in recipe.phases for sentence in _about_phase(phase, space)]
    first = recipe.phases[0]
    if first.needs_copy and not recipe.teacher and recipe.start is None:
        found.append(
            f"phases.{first.name}.distillation_weight should be 0 in the first phase, but is {first.distillation_weight:g}, so that a copy "
            "of the untrained network teaches; set it to 0, or begin with a phase that trains the largest network"
        )
    if images is not None:
        found += _about_steps(recipe, images)
    return tuple(found)


def _about_phase(phase: Phase, space: Space) -> Iterator[str]:
    where = f"phases.{phase.name}"
    restricted = phase.restrict(space)
    is_open = restricted.restrict(resolution=restricted.resolutions[-1:]).size > 1
    for gene in phase.free:
        if _frees_nothing(gene, phase, space):
            yield f"{where}.free.{gene.name} should open a choice, but has only the largest value; add smaller ones or leave it out"
    if phase.subnets_per_step > 1 and not is_open:
        yield (
            f"{where}.subnets_per_step should be 1 where nothing is free, but is {phase.subnets_per_step}, so that each step "
            f"computes the same network as often; set it to 1 or free a gene"
        )
    elif phase.sandwich and phase.subnets_per_step == 2:
        yield (
            f"{where}.subnets_per_step should be at least 3 with sandwich, but is 2, so that only the smallest and the largest network "
            "are trained and those between them hardly learn; set it to 4"
        )
    if phase.warmup_epochs > phase.epochs / 2:
        yield (
            f"{where}.warmup_epochs should be at most half of its epochs, but is {phase.warmup_epochs:g} of {phase.epochs}, which leaves "
            "few steps at the full learning rate; shorten it"
        )


def _frees_nothing(gene: Gene, phase: Phase, space: Space) -> bool:
    without, beside = (replace(phase, free=free).restrict(space) for free in ((), (gene,)))
    return without.size == beside.size and without.largest() == beside.largest()


def _about_steps(recipe: Recipe, images: int) -> Iterator[str]:
    steps = max(1, images // recipe.batch_size)
    if images < recipe.batch_size:
        yield (
            f"batch_size should be at most the number of training images, but is {recipe.batch_size} for {images}, so that an epoch is one "
            "step; lower it"
        )
    total = steps * sum(phase.epochs for phase in recipe.phases)
    if total < _FEW_STEPS:
        yield (
            f"a run should have some hundred steps to learn anything, but has {total} ({images} images, batch_size {recipe.batch_size}); "
            "raise the epochs or lower batch_size"
        )
    last = recipe.phases[-1]
    if recipe.weight_averaging:
        horizon, available = 1 / (1 - recipe.weight_averaging), steps * last.epochs
        if horizon > available:
            yield (
                f"weight_averaging should look back over fewer steps than a phase has, but {recipe.weight_averaging:g} looks back over "
                f"{horizon:,.0f} and phases.{last.name} has {available:,}; lower it to {_fitting_decay(available):g}"
            )


def _fitting_decay(steps: int) -> float:
    """The largest decay of 0.9, 0.99, ... whose horizon is a tenth of the steps or less; 0 if there is none."""
    nines = len(str(max(steps // 10, 1))) - 1
    return round(1 - 10.0**-nines, nines) if nines else 0.0
