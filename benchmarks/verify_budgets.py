"""Random budgets, each answered by networks that were timed on the device, and the answers timed once more afterwards.

    python benchmarks/verify_budgets.py --space ofa-mbv3-w1.2 --device local-cpu --resolutions 160,192 --predictor acc_predictor.pth \
        --work WORK --out verify_budgets.json

builds and calibrates a table, searches a front, draws budgets evenly between the 5 % and the 95 % quantile of the upper ends of the
front's latencies (so that each can be kept on paper), and asks ``search.verification.query.query_verified`` for each; what is learned
from one goes
into the table and the front of the next. At the end all answers are timed together in other processes, twice: what is above its budget
then is a violation, and how far the two are from each other is the noise floor. What a network takes is stated by the clock, and at the
machine's typical speed: divided by how much slower networks that the table knows were in the same rounds. A run that was cut off goes on
where it stopped.

Accuracies are MIT's predictor's; without --predictor they are the logarithm of the MACs, which are no accuracies but rank as well here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from devices import Device, get_device
from latency_tables import Estimator, LatencyTable, build_table, calibrate_table
from latency_tables.timing import known_networks, time_beside
from ofa.arch import Arch
from ofa.arrays import Floats, Rows
from ofa.families import get_space
from ofa.interop.mit_predictor import load_predictor
from ofa.progress import silent
from ofa.row_costs import costs_of
from ofa.schema import to_json
from ofa.space import Space
from search.budget import Budget, at_device
from search.front.front import Front
from search.problem import Problem
from search.study import Effort, run_study
from search.verification.query import query_verified


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.2")
    parser.add_argument("--device", default="local-cpu")
    parser.add_argument("--devices-dir", type=Path, action="append", help="folder of device files")
    parser.add_argument("--resolutions", default="160,192", help="in pixels, with commas between")
    parser.add_argument("--predictor", type=Path, help="MIT's acc_predictor.pth; the logarithm of the MACs without it")
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=100_000, help="of the search")
    parser.add_argument("--seed", type=int, default=0, help="of the budgets and of the measurements")
    parser.add_argument("--work", type=Path, required=True, help="folder of table, front and answers; what is there is used")
    parser.add_argument("--out", type=Path, help="JSON of the results")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    resolutions = [int(part) for part in arguments.resolutions.split(",")]
    whole, device = get_space(arguments.space), get_device(arguments.device, arguments.devices_dir or ())
    space = whole.restrict(resolution=resolutions)
    accuracy = load_predictor(arguments.predictor, whole) if arguments.predictor else LogMacs(whole)
    with others_during() as others:
        table = table_of(arguments.work / "table.parquet", whole, device, resolutions)
        front = front_of(
            arguments.work / "front.parquet", Problem(space=space, accuracy=accuracy, latencies=[Estimator(whole, table)]), arguments
        )
        answers = answers_of(front, whole, table, device, arguments)
        learned = learned_table(arguments.work)
        again = [retimed(answers, whole, learned, device, seed=arguments.seed + 100 + number) for number in range(2)]
    report = {
        "machine": describe_machine(),
        "space": space.name,
        "resolutions": resolutions,
        "device": device.to_json(),
        "accuracy": dict(accuracy.provenance),
        "calibration": {key: value for key, value in to_json(table.info.calibration).items() if key != "residuals"},
        "front": {"networks": len(front), "study": front.info.study},
        "others_cores": others.cores,
        **figures(answers, again),
        "feedback": feedback(answers),
        "answers": [
            {**answer, "again": [{key: run[key][i] for key in ("measured_ms", "typical_ms")} for run in again]}
            for i, answer in enumerate(answers)
        ],
    }
    print(json.dumps({key: value for key, value in report.items() if key not in ("machine", "answers")}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


@dataclass(frozen=True)
class LogMacs:
    """No accuracy: a number in 0..1 that grows with the logarithm of the MACs."""

    space: Space

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Says what it is."""
        return {"source": "log MACs, which is no accuracy"}

    def of_rows(self, rows_NC: Rows, /) -> Floats:
        """Of encoded archs [N]."""
        return np.log(costs_of(self.space)(rows_NC, ["macs"])["macs"]) / 30

    def interval_of_rows(self, rows_NC: Rows, /) -> tuple[Floats, Floats]:
        """Unknown."""
        return np.full(len(rows_NC), np.nan), np.full(len(rows_NC), np.nan)


def table_of(path: Path, space: Space, device: Device, resolutions: list[int]) -> LatencyTable:
    """The table, measured unless it is there."""
    if not path.exists():
        start = time.perf_counter()
        table = build_table(space, device, resolutions=resolutions, rng=np.random.default_rng(0))
        calibrate_table(table, space, device, resolutions=resolutions, rng=np.random.default_rng(0)).save(path)
        print(f"table: {time.perf_counter() - start:.0f} s", flush=True)
    return LatencyTable.load(path)


