"""How good networks are after so many seconds of search, on published tables and predictors.

    python benchmarks/budgets.py --tables note10_lookup_tables/*.yaml --predictor ofa_acc_predictor.pth --out ..

Needs MIT's lookup tables of the Samsung Note10 and MIT's accuracy predictor, which the project does not contain. Space: ofa-mbv3-w1.2
at the resolutions of the tables, for MACs at the five that MIT searches. What is timed is ``run_study`` from its call on; before it,
files are read and tables compiled, whose seconds are stated. "Best known" is the best of all runs here and of long ones of 15 s.
"""

from __future__ import annotations

import os

from ofa.arrays import Floats, Rows

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `ofa search` does

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from latency_tables import Estimator, LatencyTable
from latency_tables.importing import import_mit_tables
from ofa.errors import SearchError
from ofa.families import get_space
from ofa.interop.mit import MitPredictor, load_predictor
from ofa.space import Space
from search.budget import Budget, excess_of
from search.evolution.pareto import non_dominated
from search.front.infeasible import ImpossibleBudgetError
from search.problem import Problem
from search.study import Effort, run_study

MIT_RESOLUTIONS = (160, 176, 192, 208, 224)
MARKS_S = (0.2, 0.5, 1.0, 2.0)
LATENCIES_MS = (15, 20, 25, 30, 35)
MACS = 300e6
BEST = Effort(trials=160, evaluations=250_000, islands=8)
LONG = Effort(trials=640, evaluations=5_000_000, islands=16)
LONG_S = 15.0
SMALL = {"depth": [0], "kernel": [3, 7], "expand": [3, 6]}
"""Of the space that is enumerated: two blocks a stage, four choices each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", type=Path, required=True)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--long-runs", type=int, default=3)
    parser.add_argument("--fronts", type=int, default=3, help="searches of the whole front")
    parser.add_argument("--only-speed", action="store_true", help="only how many networks a second the predictor evaluates")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start = time.perf_counter()
    full = get_space("ofa-mbv3-w1.2")
    table = import_mit_tables(arguments.tables, full, device="note10")
    space = full.restrict(resolution=table.info.resolutions_of(full.name))
    predictor = load_predictor(arguments.predictor, full)
    estimator = compiled(space, table)
    prepared_s = round(time.perf_counter() - start, 2)
    with others_during() as others:
        figures: dict[str, Any] = {"prepared_s": prepared_s, "predictor_networks_per_s": predictor_speed(predictor)}
        if not arguments.only_speed:
            figures.update(searches(full, space, predictor, table, estimator, arguments))
    value = {"machine": describe_machine(), "other_load_cores": others.cores, "figures": figures}
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def searches(
    full: Space, space: Space, predictor: MitPredictor, table: LatencyTable, estimator: Estimator, arguments: argparse.Namespace
) -> dict[str, Any]:
    """All figures of searches."""
    figures = {
        "within_a_budget": [
            *(budgeted(space, predictor, [estimator], "latency_ms", ms, arguments) for ms in LATENCIES_MS),
            budgeted(full.restrict(resolution=MIT_RESOLUTIONS), predictor, [], "macs", MACS, arguments),
        ],
        "enumerated": enumerated(space.restrict(**SMALL), predictor, table),
    }
    return {**figures, "fronts": fronts(space, predictor, estimator, arguments, figures["within_a_budget"])}


def compiled(space: Space, table: LatencyTable) -> Estimator:
    estimator = Estimator(space, table)
    estimator.latencies_of_rows(space.sample_rows(1, np.random.default_rng(0)))
    return estimator


class TimeIsUpError(Exception):
    """Raised by the source when a search has had its time."""


class Watched:
    """An accuracy source that notes what it answers when, and ends the search when its time is up.

    What was best within the budget is seen from the notes afterwards, so that looking takes nothing of the search's time.
    """

    def __init__(self, source: MitPredictor, space: Space, seconds: float = MARKS_S[-1]) -> None:
        self._source = source
        self.space = source.space
        self._own = space
        self.within: Problem | None = None
        self._seconds = seconds
        self._notes: list[tuple[float, Rows, Floats]] = []
        self.start = time.perf_counter()

    @property
    def provenance(self) -> dict[str, Any]:
        return self._source.provenance

    @property
    def asked(self) -> int:
        return sum(len(rows_NC) for _, rows_NC, _ in self._notes)

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        if time.perf_counter() - self.start > self._seconds:
            raise TimeIsUpError
        accuracies = self._source.of_rows(rows_NC)
        self._notes.append((time.perf_counter() - self.start, rows_NC, accuracies))
        return accuracies

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        return self._source.interval_of_rows(rows_NC)

    @cached_property
    def _found(self) -> list[tuple[float, float]]:
        """When which accuracy within the budget was found; asked for when the search has ended."""
        assert self.within is not None
        found = []
        for when, rows_NC, accuracies in self._notes:
            columns = self.within.costs_of_rows(self.space.rows_in(self._own, rows_NC))
            allowed = excess_of(self.within.limits, columns, len(rows_NC)) <= 0
            found.append((when, float(accuracies[allowed].max(initial=0))))
        return found

    def best_at(self, seconds: float) -> float:
        return max((best for when, best in self._found if when <= seconds), default=0.0)


def one_search(
    space: Space,
    predictor: MitPredictor,
    latencies: Sequence[Estimator],
    budget: Budget,
    seed: int,
    effort: Effort = BEST,
    seconds: float = MARKS_S[-1],
) -> Watched:
    watched = Watched(predictor, space, seconds)
    problem = Problem(space=space, accuracy=watched, latencies=latencies, budget=budget, objectives=())
    problem.costs_of_rows(space.sample_rows(1, np.random.default_rng(0)))  # compiled
    watched.within = problem
    watched.start = time.perf_counter()
    clocked_out(lambda: run_study(problem, seed=seed, effort=effort))
    return watched


def clocked_out(search: Any) -> None:
    """Search until it ends or its time is up; a study puts what a source raises into a sentence of its own."""
    try:
        search()
    except TimeIsUpError:
        return
    except SearchError as error:
        if not isinstance(error.__cause__, TimeIsUpError):
            raise


def budgeted(
    space: Space, predictor: MitPredictor, latencies: Sequence[Estimator], name: str, limit: float, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The most accurate network within one budget, seed by seed."""
    budget = Budget({name: limit})
    runs = [one_search(space, predictor, latencies, budget, seed) for seed in range(arguments.seeds)]
    long = [one_search(space, predictor, latencies, budget, 1000 + seed, LONG, LONG_S) for seed in range(arguments.long_runs)]
    best = max(run.best_at(np.inf) for run in (*runs, *long))
    medians = {str(mark): statistics.median(run.best_at(mark) for run in runs) for mark in MARKS_S}
    found = {
        "budget": {name: limit},
        "best_known": best,
        "median_after_s": {mark: round(value, 5) for mark, value in medians.items()},
        "below_best_known_after_s": {mark: round(best - value, 5) for mark, value in medians.items()},
        "worst_after_1_s": round(min(run.best_at(1.0) for run in runs), 5),
        "asked": statistics.median(run.asked for run in runs),
    }
    print(json.dumps(found), flush=True)
    return found


