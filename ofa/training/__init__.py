"""How a supernet learns: recipes as data, the sampling of subnets, losses, the loop, and the folder of a run."""

from __future__ import annotations

from ofa.training.checkpoint import Run, append_metrics, begin_run, load_run, save_run
from ofa.training.evaluation import evaluate
from ofa.training.loop import EpochMetrics, train
from ofa.training.phase import Phase
from ofa.training.presets import demo_recipe
from ofa.training.recipe import Recipe
from ofa.training.shrinking import progressive_shrinking

__all__ = [
    "EpochMetrics",
    "Phase",
    "Recipe",
    "Run",
    "append_metrics",
    "begin_run",
    "demo_recipe",
    "evaluate",
    "load_run",
    "progressive_shrinking",
    "save_run",
    "train",
]