def front_of(path: Path, problem: Problem, arguments: argparse.Namespace) -> Front:
    """The front, searched unless it is there."""
    if not path.exists():
        start = time.perf_counter()
        run_study(problem, seed=0, effort=Effort(evaluations=arguments.evaluations)).save(path)
        print(f"front: {time.perf_counter() - start:.0f} s", flush=True)
    return Front.load(path)


def answers_of(front: Front, space: Space, table: LatencyTable, device: Device, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What was found for each budget, written down at once."""
    path = arguments.work / "answers.jsonl"
    answers = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ends_ms = np.quantile(front.columns[at_device("latency_high_ms", device.name)], [0.05, 0.95])
    budgets_ms = np.random.default_rng(arguments.seed).uniform(*ends_ms, arguments.budgets)
    first = Estimator(space, table)
    if answers:
        front, table = Front.load(arguments.work / "learned-front.parquet"), learned_table(arguments.work)
    for number, budget_ms in list(enumerate(budgets_ms.tolist()))[len(answers) :]:
        start = time.perf_counter()
        rng = np.random.default_rng([arguments.seed, number])
        found = query_verified(front, space, Budget({"latency_ms": budget_ms}), device, table=table, rng=rng)
        best = found.to_json()["results"][0]
        assert found.table is not None
        front, table = found.front, found.table
        keys = ("accuracy", "latency_ms", "latency_low_ms", "latency_high_ms", "arch", "measured_ms", "typical_ms", "likely_ms")
        answer = {
            "budget_ms": budget_ms,
            **{key: best[key] for key in (*keys, "measured_low_ms", "measured_high_ms", "budget_used", "within_interval")},
            **{key: getattr(found, key) for key in ("margin", "slowdown", "rounds")},
            "first_table_ms": first(found.kept[0].candidate.arch).latency_ms,
            "dropped": len(found.dropped),
            "seconds": round(time.perf_counter() - start, 1),
        }
        table.save(arguments.work / "learned.parquet")
        front.save(arguments.work / "learned-front.parquet")
        with path.open("a") as file:
            file.write(json.dumps(answer) + "\n")
        answers.append(answer)
        words = f"uses {answer['budget_used']:.1%} ({answer['measured_ms'] / budget_ms:.1%} by the clock)"
        print(f"{number + 1}: {budget_ms:.3f} ms {words}, {answer['rounds']} rounds, {answer['seconds']} s", flush=True)
    return answers


def learned_table(work: Path) -> LatencyTable:
    """What the table became."""
    return LatencyTable.load(work / "learned.parquet")


def retimed(answers: list[dict[str, Any]], space: Space, table: LatencyTable, device: Device, *, seed: int) -> dict[str, Any]:
    """All answers timed again, in processes of their own."""
    archs = [Arch.from_json(answer["arch"]) for answer in answers]
    known = known_networks(table.info, space)
    times = time_beside(known, space, archs, device, rng=np.random.default_rng(seed), progress=silent)
    clock_ms = np.median(times.raw_ms, axis=0)
    return {"measured_ms": clock_ms.tolist(), "typical_ms": times.at_first_speed_ms.tolist(), "slowdown": times.typical_slowdown}


def figures(answers: list[dict[str, Any]], again: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the whole."""
    budgets_ms = np.array([answer["budget_ms"] for answer in answers])
    found: dict[str, Any] = {"budgets": len(answers)}
    for kind in ("measured_ms", "typical_ms"):
        verified, first, second = (np.array(values) for values in ([answer[kind] for answer in answers], *(run[kind] for run in again)))
        both = np.median([first, second], axis=0)
        found[kind] = {
            "violated": int((verified > budgets_ms).sum()),
            "used": shares(verified / budgets_ms),
            "again_violated": [int((run > budgets_ms).sum()) for run in (first, second, both)],
            "again_used": shares(both / budgets_ms),
            "again_over_verified": shares(both / verified),
            "noise_floor": float(np.abs(second / first - 1).mean()),
        }
    found["used"] = shares(np.array([answer["budget_used"] for answer in answers]))
    found["used_at_least_95_percent"] = sum(answer["budget_used"] >= 0.95 for answer in answers)
    found["within_interval"] = sum(answer["within_interval"] for answer in answers)
    found["slowdown"] = {
        "queries": shares(np.array([answer["slowdown"] for answer in answers])),
        "again": [run["slowdown"] for run in again],
    }
    for key in ("seconds", "rounds", "margin", "dropped"):
        found[key] = shares(np.array([answer[key] for answer in answers], dtype=np.float64))
    return found


def shares(values: Floats) -> dict[str, float]:
    """Least, median and most."""
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}


def feedback(answers: list[dict[str, Any]]) -> dict[str, float]:
    """How far the answers were from the estimates of the first table, and from those of the table that had learned until then."""
    typical_ms, first_ms, then_ms = (np.array([each[key] for each in answers]) for key in ("typical_ms", "first_table_ms", "latency_ms"))
    errors = [np.abs(estimated_ms / typical_ms - 1) for estimated_ms in (first_ms, then_ms)]
    return {"mean_error_of_first_table": float(errors[0].mean()), "mean_error_of_table_then": float(errors[1].mean())}


if __name__ == "__main__":
    main()
