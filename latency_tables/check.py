"""Compares a table's estimates with whole networks outside of its calibration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from devices.conditions import Conditions
from devices.device import Device
from devices.measure import describe
from devices.timing import TimingPolicy
from latency_tables.calibrate import table_resolutions
from latency_tables.estimate import Estimator
from latency_tables.table import LatencyTable
from latency_tables.timing import PROCESSES, time_networks, timing_inputs
from ofa.errors import TableError
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.resolution import Resolution
from ofa.space import Space

__all__ = ["TableCheck", "check_table", "compare"]


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """Errors of estimates against measurements, as shares of the measured latency.

    Attributes:
        nets: number of networks.
        mean_error: mean absolute error.
        bias: mean signed error; positive if estimates are too high.
        within_5_percent, within_10_percent: share of networks with an error of at most 5 or 10 %.
        inside_interval: share of networks inside their interval; NaN if the table is not calibrated.
        spearman, kendall: rank correlations.
        noise_floor: mean relative difference between two measurements of the same network, by two sets of processes in the same minutes;
            NaN with one measurement. No estimate can have a smaller error.
        slowdown: present speed of the machine relative to the table's, from calibration networks (or blocks, if there are none) that were
            timed again in the same rounds: above 1 if the machine is slower now. Measured latencies are divided by it.
        conditions: conditions of the measurement, with the present version of the runtime; None if nothing was measured.
        networks: one row per network with the columns ``arch`` (JSON), ``latency_ms``, ``latency_low_ms``, ``latency_high_ms``,
            ``measured_ms``, and its two measurements ``first_ms`` and ``second_ms``.
    """

    nets: int
    mean_error: float
    bias: float
    within_5_percent: float
    within_10_percent: float
    inside_interval: float
    spearman: float
    kendall: float
    noise_floor: float = float("nan")
    slowdown: float = 1.0
    conditions: Conditions | None = None
    networks: pd.DataFrame = field(repr=False, compare=False)


def check_table(
    table: LatencyTable,
    space: Space,
    device: Device,
    *,
    nets: int = 20,
    resolutions: Iterable[Resolution] | None = None,
    rng: np.random.Generator,
    progress: Progress = silent,
    policy: TimingPolicy | None = None,
    processes: int = PROCESSES,
    steps: Steps = UNKEPT,
) -> TableCheck:
    """Time uniformly random networks of a space, and compare them with the table; arguments and errors as ``calibrate_table``."""
    if nets < 2:
        raise TableError(f"a check needs at least 2 networks, but {nets} are asked for; ask for more")
    table.require_device(device)
    allowed = space.restrict(resolution=table_resolutions(table, space, resolutions))
    estimator = Estimator(space, table)
    archs = [allowed.sample(rng) for _ in range(nets)]
    estimates = [estimator(arch) for arch in archs]
    origin = describe(device)
    steps.begin({**timing_inputs(origin, archs, policy), "table": table.digest})
    times = time_networks(
        table, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, since_calibration=True, steps=steps
    )
    first_ms, second_ms = times.retimed_ms
    found = compare(
        pd.DataFrame(
            {
                "arch": [json.dumps(arch.to_json()) for arch in archs],
                "latency_ms": [estimate.latency_ms for estimate in estimates],
                "latency_low_ms": [each.latency_low_ms if each.has_interval else np.nan for each in estimates],
                "latency_high_ms": [each.latency_high_ms if each.has_interval else np.nan for each in estimates],
                "measured_ms": times.at_first_speed_ms,
                "first_ms": first_ms,
                "second_ms": second_ms,
            }
        )
    )
    now = Conditions.of(device, runtime_version=origin["runtime_version"])
    return replace(found, slowdown=times.typical_slowdown, conditions=now)


def compare(networks: pd.DataFrame) -> TableCheck:
    """The errors of networks with the columns of ``TableCheck.networks``; ``first_ms`` and ``second_ms`` may be missing."""
    estimated, measured = networks["latency_ms"].to_numpy(), networks["measured_ms"].to_numpy()
    low, high = networks["latency_low_ms"].to_numpy(), networks["latency_high_ms"].to_numpy()
    errors = estimated / measured - 1
    retimed = networks["first_ms"] / networks["second_ms"] - 1 if "first_ms" in networks else pd.Series([float("nan")])
    return TableCheck(
        nets=len(networks),
        mean_error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
        within_5_percent=float((np.abs(errors) <= 0.05).mean()),
        within_10_percent=float((np.abs(errors) <= 0.10).mean()),
        inside_interval=float("nan") if np.isnan(low).any() else float(((low <= measured) & (measured <= high)).mean()),
        spearman=float(spearmanr(estimated, measured).statistic),
        kendall=float(kendalltau(estimated, measured).statistic),
        noise_floor=float(retimed.abs().mean()),
        networks=networks,
    )
