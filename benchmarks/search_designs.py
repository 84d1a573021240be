"""Evolution by arrays and Optuna's samplers on the same problem and clock.

    python benchmarks/search_designs.py --tables note10_lookup_tables/*.yaml --predictor ofa_acc_predictor.pth --out ..

Space, tables, predictor and clock as in ``budgets.py``; the most accurate network within a latency. Each design has the same seeds,
in turns, and goes on until the last mark.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `ofa search` does

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from budgets import MARKS_S, Watched, clocked_out, compiled
from machine import describe_machine, others_during

from latency_tables.importing import import_mit_tables
from ofa.families import get_space
from ofa.interop.mit import load_predictor
from search.budget import Budget
from search.evolution.archive import Archive
from search.evolution.islands import Islands, sample_of_all_sizes
from search.evolution.local_search import improve
from search.problem import Problem
from search.study import Effort, run_study

FOUNDERS = 3000
MANY = 10**7


def islands_alone(problem: Problem, seed: int, *, islands: int, members: int) -> None:
    """Arrays without Optuna."""
    archive, rng = Archive(problem), np.random.default_rng(seed)
    founders = archive.evaluate(sample_of_all_sizes(problem.space, FOUNDERS, rng))
    Islands(archive, np.empty((islands, 0)), founders, rng, members=members).evolve(MANY)


def optuna_alone(problem: Problem, seed: int, sampler: str) -> None:
    """Every network is a trial."""
    run_study(problem, seed=seed, sampler=sampler, effort=Effort(trials=100_000, evaluations=0))


def optuna_then_neighbours(problem: Problem, seed: int, trials: int) -> None:
    """The neighbourhood of what Optuna found, as this project had it first."""
    front = run_study(problem, seed=seed, effort=Effort(trials=trials, evaluations=0))
    archive = Archive(problem)
    archive.evaluate(problem.space.encode_all([front.candidate(row).arch for row in range(len(front))]))
    improve(archive, limit=MANY)


def as_a_sampler(problem: Problem, seed: int) -> None:
    """What ``ofa search --best`` does."""
    run_study(problem, seed=seed, effort=Effort(trials=192, evaluations=600_000, islands=8))


DESIGNS: dict[str, Callable[[Problem, int], None]] = {
    "evolution of eight islands as Optuna's sampler (ofa search --best)": as_a_sampler,
    "eight islands, no Optuna": lambda problem, seed: islands_alone(problem, seed, islands=8, members=25),
    "one population of 100, no Optuna": lambda problem, seed: islands_alone(problem, seed, islands=1, members=100),
    "Optuna's NSGA-II alone": lambda problem, seed: optuna_alone(problem, seed, "nsga2"),
    "Optuna's TPE alone": lambda problem, seed: optuna_alone(problem, seed, "tpe"),
    "Optuna at random": lambda problem, seed: optuna_alone(problem, seed, "random"),
    "300 trials of NSGA-II, then neighbours": lambda problem, seed: optuna_then_neighbours(problem, seed, 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--latencies", type=float, nargs="+", default=[25.0, 30.0, 35.0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    full = get_space("ofa-mbv3-w1.2")
    table = import_mit_tables(arguments.tables, full, device="note10")
    space = full.restrict(resolution=table.info.resolutions_of(full.name))
    predictor, estimator = load_predictor(arguments.predictor, full), compiled(space, table)
    figures = []
    with others_during() as others:
        for latency_ms in arguments.latencies:
            runs: dict[str, list[Watched]] = {name: [] for name in DESIGNS}
            for seed in range(arguments.seeds):
                for name, design in DESIGNS.items():
                    runs[name].append(watched := Watched(predictor, space))
                    problem = Problem(
                        space=space, accuracy=watched, latencies=[estimator], budget=Budget({"latency_ms": latency_ms}), objectives=()
                    )
                    watched.within = problem
                    watched.start = time.perf_counter()
                    clocked_out(lambda design=design, problem=problem, seed=seed: design(problem, seed))
            for name, found in runs.items():
                medians = {str(mark): round(statistics.median(run.best_at(mark) for run in found), 5) for mark in MARKS_S}
                asked = statistics.median(run.asked for run in found)
                figures.append({"latency_ms": latency_ms, "design": name, "median_after_s": medians, "asked": asked})
                print(json.dumps(figures[-1]), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "seeds": arguments.seeds, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
