"""A search in one process, which may be one of several workers.

Shape suffixes: N networks, C columns of an encoded arch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import numpy as np
from optuna.trial import FrozenTrial, Trial

from ofa.arrays import Integers, Rows
from ofa.errors import OfaError, SearchError
from search.evolution.archive import Archive
from search.evolution.islands import Islands, sample_of_all_sizes, targets_along_front
from search.evolution.local_search import improve
from search.front.build import extreme
from search.problem import Problem
from search.study.claims import Claim, Memory
from search.study.effort import Counts, Effort, Share
from search.study.ledger import Ledger
from search.study.steering import Steering

__all__ = ["Search", "evaluating", "recall"]

_BATCH = 16
"""Networks that Optuna proposes in a round."""
_FOUNDERS = 3000
"""Random networks that the islands begin with."""
_LAST_LOOK = 0.4
"""Share of the evaluations that are for the neighbourhood of the front."""
_IDLE_S = 0.3
"""Between looks at trials that other workers still have."""


class Search:
    """Trials as they come, this worker's share of evolution, and of a worker without siblings the last look.

    Args:
        problem: what to search for.
        effort: how much all workers together look at.
        sampler: one of ``SAMPLERS``.
        seed: decides all choices, together with the share.
        share: this worker's.
        ledger: where the trials are.
        report: told what is done after each step.

    Attributes:
        archive: everything that is evaluated here, and all finished trials.
    """

    def __init__(
        self,
        problem: Problem,
        effort: Effort,
        *,
        sampler: str,
        seed: int,
        share: Share,
        ledger: Ledger | Memory,
        report: Callable[[Counts], None],
    ) -> None:
        self._problem = problem
        self._effort = effort
        self._share = share
        self._ledger = ledger
        self._report_to = report
        self._is_plain = not effort.evaluations
        # A study that is resumed with its own seed must not draw its first trials again, nor one worker those of another.
        own_seed, sampler_seed = np.random.SeedSequence([seed, share.index, *share.entropy]).spawn(2)
        self._rng = np.random.default_rng(own_seed)
        self._steering = Steering(problem.space, problem.costs, sampler, int(sampler_seed.generate_state(1)[0]))
        self.archive = Archive(problem)
        self._trials = 0
        self._evolved = 0
        self._neighbours = 0

    @property
    def counts(self) -> Counts:
        """What is done."""
        return Counts(trials=self._trials, evolved=self._evolved, neighbours=self._neighbours, evaluated=len(self.archive))

    def run(self) -> None:
        """Search until the study has its trials and this worker's share is done.

        Raises:
            SearchError: the storage cannot be used, or an evaluation fails. What was finished before stays in the storage, and what was
                claimed and not finished has failed.
        """
        last_look = round(_LAST_LOOK * self._effort.evaluations) if self._problem.costs else 0
        evolution = self._share.of(self._effort.evaluations - last_look)
        self._learn()
        ends_NC = self._ends()[self._share.index :: self._share.workers]
        self._steering.propose(ends_NC[self.archive.fresh(ends_NC)])
        islands = None if self._is_plain else self._found_islands(evolution)
        while (index_N := self._next_trials()) is not None:
            if islands is not None:
                self._evolve(islands, index_N, evolution)
            self._report()
        if islands is not None:
            with self._one_sentence():
                self._evolved += islands.evolve(evolution - self._evolved)
                if self._share.workers == 1:  # else whoever puts the shares together looks, at all of the front
                    limit = self._effort.evaluations - self._evolved
                    self._neighbours = improve(self.archive, limit=limit, progress=self._report_neighbours)
        self._help()
        self._report()

    def _report(self) -> None:
        self._report_to(self.counts)

    def _report_neighbours(self, done: int, total: int, text: str = "") -> None:
        self._neighbours = done
        self._report()

    def _one_sentence(self) -> AbstractContextManager[None]:
        return evaluating(self._trials)

    # -- evolution -----------------------------------------------------------------------------------------------------

    def _found_islands(self, evolution: int) -> Islands:
        """This worker's of all islands, whose targets lie along the front."""
        with self._one_sentence():
            founders_NC = sample_of_all_sizes(self._problem.space, min(_FOUNDERS, evolution), self._rng)
            before = len(self.archive)
            founders_N = np.union1d(self.archive.evaluate(np.concatenate([self._ends(), founders_NC])), np.arange(before))
            self._evolved += len(self.archive) - before
            targets_IK = targets_along_front(self.archive, max(self._effort.islands, self._share.workers), self._rng)
            return Islands(self.archive, targets_IK[self._share.index :: self._share.workers], founders_N, self._rng)

    def _evolve(self, islands: Islands, index_N: Integers, evolution: int) -> None:
        """Let the networks of trials live on islands, and the best that evolves be the next trials."""
        with self._one_sentence():
            islands.settle(index_N, self._rng.permutation(len(islands))[np.arange(len(index_N)) % len(islands)])
            rounds = -(-max(0, self._effort.trials - self._trials) // (_BATCH * self._share.workers)) + 1
            self._evolved += islands.evolve(max(0, evolution - self._evolved) // rounds)
        self._steering.propose(self.archive.rows[islands.best])

    def _ends(self) -> Rows:
        """The smallest and the largest networks, and those that cost the least, which hold the ends of the front."""
        space = self._problem.space
        sizes = (space.resolutions[0], space.resolutions[-1])
        ends = space.encode_all([end for size in sizes for end in (space.smallest(size), space.largest(size))])
        least = [extreme(self._problem, name)[1] for name in self._problem.costs]
        return np.unique(np.concatenate([ends, *least]), axis=0)

    # -- trials --------------------------------------------------------------------------------------------------------

    def _learn(self) -> int:
        """Take in what others have finished; the number of trials that count."""
        look = self._ledger.look()
        self._trials = look.finished
        if look.fresh:
            rows_NC = self._steering.rows([trial.params for trial in look.fresh])
            with self._one_sentence():
                recall(self.archive, rows_NC, look.fresh)
            self._steering.learn(look.fresh)
        return look.counted

    def _next_trials(self) -> Integers | None:
        """Evaluate the next batch; where its networks stand in the archive, or None when all that is wanted has been claimed."""
        room = self._effort.trials - self._learn()
        taken = self._ledger.take(self._effort.trials)
        if taken is not None:
            return self._finish_for_another(taken)
        if room <= 0:
            return None
        size = 1 if self._is_plain else min(_BATCH, -(-room // self._share.workers))
        asked = [self._steering.ask() for _ in range(size)]
        return self._measure(asked) if self._is_plain else self._evaluate(asked)

    def _help(self) -> None:
        """Stay until all trials are finished, and take over those of workers that die."""
        while self._trials < self._effort.trials:
            if self._next_trials() is None:
                time.sleep(_IDLE_S)
            self._report()

    def _evaluate(self, asked: Sequence[Trial]) -> Integers:
        """Where evaluating costs nothing, trials are claimed with their constraints already known, and finished at once."""
        with self._one_sentence():
            index_N = self.archive.evaluate(self._steering.rows([trial.params for trial in asked]))
        told = [self._steering.tell(trial, *result) for trial, result in zip(asked, self._results(index_N), strict=True)]
        for claim, trial in zip(self._ledger.claim(told, self._effort.trials), told, strict=True):
            if claim is not None:
                self._ledger.finish(claim, trial)
                self._trials += 1
        return index_N

    def _measure(self, asked: Sequence[Trial]) -> Integers:
        """Where evaluating takes long, trials are claimed first."""
        claims = self._ledger.claim([self._steering.frozen(trial) for trial in asked], self._effort.trials)
        kept = [(trial, claim) for trial, claim in zip(asked, claims, strict=True) if claim is not None]
        for trial, claim in zip(asked, claims, strict=True):
            if claim is None:
                self._steering.drop(trial)
        if not kept:
            return np.empty(0, dtype=np.intp)
        with self._holding([claim for _, claim in kept]):
            index_N = self.archive.evaluate(self._steering.rows([trial.params for trial, _ in kept]))
        for (trial, claim), result, index in zip(kept, self._results(index_N), index_N, strict=True):
            self._finish(claim, self._steering.tell(trial, *result), int(index))
        return index_N

    def _finish_for_another(self, claim: Claim) -> Integers:
        with self._holding([claim]):
            index_1 = self.archive.evaluate(self._steering.rows([claim.trial.params]))
        (result,) = self._results(index_1)
        self._finish(claim, self._steering.finished(claim.trial, *result), int(index_1[0]))
        return index_1

    def _finish(self, claim: Claim, told: FrozenTrial, index: int) -> None:
        for name, column in self._problem.costs_of_rows(self.archive.rows[index : index + 1], self._problem.measured_names).items():
            told.set_user_attr(name, float(column[0]))
        self._ledger.finish(claim, told)
        self._trials += 1

    @contextmanager
    def _holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Claims that are not finished in here are given up: they fail where evaluating does, and wait where this worker is ended."""
        try:
            with self._one_sentence():
                yield
        except BaseException as error:
            with suppress(SearchError):  # of the storage, which is not what has to be told
                self._ledger.give_up(claims, again=not isinstance(error, Exception))
            raise

    def _results(self, index_N: Integers) -> list[tuple[list[float], Mapping[str, float]]]:
        """What is told of networks of the archive: the objectives and how far each is beyond each limit."""
        columns = {name: column[index_N] for name, column in self.archive.columns.items()}
        values_NK = np.stack([columns[name] for name in ("accuracy", *self._problem.costs)], axis=1).tolist()
        limits = {f"{limit.name} {'<=' if limit.sign > 0 else '>='} {limit.limit:g}": limit for limit in self._problem.limits}
        excess = {name: limit.excess(columns) for name, limit in limits.items()}
        return [(values, {name: float(excess_N[i]) for name, excess_N in excess.items()}) for i, values in enumerate(values_NK)]


@contextmanager
def evaluating(trials: int) -> Iterator[None]:
    """Say in one sentence what goes wrong in an evaluation after so many finished trials.

    Raises:
        SearchError: instead of any error that is not the project's own.
    """
    try:
        yield
    except OfaError:
        raise
    except Exception as error:  # accuracy and latency sources are the caller's, so anything may come
        raise SearchError(
            f"every network of a search must be evaluated, but {type(error).__name__}: {error} came after {trials} finished "
            "trials, which a storage keeps; correct it and run the same search again"
        ) from error


def recall(archive: Archive, rows_NC: Rows, trials: Sequence[FrozenTrial]) -> None:
    """Take in the networks of finished trials with what was found of them then."""
    accuracy_N = np.array([trial.values[0] for trial in trials])
    measured = {name: np.array([trial.user_attrs.get(name, np.nan) for trial in trials]) for name in archive.problem.measured_names}
    archive.problem.recall(rows_NC, {"accuracy": accuracy_N, **measured})
    archive.evaluate(rows_NC, accuracy_N)
