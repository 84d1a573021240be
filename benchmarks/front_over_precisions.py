"""A front over precisions: how many of its networks are in int8, what that gains, and whether its promises of latency and accuracy hold.

    python benchmarks/front_over_precisions.py trained.run --predictor p.parquet --losses int8.losses --table cpu.parquet \
        --table cpu-int8.parquet --device cpu.toml --device cpu-int8.toml --out benchmarks/results/front_over_precisions.json

searches the front of all tables, and beside it the fronts of each table alone (that in int8 with the losses too): at budgets along the
latencies of the former, the accuracy that each front promises. Then networks evenly along the front are timed, each on the device of its
precision, beside networks that its table was calibrated by: a budget is kept where a network takes no more than the upper end of its
interval. Those in int8 are quantized, and scored on the run's held-out images that do not fit ranges, by which the losses of other
networks were measured as well.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from devices import Device, get_device
from latency_tables import LatencyTable
from latency_tables.timing import known_networks, time_beside
from ofa.api import search
from ofa.arch import Arch
from ofa.data import Splits
from ofa.exporting.quantization.bundles import divided
from ofa.exporting.quantization.processor import instructions
from ofa.exporting.quantization.static import Quantization
from ofa.progress import silent
from ofa.training import Run, load_run
from search.budget import at_device
from search.front.candidate import Candidate
from search.front.front import Front
from search.predictor.accuracy_predictor import AccuracyPredictor
from search.predictor.measuring_losses import scores_in_both
from search.predictor.quantization import QuantizationLoss

_BUDGETS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--losses", type=Path, required=True)
    parser.add_argument("--table", type=Path, action="append", required=True, help="of the device in each precision")
    parser.add_argument("--device", action="append", required=True, help="of each table: its name, or its TOML file")
    parser.add_argument("--networks", type=int, default=8, help="of the front, to be timed and scored")
    parser.add_argument("--evaluations", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run, predictor, losses = load_run(arguments.run), AccuracyPredictor.load(arguments.predictor), QuantizationLoss.load(arguments.losses)
    tables = [LatencyTable.load(path) for path in arguments.table]
    effort: dict[str, Any] = {"evaluations": arguments.evaluations, "seed": arguments.seed}
    front = search(predictor, tables, losses=[losses], **effort)
    alone = {
        precision: search(predictor, [table], losses=[losses] * (precision == losses.precision), **effort)
        for table in tables
        for precision in [table.info.conditions.precision]
    }
    chosen = [front.candidate(int(row)) for row in np.linspace(0, len(front) - 1, min(arguments.networks, len(front))).round()]
    with others_during() as others:
        timed = timed_networks(front, chosen, tables, [get_device(name) for name in arguments.device], arguments.seed)
    report = {
        "machine": describe_machine(),
        "instructions": instructions(),
        "space": front.info.space,
        "tables": {table.device_name: table.info.conditions.to_json() for table in tables},
        "losses": dict(losses.provenance),
        "networks": {name: front.precisions.count(name) for name in dict.fromkeys(front.precisions)},
        "fronts": at_budgets(front, alone),
        "others_cores": others.cores,
        "kept": sum(each["kept"] for each in timed),
        "timed": timed,
        "scored": scored(run, run.load_data().splits, chosen),
    }
    print(json.dumps({key: value for key, value in report.items() if key not in ("machine", "timed", "scored")}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def at_budgets(front: Front, alone: dict[str, Front]) -> list[dict[str, float | None]]:
    """The accuracy that each front promises within budgets evenly along the latencies of the first; None where it keeps none."""
    (device,) = front.device_names
    ends_ms = front.columns[at_device("latency_high_ms", device)]
    found = []
    for budget_ms in np.geomspace(ends_ms.min(), ends_ms.max(), _BUDGETS).tolist():
        row: dict[str, float | None] = {"budget_ms": budget_ms}
        for name, each in {"both": front, **alone}.items():
            (own,) = each.device_names
            within = each.columns["accuracy"][each.columns[at_device("latency_high_ms", own)] <= budget_ms]
            row[name] = float(within.max()) if len(within) else None
        found.append(row)
    return found


def timed_networks(
    front: Front, chosen: Sequence[Candidate], tables: Sequence[LatencyTable], devices: Sequence[Device], seed: int
) -> list[dict[str, Any]]:
    """What networks take on the device of their precision, beside what was promised."""
    (named,) = front.device_names
    found = []
    for table, device in zip(tables, devices, strict=True):
        table.require_device(device)
        own = [network for network in chosen if front.info.measured_by(named, network.precision) == table.device_name]
        if not own:
            continue
        known, rng = known_networks(table.info, front.space), np.random.default_rng(seed)
        times = time_beside(known, front.space, [network.arch for network in own], device, rng=rng, progress=silent)
        for network, ms, typical_ms in zip(own, np.median(times.raw_ms, axis=0).tolist(), times.at_first_speed_ms.tolist(), strict=True):
            latency = network.latencies[named]
            measured = {"measured_ms": ms, "typical_ms": typical_ms, "kept": ms <= latency.latency_high_ms}
            found.append({"precision": network.precision, **latency.to_json(), **measured, "slowdown": times.typical_slowdown})
    return found


def scored(run: Run, data: Splits, chosen: Sequence[Candidate]) -> list[dict[str, Any]]:
    """What networks in int8 score, beside what was promised."""
    fitting, judging = divided(data.selection)
    found = []
    for network in chosen:
        if network.precision != "int8":
            continue
        arch: Arch = network.arch
        scores = scores_in_both(run.supernet, arch, data.train, fitting, judging, Quantization(), run.recipe.get_task())
        ends = (network.accuracy_low, network.accuracy_high)
        holds = None not in ends and float(ends[0] or 0) <= scores["score"] <= float(ends[1] or 0)
        found.append({"accuracy": network.accuracy, "accuracy_low": ends[0], "accuracy_high": ends[1], **scores, "within_interval": holds})
    return found


if __name__ == "__main__":
    main()
