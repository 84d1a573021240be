"""Studies as anybody would open them; killing workers in the middle of a measurement, and what must hold afterwards."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import optuna


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


def assert_whole(trials: list[optuna.trial.FrozenTrial], wanted: int) -> list[optuna.trial.FrozenTrial]:
    """Exactly the wanted trials are complete, and nothing is left open."""
    assert [trial.number for trial in trials] == list(range(len(trials)))
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") == wanted
    assert set(states) <= {"COMPLETE", "FAIL"}
    return [trial for trial in trials if trial.state.name == "COMPLETE"]


def worker_process(trial: optuna.trial.FrozenTrial) -> int:
    """The process that finished a trial."""
    return int(trial.user_attrs["worker"].split("/")[1])
