"""RUN: the folder of a training run.

It holds ``config.toml``, ``space.json`` where the space is none of ofa's, ``data.parquet`` (which image was in which part),
``metrics.jsonl``, the states of a run that goes on in ``checkpoints/``, ``adoption.json`` where a model was adopted, and at the end
``supernet.safetensors``. Every file is whole or absent: a full disk or a killed process leaves the last good state.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ofa.adopting.record import ADOPTION
from ofa.errors import FileError, RecipeError, WeightsError
from ofa.families import SPACES
from ofa.files import make_folder, replacing, sync_folder
from ofa.lines import Lines
from ofa.locking import writing
from ofa.progress import Progress, silent
from ofa.seal import BLANK_SEAL
from ofa.supernet import Supernet
from ofa.training.differences import changed_keys
from ofa.training.evaluation import check_classes
from ofa.training.metrics import EpochMetrics, read_metrics
from ofa.training.places import anchored_recipe, as_in_run
from ofa.training.recipe import SPACE, Recipe
from ofa.training.record import RECORD, DataRecord
from ofa.training.run_data import RunData, data_of_run
from ofa.training.start import CONFIG, WEIGHTS
from ofa.training.state import Totals, TrainingState
from ofa.training.states import States
from ofa.weights import SPACE_KEY, Weights, space_header

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "METRICS",
    "SPACE",
    "WEIGHTS",
    "Run",
    "append_metrics",
    "begin_run",
    "check_recipe",
    "continue_run",
    "extend_run",
    "forget_states",
    "has_ended",
    "is_free",
    "load_run",
    "own_recipe",
    "save_run",
    "save_state",
]

METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"
_TOLD = 5
"""Keys that the sentence about another recipe names."""


@dataclass(frozen=True, kw_only=True)
class _Values:
    """What every state must say, whatever else it says."""

    rate_factor: float
    setbacks: int
    totals: Mapping[str, Any]
    pending: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """A training run that was read back.

    Attributes:
        supernet: its weights.
        recipe: how it was trained.
        metrics: of every epoch.
        folder: where it lies.
        damaged: lines of its metrics that are damaged, and left out.
    """

    supernet: Supernet
    recipe: Recipe
    metrics: tuple[EpochMetrics, ...]
    folder: Path
    damaged: int = 0

    def load_data(self, *, data: str = "", test_data: str = "", progress: Progress = silent) -> RunData:
        """The images of the run in the parts that they had when it began, and what has changed since.

        Args:
            data: where its images are now; empty for where the recipe says.
            test_data: where those to test on are now; empty for where the recipe says.
            progress: told of the images that were read.

        Raises:
            DataError: they are gone, of other classes than the run or its supernet has, another set, or leave a part empty.
            FileError: the record of the data is damaged.
        """
        outputs = self.supernet.space.num_classes
        record = DataRecord.load(self.folder)
        if record is not None:
            check_classes(outputs, record.facts.class_names)  # before a large set is read
        found = data_of_run(self.recipe, record, data=data, test_data=test_data, progress=progress)
        check_classes(outputs, found.splits.train.class_names)
        return found


def begin_run(folder: str | os.PathLike[str], recipe: Recipe, record: DataRecord | None = None) -> None:
    """Make the folder of a run that has no weights, no states and no metrics yet; those of an earlier run go.

    Called before training, it finds out that the folder cannot be written before hours were spent.

    Args:
        folder: of the run.
        recipe: which is written so that it names the same images from any folder.
        record: of its data, for later commands to compare; without one they say that they cannot.

    Raises:
        FileError: the folder cannot be made or written.
    """
    make_folder(folder)
    with writing(folder, "beginning a run"):
        # The recipe goes first and comes last, on the disk too: a folder with one is a run, and must not have files of another.
        for name in (CONFIG, WEIGHTS, RECORD, ADOPTION):
            _forget(Path(folder) / name)
        _states(folder).forget()
        _write_metrics(folder, ())
        try:
            if record is not None:
                record.save(folder)
            _write_recipe(folder, recipe)
        except BaseException:
            for name in (RECORD, SPACE, METRICS):
                _forget(Path(folder) / name)
            raise


def is_free(folder: str | os.PathLike[str]) -> bool:
    """Whether a run may begin in a folder without asking: it is empty, or ``begin_run`` was killed there before it wrote the recipe."""
    place = Path(folder)
    names = {path.name for path in place.iterdir() if not path.name.endswith(".ofa.part")}
    # The empty metrics, which come first, tell it from a folder of somebody who calls a file as we do.
    return not names or (names <= {METRICS, RECORD, SPACE} and METRICS in names and not (place / METRICS).stat().st_size)


def save_state(folder: str | os.PathLike[str], recipe: Recipe, state: TrainingState) -> None:
    """Keep a state of the run, and the one before it.

    Raises:
        FileError: the folder cannot be written, or the disk is full; earlier states are still there.
    """
    _states(folder).keep(state, {**space_header(recipe.get_space()), "recipe": recipe.to_toml()})


def continue_run(
    folder: str | os.PathLike[str], recipe: Recipe, *, write: bool = True, on_note: Callable[[str], None] = lambda sentence: None
) -> tuple[TrainingState | None, tuple[EpochMetrics, ...]]:
    """The last whole state of a run and the metrics up to it, for a run that goes on; None if it has no state yet.

    Metrics that are later than the state are dropped from the file, because those epochs are trained again, and so is the line of an
    epoch that the state ends with, because that is evaluated again.

    Args:
        folder: of the run.
        recipe: which must be the run's own, but for the keys of ``ofa.training.differences.IMMATERIAL``; the run keeps it from here on.
        write: whether to write the recipe and drop those lines, and damaged files; of several processes only one must.
        on_note: told in a sentence each what is damaged and left out.

    Raises:
        FileError: a file is missing or damaged, or all states are.
        WeightsError: the state is of another space.
        RecipeError: the run was made by another recipe; the sentence names the keys.
    """
    place = Path(folder)
    if not (place / CONFIG).is_file():
        raise FileError(f"a run that goes on must have {CONFIG}, but '{folder}' has none; begin one without --resume")
    check_recipe(folder, recipe)
    recipe = own_recipe(folder, recipe)
    if write:
        _write_recipe(folder, recipe)
    found = _states(folder).last(remove=write, on_note=on_note)
    if found is None:
        return None, ()
    state, weights = found
    if not _is_of(weights, recipe):
        raise WeightsError(
            f"a checkpoint must be of its recipe's space, but '{weights.path}' is of {weights.metadata.get('space')} and the recipe of "
            f"{recipe.get_space().name}, which are others; resume the run that made it"
        )
    until = state.step - 1 if "pending" in state.values else state.step
    epochs, damaged = read_metrics(place / METRICS)
    if damaged:
        on_note(left_out(folder, damaged))
    done = tuple(epoch for epoch in epochs if epoch.step <= until)
    if write:
        _write_metrics(folder, done)
    return state, done


def left_out(folder: str | os.PathLike[str], damaged: int) -> str:
    """What is said of damaged lines of a run's metrics."""
    told = "a line is" if damaged == 1 else f"{damaged} lines are"
    return f"'{Path(folder) / METRICS}' must be as it was written, but {told} damaged; what those epochs came to is left out"


