"""Reads a run for a report: its recipe and the metrics of every epoch, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.adopting.record import AdoptionRecord
from ofa.errors import FileError
from ofa.families import AdoptedSpace
from ofa.reading import read_json, read_toml
from ofa.space import Space
from ofa.tasks import CLASSIFICATION, TASKS
from ofa.training.checkpoint import CONFIG, METRICS, SPACE, WEIGHTS
from ofa.training.metrics import EpochMetrics, read_metrics

__all__ = ["RunRecord", "read_run"]


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A finished or unfinished run.

    Attributes:
        folder: path of its folder.
        recipe: its recipe, as a TOML table.
        epochs: metrics of each epoch, in order.
        ended: whether its final weights exist.
        damaged: number of damaged lines in its metrics, which are left out.
        space: its space, if it is of an adopted model; else None.
        adoption: record of the adoption, if the run was adopted; else None.
    """

    folder: Path
    recipe: dict[str, Any]
    epochs: tuple[EpochMetrics, ...]
    ended: bool
    damaged: int = 0
    space: Space | None = None
    adoption: AdoptionRecord | None = None

    @property
    def metric(self) -> str:
        """Name of its task's score; ``score`` for a task that is unknown here."""
        name = self.recipe.get("task", CLASSIFICATION.name)
        return TASKS.get(name).metric if name in TASKS else "score"


def read_run(folder: Path) -> RunRecord:
    """Read the folder that `ofa train` writes, also during training.

    Raises:
        FileError: the folder is no run, or one of its files is damaged.
    """
    missing = [name for name in (CONFIG, METRICS) if not (folder / name).is_file()]
    if missing:
        raise FileError(
            f"a report must be of a front, a latency table or the folder of a run, but the folder '{folder}' lacks "
            f"{' and '.join(missing)}; make a run with: ofa train"
        )
    recipe = read_toml(folder / CONFIG, what="recipe", remedy="write it again")
    space = None
    if (folder / SPACE).is_file():
        carried = read_json(folder / SPACE)
        recipe["space"] = carried.get("name", SPACE)
        if carried.get("family") == AdoptedSpace.__name__:  # spaces of other families may have classes that are unknown here
            space = Space.from_json(carried, f"'{folder / SPACE}'")
    epochs, damaged = read_metrics(folder / METRICS)
    return RunRecord(folder, recipe, epochs, (folder / WEIGHTS).is_file(), damaged, space, AdoptionRecord.load(folder))
