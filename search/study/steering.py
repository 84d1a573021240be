"""The study in memory that a sampler works on.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ofa.arrays import Rows
from ofa.space import ROW_DTYPE, Space
from search.study.optuna_logging import without_notices

__all__ = ["Steering", "directions_of"]

_POPULATION = 50


class Steering:
    """Networks asked of a sampler, which learns from what is told.

    Args:
        space: the networks.
        costs: the objectives but accuracy.
        sampler: one of ``SAMPLERS``.
        seed: of the sampler.
    """

    def __init__(self, space: Space, costs: Sequence[str], sampler: str, seed: int) -> None:
        self._space = space
        # Each gene that has a choice is the index into its ordered values.
        self._distributions = {gene.name: IntDistribution(0, len(gene.values) - 1) for gene in space.columns if len(gene.values) > 1}
        self._storage = optuna.storages.InMemoryStorage()
        with without_notices():
            self._study = optuna.create_study(
                storage=self._storage, directions=directions_of(costs), sampler=_make_sampler(sampler, seed), study_name="steering"
            )
        self._study_id = self._storage.get_study_id_from_name("steering")

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in finished trials of others, or of earlier."""
        self._study.add_trials(trials)

    def propose(self, rows_NC: Rows) -> None:
        """Let networks be the next that are asked."""
        names = [gene.name for gene in self._space.columns]
        for row in rows_NC.tolist():
            values = {name: value for name, value in zip(names, row, strict=True) if name in self._distributions}
            self._study.enqueue_trial(values, skip_if_exists=False)

    def ask(self) -> Trial:
        """The next network."""
        trial = self._study.ask()
        # The genetic samplers count a trial as one of their generation only when they are asked for its parameters, which nobody
        # does for an enqueued trial: what evolved would be evaluated and never become parents.
        _ = trial.relative_params
        for name, distribution in self._distributions.items():
            trial.suggest_int(name, distribution.low, distribution.high)
        return trial

    def tell(self, trial: Trial, values: Sequence[float], constraints: Mapping[str, float]) -> FrozenTrial:
        """What became of an asked network."""
        for name, value in constraints.items():
            trial.set_constraint(name, value)
        return _shown(self._study.tell(trial, values), constraints)

    def drop(self, trial: Trial) -> None:
        """Of an asked network nothing will be told."""
        self._study.tell(trial, state=TrialState.FAIL)

    def frozen(self, trial: Trial) -> FrozenTrial:
        """An asked network as it stands."""
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number))

    def finished(self, trial: FrozenTrial, values: Sequence[float], constraints: Mapping[str, float]) -> FrozenTrial:
        """What became of a network that another asked for; learned, too."""
        told = create_trial(
            values=list(values),
            params=trial.params,
            distributions=trial.distributions,
            system_attrs=dict(trial.system_attrs),
            constraints=dict(constraints),
        )
        self.learn([told])
        return _shown(told, constraints)

    def rows(self, parameters: Sequence[Mapping[str, Any]]) -> Rows:
        """The networks of trials; [N, C].

        Genes of blocks that are skipped have values in a trial, which do not matter: two trials that differ in them alone are
        one network, evaluated once.
        """
        names = [gene.name for gene in self._space.columns]
        rows_NC = np.array([[int(each.get(name, 0)) for name in names] for each in parameters], dtype=ROW_DTYPE)
        return self._space.canonical(rows_NC.reshape(len(parameters), len(names)))


def directions_of(costs: Sequence[str]) -> list[Any]:
    """Accuracy is to be made large, costs small."""
    return ["maximize", *("minimize" for _ in costs)]


def _shown(trial: FrozenTrial, constraints: Mapping[str, float]) -> FrozenTrial:
    """With constraints as attributes, too: optuna-dashboard (0.21) does not find those of Optuna 5 and shows an empty list."""
    for name, value in constraints.items():
        trial.set_user_attr(name, value)
    return trial


def _make_sampler(name: str, seed: int) -> BaseSampler:
    if name == "nsga2":
        return NSGAIISampler(population_size=_POPULATION, seed=seed)
    if name == "nsga3":
        return NSGAIIISampler(population_size=_POPULATION, seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "gp":
        return GPSampler(seed=seed)
    return RandomSampler(seed=seed)
