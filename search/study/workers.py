"""Several worker processes on one study."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError
from threadpoolctl import threadpool_limits

from ofa.errors import OfaError, SearchError
from ofa.files import temporary_folder
from ofa.progress import Progress, silent
from ofa.storage_url import StorageUrl
from search.front.front import Front
from search.problem import Problem
from search.study.effort import EVOLUTION, Effort, Settings, sampler_for
from search.study.optuna_logging import known_as_experimental
from search.study.run import OpenStudy, open_study, optimize, run_study, sampler_of, search
from search.study.storages import GRACE_S
from search.study.trials import Trials

__all__ = ["run_workers"]

_LOOK_S = 0.5
"""Seconds between polls of the number of finished trials."""
_END_S = 5.0
"""Seconds in which interrupted workers may mark their trials as FAIL before they are killed."""
_END_ALONE_S = 30.0
"""The same for a worker whose parent process has died."""
_WORKER = "worker of a search"
"""Name of a worker process."""
_READS_THE_CALL = 97
"""Exit status of a worker that reached ``run_workers`` itself while importing the parent's script, as each spawned Python does."""


def run_workers(
    make_problem: Callable[[], Problem],
    *,
    workers: int,
    seed: int,
    effort: Effort | None = None,
    sampler: str | None = None,
    storage: str | StorageUrl | None = None,
    name: str | None = None,
    progress: Progress = silent,
    grace_s: int = GRACE_S,
) -> Front:
    """Search in several processes on one study, and return the front of all of its trials.

    A worker that dies is not restarted: the others finish the study, and the front records how many died, and why. With one worker this
    is ``run_study``. Workers that measure latencies on one device at the same time disturb each other: use one worker per device, or a
    latency table.

    A script calls this under ``if __name__ == "__main__":``, because each worker imports the script again.

    Args:
        make_problem: makes the problem, in this process and in each worker. It must be importable by name, since workers are spawned.
        workers: number of processes.
        seed: seed of all workers. Their order of proposals still depends on their timing.
        effort: trials of all workers together. Up to ``workers`` - 1 trials more may be finished.
        sampler: one of Optuna's own samplers in ``SAMPLERS``; None for ``nsga2``.
        storage: as of ``run_study``; None keeps the study in a temporary folder.
        name: name of the study in the storage; None for the name of the space.
        progress: receives the number of finished trials.
        grace_s: as of ``run_study``.

    Returns:
        The front of all evaluated networks that keep the problem's budget.

    Raises:
        SearchError: as of ``run_study``; or fewer than 1 worker, all workers died, several workers with the sampler ``evolution``, or a
            script calls this at import.
        MissingExtraError, ImpossibleBudgetError: as of ``run_study``.
    """
    if multiprocessing.current_process().name == _WORKER:
        sys.exit(_READS_THE_CALL)
    if workers < 1:
        raise SearchError(f"a search must have at least 1 worker, but got {workers}; give 1 or more")
    effort = effort or Effort()
    where = StorageUrl(storage) if isinstance(storage, str) else storage
    settings = Settings(seed=seed, effort=effort, sampler=sampler_for(effort, sampler), storage=where, name=name, grace_s=grace_s)
    if workers == 1:
        named: dict[str, Any] = {"sampler": sampler, "storage": where, "name": name, "grace_s": grace_s}
        return run_study(make_problem(), seed=seed, effort=effort, progress=progress, **named)
    if settings.sampler == EVOLUTION:
        raise SearchError(
            f"several workers need one of Optuna's own samplers, but got {workers} workers and '{EVOLUTION}', which runs in one process; "
            "give 1 worker, or 0 evaluations"
        )

    def together(opened: OpenStudy, trials: Trials) -> dict[str, Any]:
        sampler_of(settings, ())  # shows Optuna's warning about an experimental sampler here, once
        members: list[_Member] = []
        try:
            members += [_start(_Task(make_problem, settings, workers, (*opened.entropy, index))) for index in range(workers)]
            _watch(members, opened, trials, effort, progress)
        finally:
            _end([member.process for member in members])
        if any(member.process.exitcode == _READS_THE_CALL for member in members):
            raise SearchError(
                'a script must search with several workers under `if __name__ == "__main__":`, because each worker imports it again, but '
                f"'{sys.modules['__main__'].__file__}' searches at import; put the call there, or give workers=1"
            )
        died = [f"worker {index}: {member.reason}" for index, member in enumerate(members, start=1) if member.reason]
        if len(died) == workers and trials.learn(opened.study) < effort.trials:
            raise SearchError(
                f"a search needs a worker that reaches its end, but all {workers} died, the first because {members[0].reason}; "
                "a given storage keeps their finished trials: correct the cause and run the same search again"
            )
        return {"workers": workers, "died": len(died), **({"deaths": died} if died else {})}

    with ExitStack() as stack:
        if storage is None:
            folder = stack.enter_context(temporary_folder("study"))
            settings = replace(settings, storage=StorageUrl(str(folder / "study.journal")))
        return search(make_problem(), settings, together, progress)


