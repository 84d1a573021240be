"""One of several processes at one study."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ofa.arrays import Floats, Rows
from ofa.errors import OfaError
from search.evolution.archive import Archive
from search.evolution.local_search import best_of
from search.problem import Problem
from search.study.effort import Counts, Effort, Share
from search.study.heartbeat import worker_name
from search.study.ledger import Ledger
from search.study.optuna_logging import said_already
from search.study.run import describe, entropy_of
from search.study.searching import Search

__all__ = ["Task", "work"]

_REPORT_S = 0.1
_MOST_DOMINATED = 2000
"""Other networks that all workers together tell of, for pictures."""


@dataclass(frozen=True)
class Task:
    """What all workers are told."""

    make_problem: Callable[[], Problem]
    effort: Effort
    storage: str
    name: str
    group: str
    workers: int
    resumed: int
    seed: int
    sampler: str
    patience_s: float


def work(task: Task, index: int, connection: Connection) -> None:
    """The whole life of a worker.

    Args:
        task: what all are told.
        index: which of them this one is.
        connection: takes ``counts`` of what is done, then what was ``found`` (rows [N, C] and accuracies [N]) or the ``reason`` of an end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the watching process is told, too, and ends this one
    threads = max(1, (os.cpu_count() or 1) // task.workers)
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            _search(task, index, connection)
    except Exception as error:
        with suppress(OSError):  # of a pipe at whose other end nobody is any more
            connection.send(("reason", str(error) if isinstance(error, OfaError) else f"{type(error).__name__}: {error}"))


def _search(task: Task, index: int, connection: Connection) -> None:
    last = -_REPORT_S

    def report(counts: Counts) -> None:
        # Fails when nobody watches any more, which ends this worker.
        nonlocal last
        if time.monotonic() - last >= _REPORT_S:
            connection.send(("counts", counts))
            last = time.monotonic()

    problem = task.make_problem()
    with said_already():
        ledger = Ledger(task.storage, task.name, describe(problem), worker=worker_name(task.group), patience_s=task.patience_s)
    with ledger:
        share = Share(index=index, workers=task.workers, entropy=entropy_of(ledger, task.resumed))
        with said_already():
            search = Search(problem, task.effort, sampler=task.sampler, seed=task.seed, share=share, ledger=ledger, report=report)
        search.run()
    connection.send(("counts", search.counts))
    connection.send(("found", _found(search.archive, task)))


def _found(archive: Archive, task: Task) -> tuple[Rows, Floats]:
    """What the watching process does not find in the ledger: the best that arrays found, and some of the rest."""
    if not task.effort.evaluations:
        return archive.rows[:0], archive.accuracies[:0]
    best = best_of(archive)
    others = np.setdiff1d(np.arange(len(archive)), best)
    shown = others[np.linspace(0, len(others) - 1, min(len(others), _MOST_DOMINATED // task.workers)).astype(np.intp)]
    index = np.union1d(best, shown)
    return archive.rows[index], archive.accuracies[index]
