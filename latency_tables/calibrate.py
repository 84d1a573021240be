"""Calibration: fits a correction from sums of blocks to whole networks, with an interval, from a few timed networks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from devices.device import Device
from devices.measure import describe
from devices.timing import TimingPolicy
from latency_tables.correction import check_enough, fit_correction
from latency_tables.estimate import Estimator
from latency_tables.info import MeasuredNetwork
from latency_tables.table import LatencyTable
from latency_tables.timing import PROCESSES, time_networks, timing_inputs
from ofa.arch import Arch
from ofa.errors import TableError
from ofa.journal import UNKEPT, Steps
from ofa.progress import Progress, silent
from ofa.resolution import Resolution, ascending
from ofa.space import Space

__all__ = ["calibrate_table", "sample_across_range", "table_resolutions"]

_CANDIDATES_PER_NETWORK = 50
_OWN_WILL = 0.3


def calibrate_table(
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
) -> LatencyTable:
    """Time whole networks, fit the table's correction to them, and return a copy of the table with both.

    The copy's ``info.calibrated_with`` is the present version of the runtime. If it differs from the version that timed the blocks, it is
    up to the caller to warn.

    Args:
        table: table of ``device`` with the blocks of ``space``.
        space: the space of the networks, which are spread over its range of latencies.
        device: the table's device.
        nets: number of networks; at least 9 for a 90 % interval.
        resolutions: input resolutions in pixels; None for the space's resolutions in the table.
        rng: draws networks, weights, inputs and the order of measurement.
        progress: receives the progress.
        policy: stopping rule of a measurement; see ``devices.timing``.
        processes: number of processes that time the networks. They share the policy's rounds, and each loads all networks.
        steps: journal that keeps the measurements of each process.

    Returns:
        The calibrated copy.

    Raises:
        FileError: ``steps`` are of other inputs.
        TableError: too few networks, a table of another device, or blocks are missing.
        DeviceError: the device cannot measure.
    """
    check_enough(nets)
    table.require_device(device)
    allowed = space.restrict(resolution=table_resolutions(table, space, resolutions))
    estimator = Estimator(space, table)
    archs = sample_across_range(allowed, estimator, nets, rng)
    origin = describe(device)
    steps.begin({**timing_inputs(origin, archs, policy), "table": table.digest})
    times = time_networks(table, space, archs, device, rng=rng, progress=progress, policy=policy, processes=processes, steps=steps)
    sums = [estimator.sums(arch) for arch in archs]
    # Estimates refer to the machine's typical speed, not to its speed when the table's blocks were timed.
    speed = times.typical_slowdown
    measured_ms = (speed * times.at_first_speed_ms).tolist()
    correction = fit_correction([ms for ms, _ in sums], [size for _, size in sums], measured_ms, speed=speed, speed_spread=times.spread)
    networks = tuple(MeasuredNetwork(arch=arch, measured_ms=ms) for arch, ms in zip(archs, measured_ms, strict=True))
    seen = len(times.slowdowns)
    return table.with_info(calibration=correction, networks=networks, processes=seen, calibrated_with=origin["runtime_version"])


def sample_across_range(space: Space, estimator: Estimator, count: int, rng: np.random.Generator) -> list[Arch]:
    """Different networks with estimated latencies evenly spaced from the fastest to the slowest.

    Uniformly random networks concentrate at medium latencies; a correction that holds at both ends needs networks from there.

    Raises:
        TableError: the space has too few networks at the table's resolutions.
    """
    drawn = [_sample_of_any_size(space, rng) for _ in range(_CANDIDATES_PER_NETWORK * count)]
    candidates = list(dict.fromkeys([space.smallest(), space.largest(), *drawn]))
    if len(candidates) < count:
        raise TableError(
            f"{count} different networks are needed, but {space.name} has about {len(candidates)} at these resolutions; ask for fewer"
        )
    sums = np.array([estimator.sums(arch)[0] for arch in candidates])
    chosen: list[int] = []
    for target in np.linspace(sums.min(), sums.max(), count):
        distances = np.abs(sums - target)
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
    return [candidates[i] for i in chosen]


def _sample_of_any_size(space: Space, rng: np.random.Generator) -> Arch:
    """A random network whose genes lean to small or large values together, with some deviation by stage."""
    lean = rng.random()
    leans: dict[str, float] = {}
    row = []
    for gene in space.columns:
        stage = gene.name[: gene.name.rfind(".")][: len("stages.0")]
        lean_here = leans.setdefault(stage or gene.name, float(np.clip(lean + _OWN_WILL * rng.standard_normal(), 0, 1)))
        row.append(int(rng.binomial(len(gene.values) - 1, lean_here)))
    return space.decode(row)


def table_resolutions(table: LatencyTable, space: Space, resolutions: Iterable[Resolution] | None) -> tuple[Resolution, ...]:
    """The given resolutions, or the table's resolutions of the space.

    Raises:
        TableError: the table is of another space, perhaps of the same name.
    """
    if resolutions is not None:
        table.info.check_same(space, "the table")
        return ascending(resolutions)
    table.require_space(space)
    return table.info.resolutions_of(space.name)
