"""Training runs from recipe to weights. Everything that a recipe names is opened before images are read, which may take long."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ofa.data import Images
from ofa.errors import RecipeError
from ofa.families import AdoptedSpace
from ofa.locking import writing
from ofa.outputs import check_output_folder
from ofa.progress import Progress, silent
from ofa.supernet import Supernet
from ofa.teachers import FoundTeacher, Teacher, find_teacher
from ofa.training import Recipe, Run, append_metrics, begin_run, first_data, save_run, save_state
from ofa.training import train as train_supernet
from ofa.training.distributed import World, compute_device
from ofa.training.loop import trained_resolutions
from ofa.training.optimizer import check_trusted
from ofa.training.presets import load_recipe
from ofa.training.start import StartWeights, open_start

__all__ = ["Opened", "open_recipe", "train"]


@dataclass(frozen=True, eq=False)
class Opened:
    """A recipe with its start weights and teacher, found and checked against the space.

    Attributes:
        recipe: the recipe.
        start: weights to start from; None for random ones, or if the run resumes from a checkpoint.
        teacher: the teacher; None for a copy of the largest network, or no teacher.
    """

    recipe: Recipe
    start: StartWeights | None
    teacher: FoundTeacher | None

    def begin(self, data: Images, device: torch.device) -> tuple[Supernet, Recipe]:
        """Build the supernet before its first step.

        Args:
            data: the images to train on.
            device: where to train.

        Returns:
            The supernet, and the recipe with a record of what was copied from the start weights.

        Raises:
            RecipeError: an adopted model with constants has no start weights.
            WeightsError: the classifier of the start weights is to be kept, but has other classes.
        """
        space = self.recipe.get_space(data.num_classes)
        if self.start is None and isinstance(space, AdoptedSpace) and space.has_constants:
            raise RecipeError(
                f"an adopted model with constants must be trained from its original weights, but {space.name} has constants and the "
                "recipe has no start; add --from RUN with the run that 'ofa adopt' wrote"
            )
        supernet, recipe = self.recipe.build_supernet(data.num_classes), self.recipe
        if self.start is not None:
            recipe = replace(recipe, start=self.start.copy_to(supernet, data.class_names))
        return supernet.to(device), recipe

    def teacher_for(self, data: Images, device: torch.device) -> Teacher | None:
        """The teacher, ready for the images and resolutions of the recipe; None if there is none.

        Raises:
            OfaError: as in ``FoundTeacher.prepared``.
        """
        if self.teacher is None:
            return None
        return self.teacher.prepared(data, trained_resolutions(self.recipe, self.recipe.get_space()), device)


def open_recipe(recipe: Recipe, *, begins: bool = True) -> Opened:
    """Open the start weights and the teacher that a recipe names, and check them.

    Args:
        recipe: of a run.
        begins: True for a new run; False if the run resumes from a checkpoint, which needs no start weights.

    Raises:
        TrustError: a ``module:attribute`` comes from a file.
        OfaError: the start weights or the teacher cannot be read, or do not match the space.
    """
    check_trusted(recipe.optimizer)
    start = open_start(recipe.start, recipe.get_space()) if begins else None
    return Opened(recipe, start, find_teacher(recipe.teacher, recipe.teacher_resolution))


def train(
    recipe: Recipe | str,
    folder: str | os.PathLike[str],
    *,
    changes: Sequence[str] = (),
    start: str | os.PathLike[str] | None = None,
    trust: bool = False,
    on: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Run:
    """Train a supernet by a recipe in this process, and write its run; ``ofa train --resume`` continues an interrupted run.

    Args:
        recipe: a recipe, the path of a recipe file, or the name of a built-in recipe (``ofa recipes``).
        folder: the run to write.
        changes: settings that override a recipe given by path or name, such as ``batch_size=32``.
        start: a run, or a file of supernet weights, to start from; None for the recipe's own setting.
        trust: whether a ``module:attribute`` in the recipe's file may be imported; one in ``changes`` always is.
        on: ``cpu``, ``cuda`` or ``cuda:N``; None for a GPU if there is one.
        overwrite: whether a folder that is not empty may be replaced.
        progress: called after every step.

    Returns:
        The run, with the trained supernet and its metrics.

    Raises:
        OfaError: the recipe, its data, its start or its teacher cannot be used, the folder cannot be written, or training fails.
    """
    with writing(folder, "training"):
        check_output_folder(Path(folder), overwrite=overwrite, remedy="name another folder, or pass overwrite=True")
        if isinstance(recipe, Recipe):
            chosen = recipe if start is None else recipe.starting_from(os.fspath(start))
        else:
            begun = [] if start is None else [f"start.path={json.dumps(os.fspath(start))}", 'start.sha256=""']
            chosen = load_recipe(recipe, [*changes, *begun], trust=trust)
        opened, place = open_recipe(chosen), compute_device(on)
        found = first_data(chosen)
        supernet, chosen = opened.begin(found.splits.train, place)
        teacher = opened.teacher_for(found.splits.train, place)
        begin_run(folder, chosen, found.record)
        metrics = train_supernet(
            supernet,
            chosen,
            found.splits.train,
            selection=found.splits.selection,
            world=World(0, 1, place),
            progress=progress,
            on_metrics=lambda epoch: append_metrics(folder, epoch),
            on_state=lambda state: save_state(folder, chosen, state),
            teacher=teacher,
        )
        save_run(folder, supernet, chosen, metrics)
        return Run(supernet, chosen, tuple(metrics), Path(folder))
