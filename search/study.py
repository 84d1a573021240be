"""The study: Optuna proposes networks, arrays evaluate them, and the front is what nothing beats. The only file that knows Optuna.

The sampler steers a study in memory, because a storage that is asked for every gene of every trial would cost a hundred times
the sampler's own work (SQLite: 168 ms a trial of 46 genes, against 1.5 ms). Finished trials go to the storage whole, one write
each: it never holds half a trial, and whoever opens it (a later run, optuna-dashboard) finds what is finished.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from ofa.arch import Arch
from ofa.errors import OfaError, SearchError, nearest
from ofa.progress import Progress, silent
from search.front import Front
from search.neighbourhood import improve
from search.pareto import Floats
from search.problem import Archive, Problem

__all__ = ["SAMPLERS", "run_study"]

_POPULATION = 50

_BATCHES = {"nsga2": _POPULATION, "nsga3": _POPULATION, "random": _POPULATION, "tpe": 10}
"""Networks proposed before any of them is evaluated: one generation of a genetic sampler; fewer where each answer changes the
next proposal."""

SAMPLERS = tuple(_BATCHES)
"""The samplers by name; ``nsga2`` is the fastest and the default."""

_DESCRIPTION_KEY = "ofa"


def run_study(
    problem: Problem,
    *,
    trials: int,
    seed: int,
    sampler: str = "nsga2",
    storage: str | None = None,
    name: str | None = None,
    neighbours: int = 0,
    progress: Progress = silent,
) -> Front:
    """Search, and return the front of everything that was evaluated.

    Args:
        problem: what to search for.
        trials: finished trials that the study shall have; one that is resumed runs only those that are missing.
        seed: decides the sampler's choices, together with the number of trials that it resumes from.
        sampler: one of ``SAMPLERS``.
        storage: None keeps the study in memory; a URL such as ``sqlite:///study.db`` keeps it in a database, any other text in a
            journal file of that path. A study that is already there is resumed.
        name: the study's name in the storage, by default the space's.
        neighbours: most networks to evaluate after the trials in the neighbourhood of the best ones; they are no trials.
        progress: told how many networks are evaluated.

    Returns:
        The front over all trials and neighbours that keep the problem's budget. Its metadata says where all of it came from.

    Raises:
        SearchError: a wrong setting, a storage that cannot be used or holds a study of another problem, or an evaluation that
            fails. What was finished before stays in the storage.
        ImpossibleBudgetError: no network that was evaluated keeps the budget.
    """
    _check(trials, neighbours, sampler)
    description = _describe(problem)
    ledger = None if storage is None else _open_ledger(storage, name or problem.space.name, description)
    past = [] if ledger is None else ledger.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    study = _steering_study(problem, past, _make_sampler(sampler, seed, len(past)))
    archive = Archive(problem)
    evaluator = _Evaluator(archive, total=max(trials, len(past)) + neighbours, progress=progress)
    evaluator.recall([_arch(problem, trial.params) for trial in past], np.array([trial.values[0] for trial in past]))
    if not past:
        _propose_ends(problem, study)
    while evaluator.done < trials:
        _run_batch(problem, study, ledger, evaluator, min(_BATCHES[sampler], trials - evaluator.done))
    found = evaluator.improve(neighbours)
    counts = {"sampler": sampler, "seed": seed, "trials": evaluator.done, "neighbours": found, "evaluated": len(archive)}
    known = {"num_classes": problem.space.num_classes, "latency": dict(problem.latency.metadata), "study": counts}
    return Front.of(archive, {**description, **known})


def _check(trials: int, neighbours: int, sampler: str) -> None:
    if trials < 1 or neighbours < 0:
        raise SearchError(f"a study needs at least 1 trial and 0 neighbours, but got {trials} and {neighbours}; try 1000 and 5000")
    if sampler not in SAMPLERS:
        raise SearchError(f"'{sampler}' must be the name of a sampler; {nearest(sampler, SAMPLERS)}")


def _describe(problem: Problem) -> dict[str, Any]:
    """What two studies must share to be one."""
    latency = json.dumps(dict(problem.latency.metadata), sort_keys=True)
    return {
        "space": problem.space.name,
        "device": problem.latency.metadata["device"]["name"],
        "objectives": ["accuracy", *problem.objectives],
        "budget": {problem.budget.column(key): limit for key, limit in problem.budget.limits.items()},
        "accuracy": dict(problem.accuracy.provenance),
        "latency_digest": hashlib.sha256(latency.encode()).hexdigest()[:12],
    }


class _Evaluator:
    """Counts trials, reports progress, and turns whatever an evaluation raises into one sentence."""

    def __init__(self, archive: Archive, *, total: int, progress: Progress) -> None:
        self._archive = archive
        self._total = total
        self._progress = progress
        self.done = 0

    def recall(self, archs: Sequence[Arch], accuracies: Floats) -> None:
        """Take the archs of so many past trials with the accuracies that they had."""
        with _one_sentence(0):
            self._archive.recall(archs, accuracies)
        self.done += len(archs)

    def evaluate(self, archs: Sequence[Arch]) -> Mapping[str, Floats]:
        """The columns of the archs of so many trials."""
        with _one_sentence(self.done):
            columns = self._archive.evaluate(archs)
        self.done += len(archs)
        self._progress(self.done, self._total, f"{len(self._archive)} different networks")
        return columns

    def improve(self, limit: int) -> int:
        """Evaluate neighbours of the best; the number evaluated."""

        def report(done: int, total: int, text: str = "") -> None:
            self._progress(self.done + done, self._total, text)

        with _one_sentence(self.done):
            found = improve(self._archive, limit=limit, progress=report)
        self._progress(self._total, self._total, f"{len(self._archive)} different networks")
        return found


@contextmanager
def _one_sentence(done: int) -> Iterator[None]:
    try:
        yield
    except OfaError:
        raise
    except Exception as error:  # accuracy and latency sources are the caller's, so anything may come
        raise SearchError(
            f"every network of a search must be evaluated, but {type(error).__name__}: {error} came after {done} finished trials, "
            "which a storage keeps; correct it and run the same search again"
        ) from error


def _run_batch(problem: Problem, study: optuna.Study, ledger: optuna.Study | None, evaluator: _Evaluator, size: int) -> None:
    distributions = _distributions(problem)
    asked = [_ask(study, distributions) for _ in range(size)]
    columns = evaluator.evaluate([_arch(problem, trial.params) for trial in asked])
    objectives = np.stack([columns[name] for name in ("accuracy", *problem.objectives)], axis=1)
    excess = problem.budget.violations(columns)
    told = []
    for i, trial in enumerate(asked):
        for key, values in excess.items():
            trial.set_constraint(key, float(values[i]))
        told.append(study.tell(trial, objectives[i].tolist()))
    if ledger is not None:
        with _storage_in_one_sentence("written"):
            ledger.add_trials(told)


def _ask(study: optuna.Study, distributions: Mapping[str, IntDistribution]) -> Trial:
    trial = study.ask()
    # The genetic samplers count a trial as one of their generation only when they are asked for its parameters, which nobody
    # does for an enqueued trial: the ends of the space would be evaluated and never become parents.
    _ = trial.relative_params
    for name, distribution in distributions.items():
        trial.suggest_int(name, distribution.low, distribution.high)
    return trial


def _arch(problem: Problem, parameters: Mapping[str, Any]) -> Arch:
    """The network of a trial.

    Genes of blocks that are skipped have values in a trial, which decoding ignores: two trials that differ in them alone are
    one network, evaluated once.
    """
    return problem.space.decode([int(parameters.get(gene.name, 0)) for gene in problem.space.columns])


def _distributions(problem: Problem) -> dict[str, IntDistribution]:
    """Each gene that has a choice as the index into its ordered values."""
    return {gene.name: IntDistribution(0, len(gene.values) - 1) for gene in problem.space.columns if len(gene.values) > 1}


def _propose_ends(problem: Problem, study: optuna.Study) -> None:
    """Let the first trials be the smallest and the largest networks, which hold the ends of the front."""
    space, names = problem.space, _distributions(problem)
    sizes = (space.resolutions[0], space.resolutions[-1])
    for arch in dict.fromkeys(end for size in sizes for end in (space.smallest(size), space.largest(size))):
        row = dict(zip((gene.name for gene in space.columns), space.encode(arch), strict=True))
        study.enqueue_trial({name: row[name] for name in names})


# -- Optuna's studies, samplers and storages ---------------------------------------------------------------------------


def _make_sampler(name: str, seed: int, resumed_from: int) -> BaseSampler:
    # A study that is resumed with its own seed must not draw its first trials again.
    state = int(np.random.SeedSequence([seed, resumed_from]).generate_state(1)[0])
    if name == "nsga2":
        return NSGAIISampler(population_size=_POPULATION, seed=state)
    if name == "nsga3":
        return NSGAIIISampler(population_size=_POPULATION, seed=state)
    if name == "tpe":
        return TPESampler(seed=state)
    return RandomSampler(seed=state)


def _steering_study(problem: Problem, past: Sequence[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    """The study in memory that the sampler works on, with all past trials."""
    with _without_notices():
        study = optuna.create_study(directions=_directions(problem.objectives), sampler=sampler)
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
