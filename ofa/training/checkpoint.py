"""RUN: the folder of a training run, with ``supernet.safetensors``, ``config.toml`` and ``metrics.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ofa.errors import FileError, RecipeError, WeightsError
from ofa.files import replacing
from ofa.supernet import Supernet
from ofa.training.loop import EpochMetrics
from ofa.training.recipe import Recipe
from ofa.training.tables import build

__all__ = ["CONFIG", "METRICS", "WEIGHTS", "Run", "append_metrics", "begin_run", "load_run", "save_run"]

WEIGHTS, CONFIG, METRICS = "supernet.safetensors", "config.toml", "metrics.jsonl"


@dataclass(frozen=True, eq=False)
class Run:
    """A training run that was read back.

    Attributes:
        supernet: its weights.
        recipe: how it was trained; ``recipe.load_splits()`` gives the same parts of the data again.
        metrics: of every epoch.
    """

    supernet: Supernet
    recipe: Recipe
    metrics: tuple[EpochMetrics, ...]


def begin_run(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Make the folder of a run that has no weights and no metrics yet.

    Called before training, it finds out that the folder cannot be written before hours were spent.

    Raises:
        FileError: the folder cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(f"'{folder}' must be a folder that can be made, but {reason}; choose another") from error
    with replacing(Path(folder) / CONFIG) as temporary:
        temporary.write_text(recipe.to_toml(), encoding="utf-8")
    with replacing(Path(folder) / METRICS) as temporary:
        temporary.write_text("", encoding="utf-8")


def append_metrics(folder: str | os.PathLike[str], metrics: EpochMetrics) -> None:
    """Add one epoch's line to the metrics, so that a run that dies leaves what it knew."""
    try:
        with (Path(folder) / METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(metrics))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(f"'{Path(folder) / METRICS}' must be writable, but {reason}; free the disk or the folder") from error


def save_run(folder: str | os.PathLike[str], supernet: Supernet, recipe: Recipe, metrics: Iterable[EpochMetrics]) -> None:
    """Write a run; each file takes its place only when it is complete.

    Raises:
        FileError: the folder cannot be written.
    """
    begin_run(folder, recipe)
    with replacing(Path(folder) / METRICS) as temporary:
        temporary.write_text("".join(map(_line, metrics)), encoding="utf-8")
    supernet.save(Path(folder) / WEIGHTS, metadata={"recipe": recipe.to_toml()})


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read what ``save_run`` wrote.

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
    recipe = Recipe.load(place / CONFIG)
    supernet = Supernet.load(place / WEIGHTS)
    if supernet.space.name != recipe.space:
        raise WeightsError(
            f"the weights of a run must be of its recipe's space, but '{place / WEIGHTS}' is of {supernet.space.name} and the recipe of "
            f"{recipe.space}; put the files of one run together"
        )
    return Run(supernet, recipe, _read_metrics(place / METRICS))


def _line(metrics: EpochMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"


def _read_metrics(path: Path) -> tuple[EpochMetrics, ...]:
    metrics = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            metrics.append(build(EpochMetrics, json.loads(line), f"line {number}"))
        except (ValueError, TypeError, RecipeError) as error:
            raise FileError(f"'{path}' must hold a JSON object of metrics a line, but line {number}: {error}; remove that line") from error
    return tuple(metrics)
