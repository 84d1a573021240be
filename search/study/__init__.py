"""Searches as Optuna studies. The only package that imports Optuna.

A search is ``Study.optimize`` with a sampler. Optuna's own samplers propose one network at a time, each a trial. They suit sources that
measure, where a network takes seconds. Where accuracy and costs are computed, a search can evaluate millions of networks, but Optuna
takes a millisecond for each. There ``sampler.EvolutionSampler`` evolves islands of networks in arrays (``search.evolution.islands``), and
a trial is the best network of one island. ``benchmarks/search_designs.py`` compares them.

Trials, resuming, several workers, and the retry of a dead worker's trial are Optuna's: its storages and heartbeat (``storages``). A
search promises what Optuna promises there; see docs/studies.md.
"""

from search.study.effort import EVOLUTION, SAMPLERS, Effort
from search.study.run import run_study
from search.study.workers import run_workers

__all__ = ["EVOLUTION", "SAMPLERS", "Effort", "run_study", "run_workers"]
