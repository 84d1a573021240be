"""Recipes by name."""

from __future__ import annotations

from ofa.data import Augmentation
from ofa.families import get_space
from ofa.training.recipe import Recipe
from ofa.training.shrinking import progressive_shrinking

__all__ = ["demo_recipe"]


def demo_recipe(*, epochs: int = 36, seed: int = 0) -> Recipe:
    """A small MobileNetV3 supernet on scikit-learn's handwritten digits: less than a minute on two CPU cores.

    Batches are small because a digit says much and there are few: steps, not images, are what so short a training lacks.

    Args:
        epochs: of all phases together.
        seed: of every random choice.
    """
    space = get_space("ofa-mbv3-tiny")
    return Recipe(
        space=space.name,
        data="digits",
        batch_size=32,
        augmentation=Augmentation(shift=0.06, scale=0.1),
        fractions=(0.6, 0.2, 0.2),
        phases=progressive_shrinking(
            space, epochs=epochs, learning_rate=0.15, shrinking_learning_rate=0.15, subnets_per_step=2, warmup_epochs=0.5
        ),
        seed=seed,
    )
