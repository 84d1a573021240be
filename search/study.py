"""The study: Optuna steers, arrays evolve, and the front is what nothing beats. The only file that knows Optuna.

Optuna takes about a millisecond for a network, a table and a predictor a few microseconds. So each round Optuna proposes a batch of
networks, which settle on islands that arrays evolve (``search.evolution``), and the best that has evolved becomes trials of the next
round, from which Optuna goes on: it carries what islands have found from one to the other. A look at the neighbourhood of the whole front
(``search.neighbourhood``) ends the search. ``benchmarks/search_designs.py`` compares this with other divisions of the work.

The sampler steers a study in memory, because a storage that is asked for every gene of every trial would cost a hundred times
the sampler's own work (SQLite: 168 ms a trial of 46 genes, against 1.5 ms). Finished trials go to the storage whole, one write
each: it never holds half a trial, and whoever opens it (a later run, optuna-dashboard) finds what is finished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from ofa.errors import OfaError, SearchError, nearest
from ofa.progress import Progress, silent
from ofa.space import ROW_DTYPE, Rows
from search.archive import Archive, Integers
from search.evolution import Islands, sample_of_all_sizes, targets_along_front
from search.front import Front
from search.harvest import check_possible, extreme, front_of
from search.neighbourhood import improve
from search.problem import Problem

__all__ = ["SAMPLERS", "Effort", "run_study"]

SAMPLERS = ("nsga2", "nsga3", "tpe", "gp", "random")
"""The samplers by name; ``nsga2`` is the fastest and the default."""

_POPULATION = 50
_BATCH = 16
"""Networks that Optuna proposes in a round."""
_FOUNDERS = 3000
"""Random networks that the islands begin with."""
_LAST_LOOK = 0.4
"""Share of the evaluations that are for the neighbourhood of the front."""

_DESCRIPTION_KEY = "ofa"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is looked at.

    Attributes:
        trials: networks that Optuna proposes, those of a study that is resumed included.
        evaluations: networks that arrays evaluate besides, by evolution and in the neighbourhood of the front; they are no trials. 0 is for
            sources that measure each network: then Optuna alone proposes, one by one.
        islands: populations that evolve beside each other.

    Raises:
        SearchError: one of them is too small.
    """

    trials: int = 160
    evaluations: int = 100_000
    islands: int = 32

    def __post_init__(self) -> None:
        if self.trials < 1 or self.evaluations < 0 or self.islands < 1:
            raise SearchError(
                f"a study needs at least 1 trial, 0 evaluations and 1 island, but got {self.trials}, {self.evaluations} and "
                f"{self.islands}; try 160, 100000 and 32"
            )


