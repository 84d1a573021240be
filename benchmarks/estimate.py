"""How many archs a second a table estimates, compiled to arrays, and that it is the sum over the blocks.

    python benchmarks/estimate.py --out benchmarks/results/estimate.json

The table's times are random numbers, because the speed does not depend on them: nothing is measured but the estimator. Every space has
all of its resolutions. Each row of figures is for one number of archs a call; small batches are called often enough that a timing
takes some milliseconds. With two threads, each estimates half of the archs. The BLAS library under numpy has one thread, except where
a figure says that it has as many as it likes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during
from threadpoolctl import threadpool_limits

from devices import Device, Timing
from latency_tables import Correction, Estimator, LatencyTable, blocks_of_space
from latency_tables.info import TableInfo
from latency_tables.table import row_of, rows_frame
from ofa.families import get_space, lower
from ofa.inventory import inventory_of
from ofa.space import Space

CORRECTION = Correction(intercept_ms=0.5, slope=1.1, ms_per_weight_mib=0.02, half_width=0.1, coverage=0.9, nets=20)
LEAST_ARCHS_A_TIMING = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--checked", type=int, default=2000, help="archs that are also added up block by block")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with threadpool_limits(1), others_during() as others:
        figures = {name: measure(get_space(name), arguments) for name in arguments.spaces}
    for name, figure in figures.items():
        print(name, json.dumps(figure, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        value = {"machine": describe_machine(), "other_load_cores": others.cores, "figures": figures}
        arguments.out.write_text(json.dumps(value, indent=1) + "\n")


def measure(space: Space, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one space."""
    rng = np.random.default_rng(0)
    inventory_s = once(lambda: blocks_of_space(space))
    estimator = Estimator(space, random_table(space, rng))
    one_row = space.sample_rows(1, rng)
    compile_s = once(lambda: estimator.latencies_of_rows(one_row))
    one_resolution = space.restrict(resolution=space.resolutions[-1:])
    most = max(arguments.batches)
    sampled_s, rows_NC = timed(lambda: space.sample_rows(most, rng), 3)
    canonical_s, canonical_NC = timed(lambda: space.canonical(rows_NC), 3)
    difference = largest_difference(estimator, rows_NC[: arguments.checked])
    return {
        "columns": len(space.columns),
        "blocks": len(blocks_of_space(space)),
        "resolutions": len(space.resolutions),
        "find_all_blocks_s": round(inventory_s, 3),
        "find_all_blocks_of_one_resolution_s": round(once(lambda: blocks_of_space(one_resolution)), 3),
        "compile_found_blocks_s": round(compile_s, 3),
        "random_rows_per_s": per_second(most, sampled_s),
        "canonical_rows_per_s": per_second(most, canonical_s),
        "estimates": [
            {"archs_a_call": batch, "threads": threads, "archs_per_s": speed(estimator, rows_NC[:batch], threads, arguments.repeats)}
            for threads in arguments.threads
            for batch in arguments.batches
        ],
        "threads_of_blas_as_they_come": [
            {"archs_a_call": n, **with_own_blas_threads(estimator, rows_NC[:n], arguments)} for n in arguments.batches
        ],
        "with_interval": speed_of(lambda: estimator.estimates_of_rows(rows_NC), most, arguments.repeats),
        "sums_and_weights": speed_of(lambda: estimator.sums_of_rows(rows_NC), most, arguments.repeats),
        "same_when_canonical": bool((estimator.latencies_of_rows(rows_NC) == estimator.latencies_of_rows(canonical_NC)).all()),
        **difference,
    }


def speed(estimator: Estimator, rows_NC: np.ndarray, threads: int, repeats: int) -> dict[str, int]:
    """Archs a second of ``latencies_of_rows``."""
    calls = max(1, LEAST_ARCHS_A_TIMING // len(rows_NC))
    parts = np.array_split(rows_NC, threads)
    if threads == 1:
        return speed_of(lambda: [estimator.latencies_of_rows(rows_NC) for _ in range(calls)], calls * len(rows_NC), repeats)
    with ThreadPoolExecutor(threads) as pool:
        return speed_of(lambda: [list(pool.map(estimator.latencies_of_rows, parts)) for _ in range(calls)], calls * len(rows_NC), repeats)


def with_own_blas_threads(estimator: Estimator, rows_NC: np.ndarray, arguments: argparse.Namespace) -> dict[str, Any]:
    """The speed in one thread of Python where BLAS takes as many as the machine has cores, which is its default."""
    with threadpool_limits(os.cpu_count()):
        return {"archs_per_s": speed(estimator, rows_NC, 1, arguments.repeats)}


def speed_of(function: Callable[[], Any], archs: int, repeats: int) -> dict[str, int]:
    seconds, _ = timed(function, repeats)
    return per_second(archs, seconds)


def per_second(archs: int, seconds: list[float]) -> dict[str, int]:
    """Median, least and most archs a second."""
    return {"median": round(archs / statistics.median(seconds)), "min": round(archs / max(seconds)), "max": round(archs / min(seconds))}


def timed(function: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """Seconds of each call, and what the last gave; one more comes before them and is not counted."""
    result = function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def once(function: Callable[[], Any]) -> float:
    """Seconds of the first call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def largest_difference(estimator: Estimator, rows_NC: np.ndarray) -> dict[str, Any]:
    """The largest relative difference to the sum over the blocks, and how fast that sum is, lowering included."""
    table, space = estimator.table, estimator.space
    start = time.perf_counter()
    expected = [table.estimate(space, lower(space, space.decode(row))).latency_ms for row in rows_NC.tolist()]
    seconds = time.perf_counter() - start
    found_N = estimator.latencies_of_rows(rows_NC)
    return {
        "checked": len(rows_NC),
        "largest_relative_difference": float(np.abs(found_N / expected - 1).max()),
        "block_by_block_archs_per_s": round(len(rows_NC) / seconds),
    }


def random_table(space: Space, rng: np.random.Generator) -> LatencyTable:
    """A calibrated table of random numbers."""
    rows = []
    for placed in inventory_of(space).blocks:
        ms = float(rng.uniform(0.01, 5))
        rows.append(row_of(placed, Timing(median_ms=ms, p90_ms=ms, min_ms=ms, std_ms=0.0, repeats=2), batch=1, precision="fp32"))
    device = Device(name="random", runtime="fake").to_json()
    info = TableInfo(device=device, runtime_version=None, calibration=CORRECTION).with_space(space, space.resolutions)
    return LatencyTable(rows_frame(rows), info)


if __name__ == "__main__":
    main()
