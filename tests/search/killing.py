"""Studies as anybody would open them; killing workers in the middle of a measurement, and what must hold afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from tests.search.fakes import SMALL


def lines(log: Path) -> list[list[str]]:
    """What ``fakes.SlowAccuracy`` wrote down: process, what it did, network."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def measuring(log: Path) -> list[str]:
    """The processes in the middle of a measurement."""
    now: dict[str, str] = {}
    for process, what, _ in lines(log):
        now[process] = what
    return [process for process, what in now.items() if what == "begins"]


def kill_one(log: Path, after: int, killed: list[int], how: int = signal.SIGKILL) -> None:
    """When so many measurements have begun, kill a worker that is in the middle of one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if sum(what == "begins" for _, what, _ in lines(log)) >= after and (found := measuring(log)):
            killed.append(int(found[0]))
            os.kill(killed[0], how)
            return
        time.sleep(0.002)


def trials_of(storage: str, name: str) -> list[optuna.trial.FrozenTrial]:
    """All trials of a study, read by Optuna's own means."""
    backend: Any
    if storage.startswith("grpc://"):
        backend = optuna.storages.GrpcStorageProxy(host="localhost", port=int(storage.rpartition(":")[2]))
        close = backend.close
    elif "://" in storage:
        backend = optuna.storages.RDBStorage(storage)
        close = backend.engine.dispose
    else:
        backend, close = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage)), None
    try:
        return optuna.load_study(study_name=name, storage=backend).get_trials()
    finally:
        if close is not None:
            close()


def assert_whole(trials: list[optuna.trial.FrozenTrial], wanted: int, log: Path, *, workers: int = 1, killed: Sequence[int] = ()) -> None:
    """As many trials are complete as were wanted, and up to ``workers`` - 1 more; what was measured to its end is among them.

    Of a killed process its last measurement may be missing: it may have died before it could tell.
    """
    assert [trial.number for trial in trials] == list(range(len(trials)))
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert wanted <= len(complete) < wanted + workers
    rows_NC = SMALL.canonical(np.array([[trial.params.get(gene.name, 0) for gene in SMALL.columns] for trial in complete], dtype=np.int8))
    known = {"".join(map(str, row)) for row in rows_NC.tolist()}
    for process in {process for process, _, _ in lines(log)}:
        ended = [row for by, what, row in lines(log) if by == process and what == "ends"]
        assert set(ended[:-1] if int(process) in killed else ended) <= known
