"""Search: accuracy and cost of the networks of a space, their Pareto front, and its best network for any budget.

The names below are imported on first use, because most of them need torch or Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa.lazy import lazily

if TYPE_CHECKING:
    from search.accuracy import AccuracySource, MeasuredAccuracy
    from search.budget import Bound, Budget
    from search.front.candidate import Candidate
    from search.front.front import Front
    from search.front.infeasible import ImpossibleBudgetError
    from search.latency import LatencySource, MeasuredLatency
    from search.plot import Pick, draw_front
    from search.predictor.accuracy_predictor import AccuracyPredictor
    from search.problem import Problem
    from search.study import Effort, run_study
    from search.verification.query import query_verified

__all__ = [
    "AccuracyPredictor",
    "AccuracySource",
    "Bound",
    "Budget",
    "Candidate",
    "Effort",
    "Front",
    "ImpossibleBudgetError",
    "LatencySource",
    "MeasuredAccuracy",
    "MeasuredLatency",
    "Pick",
    "Problem",
    "draw_front",
    "query_verified",
    "run_study",
]

__getattr__ = lazily(
    __name__,
    {
        "search.accuracy": ("AccuracySource", "MeasuredAccuracy"),
        "search.budget": ("Bound", "Budget"),
        "search.front.candidate": ("Candidate",),
        "search.front.front": ("Front",),
        "search.front.infeasible": ("ImpossibleBudgetError",),
        "search.latency": ("LatencySource", "MeasuredLatency"),
        "search.plot": ("Pick", "draw_front"),
        "search.predictor.accuracy_predictor": ("AccuracyPredictor",),
        "search.problem": ("Problem",),
        "search.study": ("Effort", "run_study"),
        "search.verification.query": ("query_verified",),
    },
)
