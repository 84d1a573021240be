"""RUN: the folder of a training run.

It holds ``config.toml`` (the recipe), ``space.json`` (unless the space is one of ofa's), ``data.parquet`` (the part of each image),
``metrics.jsonl``, ``checkpoints/`` (states of a run in progress), ``adoption.json`` (if a model was adopted) and, once training has
ended, ``supernet.safetensors``. Every file is written atomically: a full disk or a killed process leaves the last good state.
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
"""How many differing keys an error names."""


@dataclass(frozen=True, kw_only=True)
class _Values:
    """Values that every state must contain; it may contain others."""

    rate_factor: float
    setbacks: int
    totals: Mapping[str, Any]
    pending: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """A training run, loaded from its folder.

    Attributes:
        supernet: the trained supernet.
        recipe: the recipe that it was trained by.
        metrics: one entry for each epoch.
        folder: the run's folder.
        damaged: number of damaged lines of ``metrics.jsonl``; ``metrics`` lacks them.
    """

    supernet: Supernet
    recipe: Recipe
    metrics: tuple[EpochMetrics, ...]
    folder: Path
    damaged: int = 0

    def load_data(self, *, data: str = "", test_data: str = "", progress: Progress = silent) -> RunData:
        """The images of the run, each in the part that it had when the run began, and the changes since.

        Args:
            data: where the images are now; empty for the recipe's own source.
            test_data: where the test images are now; empty for the recipe's own source.
            progress: told how many images have been read.

        Returns:
            The images in parts, and how the data has changed.

        Raises:
            DataError: the images are missing, are another set, have other classes than the run or its supernet, or leave a part empty.
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
    """Create the folder of a run without weights, states and metrics; those of an earlier run are removed.

    Call it before training, so that an unwritable folder is found before hours are spent.

    Args:
        folder: the run's folder.
        recipe: the run's recipe; its paths are written so that they name the same images from any current folder.
        record: record of the run's data, with which later commands compare the data; without it they report that they cannot.

    Raises:
        FileError: the folder cannot be made or written.
    """
    make_folder(folder)
    with writing(folder, "beginning a run"):
        # The recipe is removed first and written last (synced to disk): a folder with a recipe is a run and must hold no other run's files.
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
    """Whether a run may begin in a folder without asking: the folder is empty, or ``begin_run`` was killed there before the recipe."""
    place = Path(folder)
    names = {path.name for path in place.iterdir() if not path.name.endswith(".ofa.part")}
    # ``begin_run`` writes the empty metrics first; without them, files of these names are somebody else's.
    return not names or (names <= {METRICS, RECORD, SPACE} and METRICS in names and not (place / METRICS).stat().st_size)


def save_state(folder: str | os.PathLike[str], recipe: Recipe, state: TrainingState) -> None:
    """Save a state of the run; the state before it is kept too.

    Args:
        folder: the run's folder.
        recipe: the run's recipe.
        state: the state.

    Raises:
        FileError: the folder cannot be written, or the disk is full; earlier states are kept.
    """
    _states(folder).keep(state, {**space_header(recipe.get_space()), "recipe": recipe.to_toml()})


def continue_run(
    folder: str | os.PathLike[str], recipe: Recipe, *, write: bool = True, on_note: Callable[[str], None] = lambda sentence: None
) -> tuple[TrainingState | None, tuple[EpochMetrics, ...]]:
    """Load the last intact state of a run and the metrics up to it, to resume the run.

    Metrics later than the state are dropped from the file, because those epochs are trained again. If the state was saved before the
    evaluation of an epoch that had ended, that epoch's line is dropped too, because the epoch is evaluated again.

    Args:
        folder: the run's folder.
        recipe: the run's own recipe; only the keys of ``ofa.training.differences.IMMATERIAL`` may differ. It replaces the run's recipe.
        write: whether to write the recipe and to drop those lines and damaged files; true in exactly one of several processes.
        on_note: called with one sentence for each damaged file, and for damaged lines.

    Returns:
        The state, None if the run has none yet, and the metrics of the epochs up to it.

    Raises:
        FileError: a file is missing or damaged, or all states are.
        WeightsError: the state is of another space.
        RecipeError: the run has another recipe; the sentence names the keys.
    """
    place = Path(folder)
    if not (place / CONFIG).is_file():
        raise FileError(f"a run must have {CONFIG} to be resumed, but '{folder}' has none; begin one without --resume")
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
            f"{recipe.get_space().name}, which differ; resume the run that made it"
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
    """The sentence about damaged lines of a run's metrics."""
    told = "a line is" if damaged == 1 else f"{damaged} lines are"
    return f"'{Path(folder) / METRICS}' must be undamaged, but {told} damaged; the metrics of those epochs are left out"


