"""How a supernet learns: recipes as data, the sampling of subnets, losses, the loop, and the folder of a run."""

from __future__ import annotations

from ofa.training.changes import DataChanges
from ofa.training.checkpoint import (
    Run,
    append_metrics,
    begin_run,
    continue_run,
    extend_run,
    has_ended,
    left_out,
    load_run,
    own_recipe,
    save_run,
    save_state,
)
from ofa.training.evaluation import check_classes, evaluate
from ofa.training.guard import Setback
from ofa.training.loop import train
from ofa.training.methods import compound, progressive_shrinking, single_stage
from ofa.training.metrics import EpochMetrics
from ofa.training.optimizer import OPTIMIZERS, SGD, AdamW, Optimizer
from ofa.training.phase import Phase
from ofa.training.presets import demo_recipe
from ofa.training.recipe import Recipe
from ofa.training.record import DataRecord
from ofa.training.run_data import RunData, data_of_run, first_data
from ofa.training.start import Start
from ofa.training.state import TrainingState

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdamW",
    "DataChanges",
    "DataRecord",
    "EpochMetrics",
    "Optimizer",
    "Phase",
    "Recipe",
    "Run",
    "RunData",
    "Setback",
    "Start",
    "TrainingState",
    "append_metrics",
    "begin_run",
    "check_classes",
    "compound",
    "continue_run",
    "data_of_run",
    "demo_recipe",
    "evaluate",
    "extend_run",
    "first_data",
    "has_ended",
    "left_out",
    "load_run",
    "own_recipe",
    "progressive_shrinking",
    "save_run",
    "save_state",
    "single_stage",
    "train",
]