def own_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> Recipe:
    """A recipe with the run's own lines for its images and its space where both mean the same, though the current folder may be another.

    Raises:
        FileError, RecipeError: the run's recipe or record cannot be read.
    """
    record = DataRecord.load(folder)
    typed = None if record is None else (record.facts.data.typed, record.facts.test_data.typed)
    own = Recipe.load(Path(folder) / CONFIG)
    recipe = as_in_run(recipe, own, typed)
    return replace(recipe, space=own.space) if recipe.get_space() == own.get_space() else recipe


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(f"'{path}' of an earlier run must be a file that can be removed, but {reason}; choose another folder") from error


def check_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Whether a run can go on with a recipe.

    Raises:
        RecipeError: keys differ that change what the run comes to; the sentence names them with both values.
    """
    path = Path(folder) / CONFIG
    changes = changed_keys(Recipe.load(path), own_recipe(folder, recipe))
    if changes:
        told = [f"{key} {before} -> {now}" for key, before, now in changes[:_TOLD]] + ["..."] * (len(changes) > _TOLD)
        raise RecipeError(
            f"a run must go on with the recipe that it began with, but the new one differs from '{path}' in {', '.join(told)}; "
            f"go on without the change by 'ofa train --resume {folder}', or train into another folder"
        )


def has_ended(folder: str | os.PathLike[str]) -> bool:
    """Whether a run has its weights and no states: an extension that goes on has both, the weights of the end before."""
    return (Path(folder) / WEIGHTS).is_file() and not _states(folder).paths


def forget_states(folder: str | os.PathLike[str]) -> None:
    """Remove what is left of the states of a run that has ended: whoever ended it may have been killed before their folder was removed."""
    _states(folder).forget()


def extend_run(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Make a run that has ended one that goes on; ``continue_run`` then gives its state.

    Its weights stay until the added phase has ended.

    Args:
        folder: of the run.
        recipe: the run's, with phases added (``ofa.training.differences.extended``).

    Raises:
        FileError, WeightsError: the run cannot be read, or written.
    """
    with writing(folder, "extending a run"):
        run = load_run(folder)
        last = run.recipe.phases[-1]
        if not run.metrics or not run.metrics[-1].step or (run.metrics[-1].phase, run.metrics[-1].epoch) != (last.name, last.epochs):
            raise FileError(
                f"a run must know the steps that it ended with to go on, but no line of '{Path(folder) / METRICS}' says them; train it anew"
            )
        factor = run.metrics[-1].rate_factor
        tensors = {f"store.{name}": tensor for name, tensor in run.supernet.state_dict().items()}
        # Each setback halved the rate.
        values = {"rate_factor": factor, "setbacks": round(-math.log2(factor)), "totals": asdict(Totals())}
        # The recipe goes last: with the state alone, the run still stands at its end.
        save_state(folder, recipe, TrainingState(run.metrics[-1].step, tensors, values))
        _write_recipe(folder, recipe)