def own_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> Recipe:
    """A recipe with the run's own spelling of data and space wherever both mean the same (paths may be relative to different folders).

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
    """Check that a run can be resumed with a recipe.

    Raises:
        RecipeError: keys differ that change the run's result; the sentence names them with both values.
    """
    path = Path(folder) / CONFIG
    changes = changed_keys(Recipe.load(path), own_recipe(folder, recipe))
    if changes:
        told = [f"{key} {before} -> {now}" for key, before, now in changes[:_TOLD]] + ["..."] * (len(changes) > _TOLD)
        raise RecipeError(
            f"a run must be resumed with its own recipe, but the new one differs from '{path}' in {', '.join(told)}; "
            f"resume it without the change by 'ofa train --resume {folder}', or train into another folder"
        )


def has_ended(folder: str | os.PathLike[str]) -> bool:
    """Whether a run has weights and no states. A run that is being extended has both: its weights are from before the extension."""
    return (Path(folder) / WEIGHTS).is_file() and not _states(folder).paths


def forget_states(folder: str | os.PathLike[str]) -> None:
    """Remove the remaining states of a run that has ended: the process that ended it may have been killed before it removed them."""
    _states(folder).forget()


def extend_run(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Turn a run that has ended into one that can be resumed; ``continue_run`` then returns its state.

    The run's weights stay until the added phase has ended.

    Args:
        folder: the run's folder.
        recipe: the run's recipe with phases added (``ofa.training.differences.extended``).

    Raises:
        FileError, WeightsError: the run cannot be read or written.
    """
    with writing(folder, "extending a run"):
        run = load_run(folder)
        last = run.recipe.phases[-1]
        if not run.metrics or not run.metrics[-1].step or (run.metrics[-1].phase, run.metrics[-1].epoch) != (last.name, last.epochs):
            raise FileError(
                f"a run must know the step at which it ended to be extended, but '{Path(folder) / METRICS}' lacks it; train it anew"
            )
        factor = run.metrics[-1].rate_factor
        tensors = {f"store.{name}": tensor for name, tensor in run.supernet.state_dict().items()}
        # Each setback halved the rate.
        values = {"rate_factor": factor, "setbacks": round(-math.log2(factor)), "totals": asdict(Totals())}
        # The recipe is written last: with the new state and the old recipe, the run is still one at its end.
        save_state(folder, recipe, TrainingState(run.metrics[-1].step, tensors, values))
        _write_recipe(folder, recipe)


def _states(folder: str | os.PathLike[str]) -> States:
    return States(Path(folder) / CHECKPOINTS, _Values)


def append_metrics(folder: str | os.PathLike[str], metrics: EpochMetrics) -> None:
    """Append one epoch's line to the metrics, so that an interrupted run keeps them."""
    Lines(Path(folder) / METRICS).append(asdict(metrics))


def save_run(folder: str | os.PathLike[str], supernet: Supernet, recipe: Recipe, metrics: Iterable[EpochMetrics]) -> None:
    """Write the files of a run that has ended. Each file is replaced atomically; the states are removed last.

    Args:
        folder: the run's folder.
        supernet: the trained supernet.
        recipe: the run's recipe.
        metrics: one entry for each epoch.

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
        folder: the run's folder.
        trust: whether code that the run's recipe names as ``module:attribute`` (images, an optimizer) may be imported. Otherwise
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
            f"{recipe.get_space().name}, which differ; put the files of one run together"
        )
    metrics, damaged = read_metrics(place / METRICS)
    return Run(supernet, recipe, metrics, place, damaged)


def _is_of(weights: Weights, recipe: Recipe) -> bool:
    """Whether a state is of a recipe's space; states of earlier versions hold only the space's name."""
    space = recipe.get_space()
    return weights.space() == space if SPACE_KEY in weights.metadata else weights.metadata.get("space") == space.name


def _write_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Write the recipe, and the space unless it is a named one: the run must be readable without the file or code of the space."""
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
