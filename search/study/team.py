"""Several processes at one study, and the process that watches over them."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from ofa.arrays import Floats, Rows
from ofa.errors import SearchError
from ofa.progress import Progress, silent
from search.evolution.archive import Archive
from search.evolution.local_search import improve
from search.front.build import check_possible, front_of
from search.front.front import Front
from search.problem import Problem
from search.study.effort import Counts, Effort, check_sampler
from search.study.heartbeat import new_group, worker_name
from search.study.ledger import PATIENCE_S, Ledger
from search.study.run import describe, run_study
from search.study.searching import evaluating, recall
from search.study.steering import Steering
from search.study.worker import Task, work

__all__ = ["run_workers"]

_END_S = 5.0


def run_workers(
    make_problem: Callable[[], Problem],
    *,
    workers: int,
    seed: int,
    effort: Effort | None = None,
    sampler: str = "nsga2",
    storage: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
    patience_s: float = PATIENCE_S,
) -> Front:
    """Search in several processes on one study, and return the front of everything that was evaluated.

    A worker that dies is not started again: the others take over its trials, and the front says how many died, and of what.
    With one worker this is ``run_study``. Latencies that several workers measure on one device at the same time disturb each other:
    have one worker for each device, or a table.

    Args:
        make_problem: makes what to search for, in this process and in each worker; it must be importable by name, so that a new Python
            finds it.
        workers: how many processes.
        seed: decides all choices of each worker; which of them proposes first is decided by the machine.
        effort: how much all of them together look at.
        sampler: one of ``SAMPLERS``.
        storage: as of ``run_study``; without one the study is in a temporary folder.
        name: the study's name in the storage, by default the space's.
        progress: told how many networks are evaluated.
        patience_s: seconds without a sign of life after which a worker on another machine counts as dead, and its trials are taken over.

    Returns:
        The front over everything that keeps the problem's budget.

    Raises:
        SearchError: as of ``run_study``, or all workers died.
        MissingExtraError, ImpossibleBudgetError: as of ``run_study``.
    """
    if workers < 1:
        raise SearchError(f"a search must have at least 1 worker, but got {workers}; give 1 or more")
    effort = effort or Effort()
    settings: dict[str, Any] = {"seed": seed, "sampler": sampler, "patience_s": patience_s}
    if workers == 1:
        return run_study(make_problem(), effort=effort, storage=storage, name=name, progress=progress, **settings)
    check_sampler(sampler)
    start = time.perf_counter()
    problem = make_problem()
    check_possible(problem)
    Steering(problem.space, problem.costs, sampler, seed)  # says here, once, if the sampler is experimental
    description, group = describe(problem), new_group()
    with ExitStack() as stack:
        text = storage if storage is not None else _temporary_file(stack)
        # Opened here first: the tables of a database are not made by two processes at a time.
        ledger = Ledger(text, name or problem.space.name, description, worker=worker_name(group), patience_s=patience_s)
        stack.callback(ledger.close)
        task = Task(make_problem, effort, text, name or problem.space.name, group, workers, ledger.finished(), **settings)
        members = _run(task, progress, ledger)
        archive = Archive(problem)
        look = ledger.look()
        recall(archive, Steering(problem.space, problem.costs, "random", seed).rows([t.params for t in look.fresh]), look.fresh)
    about = {"sampler": sampler, "seed": seed, "workers": workers, **_deaths(members), "trials": look.finished}
    with evaluating(look.finished):
        about |= _put_together(archive, members, effort, progress)
    progress(effort.total, effort.total, f"{len(archive)} different networks")
    # A network that several workers came upon is counted for each of them.
    about["evaluated"] = look.finished + about["evolved"] + about["neighbours"]
    return front_of(archive, {**about, "seconds": round(time.perf_counter() - start, 3)})


def _deaths(members: Sequence[_Member]) -> dict[str, Any]:
    died = [f"worker {member.index + 1}: {member.reason}" for member in members if member.reason is not None]
    return {"died": len(died), **({"deaths": died} if died else {})}


def _put_together(archive: Archive, members: Sequence[_Member], effort: Effort, progress: Progress) -> dict[str, int]:
    """Take in what each worker found, and look around the front of all of it."""
    for member in members:
        if member.found is not None:
            archive.evaluate(*member.found)
    evolved = sum(member.counts.evolved for member in members)
    neighbours = improve(archive, limit=effort.evaluations - evolved, progress=partial(_report_look, progress, effort))
    return {"evolved": evolved, "neighbours": neighbours}


def _report_look(progress: Progress, effort: Effort, done: int, total: int, text: str = "") -> None:
    progress(effort.total - total + done, effort.total, text)


def _temporary_file(stack: ExitStack) -> str:
    return str(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-study-"))) / "study.journal")


# -- the process that watches ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Member:
    """A worker as the watching process knows it.

    Attributes:
        found: the rows [N, C] and accuracies [N] of its best networks, when it has done its share.
        reason: why it died.
    """

    index: int
    process: SpawnProcess
    connection: Connection
    counts: Counts = field(default_factory=lambda: Counts(trials=0, evolved=0, neighbours=0, evaluated=0))
    found: tuple[Rows, Floats] | None = None
    reason: str | None = None


def _run(task: Task, progress: Progress, ledger: Ledger) -> list[_Member]:
    """Start the workers and see them to their ends.

    Raises:
        SearchError: all of them died.
    """
    members = []
    try:
        members += [_start(task, index) for index in range(task.workers)]
        _watch(members, task.effort, progress)
    finally:
        for member in members:
            _end(member.process)
        with suppress(SearchError):  # a storage that is gone is what the workers died of, and say
            ledger.give_up_all_of(task.group, task.effort.trials)
    if all(member.found is None for member in members):
        raise SearchError(
            f"a search needs a worker that reaches its end, but all {len(members)} died, the first because {members[0].reason}; "
            "what they finished is kept by the storage, if one was given: correct it and run the same search again"
        )
    return members


def _start(task: Task, index: int) -> _Member:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(task, index, there), name=f"ofa search worker {index + 1}")
    process.start()
    there.close()
    return _Member(index, process, here)


def _watch(members: Sequence[_Member], effort: Effort, progress: Progress) -> None:
    """Listen to workers until each has done its share or died."""
    open_ = {member.connection: member for member in members}
    while open_:
        for connection in wait(list(open_)):
            member = open_[connection]  # type: ignore[index]  # only connections were waited for
            if not _listen(member):
                del open_[member.connection]
        counts = [member.counts for member in members]
        done = max(each.trials for each in counts) + sum(each.evolved + each.neighbours for each in counts)
        died = sum(member.reason is not None for member in members)
        text = f"{sum(each.evaluated for each in counts)} networks by {len(members)} workers"
        progress(min(done, effort.total), effort.total, f"{text}, of which {died} died" if died else text)


def _listen(member: _Member) -> bool:
    """Take what a worker says; whether there is more to come."""
    try:
        kind, value = member.connection.recv()
    except (EOFError, OSError):  # which also stands for half a message
        # Joined at once, so that no process is left by which other workers would believe that it lives.
        member.process.join()
        if member.found is None and member.reason is None:
            code = member.process.exitcode or 0
            member.reason = f"it was killed by signal {-code}" if code < 0 else f"it ended with status {code}"
        return False
    if kind == "counts":
        member.counts = value
    elif kind == "found":
        member.found = value
    else:
        member.reason = value
    return True


def _end(process: SpawnProcess) -> None:
    """End a worker that still runs, because this search was interrupted or failed."""
    if process.is_alive():
        process.terminate()
        process.join(_END_S)
    if process.is_alive():
        process.kill()
    process.join()
