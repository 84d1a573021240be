"""How many archs a second a table estimates, compiled to arrays, and that it is the sum over the blocks.

    python benchmarks/estimate.py --out benchmarks/results/estimate.json

The table's times are random numbers, because the speed does not depend on them: nothing is measured but the estimator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during

from devices import Device, Timing
from latency_tables import Estimator, LatencyTable, blocks_of_space
from latency_tables.table import row_of, rows_frame
from ofa.families import get_space, lower
from ofa.space import Space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", default="ofa-mbv3-w1.0,ofa-resnet50")
    parser.add_argument("--archs", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--checked", type=int, default=2000, help="archs that are also added up block by block")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": describe_machine(), "archs": arguments.archs, "spaces": {}}
    with others_during() as others:
        for name in arguments.spaces.split(","):
            report["spaces"][name] = timed(get_space(name), arguments)
    report["others_cores"] = others.cores
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def timed(space: Space, arguments: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    blocks = blocks_of_space(space)
    inventory_s = time.perf_counter() - start
    estimator = Estimator(space, random_table(space, rng))
    rows = np.stack([rng.integers(len(gene.values), size=arguments.archs, dtype=np.int8) for gene in space.columns], axis=1)
    start = time.perf_counter()
    estimator.latencies_of_rows(rows[:1])
    compile_s = time.perf_counter() - start
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        found = estimator.latencies_of_rows(rows)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    expected = [estimator.table.estimate(space, lower(space, space.decode(row.tolist()))).latency_ms for row in rows[: arguments.checked]]
    one_by_one_s = time.perf_counter() - start
    return {
        "blocks": len(blocks),
        "resolutions": len(space.resolutions),
        "inventory_s": round(inventory_s, 2),
        "compile_s": round(compile_s, 2),
        "archs_per_s": round(arguments.archs / statistics.median(seconds)),
        "archs_per_s_range": [round(arguments.archs / max(seconds)), round(arguments.archs / min(seconds))],
        "one_by_one_archs_per_s": round(arguments.checked / one_by_one_s),
        "largest_relative_difference": float(np.abs(found[: arguments.checked] / expected - 1).max()),
    }


def random_table(space: Space, rng: np.random.Generator) -> LatencyTable:
    rows = []
    for placed in blocks_of_space(space):
        ms = float(rng.uniform(0.01, 5))
        rows.append(row_of(placed, Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=2), batch=1, precision="fp32"))
    device = Device(name="random", runtime="fake").to_json()
    return LatencyTable(rows_frame(rows), {"device": device, "spaces": {space.name: list(space.resolutions)}})


if __name__ == "__main__":
    main()
