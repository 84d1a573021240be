"""What a report needs of a run: its recipe and what every epoch came to, without loading its weights."""

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
    """A run, ended or not.

    Attributes:
        folder: its path.
        recipe: the table of its recipe, as TOML has it.
        epochs: what each came to, in order.
        ended: whether its weights are there.
        damaged: lines of its metrics that are damaged, and left out.
        space: that it carries, if it is that of an adopted model.
        adoption: what is known of the adoption, if the run is one.
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
        """What the score of its task is called; ``score`` for a task that is unknown here."""
        name = self.recipe.get("task", CLASSIFICATION.name)
        return TASKS.get(name).metric if name in TASKS else "score"


def read_run(folder: Path) -> RunRecord:
    """Read the folder that `ofa train` writes, also while it is being written.

    Raises:
        FileError: it is no run, or a file of it is damaged.
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
        if carried.get("family") == AdoptedSpace.__name__:  # others may be of classes that are not known here
            space = Space.from_json(carried, f"'{folder / SPACE}'")
    epochs, damaged = read_metrics(folder / METRICS)
    return RunRecord(folder, recipe, epochs, (folder / WEIGHTS).is_file(), damaged, space, AdoptionRecord.load(folder))
