"""A run from its recipe to its weights: what a recipe names is opened first, before images are read, which may take long."""

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
    """What a recipe names beside its images, found and fit for its space.

    Attributes:
        recipe: the recipe.
        start: the weights that it starts from; None if it starts from none, or its run goes on from a state.
        teacher: who teaches; None for a copy of the largest network, or nobody.
    """

    recipe: Recipe
    start: StartWeights | None
    teacher: FoundTeacher | None

    def begin(self, data: Images, device: torch.device) -> tuple[Supernet, Recipe]:
        """The supernet at its first step, and the recipe with what was taken of its start filled in.

        Args:
            data: the images to train on.
            device: where to train.

        Raises:
            WeightsError: the start's classifier is to be kept and is of other classes.
        """
        space = self.recipe.get_space(data.num_classes)
        if self.start is None and isinstance(space, AdoptedSpace) and space.has_constants:
            raise RecipeError(
                f"an adopted model with constants must be trained from the weights that it came with, but {space.name} has some and the "
                "recipe no start; add --from RUN with what ofa adopt wrote"
            )
        supernet, recipe = self.recipe.build_supernet(data.num_classes), self.recipe
        if self.start is not None:
            recipe = replace(recipe, start=self.start.copy_to(supernet, data.class_names))
        return supernet.to(device), recipe

    def teacher_for(self, data: Images, device: torch.device) -> Teacher | None:
        """The teacher, ready for the images and the resolutions of the recipe; errors as of ``FoundTeacher.prepared``."""
        if self.teacher is None:
            return None
        return self.teacher.prepared(data, trained_resolutions(self.recipe, self.recipe.get_space()), device)


def open_recipe(recipe: Recipe, *, begins: bool = True) -> Opened:
    """Open what a recipe names, and see that it may be and fits.

    Args:
        recipe: of a run.
        begins: whether the run begins, and does not go on from a state.

    Raises:
        TrustError: a file says ``module:attribute``.
        OfaError: the start or the teacher cannot be read, or does not fit.
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
    """Train a supernet by a recipe in this process, and write its run; ``ofa train --resume`` goes on with one that was cut off.

    Args:
        recipe: a recipe, the path of its file, or the name of one that comes with ofa (``ofa recipes``).
        folder: the run.
        changes: of a recipe that is read, such as ``batch_size=32``.
        start: a run, or a file of a supernet's weights, that training starts from; None for what the recipe says.
        trust: whether ``module:attribute`` is imported because a recipe's file says so, and not only where ``changes`` do.
        on: ``cpu``, ``cuda`` or ``cuda:N``; None takes a GPU if there is one.
        overwrite: whether what is in the folder may be replaced.
        progress: told of every step.

    Raises:
        OfaError: the recipe, its data, its start or its teacher cannot be used, the folder cannot be written, or training fails.
    """
    with writing(folder, "training"):
        check_output_folder(Path(folder), overwrite=overwrite, remedy="name another place, or pass overwrite=True")
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
