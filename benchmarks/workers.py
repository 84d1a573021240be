"""What several workers on one study are worth, and that killing one loses nothing.

    python benchmarks/workers.py --out benchmarks/results/workers.json

Each trial takes as long as a measurement, here a sleep that needs no processor. Trials a second are from the start of the first to the
end of the last finished trial, as the study's own times say; the seconds of the whole call have the start of the processes, which
import torch, in them.

The kill: of four workers one is killed (SIGKILL) in the middle of a measurement. Counted are the trials of the study afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from estimate import random_table
from machine import describe_machine, others_during

from latency_tables import Estimator
from ofa.arrays import Floats, Rows
from ofa.families import get_space
from ofa.row_costs import costs_of
from ofa.space import Space
from search.problem import Problem
from search.study import Effort, run_workers

SPACE = "ofa-mbv3-w1.0"
NAME = "workers"
GRACE_S = 4
"""After which the trial of the killed is tried again, in SQLite."""


class Computed:
    """Accuracy that grows with MACs, each gene with a worth of its own, after a sleep."""

    def __init__(self, space: Space, sleep_s: float, log: str | None) -> None:
        self.space = space
        self.provenance: Mapping[str, Any] = {"source": "computed for a benchmark"}
        self._sleep_s = sleep_s
        self._log = log
        shape = (len(space.columns), int(space.cardinalities.max()))
        self._worth_CV = np.random.default_rng(7).random(shape) * 0.3 / len(space.columns)

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        self._write("begins")
        time.sleep(self._sleep_s * len(rows_NC))
        self._write("ends")
        worth_N = np.where(self.space.active(rows_NC), self._worth_CV[np.arange(rows_NC.shape[1]), rows_NC], 0).sum(axis=1)
        macs_N = costs_of(self.space)(rows_NC, ["macs"])["macs"]
        return np.asarray(1 - np.exp(-(worth_N + 0.2 * (np.log(macs_N) - 13))))

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        return np.full(len(rows_NC), np.nan), np.full(len(rows_NC), np.nan)

    def _write(self, what: str) -> None:
        if self._log is not None:
            with open(self._log, "a") as file:
                file.write(f"{os.getpid()} {what}\n")


def make_problem(sleep_s: float, log: str | None = None) -> Problem:
    space = get_space(SPACE)
    space = space.restrict(resolution=space.resolutions[-1:])
    return Problem(
        space=space,
        accuracy=Computed(space, sleep_s, log),
        latencies=[Estimator(space, random_table(space, np.random.default_rng(0)))],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--storages", nargs="+", default=["journal", "sqlite"])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--sleep-s", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    effort = Effort(trials=arguments.trials, evaluations=0)
    slow = partial(make_problem, arguments.sleep_s)
    with others_during() as others:
        figures = {
            "measured": [measure(slow, effort, n, kind, arguments.repeats) for kind in arguments.storages for n in arguments.workers],
            "killed": [kill(effort, arguments.sleep_s, kind) for kind in arguments.storages],
        }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        settings = {key: value for key, value in vars(arguments).items() if key != "out"}
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "space": SPACE, "settings": settings, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def storage_in(folder: str, kind: str) -> str:
    return f"{folder}/study.journal" if kind == "journal" else f"sqlite:///{folder}/study.db"


def trials_of(storage: str) -> list[optuna.trial.FrozenTrial]:
    backend: Any = storage
    if "://" not in storage:
        backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    return optuna.load_study(study_name=NAME, storage=backend).get_trials()


def measure(make: Any, effort: Effort, workers: int, kind: str, repeats: int) -> dict[str, Any]:
    """Each repetition has another seed and a study of its own."""
    runs = []
    for seed in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            storage = storage_in(folder, kind)
            start = time.perf_counter()
            front = run_workers(make, workers=workers, seed=seed, effort=effort, storage=storage, name=NAME)
            seconds = time.perf_counter() - start
            trials = trials_of(storage)
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        assert effort.trials <= len(complete) < effort.trials + workers
        span = max(trial.datetime_complete for trial in complete) - min(trial.datetime_start for trial in complete)
        study = front.info.study
        runs.append(
            {
                "trials_per_s": round(len(complete) / span.total_seconds(), 2),
                "whole_call_s": round(seconds, 2),
                "surplus_trials": len(complete) - effort.trials,
                "evaluated": study["evaluated"],
                "died": study["died"],
            }
        )
    rates = sorted(run["trials_per_s"] for run in runs)
    return {"storage": kind, "workers": workers, "trials_per_s": {"median": rates[len(rates) // 2], "all": rates}, "runs": runs}


def kill(effort: Effort, sleep_s: float, kind: str) -> dict[str, Any]:
    """Kill one of four in the middle of a measurement, when a third of the trials are begun."""
    with tempfile.TemporaryDirectory() as folder:
        storage, log = storage_in(folder, kind), f"{folder}/log"
        killed: list[int] = []
        threading.Thread(target=kill_one, args=(Path(log), effort.trials // 3, killed), daemon=True).start()
        front = run_workers(
            partial(make_problem, sleep_s, log), workers=4, seed=0, effort=effort, storage=storage, name=NAME, grace_s=GRACE_S
        )
        trials = trials_of(storage)
        begun, ended = (Path(log).read_text().count(what) for what in ("begins", "ends"))
    return {
        "storage": kind,
        "wanted": effort.trials,
        "states": dict(Counter(trial.state.name for trial in trials)),
        "numbers_are_unique": len({trial.number for trial in trials}) == len(trials),
        "workers": front.info.study["workers"],
        "deaths": front.info.study["deaths"],
        "tried_again": [trial.number for trial in trials if trial.system_attrs.get("retry_history")],
        "measurements_begun": begun,
        "measurements_ended": ended,
    }


def kill_one(log: Path, after: int, killed: list[int]) -> None:
    while True:
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        now = dict(lines)
        measuring = [process for process, what in now.items() if what == "begins"]
        if sum(what == "begins" for _, what in lines) >= after and measuring:
            killed.append(int(measuring[0]))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.002)


if __name__ == "__main__":
    main()
