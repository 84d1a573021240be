"""How a supernet learns: recipes as data, the sampling of subnets, losses, the loop, and the folder of a run."""

from __future__ import annotations

from ofa.training.checkpoint import Run, append_metrics, begin_run, continue_run, load_run, save_run, save_state
from ofa.training.evaluation import evaluate
from ofa.training.guard import Setback
from ofa.training.loop import train
from ofa.training.methods import compound, progressive_shrinking, single_stage
from ofa.training.metrics import EpochMetrics
from ofa.training.phase import Phase
from ofa.training.presets import demo_recipe
from ofa.training.recipe import Recipe
from ofa.training.state import TrainingState

__all__ = [
    "EpochMetrics",
    "Phase",
    "Recipe",
    "Run",
    "Setback",
    "TrainingState",
    "append_metrics",
    "begin_run",
    "compound",
    "continue_run",
    "demo_recipe",
    "evaluate",
    "load_run",
    "progressive_shrinking",
    "save_run",
    "save_state",
    "single_stage",
    "train",
]
