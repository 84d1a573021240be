"""The run of ``ofa train`` and its state: new, interrupted, or to be extended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ofa.cli.outputs import check_output_folder

if TYPE_CHECKING:
    from ofa.supernet import Supernet
    from ofa.training import DataRecord, EpochMetrics, Recipe, TrainingState
    from ofa.training.distributed import World

__all__ = ["Resumption", "Standing", "recipe_and_run", "resume_words", "standing"]


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """How to continue a run.

    Attributes:
        more_epochs: epochs to add to a finished run; None continues an interrupted one.
        learning_rate: learning rate of the added epochs; None for a tenth of the last phase's.
        data: present path of its images, if they moved.
        test_data: present path of its test images, if they moved.
    """

    more_epochs: int | None = None
    learning_rate: float | None = None
    data: str | None = None
    test_data: str | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The state of a run.

    Attributes:
        recipe: recipe of the run, with paths of images that are valid from any folder.
        record: the run's record of its images; None if it is new, or of a version without records.
        state: training state to continue from; None begins at the first step.
        metrics: metrics up to that state.
        notes: sentences about damaged parts of the run that were left out.
        ended: supernet of a finished run with nothing left to do; otherwise None.
    """

    recipe: Recipe
    record: DataRecord | None = None
    state: TrainingState | None = None
    metrics: tuple[EpochMetrics, ...] = ()
    notes: tuple[str, ...] = ()
    ended: Supernet | None = None


def recipe_and_run(
    config: str | None, output: Path | None, changes: Sequence[str], *, resume: bool, trust: bool = False
) -> tuple[Recipe, Path | None]:
    """The recipe and the folder of a command line; with ``--resume`` the folder alone suffices, because it contains its recipe.

    With ``trust`` a ``module:attribute`` that the file names is imported.

    Raises:
        typer.BadParameter: neither is named.
        OfaError: the recipe cannot be read or is none.
    """
    from ofa.errors import FileError
    from ofa.training import Recipe
    from ofa.training.checkpoint import CONFIG
    from ofa.training.presets import load_recipe

    if config is None and not (resume and output is not None):
        raise typer.BadParameter("name a recipe, or with --resume the folder of a run", param_hint="CONFIG")
    if resume and output is None:
        output, config = Path(str(config)), None
    if config is not None:
        return load_recipe(config, changes, trust=trust), output
    assert output is not None
    if not (output / CONFIG).is_file():
        raise FileError(
            f"--resume must name the folder of a run, but '{output}' has no {CONFIG}; name one, or a recipe and -o RUN to begin"
        )
    return Recipe.load(output / CONFIG, changes, trust=trust), output


def resume_words(run: Path) -> str:
    """The command that continues a run."""
    return f"ofa train --resume {shlex.quote(str(run))}"


def standing(recipe: Recipe, output: Path, resumption: Resumption | None, *, overwrite: bool, world: World) -> Standing:
    """The state of the run in a folder; a new run if there is none, or if it may be replaced.

    Args:
        recipe: the named recipe, which must equal the run's if the run is continued.
        output: folder of the run.
        resumption: how to continue the run; None for a new run.
        overwrite: whether an existing run may be replaced.
        world: the processes that train together; the first one writes.

    Raises:
        OfaError: an existing run is not to be replaced, cannot be continued, or has another recipe.
    """
    import ofa.training as training
    from ofa.errors import FileError
    from ofa.training.checkpoint import CONFIG, WEIGHTS, check_recipe, forget_states, is_free

    begun = (output / CONFIG).is_file()
    if resumption is not None and begun:
        if resumption.more_epochs is not None:
            recipe = _extend(output, recipe, resumption, world=world)
        if training.has_ended(output):
            check_recipe(output, recipe)
            run = training.load_run(output)
            if world.is_first:
                forget_states(output)
            left_out = (training.left_out(output, run.damaged),) if run.damaged else ()
            stand = Standing(recipe=recipe, metrics=run.metrics, notes=left_out, ended=run.supernet)
        else:
            notes: list[str] = []
            state, metrics = training.continue_run(output, recipe, write=world.is_first, on_note=notes.append)
            stand = Standing(recipe=recipe, state=state, metrics=metrics, notes=tuple(notes))
        own = training.own_recipe(output, recipe)
        now = replace(own, data=resumption.data or own.data, test_data=resumption.test_data or own.test_data)
        return replace(stand, recipe=now, record=training.DataRecord.load(output))
    if resumption is not None and resumption.more_epochs is not None:
        raise FileError(f"--epochs must go with a run that has ended, but '{output}' has none; train one first")
    if (output / WEIGHTS).exists() and not overwrite:
        raise FileError(f"'{output}' must not hold a run yet, but has {WEIGHTS}; choose another folder or add --overwrite")
    if begun and not overwrite:
        raise FileError(f"'{output}' must not hold a run yet, but has one that has not ended; add --resume to go on or --overwrite")
    check_output_folder(output, overwrite=overwrite or (output.is_dir() and is_free(output)))
    return Standing(recipe=recipe)


def _extend(output: Path, recipe: Recipe, resumption: Resumption, *, world: World) -> Recipe:
    """Add epochs to a finished run; the named recipe must equal the run's."""
    import ofa.training as training
    from ofa.errors import FileError
    from ofa.training.checkpoint import check_recipe
    from ofa.training.differences import extended
    from ofa.training.optimizer import check_trusted

    check_trusted(recipe.optimizer)
    assert resumption.more_epochs is not None
    if not training.has_ended(output):
        raise FileError(
            f"epochs can be added only to a run that has ended, but '{output}' has not; first let it end by 'ofa train --resume {output}'"
        )
    check_recipe(output, recipe)
    longer = extended(training.own_recipe(output, recipe), resumption.more_epochs, resumption.learning_rate)
    world.wait()  # all processes have seen the finished run
    if world.is_first:
        training.extend_run(output, longer)
    world.wait()
    return longer
