"""What pauses between calls cost, and whether a table that is measured with pauses knows networks that are.

    python benchmarks/pauses.py --out benchmarks/results/pauses.json

times two networks with calls in a row and with pauses of 10 and 100 ms, each in several processes in turn; then builds, calibrates and
checks the table of a small space on a device with ``pause_ms = 20``, and holds the promises of a table of calls in a row against the same
networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from latency_table import figures
from machine import describe_machine, others_during

from devices import Device, describe, get_device, time_models
from devices.timing import TimingPolicy
from latency_tables import Estimator, build_table, calibrate_table, check_table
from latency_tables.onnx_files import ModelFiles
from ofa.arch import Arch
from ofa.families import get_space, lower
from ofa.progress import silent

PAUSES_MS = (0.0, 10.0, 100.0)
NETWORKS = {"ofa-mbv3-32px, largest, 32 px": ("ofa-mbv3-32px", 32, True), "ofa-mbv3-w1.0, smallest, 128 px": ("ofa-mbv3-w1.0", 128, False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local-cpu")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--space", default="ofa-mbv3-32px")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--pause-ms", type=float, default=20.0)
    parser.add_argument("--nets", type=int, default=30, help="networks that the tables are checked on")
    parser.add_argument("--note", default="", help="what else was running")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = get_device(arguments.device)
    origin = {key: value for key, value in describe(device).items() if key in ("runtime_version", "clock_policy", "load", "conditions")}
    report: dict[str, Any] = {"machine": describe_machine(), "note": arguments.note, "device": device.to_json(), "origin": origin}
    with others_during() as others:
        report["networks"] = {name: of_network(device, *network, arguments.processes) for name, network in NETWORKS.items()}
        report["table"] = of_table(device, arguments)
    report["others_cores"] = others.cores
    print(json.dumps({key: value for key, value in report.items() if key != "machine"}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def of_network(device: Device, space_name: str, resolution: int, largest: bool, processes: int) -> dict[str, Any]:
    """Milliseconds of a network by pause, the median over processes, which take turns."""
    space = get_space(space_name)
    arch: Arch = (space.largest if largest else space.smallest)(resolution=resolution)
    found: dict[float, list[float]] = {pause_ms: [] for pause_ms in PAUSES_MS}
    with ModelFiles(device) as files:
        paths = files.write({"network": lower(space, arch)}, silent)
        for number in range(processes):
            for pause_ms in PAUSES_MS:
                timed = time_models(replace(device, pause_ms=pause_ms), paths, rng=np.random.default_rng(number), policy=TimingPolicy())
                found[pause_ms].append(timed["network"].median_ms)
    medians = {pause_ms: statistics.median(each) for pause_ms, each in found.items()}
    return {
        "median_ms": {f"{pause_ms:g} ms": round(ms, 4) for pause_ms, ms in medians.items()},
        "times_calls_in_a_row": {f"{pause_ms:g} ms": round(ms / medians[0.0], 3) for pause_ms, ms in medians.items()},
        "processes_ms": {f"{pause_ms:g} ms": [round(ms, 4) for ms in each] for pause_ms, each in found.items()},
    }


def of_table(device: Device, arguments: argparse.Namespace) -> dict[str, Any]:
    """How well networks with pauses are known by a table with pauses, and by one of calls in a row."""
    space, pausing, resolutions = get_space(arguments.space), replace(device, pause_ms=arguments.pause_ms), [arguments.resolution]
    tables, seconds = {}, {}
    for name, each in (("with_pauses", pausing), ("in_a_row", device)):
        start = time.perf_counter()
        table = build_table(space, each, resolutions=resolutions, rng=np.random.default_rng(0))
        built = time.perf_counter()
        tables[name] = calibrate_table(table, space, each, resolutions=resolutions, rng=np.random.default_rng(0))
        seconds[name] = {"build_s": round(built - start, 1), "calibrate_s": round(time.perf_counter() - built, 1), "blocks": len(table)}
    check = check_table(tables["with_pauses"], space, pausing, nets=arguments.nets, resolutions=resolutions, rng=np.random.default_rng(1))
    measured_ms = check.networks["measured_ms"].to_numpy()
    estimator = Estimator(space, tables["in_a_row"])
    in_a_row_ms = estimator.latencies_ms([Arch.from_json(json.loads(text)) for text in check.networks["arch"]])
    return {
        "space": space.name,
        "resolution": arguments.resolution,
        "conditions": tables["with_pauses"].conditions.to_json(),
        "seconds": seconds,
        "table_with_pauses": {key: value for key, value in figures(check).items() if key != "networks"},
        "table_in_a_row": {
            "mean_error": float(np.abs(in_a_row_ms / measured_ms - 1).mean()),
            "bias": float((in_a_row_ms / measured_ms - 1).mean()),
        },
    }


if __name__ == "__main__":
    main()