def predictor_speed(predictor: MitPredictor) -> dict[str, int]:
    """Networks a second, from encoded archs to accuracies."""
    space = predictor.space.restrict(resolution=MIT_RESOLUTIONS)
    found = {}
    for count in (512, 50_000):
        rows_NC = space.rows_in(predictor.space, space.sample_rows(count, np.random.default_rng(0)))
        seconds = []
        for _ in range(15 if count > 1000 else 200):
            start = time.perf_counter()
            predictor.of_rows(rows_NC)
            seconds.append(time.perf_counter() - start)
        found[f"{count}_at_a_time"] = round(count / statistics.median(seconds))
    return found


def enumerated(space: Space, predictor: MitPredictor, table: LatencyTable) -> dict[str, Any]:
    """A search against the truth, where it is known."""
    estimator = compiled(space, table)
    problem = Problem(space=space, accuracy=predictor, latencies=[estimator])
    rows_NC = space.canonical(np.indices(space.cardinalities).reshape(len(space.cardinalities), -1).T.astype(np.int8))
    rows_NC = np.unique(rows_NC, axis=0) if len(rows_NC) != space.size else rows_NC
    start = time.perf_counter()
    accuracy_N = np.concatenate([problem.accuracies(part) for part in np.array_split(rows_NC, 100)])
    latency_N = problem.costs_of_rows(rows_NC)["latency_high_ms@note10"]
    truth_s = time.perf_counter() - start
    start = time.perf_counter()
    front = run_study(problem, seed=0, effort=Effort())
    seconds = time.perf_counter() - start
    limits = np.random.default_rng(1).uniform(latency_N.min(), latency_N.max(), size=100)
    exact = 0
    for limit in limits.tolist():
        (found,) = front.query(Budget({"latency_ms": limit}))
        exact += int(found.accuracy == accuracy_N[latency_N <= limit].max())
    reference = (float(latency_N.max()), float(accuracy_N.min()))
    true_volume = hypervolume(latency_N, accuracy_N, reference)
    volume = hypervolume(front.columns["latency_high_ms@note10"], front.columns["accuracy"], reference)
    true_front = non_dominated(np.stack([latency_N, -accuracy_N], axis=1))
    return {
        "networks": space.size,
        "exhaustive_s": round(truth_s, 2),
        "search_s": round(seconds, 2),
        "evaluated": front.info.study["evaluated"],
        "true_optimum_of_100_budgets": exact,
        "hypervolume": round(volume / true_volume, 6),
        "front": len(front),
        "true_front": int(true_front.sum()),
    }


