"""Which run ``ofa train`` is about, and where that stands: new, stopped on its way, or to go on after its end."""

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
    """How a run goes on.

    Attributes:
        more_epochs: to add to a run that has ended; None goes on with one that has not.
        learning_rate: of the added epochs; None is a tenth of the last phase's.
        data: where its images are now, if they moved.
        test_data: where those to test on are now, if they moved.
    """

    more_epochs: int | None = None
    learning_rate: float | None = None
    data: str | None = None
    test_data: str | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands.

    Attributes:
        recipe: of the run, which finds its images from any folder.
        record: what the run knows of its images; None if it is new, or of a version that kept none.
        state: from which it goes on; None from its first step.
        metrics: up to there.
        notes: what was damaged of the run, and left out, in a sentence each.
        ended: the supernet of a run that has ended, of which nothing is left to do; None of any other.
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
    """The recipe and the folder that a command line names; with ``--resume`` the folder alone is enough, because it has its recipe.

    With ``trust`` a ``module:attribute`` is imported because the file says so.

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
    """The command that goes on with a run."""
    return f"ofa train --resume {shlex.quote(str(run))}"


def standing(recipe: Recipe, output: Path, resumption: Resumption | None, *, overwrite: bool, world: World) -> Standing:
    """Where the run in a folder stands; a new one if there is none, or if it may be replaced.

    Args:
        recipe: that was named, which must be the run's if it goes on.
        output: the folder.
        resumption: how it is to go on, if it is to.
        overwrite: whether a run that is there may be replaced.
        world: the processes that train together; the first of them writes.

    Raises:
        OfaError: a run is there and is not to be replaced, cannot go on, or not with this recipe.
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
    """Add epochs to a run that has ended; the recipe that was named must be the run's."""
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
    world.wait()  # all have seen that it has ended
    if world.is_first:
        training.extend_run(output, longer)
    world.wait()
    return longer
