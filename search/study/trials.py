"""Trials of a study as evaluated networks.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ofa.arrays import Integers, Rows
from ofa.errors import OfaError, SearchError
from ofa.space import ROW_DTYPE
from search.evolution.archive import Archive
from search.problem import Problem

__all__ = ["Trials"]


class Trials:
    """Evaluates the networks of trials, and collects the results of all finished ones.

    Args:
        problem: the problem.

    Attributes:
        archive: all networks evaluated here, and those of all finished trials.
        distributions: distributions of Optuna's parameters: one for each gene with more than one value, an index into its ordered values.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.archive = Archive(problem)
        self.distributions = {gene.name: IntDistribution(0, len(gene.values) - 1) for gene in problem.space.columns if len(gene.values) > 1}
        self._known: dict[int, int] = {}
        self._evaluated: int | None = None

    @property
    def finished(self) -> Integers:
        """Archive indices of the finished trials' networks, in the order in which ``learn`` met them."""
        return np.fromiter(self._known.values(), dtype=np.intp, count=len(self._known))

    def parameters(self, row_C: Rows) -> dict[str, int]:
        """Optuna's parameters of a network."""
        names = [gene.name for gene in self._problem.space.columns]
        return {name: value for name, value in zip(names, row_C.tolist(), strict=True) if name in self.distributions}

    def waiting(self, row_C: Rows) -> FrozenTrial:
        """A WAITING trial of a network. It is written at once; a sampler's trial is written gene by gene."""
        return create_trial(state=TrialState.WAITING, params=self.parameters(row_C), distributions=dict(self.distributions))

    def rows(self, parameters: Sequence[Mapping[str, Any]]) -> Rows:
        """The encoded archs of Optuna's parameters; [N, C].

        The genes of skipped blocks have values in a trial that do not matter: two trials that differ only in them are the same network,
        which is evaluated once.
        """
        names = [gene.name for gene in self._problem.space.columns]
        rows_NC = np.array([[int(each.get(name, 0)) for name in names] for each in parameters], dtype=ROW_DTYPE)
        return self._problem.space.canonical(rows_NC.reshape(len(parameters), len(names)))

    def learn(self, study: Study) -> int:
        """Add finished trials, of this and of other processes, to the archive; returns the number of finished trials."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        fresh = [trial for trial in complete if trial.number not in self._known]
        if fresh:
            rows_NC = self.rows([trial.params for trial in fresh])
            accuracy_N = np.array([trial.values[0] for trial in fresh])
            measured = {name: np.array([trial.user_attrs.get(name, np.nan) for trial in fresh]) for name in self._problem.measured_names}
            with self.evaluating():
                self._problem.recall(rows_NC, {"accuracy": accuracy_N, **measured})
                index_N = self.archive.evaluate(rows_NC, accuracy_N)
            self._known.update(zip((trial.number for trial in fresh), index_N.tolist(), strict=True))
        return len(self._known)

    def objective(self, trial: Trial) -> list[float]:
        """Evaluate the network of a trial, for ``Study.optimize``.

        Returns:
            Accuracy and costs, in the order of the study's directions.

        Raises:
            SearchError: the evaluation fails.
        """
        self._evaluated = None
        self.learn(trial.study)
        row_1C = self.rows([{name: trial.suggest_int(name, 0, genes.high) for name, genes in self.distributions.items()}])
        with self.evaluating():
            index_1 = self.archive.evaluate(row_1C)
            measured = self._problem.costs_of_rows(row_1C, self._problem.measured_names)
        self._evaluated = trial.number
        columns = {name: column[index_1] for name, column in self.archive.columns.items()}
        for limit in self._problem.limits:
            name, excess = f"{limit.name} {'<=' if limit.sign > 0 else '>='} {limit.limit:g}", float(limit.excess(columns)[0])
            if name not in trial.constraints:  # a re-queued trial may have it already
                trial.set_constraint(name, excess)
            trial.set_user_attr(name, excess)  # optuna-dashboard (0.21) does not find constraints of Optuna 5
        for name, column_1 in measured.items():
            trial.set_user_attr(name, float(column_1[0]))
        return [float(columns[name][0]) for name in ("accuracy", *self._problem.costs)]

    def was_taken_over(self, study: Study) -> bool:
        """Whether Optuna has failed the last evaluated trial meanwhile, for lack of a heartbeat."""
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        number, self._evaluated = self._evaluated, None
        return any(trial.number == number for trial in failed)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Replace errors of an evaluation by a ``SearchError`` of one sentence.

        Raises:
            SearchError: instead of any error that is no ``OfaError``.
        """
        try:
            yield
        except OfaError:
            raise
        except Exception as error:  # the caller's accuracy and latency sources may raise anything
            raise SearchError(
                f"every network of a search must be evaluated, but after {len(self._known)} finished trials, which a storage keeps, one "
                f"failed with {type(error).__name__}: {error}; correct it and run the same search again"
            ) from error
