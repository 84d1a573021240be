"""Paths in a recipe (images, start, teacher), made independent of the current folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ofa.data import data_names
from ofa.errors import DataError
from ofa.training.recipe import Recipe
from ofa.training.start import Start

__all__ = ["anchored", "anchored_recipe", "as_in_run", "check_places"]


def anchored(line: str) -> str:
    """A value such as ``data`` of a recipe, made independent of the current folder.

    Paths that exist, and patterns that match files, become absolute; symbolic links are kept. Names of data sets, ``module:attribute``,
    and paths that do not exist stay as they are.
    """
    if not line or line in data_names():
        return line
    path = Path(line).expanduser()
    return os.path.abspath(path) if _is_there(path) else line


def anchored_recipe(recipe: Recipe) -> Recipe:
    """A recipe that names the same images, start and teacher from any folder."""
    return replace(
        recipe,
        data=anchored(recipe.data),
        test_data=anchored(recipe.test_data),
        start=None if recipe.start is None else replace(recipe.start, path=anchored(recipe.start.path)),
        teacher=anchored(recipe.teacher),
    )


def as_in_run(recipe: Recipe, run: Recipe, typed: tuple[str, str] | None = None) -> Recipe:
    """A recipe with the run's own values of images, start and teacher, where both mean the same or the recipe names no start.

    Args:
        recipe: a recipe given to resume the run, perhaps from another folder.
        run: the run's own recipe, with absolute paths.
        typed: ``data`` and ``test_data`` as typed when the run began.
    """
    data, test_data = typed or (run.data, run.test_data)
    return replace(
        recipe,
        data=_line_of_run(recipe.data, run.data, data),
        test_data=_line_of_run(recipe.test_data, run.test_data, test_data),
        start=_start_of_run(recipe.start, run.start),
        teacher=_line_of_run(recipe.teacher, run.teacher, run.teacher),
    )


def _start_of_run(given: Start | None, own: Start | None) -> Start | None:
    """The run's own start, which records what was taken from it, with the settings of a given one."""
    if given is None or own is None:
        return own or given
    taken = replace(own, classifier=given.classifier, classifier_rate=given.classifier_rate)
    return replace(taken, path=_line_of_run(given.path, own.path, own.path), sha256=given.sha256 or own.sha256)


def _line_of_run(given: str, own: str, typed: str) -> str:
    """The run's own value if a given one means the same: both are one path, or it is what was typed then and no path from here."""
    here = anchored(given)
    if given == own:
        return given  # not the file's own text, which is trusted less than what was typed
    return own if here == own or given == typed == here else given


def check_places(recipe: Recipe) -> None:
    """Raise DataError if images of a run are no longer at their path; the sentence names it and the option for the new one."""
    for option, line in (("--data", recipe.data), ("--test-data", recipe.test_data)):
        if Path(line).is_absolute() and not _is_there(Path(line)):
            raise DataError(
                f"the images of a run must be where it can find them, but there is no '{line}' any more; say where they are now with "
                f"{option} PATH"
            )


def _is_there(path: Path) -> bool:
    return os.path.exists(path) or ("*" in path.name and any(path.parent.glob(path.name)))
