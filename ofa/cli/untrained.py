"""Runs with weights from elsewhere, and a recipe with the settings that later commands need."""

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
        space: name of the space in the recipe.
        data: images for later commands with the run, which are read and recorded; None if they are not available.
        without: value of ``data`` in the recipe if ``data`` is None.
        class_names: names of the supernet's classes, in the order of its logits; None if not known.
        normalization: mean and std of each channel of its images; None for those of the data.

    Returns:
        Remarks for the user, such as the reason why there is no record of the data.

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
    """The recipe of a run with weights from elsewhere.

    Args:
        space: the space.
        named: name of the space in the recipe.
        data: ``data`` in the recipe.
        normalization: mean and std of each channel; None for those of the data.
    """
    from dataclasses import replace

    from ofa.training import Recipe, progressive_shrinking

    last = progressive_shrinking(space, epochs=10)[-1]
    mean, std = normalization or ((), ())
    return Recipe(space=named, data=data, mean=mean, std=std, phases=(replace(last, name="all", epochs=1, reorder_channels=False),))


def _record(recipe: Recipe, space: Space, class_names: Sequence[str] | None) -> tuple[DataRecord | None, list[str]]:
    """The record of a run's data; None and the reason if the data does not fit the supernet."""
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
                f"the data's classes must be in the order of the logits, but logit {first} is '{class_names[first]}' and class {first} of "
                f"the data is '{known[first]}'; rename the images' folders, or train with a new classifier"
            )
    except DataError as error:
        return None, [f"the run is written without a record of its data, and commands that need images will refuse these, because {error}"]
    return found.record, list(found.changes.sentences())
