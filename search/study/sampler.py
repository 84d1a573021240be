"""Samplers by name: evolution in arrays as an Optuna sampler, and Optuna's own.

Shape suffixes: I islands, K objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from ofa.arrays import Integers, Rows
from search.evolution.islands import Islands, sample_of_all_sizes, targets_along_front
from search.evolution.local_search import improve
from search.front.build import extreme
from search.problem import Problem
from search.study.effort import Effort
from search.study.trials import Trials

__all__ = ["EvolutionSampler", "ends_of", "optunas_sampler"]

_POPULATION = 50
_FOUNDERS = 3000
"""Random networks from which the islands draw their founders."""
_LAST_LOOK = 0.4
"""Share of the evaluations for the local search around the front."""


class EvolutionSampler(BaseSampler):
    """Proposes the best networks of islands, which evolve in arrays between the trials.

    Each round of evolution yields one trial per island: the sampled one, and the others in the study's queue. Before the next round the
    networks of finished trials, of this and of other processes at the same study, join the islands.

    Args:
        problem: the problem.
        trials: the trials, whose archive collects all evaluated networks.
        effort: trials and evaluations, which are divided among the rounds.
        rng: draws all random choices.
        report: called after each round.

    Attributes:
        evolved: number of networks evaluated by evolution.
        neighbours: number of networks evaluated by the local search around the front.
    """

    def __init__(self, problem: Problem, trials: Trials, effort: Effort, rng: np.random.Generator, report: Callable[[], None]) -> None:
        self._problem = problem
        self._trials = trials
        self._effort = effort
        self._rng = rng
        self._report = report
        self._evolution = effort.evaluations - (round(_LAST_LOOK * effort.evaluations) if problem.costs else 0)
        self._islands: Islands | None = None
        self._settled = 0
        self.evolved = 0
        self.neighbours = 0

    @property
    def evaluated(self) -> int:
        """Number of networks evaluated outside of trials."""
        return self.evolved + self.neighbours

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Distributions of all genes with more than one value."""
        return dict(self._trials.distributions)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The best network of an island after a round of evolution; the other islands' best networks are queued."""
        left = max(1, self._effort.trials - len(self._trials.finished))
        best = self._evolve(rounds=-(-left // self._effort.islands))
        rows_NC = self._trials.archive.rows[best]
        study.add_trials(map(self._trials.waiting, rows_NC[1:left]))
        return self._trials.parameters(rows_NC[0])

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> int:
        """A random value of a gene, for trials with missing genes that another program queued."""
        assert isinstance(param_distribution, IntDistribution)
        return int(self._rng.integers(param_distribution.low, param_distribution.high + 1))

    def finish(self) -> None:
        """Spend the remaining evaluations: first on evolution, then on local search around the front."""
        self._evolve(rounds=1)
        with self._trials.evaluating():
            limit = self._effort.evaluations - self.evolved
            self.neighbours = improve(self._trials.archive, limit=limit, progress=self._look)

    def _look(self, done: int, total: int, text: str = "") -> None:
        self.neighbours = done
        self._report()

    def _evolve(self, *, rounds: int) -> Integers:
        """Evolve for one of the remaining ``rounds``; returns the archive indices of the islands' best networks, without duplicates."""
        with self._trials.evaluating():
            islands = self._islands = self._islands or self._founded()
            index_N = self._trials.finished[self._settled :]
            islands.settle(index_N, self._rng.permutation(len(islands))[np.arange(len(index_N)) % len(islands)])
            self._settled += len(index_N)
            self.evolved += islands.evolve(max(0, self._evolution - self.evolved) // rounds)
        self._report()
        return np.unique(islands.best)

    def _founded(self) -> Islands:
        archive = self._trials.archive
        founders_NC = sample_of_all_sizes(self._problem.space, min(_FOUNDERS, self._evolution), self._rng)
        before = len(archive)
        founders_N = np.union1d(archive.evaluate(np.concatenate([ends_of(self._problem), founders_NC])), np.arange(before))
        self.evolved += len(archive) - before
        return Islands(archive, targets_along_front(archive, self._effort.islands, self._rng), founders_N, self._rng)


def ends_of(problem: Problem) -> Rows:
    """The ends of the front: the smallest and the largest networks, and the cheapest by each cost; [N, C]."""
    space = problem.space
    sizes = (space.resolutions[0], space.resolutions[-1])
    ends = space.encode_all([end for size in sizes for end in (space.smallest(size), space.largest(size))])
    least = [extreme(problem, name)[1] for name in problem.costs]
    return np.unique(np.concatenate([ends, *least]), axis=0)


def optunas_sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's own samplers, by its name in ``SAMPLERS``."""
    if name == "nsga2":
        return NSGAIISampler(population_size=_POPULATION, seed=seed)
    if name == "nsga3":
        return NSGAIIISampler(population_size=_POPULATION, seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed)
    return RandomSampler(seed=seed)
