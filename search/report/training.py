"""What a report needs of a run: its recipe and what every epoch came to, without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import FileError
from ofa.reading import read_json, read_toml
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
    """

    folder: Path
    recipe: dict[str, Any]
    epochs: tuple[EpochMetrics, ...]
    ended: bool
    damaged: int = 0

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
    if (folder / SPACE).is_file():
        recipe["space"] = read_json(folder / SPACE).get("name", SPACE)
    epochs, damaged = read_metrics(folder / METRICS)
    return RunRecord(folder, recipe, epochs, (folder / WEIGHTS).is_file(), damaged)
