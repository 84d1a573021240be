"""A search in this process, and the steps that begin and end every search."""

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
    """Search in this process, and return the front of all evaluated networks.

    Other processes may work on the same study in the storage at the same time, here or on other machines. Each of them may then finish
    one trial more than ``effort`` asks for.

    Args:
        problem: space, sources, budget and objectives of the search.
        seed: seed of a new study. A study that is resumed, or that other processes work on, also draws fresh entropy, so that no network
            is proposed again.
        effort: number of trials and evaluations; None for the defaults of ``Effort``.
        sampler: one of ``SAMPLERS``; None for ``evolution`` if the effort has evaluations, else ``nsga2``.
        storage: None keeps the study in memory. A URL such as ``sqlite:///study.db`` or ``postgresql://user@host/name`` keeps it in a
            database, ``grpc://host:port`` behind Optuna's gRPC proxy, any other text in a journal file of that path. An existing study is
            resumed. Passwords in a URL appear in no error and in no front.
        name: name of the study in the storage; None for the name of the space.
        progress: receives the number of evaluated networks.
        grace_s: seconds without a heartbeat after which Optuna fails a running trial and re-queues it; databases only.

    Returns:
        The front of all evaluated networks that keep the problem's budget. Its ``info`` records where the numbers come from.

    Raises:
        SearchError: a wrong setting, a storage that cannot be used or holds a study of another problem, or a failed evaluation. Trials
            that finished before stay in the storage.
        MissingExtraError: the driver of the storage is not installed.
        ImpossibleBudgetError: no evaluated network keeps the budget.
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
        is_new: whether this process created it.
        entropy: entropy that is mixed with the seed.
    """

    study: Study
    is_new: bool
    entropy: tuple[int, ...]


@contextmanager
def open_study(problem: Problem, settings: Settings) -> Iterator[OpenStudy]:
    """The study of a search, created if absent. On exit the storage is closed; until then its errors become ``SearchError``.

    Raises:
        SearchError: the storage cannot be used, or its study is of another problem.
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
        # Other processes may begin at the same moment, with the same seed.
        yield OpenStudy(study, is_new, (0,) if is_new else (1, secrets.randbits(32)))


def optimize(study: Study, trials: Trials, settings: Settings, sampler: BaseSampler, after: Callable[[Study, FrozenTrial], None]) -> None:
    """Run ``Study.optimize`` until the study has the wanted number of finished trials.

    Args:
        study: the study.
        trials: evaluates the networks.
        settings: settings of the search.
        sampler: proposes the networks.
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
            # Optuna fails the trial of a process without heartbeat, and then refuses its result with one of several errors.
            if not trials.was_taken_over(study):
                raise


def sampler_of(settings: Settings, entropy: Sequence[int]) -> BaseSampler:
    """One of Optuna's own samplers."""
    return optunas_sampler(settings.sampler, int(np.random.SeedSequence([settings.seed, *entropy]).generate_state(1)[0]))


def search(problem: Problem, settings: Settings, work: Callable[[OpenStudy, Trials], Mapping[str, Any]], progress: Progress) -> Front:
    """Open the study, run ``work``, and build the front; arguments, errors and result as of ``run_study``.

    Args:
        problem: the problem.
        settings: settings of the search.
        work: finishes the study's trials, and returns the fields of the front's ``info.study``.
        progress: receives the end of the search.
    """
    start = time.perf_counter()
    check_possible(problem)
    trials = Trials(problem)
    with open_study(problem, settings) as opened:
        if opened.is_new and settings.sampler != EVOLUTION:  # evolution begins with the ends by itself
            opened.study.add_trials(map(trials.waiting, ends_of(problem)))
        about = work(opened, trials)
        finished = trials.learn(opened.study)
    with trials.evaluating():
        look_at_other_precisions(trials.archive)
    total = settings.effort.total
    progress(total, total, f"{len(trials.archive)} different networks")
    counts = {**about, "trials": finished, "evaluated": len(trials.archive), "seconds": round(time.perf_counter() - start, 3)}
    return front_of(trials.archive, {"sampler": settings.sampler, "seed": settings.seed, **counts})