# -- the parent process ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """Arguments of a worker."""

    make_problem: Callable[[], Problem]
    settings: Settings
    workers: int
    entropy: tuple[int, ...]


@dataclass(eq=False)
class _Member:
    """A worker as its parent process knows it; ``reason`` is why it died."""

    process: SpawnProcess
    connection: Connection
    reason: str | None = None


def _start(task: _Task) -> _Member:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, there), name=_WORKER)
    process.start()
    there.close()
    return _Member(process, here)


def _watch(members: Sequence[_Member], opened: OpenStudy, trials: Trials, effort: Effort, progress: Progress) -> None:
    """Wait until each worker has finished or died."""
    open_ = {member.process.sentinel: member for member in members}
    while open_:
        for sentinel in wait(list(open_), _LOOK_S):
            member = open_.pop(sentinel)  # type: ignore[arg-type]  # only sentinels were waited for
            member.process.join()
            code = member.process.exitcode or 0
            if member.connection.poll():
                with suppress(EOFError):
                    member.reason = member.connection.recv()
            if member.reason is None and code:
                member.reason = f"it was killed by signal {-code}" if code < 0 else f"it ended with status {code}"
        died = sum(member.reason is not None for member in members)
        text = f"trials by {len(members)} workers"
        done = min(trials.learn(opened.study), effort.trials)
        progress(done, effort.total, f"{text}, of which {died} died" if died else text)


def _end(processes: Sequence[SpawnProcess]) -> None:
    """End the workers that still run, because this search was interrupted or failed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _END_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
        process.join()


# -- a worker ----------------------------------------------------------------------------------------------------------


def _work(task: _Task, connection: Connection) -> None:
    """Main function of a worker; it sends the reason of a failure through the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process gets Ctrl-C as well, and ends this one
    signal.signal(signal.SIGTERM, _interrupt)
    threading.excepthook = _leave_to_the_trial
    threading.Thread(target=_end_late, daemon=True).start()
    threads = max(1, (os.cpu_count() or 1) // task.workers)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), ExitStack() as stack:
            problem = task.make_problem()
            with known_as_experimental():  # the parent process has shown the warning
                opened = stack.enter_context(open_study(problem, task.settings))
                sampler = sampler_of(task.settings, task.entropy)
            optimize(opened.study, Trials(problem), task.settings, sampler, _end_alone)
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        with suppress(OSError):  # a broken pipe: the parent process is gone
            connection.send(str(error) if isinstance(error, OfaError) else f"{type(error).__name__}: {error}")
        sys.exit(1)


def _leave_to_the_trial(met: threading.ExceptHookArgs) -> None:
    """Show errors of threads, except a heartbeat's storage errors: the trial meets the same error at its end, and reports it."""
    if not isinstance(met.exc_value, StorageInternalError | SQLAlchemyError):
        threading.__excepthook__(met)


def _interrupt(number: int, frame: Any) -> None:
    """End as Ctrl-C does, so that Optuna marks the trial as FAIL."""
    raise KeyboardInterrupt


def _end_alone(study: Any, trial: Any) -> None:
    """End this worker after its trial if its parent process has died."""
    watching = multiprocessing.parent_process()
    if watching is not None and not watching.is_alive():
        sys.exit(1)


def _end_late() -> None:
    """Interrupt this worker's trial ``_END_S`` after its parent process has died, and kill the worker ``_END_ALONE_S`` later."""
    watching = multiprocessing.parent_process()
    assert watching is not None
    watching.join()
    time.sleep(_END_S)
    # Signal the main thread, so that it wakes from a blocking call.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(_END_ALONE_S)
    os._exit(1)