def _states(folder: str | os.PathLike[str]) -> States:
    return States(Path(folder) / CHECKPOINTS, _Values)


def append_metrics(folder: str | os.PathLike[str], metrics: EpochMetrics) -> None:
    """Add one epoch's line to the metrics, so that a run that dies leaves what it knew."""
    Lines(Path(folder) / METRICS).append(asdict(metrics))


def save_run(folder: str | os.PathLike[str], supernet: Supernet, recipe: Recipe, metrics: Iterable[EpochMetrics]) -> None:
    """Write a run that has ended; each file takes its place only when it is complete, and the states go last.

    Raises:
        FileError: the folder cannot be written.
    """
    make_folder(folder)
    with writing(folder, "ending a run"):
        supernet.save(Path(folder) / WEIGHTS, metadata={"recipe": recipe.to_toml()})
        _write_recipe(folder, recipe)
        _write_metrics(folder, metrics)
        _states(folder).forget()


def load_run(folder: str | os.PathLike[str], *, trust: bool = False) -> Run:
    """Read what ``save_run`` wrote.

    Args:
        folder: of the run.
        trust: whether ``module:attribute`` is imported because the run's recipe says so: images and an optimizer of one's own. Otherwise
            ``Run.load_data`` must be told the images again.

    Raises:
        FileError: a file is missing or damaged.
        RecipeError: the recipe is not one.
        WeightsError: the weights are damaged or of another space than the recipe's.
    """
    place = Path(folder)
    missing = [name for name in (WEIGHTS, CONFIG, METRICS) if not (place / name).is_file()]
    if missing:
        raise FileError(
            f"a run must have {WEIGHTS}, {CONFIG} and {METRICS}, but '{folder}' lacks {', '.join(missing)}; make one with: ofa train"
        )
    recipe = Recipe.load(place / CONFIG, trust=trust)
    supernet = Supernet.load(place / WEIGHTS)
    if supernet.space != recipe.get_space(supernet.space.num_classes):
        raise WeightsError(
            f"the weights of a run must be of its recipe's space, but '{place / WEIGHTS}' is of {supernet.space.name} and the recipe of "
            f"{recipe.get_space().name}, which are others; put the files of one run together"
        )
    metrics, damaged = read_metrics(place / METRICS)
    return Run(supernet, recipe, metrics, place, damaged)


def _is_of(weights: Weights, recipe: Recipe) -> bool:
    """Whether a state is of a recipe's space; one of an earlier version only says a name."""
    space = recipe.get_space()
    return weights.space() == space if SPACE_KEY in weights.metadata else weights.metadata.get("space") == space.name


def _write_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Write the recipe, and the space where no name tells it: the run must be readable without what made the space."""
    carried = Path(folder) / SPACE
    if recipe.space in SPACES.own:
        carried.unlink(missing_ok=True)
    else:
        recipe.get_space().save(carried)
    with replacing(Path(folder) / CONFIG) as temporary:
        text = anchored_recipe(recipe).to_toml(None if recipe.space in SPACES.own else SPACE)
        temporary.write_text(f"# {BLANK_SEAL}\n{text}", encoding="utf-8")


def _write_metrics(folder: str | os.PathLike[str], metrics: Iterable[EpochMetrics]) -> None:
    Lines(Path(folder) / METRICS).write(map(asdict, metrics))