def hypervolume(cost_N: Floats, accuracy_N: Floats, reference: tuple[float, float]) -> float:
    """The area that the networks dominate, above the reference's accuracy and below its cost."""
    order = np.argsort(cost_N)
    cost_N, best_N = cost_N[order], np.maximum.accumulate(accuracy_N[order])
    widths_N = np.diff(np.append(cost_N, reference[0]))
    return float((widths_N * (best_N - reference[1])).sum())


def fronts(
    space: Space, predictor: MitPredictor, estimator: Estimator, arguments: argparse.Namespace, budgeted: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One search for every budget, what it costs to ask the front, and budgets that cannot be."""
    problem = Problem(space=space, accuracy=predictor, latencies=[estimator])
    found, seconds = [], []
    for seed in range(arguments.fronts):
        start = time.perf_counter()
        found.append(run_study(problem, seed=seed, effort=Effort()))
        seconds.append(time.perf_counter() - start)
    gaps = {}
    for each in budgeted:
        if "latency_ms" in each["budget"]:
            limit = each["budget"]["latency_ms"]
            answers = [front.query(Budget({"latency_ms": limit}))[0].accuracy for front in found]
            gaps[str(limit)] = round(each["best_known"] - statistics.median(answers), 5)
    front = found[0]
    limits = np.random.default_rng(0).uniform(10, 60, size=300).tolist()
    query_ms = [1e3 * elapsed(lambda limit=limit: front.query(Budget({"latency_ms": limit}), top=3)) for limit in limits]
    impossible = Problem(space=space, accuracy=predictor, latencies=[estimator], budget=Budget({"latency_ms": 1}))
    return {
        "seconds": [round(each, 2) for each in seconds],
        "networks": [len(front) for front in found],
        "evaluated": [front.info.study["evaluated"] for front in found],
        "median_below_best_known": gaps,
        "query_ms": {"median": round(statistics.median(query_ms), 3), "max": round(max(query_ms), 3)},
        "impossible_query_ms": round(1e3 * refused(lambda: front.query(Budget({"latency_ms": 1}))), 2),
        "impossible_search_s": round(refused(lambda: run_study(impossible, seed=0)), 3),
    }


def elapsed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def refused(call: Any) -> float:
    start = time.perf_counter()
    try:
        call()
    except ImpossibleBudgetError:
        return time.perf_counter() - start
    raise AssertionError("an impossible budget was answered")


if __name__ == "__main__":
    main()
