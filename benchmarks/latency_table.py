"""A device measured and held against itself: how long a table takes, and its error on whole networks beside the noise floor.

    python benchmarks/latency_table.py --space ofa-mbv3-w1.0 --device local-cpu --resolutions 224 --nets 100 --table cpu.parquet

builds the table unless it is there, calibrates it on networks of seed 0, and checks it on networks of seed 1, all of which are timed twice:
by one set of processes and by another, in the same minutes. The error is that of the estimates against each; the floor is how far the two
are from each other.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, others_during
from scipy.stats import kendalltau

from devices import Device, get_device
from devices.timing import TimingPolicy
from latency_tables import LatencyTable, TableCheck, build_table, calibrate_table, check_table
from latency_tables.plot import save_check_plot
from latency_tables.timing import PROCESSES
from ofa.families import get_space
from ofa.schema import to_json
from ofa.space import Space

ORIGIN = ("runtime_version", "processor", "gpu", "cores", "clock_policy", "load")
"""What a table's figures say of where they come from."""
Told = Callable[[dict[str, Any]], None]
"""Given each step's figures as soon as they are known."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    parser.add_argument("--device", default="local-cpu")
    parser.add_argument("--devices-dir", type=Path, action="append", help="folder of device files")
    parser.add_argument("--resolutions", help="in pixels, with commas between; all by default")
    parser.add_argument("--calibration-nets", type=int, default=20)
    parser.add_argument("--nets", type=int, default=100, help="whole networks that calibration has not seen; 0 builds the table only")
    parser.add_argument("--table", type=Path, required=True, help="written; used if it is there")
    parser.add_argument("--out", type=Path, help="JSON of the results")
    parser.add_argument("--picture", type=Path, help="of estimates against measurements")
    arguments = parser.parse_args()
    space, device = get_space(arguments.space), get_device(arguments.device, arguments.devices_dir or ())
    resolutions = [int(part) for part in arguments.resolutions.split(",")] if arguments.resolutions else None
    report: dict[str, Any] = {"machine": describe_machine(), "space": space.name, "device": device.to_json(), "resolutions": resolutions}
    with others_during() as others:
        check = measure(
            space,
            device,
            arguments.table,
            resolutions=resolutions,
            calibration_nets=arguments.calibration_nets,
            nets=arguments.nets,
            told=report.update,
        )
        if check is not None and arguments.picture:
            save_check_plot(check, arguments.picture, title=f"{space.name} on {device.name}")
    report["others_cores"] = others.cores
    print(json.dumps({key: value for key, value in report.items() if key not in ("machine", "networks")}, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(
    space: Space,
    device: Device,
    path: Path,
    *,
    resolutions: Sequence[int] | None,
    calibration_nets: int,
    nets: int,
    told: Told,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
) -> TableCheck | None:
    """Build a table unless it is there, calibrate it and check it.

    Args:
        space: of the networks.
        device: what is measured.
        path: of the table.
        resolutions: in pixels; None is all.
        calibration_nets: networks that it is calibrated by.
        nets: networks that it is checked on; 0 ends with the blocks.
        told: given each step's figures as soon as they are known.
        policy: when a measurement is enough.
        processes: in how many whole networks are timed.
    """
    table = built(space, device, path, resolutions=resolutions, told=told, policy=policy)
    if not nets:
        return None
    same: dict[str, Any] = {"resolutions": resolutions, "told": told, "policy": policy, "processes": processes}
    table = calibrated(table, space, device, path, nets=calibration_nets, **same)
    return checked(table, space, device, nets=nets, **same)


def built(
    space: Space,
    device: Device,
    path: Path,
    *,
    resolutions: Sequence[int] | None,
    told: Told,
    policy: TimingPolicy | None = None,
) -> LatencyTable:
    """The table of a file, built if it is not there; arguments as ``measure``."""
    if not path.exists():
        start = time.perf_counter()
        build_table(space, device, resolutions=resolutions, rng=np.random.default_rng(0), policy=policy).save(path)
        told({"build_s": round(time.perf_counter() - start, 1)})
    table = LatencyTable.load(path)
    told({"blocks": len(table), "failed": table.info.failed, "origin": {key: getattr(table.info, key) for key in ORIGIN}})
    return table


def calibrated(table: LatencyTable, space: Space, device: Device, path: Path, *, nets: int, told: Told, **same: Any) -> LatencyTable:
    """A table calibrated by ``nets`` networks, and saved; other arguments as ``measure``."""
    start = time.perf_counter()
    table = calibrate_table(table, space, device, nets=nets, rng=np.random.default_rng(0), **same)
    table.save(path)
    calibration = {key: value for key, value in to_json(table.info.calibration).items() if key != "residuals"}
    told({"calibrate_s": round(time.perf_counter() - start, 1), "calibration": calibration})
    return table


def checked(table: LatencyTable, space: Space, device: Device, *, nets: int, told: Told, **same: Any) -> TableCheck:
    """A table held against ``nets`` networks that it was not calibrated by; other arguments as ``measure``."""
    start = time.perf_counter()
    check = check_table(table, space, device, nets=nets, rng=np.random.default_rng(1), **same)
    told({"check_s": round(time.perf_counter() - start, 1), **figures(check)})
    return check


def figures(check: TableCheck) -> dict[str, Any]:
    """The figures, with the floor's beside those of the table."""
    networks = check.networks
    first, second, estimated = (networks[key].to_numpy() for key in ("first_ms", "second_ms", "latency_ms"))
    errors = np.stack([estimated / first - 1, estimated / second - 1])
    floor = second / first - 1
    return {
        "nets": check.nets,
        "mean_error": check.mean_error,
        "mean_error_against_one_timing": float(np.abs(errors).mean()),
        "noise_floor": check.noise_floor,
        "error_over_floor": float(np.abs(errors).mean() / np.abs(floor).mean()),
        "bias": check.bias,
        "within_5_percent": check.within_5_percent,
        "within_10_percent": check.within_10_percent,
        "floor_within_5_percent": float((np.abs(floor) <= 0.05).mean()),
        "inside_interval": None if math.isnan(check.inside_interval) else check.inside_interval,
        "spearman": check.spearman,
        "kendall": check.kendall,
        "floor_kendall": float(kendalltau(first, second).statistic),
        "slowdown": check.slowdown,
        "range_ms": [float(networks["measured_ms"].min()), float(networks["measured_ms"].max())],
        "networks": networks.drop(columns="arch").round(4).to_dict(orient="list"),
    }


if __name__ == "__main__":
    main()
