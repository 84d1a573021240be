"""Searches as Optuna's studies. The only package that knows Optuna.

A search is ``Study.optimize`` with a sampler. Those of Optuna propose network by network, each of which is a trial; that suits
sources that measure, where a network takes seconds. Where accuracy and costs are computed, millions of networks can be looked at, and
Optuna takes a millisecond for one: there ``sampler.EvolutionSampler`` evolves islands of networks by arrays
(``search.evolution.islands``), and a trial is the best network of one island. ``benchmarks/search_designs.py`` compares them.

Trials, resuming, several workers and what becomes of a dead worker's trial are Optuna's: its storages, heartbeat and retry
(``storages``). What it promises there is what a search promises, see docs/studies.md.
"""

from search.study.effort import EVOLUTION, SAMPLERS, Effort
from search.study.run import run_study
from search.study.workers import run_workers

__all__ = ["EVOLUTION", "SAMPLERS", "Effort", "run_study", "run_workers"]
