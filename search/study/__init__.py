"""The study: Optuna steers, arrays evolve, and the front is what nothing beats. The only package that knows Optuna.

Optuna takes about a millisecond for a network, a table and a predictor a few microseconds. So each round Optuna proposes a batch of
networks, which settle on islands that arrays evolve (``search.evolution.islands``), and the best that has evolved becomes trials of the
next round, from which Optuna goes on: it carries what islands have found from one to the other. A look at the neighbourhood of the whole
front (``search.evolution.local_search``) ends the search. ``benchmarks/search_designs.py`` compares this with other divisions of the
work.

The sampler steers a study in memory (``steering``), because a storage that is asked for every gene of every trial would cost a hundred
times the sampler's own work. What counts is the ledger (``ledger``), the study in the storage: a trial is claimed there whole, in one
write, and finished in another, so that several processes or machines share one study, and whoever opens it (a later run,
optuna-dashboard) finds what is finished. Workers beside each other evolve islands of their own, and the process that watches over them
ends the search with the look around the front of all of them.
"""

from search.study.effort import SAMPLERS, Effort
from search.study.run import run_study
from search.study.team import run_workers

__all__ = ["SAMPLERS", "Effort", "run_study", "run_workers"]