def run_study(
    problem: Problem,
    *,
    seed: int,
    effort: Effort | None = None,
    sampler: str = "nsga2",
    storage: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Front:
    """Search, and return the front of everything that was evaluated.

    Args:
        problem: what to search for.
        seed: decides all choices, together with the number of trials that a study resumes from.
        effort: how much is looked at.
        sampler: one of ``SAMPLERS``.
        storage: None keeps the study in memory; a URL such as ``sqlite:///study.db`` keeps it in a database, any other text in a
            journal file of that path. A study that is already there is resumed.
        name: the study's name in the storage, by default the space's.
        progress: told how many networks are evaluated.

    Returns:
        The front over everything that keeps the problem's budget. Its metadata says where all of it came from.

    Raises:
        SearchError: a wrong setting, a storage that cannot be used or holds a study of another problem, or an evaluation that
            fails. What was finished before stays in the storage.
        ImpossibleBudgetError: no network that was evaluated keeps the budget.
    """
    effort = effort or Effort()
    if sampler not in SAMPLERS:
        raise SearchError(f"'{sampler}' must be the name of a sampler; {nearest(sampler, SAMPLERS)}")
    start = time.perf_counter()
    check_possible(problem)
    description = _describe(problem)
    ledger = None if storage is None else _open_ledger(storage, name or problem.space.name, description)
    search = _Search(problem, effort, ledger, sampler, seed, progress)
    search.run()
    counts = {**search.counts, "seconds": round(time.perf_counter() - start, 3)}
    known = {"latency": {source.device_name: dict(source.metadata) for source in problem.latencies}, "study": counts}
    return front_of(search.archive, {**description, **known})


def _describe(problem: Problem) -> dict[str, Any]:
    """What two studies must share to be one."""
    latency = json.dumps([dict(source.metadata) for source in problem.latencies], sort_keys=True, default=str)
    return {
        "space": problem.space.name,
        "devices": list(problem.devices),
        "objectives": list(problem.costs),
        "budget": problem.budget.to_json(),
        "accuracy": dict(problem.accuracy.provenance),
        "latency_digest": hashlib.sha256(latency.encode()).hexdigest()[:12],
    }


class _Search:
    """One search in one process."""

    def __init__(self, problem: Problem, effort: Effort, ledger: optuna.Study | None, sampler: str, seed: int, progress: Progress) -> None:
        self._problem = problem
        self._effort = effort
        self._ledger = ledger
        self._progress = progress
        self.archive = Archive(problem)
        past = [] if ledger is None else ledger.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        # A study that is resumed with its own seed must not draw its first trials again.
        own_seed, sampler_seed = np.random.SeedSequence([seed, len(past)]).spawn(2)
        self._rng = np.random.default_rng(own_seed)
        self._study = _steering_study(problem, past, _make_sampler(sampler, int(sampler_seed.generate_state(1)[0])))
        self._distributions = _distributions(problem)
        self._trials = 0
        self._evolved = 0
        self._improved = 0
        self._settings = {"sampler": sampler, "seed": seed}
        self._recall(past)

    @property
    def counts(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        found = {"trials": self._trials, "evolved": self._evolved, "neighbours": self._improved, "evaluated": len(self.archive)}
        return {**self._settings, **found}

    def run(self) -> None:
        """Rounds of trials, each followed by its share of evolution, and the last look."""
        evolution = round((1 - _LAST_LOOK) * self._effort.evaluations) if self._problem.costs else self._effort.evaluations
        if not self._trials:
            self._propose(self._ends())
        islands = self._found_islands(min(_FOUNDERS, evolution)) if evolution else None
        batch = _BATCH if islands else 1
        while self._trials < self._effort.trials:
            index_N = self._run_batch(min(batch, self._effort.trials - self._trials))
            if islands is not None:
                with self._one_sentence():
                    islands.settle(index_N, self._rng.permutation(len(islands))[np.arange(len(index_N)) % len(islands)])
                    rounds = -(-(self._effort.trials - self._trials) // batch) + 1
                    self._evolved += islands.evolve((evolution - self._evolved) // rounds)
                self._propose(self.archive.rows[islands.best])
            self._report()
        with self._one_sentence():
            self._improved = improve(self.archive, limit=self._effort.evaluations - self._evolved, progress=self._report_neighbours)
        self._progress(self._total, self._total, f"{len(self.archive)} different networks")

    @property
    def _total(self) -> int:
        return self._effort.trials + self._effort.evaluations

    def _report(self) -> None:
        self._progress(self._trials + self._evolved, self._total, f"{len(self.archive)} different networks")

    def _report_neighbours(self, done: int, total: int, text: str = "") -> None:
        self._progress(self._trials + self._evolved + done, self._total, text)

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except OfaError:
            raise
        except Exception as error:  # accuracy and latency sources are the caller's, so anything may come
            raise SearchError(
                f"every network of a search must be evaluated, but {type(error).__name__}: {error} came after {self._trials} finished "
                "trials, which a storage keeps; correct it and run the same search again"
            ) from error

    def _recall(self, past: Sequence[FrozenTrial]) -> None:
        """Take the networks of past trials in, with the accuracies that they had."""
        if past:
            with self._one_sentence():
                self.archive.evaluate(self._rows([trial.params for trial in past]), np.array([trial.values[0] for trial in past]))
        self._trials += len(past)

    def _found_islands(self, founders: int) -> Islands:
        space = self._problem.space
        with self._one_sentence():
            rows_NC = np.concatenate([self._ends(), sample_of_all_sizes(space, founders, self._rng)])
            before = len(self.archive)
            founders_N = np.union1d(self.archive.evaluate(rows_NC), np.arange(before))
            self._evolved += len(self.archive) - before
            return Islands(self.archive, targets_along_front(self.archive, self._effort.islands, self._rng), founders_N, self._rng)

    def _ends(self) -> Rows:
        """The smallest and the largest networks, and those that cost the least, which hold the ends of the front."""
        space = self._problem.space
        sizes = (space.resolutions[0], space.resolutions[-1])
        ends = space.encode_all([end for size in sizes for end in (space.smallest(size), space.largest(size))])
        least = [extreme(self._problem, name)[1] for name in self._problem.costs]
        return np.unique(np.concatenate([ends, *least]), axis=0)

    def _propose(self, rows_NC: Rows) -> None:
        """Let networks be the next trials, unless they were trials already."""
        names = [gene.name for gene in self._problem.space.columns]
        for row in rows_NC.tolist():
            self._study.enqueue_trial(
                {name: value for name, value in zip(names, row, strict=True) if name in self._distributions}, skip_if_exists=False
            )

    def _run_batch(self, size: int) -> Integers:
        """Ask, evaluate and tell; where the networks stand in the archive."""
        asked = [self._ask() for _ in range(size)]
        with self._one_sentence():
            index_N = self.archive.evaluate(self._rows([trial.params for trial in asked]))
        columns = {name: column[index_N] for name, column in self.archive.columns.items()}
        objectives = np.stack([columns[name] for name in ("accuracy", *self._problem.costs)], axis=1)
        told = []
        for i, trial in enumerate(asked):
            for limit in self._problem.limits:
                trial.set_constraint(f"{limit.name} {'<=' if limit.sign > 0 else '>='} {limit.limit:g}", float(limit.excess(columns)[i]))
            told.append(self._study.tell(trial, objectives[i].tolist()))
        if self._ledger is not None:
            with _storage_in_one_sentence("written"):
                self._ledger.add_trials(told)
        self._trials += size
        return index_N

    def _ask(self) -> Trial:
        trial = self._study.ask()
        # The genetic samplers count a trial as one of their generation only when they are asked for its parameters, which nobody
        # does for an enqueued trial: what evolved would be evaluated and never become parents.
        _ = trial.relative_params
        for name, distribution in self._distributions.items():
            trial.suggest_int(name, distribution.low, distribution.high)
        return trial

    def _rows(self, parameters: Sequence[Mapping[str, Any]]) -> Rows:
        """The networks of trials.

        Genes of blocks that are skipped have values in a trial, which do not matter: two trials that differ in them alone are
        one network, evaluated once.
        """
        names = [gene.name for gene in self._problem.space.columns]
        rows_NC = np.array([[int(each.get(name, 0)) for name in names] for each in parameters], dtype=ROW_DTYPE)
        return self._problem.space.canonical(rows_NC.reshape(len(parameters), len(names)))


def _distributions(problem: Problem) -> dict[str, IntDistribution]:
    """Each gene that has a choice as the index into its ordered values."""
    return {gene.name: IntDistribution(0, len(gene.values) - 1) for gene in problem.space.columns if len(gene.values) > 1}


# -- Optuna's studies, samplers and storages ---------------------------------------------------------------------------


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


def _steering_study(problem: Problem, past: Sequence[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    """The study in memory that the sampler works on, with all past trials."""
    with _without_notices():
        study = optuna.create_study(directions=_directions(problem.costs), sampler=sampler)
    study.add_trials(past)
    return study


def _directions(objectives: Sequence[str]) -> list[Any]:
    return ["maximize", *("minimize" for _ in objectives)]


def _open_ledger(storage: str, name: str, description: Mapping[str, Any]) -> optuna.Study:
    """The study in the storage, made if it is not there.

    Raises:
        SearchError: the storage cannot be used, or the study there is of another problem.
    """
    objectives = description["objectives"]
    with _storage_in_one_sentence(f"'{storage}'"), _without_notices():
        study = optuna.create_study(storage=_storage(storage), study_name=name, directions=_directions(objectives[1:]), load_if_exists=True)
        found = study.user_attrs.get(_DESCRIPTION_KEY)
        if found is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_DESCRIPTION_KEY, dict(description))
            found = dict(description)
    for key, value in description.items():
        if (found or {}).get(key) != value:
            raise SearchError(
                f"a study is resumed with the problem that it began with, but {key} of study '{name}' in '{storage}' is "
                f"{(found or {}).get(key)} and now {value}; give this study a name of its own"
            )
    return study


def _storage(text: str) -> str | BaseStorage:
    return text if "://" in text else JournalStorage(JournalFileBackend(text))


@contextmanager
def _storage_in_one_sentence(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each database driver has errors of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SearchError(
            f"the storage of a study must be a database or a journal file that can be used, but {what} cannot be: {reason}; check it, or "
            "search without one"
        ) from error


@contextmanager
def _without_notices() -> Iterator[None]:
    """Keep Optuna's notices on this thread's studies off stderr; its verbosity, which is global, stays the user's."""
    this_thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != this_thread or record.levelno >= logging.WARNING

    handlers = [handler for handler in logging.getLogger("optuna").handlers if type(handler) is logging.StreamHandler]
    for handler in handlers:
        handler.addFilter(is_wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_wanted)
