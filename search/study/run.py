"""A search in this process, and what every search begins and ends with."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial

from ofa.progress import Progress, silent
from ofa.storage_url import StorageUrl
from search.evolution.local_search import look_at_other_precisions
from search.front.build import check_possible, front_of
from search.front.front import Front
from search.problem import Problem
from search.study.description import check_same, describe
from search.study.effort import EVOLUTION, Effort, Settings, sampler_for
from search.study.optuna_logging import without_notices
from search.study.sampler import EvolutionSampler, ends_of, optunas_sampler
from search.study.storages import GRACE_S, in_one_sentence, open_storage
from search.study.trials import Trials

__all__ = ["OpenStudy", "open_study", "optimize", "run_study", "sampler_of", "search"]


def run_study(
    problem: Problem,
    *,
    seed: int,
    effort: Effort | None = None,
    sampler: str | None = None,
    storage: str | StorageUrl | None = None,
    name: str | None = None,
    progress: Progress = silent,
    grace_s: int = GRACE_S,
) -> Front:
    """Search in this process, and return the front of everything that was evaluated.

    Others may work at the same study in the storage at the same time, here or on other machines; the last trials of each of them may
    then be more than were wanted.

    Args:
        problem: what to search for.
        seed: decides all choices in a new study; in one that is resumed or that others are at, chance does, so that no network is
            proposed again.
        effort: how much is looked at.
        sampler: one of ``SAMPLERS``; None for ``evolution`` where the effort has evaluations, else ``nsga2``.
        storage: None keeps the study in memory; a URL such as ``sqlite:///study.db`` or ``postgresql://user@host/name`` keeps it in a
            database, ``grpc://host:port`` where such a proxy of Optuna keeps it, any other text in a journal file of that path. A study
            that is already there is resumed. Passwords in a URL are in no error and in no front.
        name: the study's name in the storage, by default the space's.
        progress: told how many networks are evaluated.
        grace_s: seconds without a heartbeat after which Optuna fails a running trial and has it tried again; only databases know that.

    Returns:
        The front over everything that keeps the problem's budget. Its ``info`` says where all of it came from.

    Raises:
        SearchError: a wrong setting, a storage that cannot be used or holds a study of another problem, or an evaluation that
            fails. What was finished before stays in the storage.
        MissingExtraError: the driver of the storage is not installed.
        ImpossibleBudgetError: no network that was evaluated keeps the budget.
    """
    effort = effort or Effort()
    where = StorageUrl(storage) if isinstance(storage, str) else storage
    settings = Settings(seed=seed, effort=effort, sampler=sampler_for(effort, sampler), storage=where, name=name, grace_s=grace_s)

    def here(opened: OpenStudy, trials: Trials) -> dict[str, Any]:
        def report() -> None:
            done = len(trials.finished) + (evolution.evaluated if evolution else 0)
            progress(min(done, effort.total), effort.total, f"{len(trials.archive)} different networks")

        evolution = None
        if settings.sampler == EVOLUTION:
            evolution = EvolutionSampler(problem, trials, effort, np.random.default_rng([seed, *opened.entropy]), report)
        proposing = evolution or sampler_of(settings, opened.entropy)
        optimize(opened.study, trials, settings, proposing, lambda study, trial: report())
        if evolution:
            evolution.finish()
        counts = {"evolved": evolution.evolved, "neighbours": evolution.neighbours} if evolution else {}
        return {"workers": 1, "died": 0, **counts}

    return search(problem, settings, here, progress)


# -- what every search begins and ends with ----------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenStudy:
    """A study that this process has open.

    Attributes:
        study: Optuna's.
        is_new: whether this process made it.
        entropy: what random choices depend on beside the seed.
    """

    study: Study
    is_new: bool
    entropy: tuple[int, ...]


@contextmanager
def open_study(problem: Problem, settings: Settings) -> Iterator[OpenStudy]:
    """The study of a search, made if it is not there; the storage is closed at the end, and until then what fails with it is one sentence.

    Raises:
        SearchError: the storage cannot be used, or the study there is of another problem.
        MissingExtraError: the driver of the storage is not installed.
    """
    directions: list[Any] = ["maximize", *("minimize" for _ in problem.costs)]
    named: dict[str, Any] = {"study_name": settings.name or problem.space.name}
    with ExitStack() as stack:
        stack.enter_context(without_notices())
        if settings.storage is not None:
            opened = open_storage(settings.storage, settings.grace_s)
            stack.callback(opened.close)
            stack.enter_context(in_one_sentence(settings.storage))
            named["storage"] = opened.storage
        try:
            study, is_new = optuna.create_study(directions=directions, **named), True
        except DuplicatedStudyError:
            study, is_new = optuna.load_study(**named), False
        check_same(study, describe(problem), str(settings.storage))
        # Others may begin at the same moment, with the same seed.
        yield OpenStudy(study, is_new, (0,) if is_new else (1, secrets.randbits(32)))


def optimize(study: Study, trials: Trials, settings: Settings, sampler: BaseSampler, after: Callable[[Study, FrozenTrial], None]) -> None:
    """Optuna's own loop, until the study has its finished trials.

    Args:
        study: where.
        trials: what evaluates.
        settings: of the search.
        sampler: what proposes.
        after: called after each trial of this process.

    Raises:
        SearchError: the storage cannot be used, or an evaluation fails.
    """
    wanted = settings.effort.trials
    study.sampler = sampler
    while trials.learn(study) < wanted:
        try:
            study.optimize(trials.objective, callbacks=[MaxTrialsCallback(wanted), after])
        except Exception:
            # Optuna fails the trial of a process that was silent for too long, and refuses what it tells of it, with one of several errors.
            if not trials.was_taken_over(study):
                raise


def sampler_of(settings: Settings, entropy: Sequence[int]) -> BaseSampler:
    """One of Optuna's own samplers."""
    return optunas_sampler(settings.sampler, int(np.random.SeedSequence([settings.seed, *entropy]).generate_state(1)[0]))


def search(problem: Problem, settings: Settings, work: Callable[[OpenStudy, Trials], Mapping[str, Any]], progress: Progress) -> Front:
    """Open the study, let it be worked at, and make the front of it; arguments, errors and front as of ``run_study``.

    Args:
        problem: what to search for.
        settings: of the search.
        work: finishes the study's trials, and says what the front tells of it.
        progress: told of the end.
    """
    start = time.perf_counter()
    check_possible(problem)
    trials = Trials(problem)
    with open_study(problem, settings) as opened:
        if opened.is_new and settings.sampler != EVOLUTION:  # which begins with them
            opened.study.add_trials(map(trials.waiting, ends_of(problem)))
        about = work(opened, trials)
        finished = trials.learn(opened.study)
    with trials.evaluating():
        look_at_other_precisions(trials.archive)
    total = settings.effort.total
    progress(total, total, f"{len(trials.archive)} different networks")
    counts = {**about, "trials": finished, "evaluated": len(trials.archive), "seconds": round(time.perf_counter() - start, 3)}
    return front_of(trials.archive, {"sampler": settings.sampler, "seed": settings.seed, **counts})
