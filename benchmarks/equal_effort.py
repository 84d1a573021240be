"""How good networks are after equally many evaluations, whatever the machine is busy with; to compare commits.

    python benchmarks/equal_effort.py --tables note10_lookup_tables/*.yaml --predictor ofa_acc_predictor.pth --out ..

Space, tables and predictor as in ``budgets.py``. Accuracies depend on the seeds alone; seconds are of the processor, in one thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from budgets import compiled
from machine import describe_machine, others_during

from latency_tables import Estimator
from latency_tables.importing import import_mit_tables
from ofa.families import get_space
from ofa.interop.mit import MitPredictor, load_predictor
from ofa.space import Space
from search.budget import Budget
from search.problem import Problem
from search.study import Effort, run_study

ONE_BUDGET = Effort(trials=160, evaluations=100_000, islands=8)
LATENCIES_MS = (15.0, 20.0, 25.0, 30.0, 35.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--fronts", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    full = get_space("ofa-mbv3-w1.2")
    table = import_mit_tables(arguments.tables, full, device="note10")
    space = full.restrict(resolution=table.info.resolutions_of(full.name))
    predictor, estimator = load_predictor(arguments.predictor, full), compiled(space, table)
    with others_during() as others:
        figures = {
            "one_budget": [one_budget(space, predictor, estimator, ms, arguments.seeds) for ms in LATENCIES_MS[1:]],
            "fronts": [front(space, predictor, estimator, seed) for seed in range(arguments.fronts)],
        }
    print(json.dumps(figures, indent=1))
    if arguments.out:
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def one_budget(space: Space, predictor: MitPredictor, estimator: Estimator, limit_ms: float, seeds: int) -> dict[str, Any]:
    found, seconds = [], []
    for seed in range(seeds):
        budget = Budget({"latency_ms": limit_ms})
        problem = Problem(space=space, accuracy=predictor, latencies=[estimator], budget=budget, objectives=())
        start = time.process_time()
        found.append(run_study(problem, seed=seed, effort=ONE_BUDGET).query(Budget())[0].accuracy)
        seconds.append(time.process_time() - start)
    return {
        "latency_ms": limit_ms,
        "evaluations": ONE_BUDGET.evaluations,
        "median": round(statistics.median(found), 5),
        "worst": round(min(found), 5),
        "all": [round(each, 5) for each in found],
        "processor_s": round(statistics.median(seconds), 2),
    }


def front(space: Space, predictor: MitPredictor, estimator: Estimator, seed: int) -> dict[str, Any]:
    problem = Problem(space=space, accuracy=predictor, latencies=[estimator])
    start = time.process_time()
    found = run_study(problem, seed=seed, effort=Effort())
    seconds = time.process_time() - start
    best = {f"{ms:g}": round(found.query(Budget({"latency_ms": ms}))[0].accuracy, 5) for ms in LATENCIES_MS}
    evaluated = found.info.study["evaluated"]
    return {"seed": seed, "evaluated": evaluated, "networks": len(found), "best_within_ms": best, "processor_s": round(seconds, 2)}


if __name__ == "__main__":
    main()
