"""Runs that no training of ofa made: weights that come from elsewhere, with a recipe for what later commands ask of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa.cli.console import progress_bar

if TYPE_CHECKING:
    from ofa.data.images import Normalization
    from ofa.space import Space
    from ofa.supernet import Supernet
    from ofa.training import DataRecord, Recipe

__all__ = ["untrained_recipe", "write_untrained_run"]


def write_untrained_run(
    output: Path,
    supernet: Supernet,
    space: str,
    data: str | None,
    *,
    without: str,
    class_names: Sequence[str] | None = None,
    normalization: Normalization | None = None,
) -> list[str]:
    """Write a run without metrics, whose recipe's one phase leaves all genes free, as in the last phase of progressive shrinking.

    Args:
        output: its folder, which may be written.
        supernet: its weights.
        space: what a recipe calls their space.
        data: the images that later commands shall use with the run, which are read and recorded; None for some that are not at hand.
        without: what the recipe says in their place.
        class_names: that the supernet tells apart, in the order of its logits; None if they are not known.
        normalization: mean and std of each channel that its images had; None for those of the data.

    Returns:
        Sentences to tell the user, such as why it has no record of the data.

    Raises:
        OfaError: the folder cannot be written.
    """
    from ofa.training import begin_run, save_run

    recipe = untrained_recipe(supernet.space, space, data or without, normalization)
    record, sentences = (None, []) if data is None else _record(recipe, supernet.space, class_names)
    begin_run(output, recipe, record)
    save_run(output, supernet, recipe, ())
    return sentences


def untrained_recipe(space: Space, named: str, data: str, normalization: Normalization | None = None) -> Recipe:
    """The recipe of such a run: one must say something.

    Args:
        space: the space.
        named: what the recipe calls it.
        data: what it says of images.
        normalization: mean and std of each channel; None for those of the data.
    """
    from dataclasses import replace

    from ofa.training import Recipe, progressive_shrinking

    last = progressive_shrinking(space, epochs=10)[-1]
    mean, std = normalization or ((), ())
    return Recipe(space=named, data=data, mean=mean, std=std, phases=(replace(last, name="all", epochs=1, reorder_channels=False),))


def _record(recipe: Recipe, space: Space, class_names: Sequence[str] | None) -> tuple[DataRecord | None, list[str]]:
    """The record of a run's data; None, and the reason, where the data cannot be what it was trained on."""
    from ofa.errors import DataError
    from ofa.training import check_classes, first_data

    try:
        with progress_bar(f"reading {recipe.data}") as progress:
            found = first_data(recipe, progress)
        known = found.splits.train.class_names
        check_classes(space.num_classes, known)
        if class_names is not None and tuple(class_names) != tuple(known):
            first = next(number for number, names in enumerate(zip(class_names, known, strict=True)) if names[0] != names[1])
            raise DataError(
                f"the classes of the data must be those of the logits in their order, but logit {first} is of '{class_names[first]}' and "
                f"class {first} of the data '{known[first]}'; name the images' folders so, or train with a new classifier"
            )
    except DataError as error:
        return None, [f"the run is written without a record of its data, and commands that need images will refuse these, because {error}"]
    return found.record, list(found.changes.sentences())
