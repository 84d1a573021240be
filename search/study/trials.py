"""The trials of a study as networks that are evaluated.

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
    """What evaluates a trial's network, and what is known of all networks.

    Args:
        problem: what to search for.

    Attributes:
        archive: everything that is evaluated here, and all finished trials.
        distributions: of Optuna's parameters: each gene that has a choice is the index into its ordered values.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.archive = Archive(problem)
        self.distributions = {gene.name: IntDistribution(0, len(gene.values) - 1) for gene in problem.space.columns if len(gene.values) > 1}
        self._known: dict[int, int] = {}
        self._evaluated: int | None = None

    @property
    def finished(self) -> Integers:
        """Where the networks of finished trials stand in the archive, in the order in which they were learned."""
        return np.fromiter(self._known.values(), dtype=np.intp, count=len(self._known))

    def parameters(self, row_C: Rows) -> dict[str, int]:
        """Optuna's, of a network."""
        names = [gene.name for gene in self._problem.space.columns]
        return {name: value for name, value in zip(names, row_C.tolist(), strict=True) if name in self.distributions}

    def waiting(self, row_C: Rows) -> FrozenTrial:
        """A trial of a network to be queued: written whole, where a sampler's is written gene by gene."""
        return create_trial(state=TrialState.WAITING, params=self.parameters(row_C), distributions=dict(self.distributions))

    def rows(self, parameters: Sequence[Mapping[str, Any]]) -> Rows:
        """The networks of Optuna's parameters; [N, C].

        Genes of blocks that are skipped have values in a trial, which do not matter: two trials that differ in them alone are
        one network, evaluated once.
        """
        names = [gene.name for gene in self._problem.space.columns]
        rows_NC = np.array([[int(each.get(name, 0)) for name in names] for each in parameters], dtype=ROW_DTYPE)
        return self._problem.space.canonical(rows_NC.reshape(len(parameters), len(names)))

    def learn(self, study: Study) -> int:
        """Take in what was found of the networks of finished trials, here or by others; how many are finished."""
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
        """Evaluate the network of a trial, for ``Study.optimize``; its accuracy and costs, in the order of the study's directions.

        Raises:
            SearchError: it cannot be evaluated.
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
            if name not in trial.constraints:  # a trial that is tried again may have it
                trial.set_constraint(name, excess)
            trial.set_user_attr(name, excess)  # optuna-dashboard (0.21) does not find constraints of Optuna 5
        for name, column_1 in measured.items():
            trial.set_user_attr(name, float(column_1[0]))
        return [float(columns[name][0]) for name in ("accuracy", *self._problem.costs)]

    def was_taken_over(self, study: Study) -> bool:
        """Whether the trial that was evaluated last has failed meanwhile, because its worker was silent for too long."""
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        number, self._evaluated = self._evaluated, None
        return any(trial.number == number for trial in failed)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Say in one sentence what goes wrong in an evaluation.

        Raises:
            SearchError: instead of any error that is not the project's own.
        """
        try:
            yield
        except OfaError:
            raise
        except Exception as error:  # accuracy and latency sources are the caller's, so anything may come
            raise SearchError(
                f"every network of a search must be evaluated, but {type(error).__name__}: {error} came after {len(self._known)} finished "
                "trials, which a storage keeps; correct it and run the same search again"
            ) from error
